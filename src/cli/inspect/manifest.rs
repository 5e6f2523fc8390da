//! The manifest of the last checkpoint: its records, and the trees and tables that they make up.

use super::DataFile;
use super::checkpoint::{self, Step};
use super::document::{Cell, Document};
use crate::ledger::catalog::{self, TREES, TableInfo, TreeInfo, TreeKind, tree};
use crate::lsm::entry::FAN;
use crate::stdx::{to_u64, u64_to_usize};
use std::collections::BTreeMap;
use storage_format::{
    BarRecord, ManifestEntry, ManifestKind, ManifestTag, MergeRecord, RunRecord, Superblock,
};

/// Calls `visit` for each record of the manifest; the blocks that they name are not read.
///
/// # Errors
/// When a block of the manifest itself is damaged.
fn records(
    file: &DataFile,
    superblock: &Superblock,
    mut visit: impl FnMut(&ManifestEntry),
) -> anyhow::Result<()> {
    checkpoint::walk(file, superblock, |step| {
        match step {
            Step::Manifest(visited) => {
                if let Err(reason) = &visited.header {
                    let address = visited.reference.address;
                    anyhow::bail!("block {address} of the manifest: {reason}");
                }
            }
            Step::Record(entry) => visit(entry),
        }
        Ok(())
    })
}

/// Every record of the manifest.
///
/// # Errors
/// When there is no superblock, or the manifest is damaged.
pub fn run(file: &DataFile) -> anyhow::Result<Document> {
    let superblock = file.superblock()?;
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    records(file, &superblock, |entry| {
        rows.push(row(to_u64(rows.len()), entry));
    })?;
    let mut document = Document::default();
    let columns = [
        "record", "kind", "number", "name", "tier", "address", "first", "count", "more",
    ];
    document.table("manifest", &columns, rows);
    Ok(document)
}

fn row(index: u64, entry: &ManifestEntry) -> Vec<Cell> {
    let tag = entry.tag();
    let (address, first, count, more): (Cell, Cell, Cell, String) = match entry {
        ManifestEntry::Block(_, record) => (
            record.block.address.get().into(),
            record.first.get().to_string().into(),
            record.count.get().into(),
            format!("checksum {}", record.block.checksum),
        ),
        ManifestEntry::Run(run) => (
            "-".into(),
            "-".into(),
            run.entries.get().into(),
            format!(
                "{} blocks, last {}, positions {} to {}",
                run.blocks, run.last, run.position_min, run.position_max
            ),
        ),
        ManifestEntry::Merge(merge) => (
            "-".into(),
            "-".into(),
            merge.done.get().into(),
            format!("taken {}", taken(merge)),
        ),
        ManifestEntry::Bar(kind, bar) => ("-".into(), "-".into(), "-".into(), values(*kind, bar)),
        ManifestEntry::Unknown(tag) => (
            "-".into(),
            "-".into(),
            "-".into(),
            format!("there is no kind {}", tag.kind),
        ),
    };
    let name = if names_nothing(tag) {
        "-"
    } else {
        catalog::name(tag.table)
    };
    vec![
        index.into(),
        kind_name(tag).into(),
        u32::from(tag.table).into(),
        name.into(),
        u32::from(tag.tier).into(),
        address,
        first,
        count,
        more.into(),
    ]
}

/// Bars and the clock are of no table.
fn names_nothing(tag: ManifestTag) -> bool {
    let kind = ManifestKind::from_code(tag.kind);
    matches!(kind, Some(ManifestKind::Bar | ManifestKind::Clock))
}

fn kind_name(tag: ManifestTag) -> &'static str {
    match ManifestKind::from_code(tag.kind) {
        Some(ManifestKind::TableBlock) => "table_block",
        Some(ManifestKind::Run) => "run",
        Some(ManifestKind::RunBlock) => "run_block",
        Some(ManifestKind::Merge) => "merge",
        Some(ManifestKind::MergeBlock) => "merge_block",
        Some(ManifestKind::Bar) => "bar",
        Some(ManifestKind::Clock) => "clock",
        Some(ManifestKind::Tree) => "tree",
        None => "unknown",
    }
}

fn values(kind: ManifestKind, record: &BarRecord) -> String {
    let [a, b, c] = record.values;
    match kind {
        ManifestKind::Bar => format!("{a} accounts, {b} transfers, {c} failed ids"),
        ManifestKind::Clock => format!("{a} units since the bar, {b} since the beat, {c} bars"),
        ManifestKind::Tree
        | ManifestKind::TableBlock
        | ManifestKind::Run
        | ManifestKind::RunBlock
        | ManifestKind::Merge
        | ManifestKind::MergeBlock => format!("{a} bars in memory"),
    }
}

fn taken(merge: &MergeRecord) -> String {
    merge.taken().map(|taken| taken.to_string()).join(" ")
}

/// A run, as the manifest has it.
#[derive(Clone, Debug)]
struct RunFound {
    tree: u8,
    tier: u8,
    record: RunRecord,
    /// Rank of the first entry of its first block.
    first: Option<u128>,
}

