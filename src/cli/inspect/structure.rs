//! Whether the blocks of a checkpoint fit together: what no checksum tells.
//!
//! * Tables: blocks in order, full but for the last, as many records as the manifest and the
//!   superblock say, in the order of time, and a page index that says where.
//! * Runs: entries sorted and within the bounds of their block and run, as many as the manifest says,
//!   filters that contain every id, positions that only grow from an older run to a newer one.
//! * All: no block is referenced twice, and none lies outside the file.
//!
//! One block is in memory at a time. What is wrong is a sentence that names the block.

use super::DataFile;
use super::checkpoint::{self, Step, Visited};
use crate::constants::BLOCK_SIZE;
use crate::grid::FreeSet;
use crate::ledger::catalog::{self, Growth, TABLES, TableInfo, TreeInfo, TreeKind};
use crate::lsm::TreeOptions;
use crate::lsm::entry::{Entry, FAN, IdEntry, IndexEntry, rank_position};
use crate::lsm::fuse::{Filter, hash};
use crate::lsm::layout::{Layout, page_entries, page_first};
use crate::stdx::{to_u64, to_usize, u64_to_usize};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use storage_format::{
    BarRecord, BlockHeader, BlockReference, ManifestEntry, ManifestKind, ManifestRecord,
    ManifestTag, MergeRecord, RunRecord, SECTOR_SIZE, Superblock,
};

/// A table whose blocks come one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct TableSoFar {
    blocks: u64,
    records: u64,
    /// A block that is not full was there: it has to be the last.
    ended: bool,
    /// What the last record is ordered by.
    rank: u64,
}

/// A run, or what a merge wrote, whose blocks come one after the other.
#[derive(Clone, Debug)]
struct RunSoFar {
    tag: ManifestTag,
    /// Entries in all; of a merge, those in whole blocks.
    entries: u64,
    /// Blocks that have to come.
    blocks: u64,
    /// Blocks that came.
    seen: u64,
    /// Rank of the last entry; none before the first block.
    rank: Option<u128>,
    /// The rank that it has to end with.
    last: Option<u128>,
    positions: RangeInclusive<u64>,
    /// The tier that its blocks say they are of.
    tier: u8,
}

/// The tree whose records come.
#[derive(Clone, Debug, Default)]
struct TreeSoFar {
    /// Tier, and positions, of runs that are not empty.
    positions: Vec<(u8, RangeInclusive<u64>)>,
    /// By tier, the entries of its runs.
    entries: BTreeMap<u8, Vec<u64>>,
}

/// See the module.
#[derive(Debug)]
pub struct Structure<'a> {
    file: &'a DataFile,
    superblock: &'a Superblock,
    addresses: FreeSet,
    tables: BTreeMap<u8, TableSoFar>,
    run: Option<RunSoFar>,
    tree: Option<(u8, TreeSoFar)>,
    bars: u64,
    clock: bool,
    /// A part of the manifest cannot be read.
    broken: bool,
    /// What is wrong.
    pub damage: Vec<String>,
    /// Blocks that were read.
    pub blocks: u64,
    /// Those of them that the manifest lists.
    pub listed: u64,
}

impl<'a> Structure<'a> {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(file: &'a DataFile, superblock: &'a Superblock) -> Self {
        Self {
            file,
            superblock,
            addresses: FreeSet::new(superblock.geometry.block_count_max()),
            tables: BTreeMap::new(),
            run: None,
            tree: None,
            bars: 0,
            clock: false,
            broken: false,
            damage: Vec::new(),
            blocks: 0,
            listed: 0,
        }
    }