/// A merge likewise, with the blocks that it wrote.
#[derive(Clone, Debug)]
struct MergeFound {
    tree: u8,
    tier: u8,
    record: MergeRecord,
    blocks: u64,
}

/// All trees of a manifest.
#[derive(Debug, Default)]
struct Trees {
    clock: [u64; 3],
    bars: Vec<[u64; 3]>,
    /// By tree, the bars that it has in memory.
    memory: BTreeMap<u8, u64>,
    runs: Vec<RunFound>,
    merges: Vec<MergeFound>,
}

impl Trees {
    fn take(&mut self, entry: &ManifestEntry) {
        let tag = entry.tag();
        let (tree, tier) = (tag.table, tag.tier);
        match *entry {
            ManifestEntry::Run(record) => self.runs.push(RunFound {
                tree,
                tier,
                record,
                first: None,
            }),
            ManifestEntry::Merge(record) => self.merges.push(MergeFound {
                tree,
                tier,
                record,
                blocks: 0,
            }),
            ManifestEntry::Block(ManifestKind::RunBlock, record) => {
                if let Some(run) = self.runs.last_mut() {
                    run.first.get_or_insert(record.first.get());
                }
            }
            ManifestEntry::Block(ManifestKind::MergeBlock, _) => {
                if let Some(merge) = self.merges.last_mut() {
                    merge.blocks += 1;
                }
            }
            ManifestEntry::Bar(kind, record) => {
                let values = record.values.map(zerocopy::little_endian::U64::get);
                match kind {
                    ManifestKind::Clock => self.clock = values,
                    ManifestKind::Bar => self.bars.push(values),
                    ManifestKind::Tree
                    | ManifestKind::TableBlock
                    | ManifestKind::Run
                    | ManifestKind::RunBlock
                    | ManifestKind::Merge
                    | ManifestKind::MergeBlock => {
                        let _: Option<u64> = self.memory.insert(tree, values[0]);
                    }
                }
            }
            ManifestEntry::Block(..) | ManifestEntry::Unknown(_) => {}
        }
    }

    fn runs_of(&self, tree: u8) -> impl Iterator<Item = &RunFound> {
        self.runs.iter().filter(move |run| run.tree == tree)
    }

    /// One line for each tree.
    fn rows(&self) -> Vec<Vec<Cell>> {
        let row = |info: &TreeInfo| {
            let number = info.number;
            let tiers = self.runs_of(number).map(|run| u64::from(run.tier));
            let blocks = self.runs_of(number).map(|run| run.record.blocks.get());
            let merging = self.merges.iter().filter(|merge| merge.tree == number);
            vec![
                u32::from(number).into(),
                info.name.into(),
                self.memory.get(&number).copied().unwrap_or(0).into(),
                tiers.max().unwrap_or(0).into(),
                to_u64(self.runs_of(number).count()).into(),
                to_u64(merging.count()).into(),
                self.runs_of(number)
                    .map(|run| run.record.entries.get())
                    .sum::<u64>()
                    .into(),
                blocks.map(u64::from).sum::<u64>().into(),
            ]
        };
        TREES.iter().map(row).collect()
    }

    fn run_rows(&self) -> Vec<Vec<Cell>> {
        let row = |run: &RunFound| {
            let record = &run.record;
            vec![
                catalog::name(run.tree).into(),
                u32::from(run.tier).into(),
                record.entries.get().into(),
                record.blocks.get().into(),
                run.first.unwrap_or(0).to_string().into(),
                record.last.get().to_string().into(),
                record.position_min.get().into(),
                record.position_max.get().into(),
            ]
        };
        self.runs.iter().map(row).collect()
    }

    fn merge_rows(&self) -> Vec<Vec<Cell>> {
        let row = |merge: &MergeFound| {
            vec![
                catalog::name(merge.tree).into(),
                u32::from(merge.tier).into(),
                merge.record.done.get().into(),
                self.total(merge).into(),
                merge.blocks.into(),
                taken(&merge.record).into(),
            ]
        };
        self.merges.iter().map(row).collect()
    }

    /// Entries of all inputs of a merge. Of those in memory the manifest only has how many records
    /// there were, and a tree of a field leaves records without it out.
    fn total(&self, merge: &MergeFound) -> String {
        if merge.tier > 0 {
            let runs = self.runs_of(merge.tree);
            let inputs = runs.filter(|run| run.tier == merge.tier).take(FAN);
            return inputs
                .map(|run| run.record.entries.get())
                .sum::<u64>()
                .to_string();
        }
        let memory = self.memory.get(&merge.tree).copied().unwrap_or(0);
        let Some(before) = to_u64(self.bars.len()).checked_sub(memory) else {
            return "unknown".to_owned();
        };
        let at = |bars: usize| match bars.checked_sub(1) {
            Some(last) => self.bars.get(last).copied().unwrap_or_default(),
            None => [0; 3],
        };
        let (from, to) = (at(u64_to_usize(before)), at(u64_to_usize(before) + FAN));
        let added: [u64; 3] = std::array::from_fn(|index| to[index].saturating_sub(from[index]));
        let [accounts, transfers, failed] = added;
        match merge.tree {
            tree::TRANSFER_IDS => (transfers + failed).to_string(),
            tree::ACCOUNT_IDS => accounts.to_string(),
            tree::TRANSFER_SIDES => (2 * transfers).to_string(),
            number if number < tree::TRANSFER_FIELDS => format!("up to {accounts}"),
            _ => format!("up to {transfers}"),
        }
    }
}