    /// Takes the next step of a walk.
    pub fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Manifest(visited) => {
                self.broken |= visited.header.is_err();
                self.visited(visited);
            }
            Step::Record(entry) => self.entry(entry),
        }
    }

    /// Notes a block; whether its contents can be believed.
    fn visited(&mut self, visited: &Visited) {
        self.blocks += 1;
        let address = visited.reference.address;
        if let Err(reason) = &visited.header {
            self.wrong(&visited.reference, reason);
        } else if let Err(reason) = self.addresses.restore(address.get()) {
            self.wrong(&visited.reference, reason);
        }
    }

    fn wrong(&mut self, block: &BlockReference, reason: &str) {
        let name = catalog::name(block.table);
        let address = block.address;
        self.damage
            .push(format!("block {address}: {reason} ({name})"));
    }

    fn entry(&mut self, entry: &ManifestEntry) {
        let continues = matches!(
            entry,
            ManifestEntry::Block(ManifestKind::RunBlock | ManifestKind::MergeBlock, _)
        );
        if !continues {
            self.run_end();
        }
        match entry {
            ManifestEntry::Block(ManifestKind::TableBlock, record) => self.table_block(record),
            ManifestEntry::Block(_, record) => self.run_block(record),
            ManifestEntry::Run(run) => self.run_begin(run),
            ManifestEntry::Merge(merge) => self.merge_begin(merge),
            ManifestEntry::Bar(kind, bar) => self.bar(*kind, bar),
            ManifestEntry::Unknown(tag) => self.damage.push(format!(
                "a record of the manifest is of kind {}, which there is not",
                tag.kind
            )),
        }
    }

    fn read(&mut self, record: &ManifestRecord) -> Option<(BlockHeader, Vec<u8>)> {
        self.listed += 1;
        let block = &record.block;
        let visited = checkpoint::read(self.file, self.superblock, block, checkpoint::LISTED);
        self.visited(&visited);
        let header = visited.header.ok()?;
        if block.table != record.tag.table {
            self.wrong(block, "the manifest lists it for another table");
            return None;
        }
        Some((header, visited.bytes))
    }

    fn table_block(&mut self, record: &ManifestRecord) {
        let block = self.read(record);
        let number = record.tag.table;
        let Some(info) = TableInfo::of(number) else {
            self.wrong(&record.block, "there is no such table");
            return;
        };
        let mut table = self.tables.get(&number).copied().unwrap_or_default();
        let checked = match &block {
            Some((header, bytes)) => check_records(info, &mut table, record, header, bytes),
            None => Ok(()),
        };
        if let Err(reason) = checked {
            self.wrong(&record.block, &reason);
        }
        table.blocks += 1;
        table.records += record.count.get();
        table.ended = record.count.get() != to_u64(info.capacity());
        let _: Option<TableSoFar> = self.tables.insert(number, table);
    }

    fn bar(&mut self, kind: ManifestKind, bar: &BarRecord) {
        match kind {
            ManifestKind::Bar => self.bars += 1,
            ManifestKind::Clock => self.clock = true,
            ManifestKind::Tree
            | ManifestKind::TableBlock
            | ManifestKind::Run
            | ManifestKind::RunBlock
            | ManifestKind::Merge
            | ManifestKind::MergeBlock => {
                self.tree_end();
                let number = bar.tag.table;
                self.tree = Some((number, TreeSoFar::default()));
                if TreeInfo::of(number).is_none() {
                    self.damage.push(format!("there is no tree {number}"));
                }
                if bar.values[0].get() > self.bars {
                    let name = catalog::name(number);
                    self.damage.push(format!(
                        "the tree {name} has more bars in memory than the manifest knows"
                    ));
                }
            }
        }
    }

    fn run_begin(&mut self, run: &RunRecord) {
        let tag = run.tag;
        let entries = run.entries.get();
        let blocks = to_u64(layout_of(tag.table).map_or(0, |layout| layout.blocks(entries)));
        let positions = run.position_min.get()..=run.position_max.get();
        if u64::from(run.blocks.get()) != blocks || tag.tier == 0 {
            self.damage.push(format!(
                "a run of tier {} of {} has {entries} entries in {} blocks",
                tag.tier,
                catalog::name(tag.table),
                run.blocks
            ));
        }
        if let Some((_, tree)) = &mut self.tree {
            tree.entries.entry(tag.tier).or_default().push(entries);
            if entries > 0 {
                tree.positions.push((tag.tier, positions.clone()));
            }
        }
        self.run = Some(RunSoFar {
            tag,
            entries,
            blocks: run.blocks.get().into(),
            seen: 0,
            rank: None,
            last: (entries > 0).then(|| run.last.get()),
            positions,
            tier: tag.tier,
        });
    }

    fn merge_begin(&mut self, merge: &MergeRecord) {
        let tag = merge.tag;
        let name = catalog::name(tag.table);
        let taken = merge.taken();
        let written: u64 = taken.iter().sum();
        let inputs = self.tree.as_ref().and_then(|(_, tree)| {
            let inputs = tree.entries.get(&tag.tier)?;
            inputs.get(..FAN)
        });
        let done = merge.done.get();
        if tag.tier > 0 {
            let fits = inputs.is_some_and(|inputs| {
                let within = inputs
                    .iter()
                    .zip(taken)
                    .all(|(input, taken)| taken <= *input);
                within && done < inputs.iter().sum::<u64>().max(1)
            });
            if !fits {
                self.damage.push(format!(
                    "the merge of tier {} of {name} does not fit its inputs",
                    tag.tier
                ));
            }
        }
        let per_block = to_u64(layout_of(tag.table).map_or(1, |layout| layout.per_block));
        if !written.is_multiple_of(per_block) || written > done {
            self.damage.push(format!(
                "the merge of tier {} of {name} has {done} entries done, and took {written} for \
                 whole blocks",
                tag.tier
            ));
        }
        self.run = Some(RunSoFar {
            tag,
            entries: written,
            blocks: written / per_block,
            seen: 0,
            rank: None,
            last: None,
            positions: 0..=u64::MAX,
            tier: tag.tier.saturating_add(1),
        });
    }

    fn run_block(&mut self, record: &ManifestRecord) {
        let block = self.read(record);
        let tag = record.tag;
        let Some(mut run) = self.run.take() else {
            self.wrong(&record.block, "it is of no run");
            return;
        };
        if (run.tag.table, run.tag.tier) != (tag.table, tag.tier) || run.seen == run.blocks {
            self.wrong(&record.block, "it is not of the run that it is listed with");
        } else if let Some((header, bytes)) = block {
            let checked = match TreeInfo::of(tag.table).map(|tree| tree.kind) {
                Some(TreeKind::Ids) => check_entries::<IdEntry>(&mut run, record, &header, &bytes),
                Some(TreeKind::Positions) => {
                    check_entries::<IndexEntry>(&mut run, record, &header, &bytes)
                }
                None => Err("there is no such tree".to_owned()),
            };
            if let Err(reason) = checked {
                self.wrong(&record.block, &reason);
            }
        } else {
            // What follows is compared with the next block that is whole.
            run.rank = None;
        }
        run.seen += 1;
        self.run = Some(run);
    }

    fn run_end(&mut self) {
        let Some(run) = self.run.take() else { return };
        let name = catalog::name(run.tag.table);
        if run.seen != run.blocks {
            self.damage.push(format!(
                "a run of tier {} of {name} has {} blocks, and {} are listed",
                run.tag.tier, run.blocks, run.seen
            ));
        } else if let (Some(rank), Some(last)) = (run.rank, run.last)
            && rank != last
        {
            self.damage.push(format!(
                "a run of tier {} of {name} ends with {rank}, the manifest says {last}",
                run.tag.tier
            ));
        }
    }

    /// Positions only grow: what a run has is above all that older runs have.
    fn tree_end(&mut self) {
        let Some((number, mut tree)) = self.tree.take() else {
            return;
        };
        if TreeInfo::of(number).is_none_or(|tree| tree.kind == TreeKind::Ids) {
            return;
        }
        // Within a tier the oldest is listed first; a higher tier is older. The sort is stable.
        tree.positions
            .sort_by_key(|(tier, _)| std::cmp::Reverse(*tier));
        let pairs = tree.positions.windows(2);
        for pair in pairs {
            if pair[0].1.end() >= pair[1].1.start() {
                let (name, tier) = (catalog::name(number), pair[1].0);
                self.damage.push(format!(
                    "a run of tier {tier} of {name} has positions of an older run"
                ));
            }
        }
    }

    /// All steps were taken.
    pub fn end(&mut self) {
        let listed = self.superblock.checkpoint_block_count.get();
        if listed != self.listed {
            self.damage.push(format!(
                "the checkpoint has {listed} blocks, and {} are listed",
                self.listed
            ));
        }
        // What is cut off says nothing of what it would have gone on with.
        if self.broken {
            return;
        }
        self.run_end();
        self.tree_end();
        let expected = crate::ledger::counts(&self.superblock.ledger_state);
        for (table, expected) in TABLES.iter().zip(expected) {
            let found = self.tables.get(&table.number);
            let found = found.map_or(0, |table| table.records);
            if found != expected {
                let name = table.name;
                self.damage.push(format!(
                    "the table {name} has {found} records, the superblock says {expected}"
                ));
            }
        }
        if self.superblock.checkpoint_index.address.get() != 0 && !self.clock {
            let sentence = "the manifest does not say where the clock stands";
            self.damage.push(sentence.to_owned());
        }
    }
}

/// Whether a block size is that of this release: others cannot be checked.
#[must_use]
pub fn knows(superblock: &Superblock) -> bool {
    to_usize(superblock.geometry.block_size.get()) == BLOCK_SIZE
}

fn layout_of(tree: u8) -> Option<Layout> {
    let pages = TreeOptions::default().pages;
    TreeInfo::of(tree).map(|tree| match tree.kind {
        TreeKind::Positions => Layout::new::<IndexEntry>(pages),
        TreeKind::Ids => Layout::new::<IdEntry>(pages),
    })
}

/// Checks a block of a table against what came before it.
fn check_records(
    info: &TableInfo,
    table: &mut TableSoFar,
    record: &ManifestRecord,
    header: &BlockHeader,
    block: &[u8],
) -> Result<(), String> {
    if table.ended {
        return Err("it follows a block that is not full".to_owned());
    }
    if header.position.get() != table.blocks {
        return Err(format!(
            "it is block {} of its table, listed as block {}",
            header.position, table.blocks
        ));
    }
    if to_usize(header.record_size.get()) != info.record_size {
        return Err(format!("its records have {} bytes", header.record_size));
    }
    let count = catalog::count_in(info, record.count.get());
    let Some(count) = count.filter(|count| info.size(*count) == to_usize(header.size.get())) else {
        return Err(format!(
            "it has {} bytes, the manifest says {} records",
            header.size, record.count
        ));
    };
    let Some(rank) = info.rank else {
        return Ok(());
    };
    let data = &block[SECTOR_SIZE..];
    for index in 0..count {
        let at = info.offset(index);
        let found = rank(&data[at..at + info.record_size]);
        if found < table.rank {
            return Err(format!("record {index} is older than the one before it"));
        }
        table.rank = found;
        if info.growth == Growth::Appended
            && let Some(page) = info.page_begun(index)
            && page_first(block, page) != u128::from(found)
        {
            return Err(format!("the page index is wrong for page {}", page + 1));
        }
        let full = count == info.capacity() && info.growth == Growth::Appended;
        if index == 0 && full && record.first.get() != u128::from(found) {
            return Err("it does not begin where the manifest says".to_owned());
        }
    }
    Ok(())
}