/// The trees: what is on disk, what is merging, and what is in memory.
///
/// # Errors
/// When there is no superblock, or the manifest is damaged.
pub fn run_trees(file: &DataFile) -> anyhow::Result<Document> {
    let superblock = file.superblock()?;
    let mut trees = Trees::default();
    records(file, &superblock, |entry| trees.take(entry))?;
    let mut document = Document::default();
    let [bar_units, beat_units, bars] = trees.clock;
    document.fields(
        "clock",
        [
            ("bar_units", bar_units.into()),
            ("beat_units", beat_units.into()),
            ("bars", bars.into()),
        ],
    );
    let columns = [
        "tree",
        "name",
        "memory_runs",
        "tier_max",
        "runs",
        "merges",
        "entries",
        "blocks",
    ];
    document.table("trees", &columns, trees.rows());
    let columns = [
        "name",
        "tier",
        "entries",
        "blocks",
        "first",
        "last",
        "position_min",
        "position_max",
    ];
    document.table("runs", &columns, trees.run_rows());
    let columns = ["name", "tier", "done", "total", "blocks", "taken"];
    document.table("merges", &columns, trees.merge_rows());
    let bars = trees.bars.iter().map(|bar| bar.map(Cell::from).to_vec());
    let columns = ["accounts", "transfers", "failed_ids"];
    document.table("bars", &columns, bars.collect());
    Ok(document)
}

/// What a table or a tree has on disk.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    records: u64,
    blocks: u64,
}

/// The tables, then the trees: records, blocks, and how much of the blocks' space holds records.
///
/// # Errors
/// When there is no superblock, or the manifest is damaged.
pub fn run_tables(file: &DataFile) -> anyhow::Result<Document> {
    let superblock = file.superblock()?;
    let mut sums: BTreeMap<u8, Sum> = BTreeMap::new();
    records(file, &superblock, |entry| {
        let sum = sums.entry(entry.tag().table).or_default();
        match entry {
            ManifestEntry::Block(_, record) => {
                sum.blocks += 1;
                sum.records += record.count.get();
            }
            ManifestEntry::Run(run) => sum.records += run.entries.get(),
            ManifestEntry::Merge(merge) => sum.records += merge.taken().iter().sum::<u64>(),
            ManifestEntry::Bar(..) | ManifestEntry::Unknown(_) => {}
        }
    })?;
    let block_size = u64::from(superblock.geometry.block_size.get());
    let numbers = catalog::TABLES.iter().map(|table| table.number);
    let numbers = numbers.chain(TREES.iter().map(|tree| tree.number));
    let rows = numbers.map(|number| {
        let sum = sums.get(&number).copied().unwrap_or_default();
        let bytes = sum.records * record_size(number);
        vec![
            catalog::name(number).into(),
            u32::from(number).into(),
            sum.records.into(),
            sum.blocks.into(),
            bytes.into(),
            share(bytes, sum.blocks * block_size).into(),
        ]
    });
    let rows: Vec<Vec<Cell>> = rows.collect();
    let referenced = sums.values().map(|sum| sum.blocks).sum::<u64>();
    let geometry = &superblock.geometry;
    let grid = file.size().saturating_sub(geometry.grid_offset());
    let mut document = Document::default();
    document.fields(
        "grid",
        [
            ("blocks_referenced", referenced.into()),
            ("blocks_in_file", (grid / block_size).into()),
            ("blocks_max", geometry.block_count_max().into()),
            ("live", share(referenced * block_size, grid).into()),
        ],
    );
    let columns = ["name", "number", "records", "blocks", "bytes", "live"];
    document.table("tables", &columns, rows);
    Ok(document)
}

fn record_size(number: u8) -> u64 {
    use crate::lsm::entry::{Entry, IdEntry, IndexEntry};
    let table = TableInfo::of(number).map(|table| table.record_size);
    let size = table.unwrap_or_else(|| match TreeInfo::of(number).map(|tree| tree.kind) {
        Some(TreeKind::Ids) => IdEntry::SIZE,
        Some(TreeKind::Positions) | None => IndexEntry::SIZE,
    });
    to_u64(size)
}

/// A share with one digit behind the point.
fn share(part: u64, of: u64) -> String {
    match (u128::from(part) * 1000).checked_div(of.into()) {
        Some(share) => format!("{}.{}%", share / 10, share % 10),
        None => "-".to_owned(),
    }
}