/// Checks a block of a run against what came before it.
fn check_entries<E: Entry>(
    run: &mut RunSoFar,
    record: &ManifestRecord,
    header: &BlockHeader,
    block: &[u8],
) -> Result<(), String> {
    let layout = Layout::new::<E>(TreeOptions::default().pages);
    let entries = layout.entries_of(run.entries, u64_to_usize(run.seen));
    let position = u64::from(run.tier) << 56 | run.seen;
    if header.position.get() != position {
        return Err(format!(
            "it says that it is block {:#x}, and is listed as {position:#x}",
            header.position.get()
        ));
    }
    if to_usize(header.record_size.get()) != E::SIZE {
        return Err(format!("its entries have {} bytes", header.record_size));
    }
    let size = to_usize(header.size.get());
    let used = layout.used::<E>(entries);
    if entries == 0 || size < used {
        return Err(format!("it has {size} bytes for {entries} entries"));
    }
    let data = &block[SECTOR_SIZE..SECTOR_SIZE + size];
    let before = run.rank;
    for_each_rank::<E>(block, data, entries, |index, rank| {
        if index == 0 && rank != record.first.get() {
            return Err("it does not begin where the manifest says".to_owned());
        }
        // Only in a tree of positions two entries may be the same.
        let follows = |last: u128| {
            if E::FILTERED {
                last < rank
            } else {
                last <= rank
            }
        };
        if run.rank.is_some_and(|last| !follows(last)) {
            return Err(format!("entry {index} is not above the one before it"));
        }
        if run.last.is_some_and(|last| rank > last) {
            return Err(format!("entry {index} is above the last of its run"));
        }
        if !E::FILTERED && !run.positions.contains(&rank_position(rank)) {
            return Err(format!("entry {index} has a position outside of its run"));
        }
        run.rank = Some(rank);
        Ok(())
    })
    .inspect_err(|_| run.rank = before)?;
    check_filter::<E>(&layout, block, data, entries)
}

/// Calls `check` with the ranks of a block; compares the page index with them.
fn for_each_rank<E: Entry>(
    header: &[u8],
    data: &[u8],
    entries: usize,
    mut check: impl FnMut(usize, u128) -> Result<(), String>,
) -> Result<(), String> {
    for page in 0..entries.div_ceil(E::PER_PAGE) {
        let end = ((page + 1) * SECTOR_SIZE).min(data.len());
        let bytes = &data[page * SECTOR_SIZE..end];
        let here = page_entries::<E>(bytes, page, entries);
        if page_first(header, page) != E::load(here, 0).rank() {
            return Err(format!("the page index is wrong for page {}", page + 1));
        }
        for (slot, entry) in here.chunks_exact(E::SIZE).enumerate() {
            check(page * E::PER_PAGE + slot, E::load(entry, 0).rank())?;
        }
        let full = E::PER_PAGE * E::SIZE;
        if bytes.len() == SECTOR_SIZE
            && here.len() == full
            && bytes[full..].iter().any(|byte| *byte != 0)
            && end < data.len()
        {
            return Err(format!("page {} does not end with zeros", page + 1));
        }
    }
    Ok(())
}

/// Checks that the filter behind the entries, if there is one, contains all of them.
fn check_filter<E: Entry>(
    layout: &Layout,
    header: &[u8],
    data: &[u8],
    entries: usize,
) -> Result<(), String> {
    let used = layout.used::<E>(entries);
    if data.len() == used {
        return Ok(());
    }
    let at = layout.filter::<E>(entries).filter(|_| E::FILTERED);
    let Some(at) = at.filter(|at| at + Filter::size(entries) == data.len()) else {
        return Err(format!("{} bytes follow its entries", data.len() - used));
    };
    let filter = Filter::load(&data[at..], entries);
    for_each_rank::<E>(header, data, entries, |index, rank| {
        if filter.may_contain(rank, hash(rank, 0)) {
            Ok(())
        } else {
            Err(format!("the filter does not contain entry {index}"))
        }
    })
}
