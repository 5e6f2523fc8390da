//! The ledger's part of the manifest: tables block by block, and the trees.

use super::index::{Indexes, Lengths};
use crate::grid::BlockStore;
use crate::lsm::{
    BlockEntry, Clock, LogTable, MergeState, Ranked, Record, RunState, TierState, TreeState,
};
use crate::stdx::to_u64;
use std::collections::BTreeMap;
use storage_format::{
    BarRecord, BlockReference, ManifestKind, ManifestRecord, ManifestTag, MergeRecord, RunRecord,
};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

/// A part of the manifest on its way to a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Manifest(pub(super) Vec<u8>);

impl Manifest {
    pub(super) fn table_block(
        &mut self,
        table: u8,
        block: BlockReference,
        first: u128,
        count: u64,
    ) {
        let record = ManifestRecord {
            block,
            first: first.into(),
            count: count.into(),
            tag: tag(ManifestKind::TableBlock, table, 0),
        };
        self.0.extend_from_slice(record.as_bytes());
    }

    pub(super) async fn log_table<T: Record + Ranked>(
        &mut self,
        number: u8,
        table: &mut LogTable<T>,
        store: &mut impl BlockStore,
    ) {
        let tail = table.write_tail(store).await;
        for block in table.blocks() {
            let count = to_u64(LogTable::<T>::PER_BLOCK);
            self.table_block(number, block.reference, block.first, count);
        }
        if let Some(block) = tail.block {
            self.table_block(number, block, 0, to_u64(tail.len));
        }
    }

    fn block(&mut self, tag: ManifestTag, entry: &BlockEntry) {
        let record = ManifestRecord {
            block: entry.reference,
            first: entry.first.into(),
            count: 0.into(),
            tag,
        };
        self.0.extend_from_slice(record.as_bytes());
    }

    /// Where the clock stands, the bars that may be in memory, and the trees.
    pub(super) fn indexes(&mut self, indexes: &Indexes) {
        let clock = &indexes.clock;
        let values = [clock.bar_units, clock.beat_units, clock.bars];
        self.bar(ManifestKind::Clock, values);
        for end in &indexes.bars {
            let values = [end.accounts, end.transfers, end.failed];
            self.bar(ManifestKind::Bar, values);
        }
        for (number, state) in indexes.states() {
            self.tree(number, &state);
        }
    }

    fn bar(&mut self, kind: ManifestKind, values: [u64; 3]) {
        let record = BarRecord {
            values: values.map(U64::new),
            reserved: [0; 32],
            tag: tag(kind, 0, 0),
        };
        self.0.extend_from_slice(record.as_bytes());
    }

    fn tree(&mut self, number: u8, state: &TreeState) {
        let memory = BarRecord {
            values: [state.memory_runs.into(), 0.into(), 0.into()],
            reserved: [0; 32],
            tag: tag(ManifestKind::Tree, number, 0),
        };
        self.0.extend_from_slice(memory.as_bytes());
        for (tier, parts) in (0..).zip(&state.tiers) {
            for run in &parts.runs {
                let record = RunRecord {
                    last: run.last.into(),
                    entries: run.entries.into(),
                    position_min: run.position_low.into(),
                    position_max: run.position_high.into(),
                    blocks: u32::try_from(run.blocks.len())
                        .expect("a run has less than 2^32 blocks")
                        .into(),
                    reserved: [0; 12],
                    tag: tag(ManifestKind::Run, number, tier),
                };
                self.0.extend_from_slice(record.as_bytes());
                for block in &run.blocks {
                    self.block(tag(ManifestKind::RunBlock, number, tier), block);
                }
            }
            if let Some(merge) = &parts.merge {
                let low48 = |taken: u64| {
                    let [a, b, c, d, e, f, ..] = taken.to_le_bytes();
                    [a, b, c, d, e, f]
                };
                let record = MergeRecord {
                    taken: merge.taken.map(low48),
                    done: merge.done.into(),
                    tag: tag(ManifestKind::Merge, number, tier),
                };
                self.0.extend_from_slice(record.as_bytes());
                for block in &merge.blocks {
                    self.block(tag(ManifestKind::MergeBlock, number, tier), block);
                }
            }
        }
    }
}

fn tag(kind: ManifestKind, table: u8, tier: u8) -> ManifestTag {
    ManifestTag {
        kind: kind as u8,
        table,
        tier,
        reserved: [0; 5],
    }
}

pub(super) fn entry_of(record: &ManifestRecord) -> BlockEntry {
    BlockEntry {
        reference: record.block,
        first: record.first.get(),
    }
}

/// The trees by number, as the manifest lists them.
#[derive(Debug, Default)]
pub(super) struct TreesListed(pub(super) BTreeMap<u8, TreeState>);

impl TreesListed {
    /// Takes the next record; `None` if it cannot be there.
    pub(super) fn take(&mut self, indexes: &mut Indexes, bytes: &[u8]) -> Option<()> {
        let record = ManifestRecord::read_from_bytes(bytes).ok()?;
        let tag = record.tag;
        let kind = ManifestKind::from_code(tag.kind)?;
        let state = self.0.entry(tag.table).or_default();
        let tier = usize::from(tag.tier);
        if state.tiers.len() <= tier {
            state.tiers.resize(tier + 1, TierState::default());
        }
        let tier = &mut state.tiers[tier];
        match kind {
            ManifestKind::TableBlock => return None,
            ManifestKind::Tree => {
                let record = BarRecord::read_from_bytes(bytes).ok()?;
                state.memory_runs = record.values[0].get();
            }
            ManifestKind::Run => {
                let record = RunRecord::read_from_bytes(bytes).ok()?;
                tier.runs.push(RunState {
                    blocks: Vec::new(),
                    entries: record.entries.get(),
                    last: record.last.get(),
                    position_low: record.position_min.get(),
                    position_high: record.position_max.get(),
                });
            }
            ManifestKind::RunBlock => tier.runs.last_mut()?.blocks.push(entry_of(&record)),
            ManifestKind::Merge => {
                let record = MergeRecord::read_from_bytes(bytes).ok()?;
                let wide = |taken: [u8; 6]| {
                    let [a, b, c, d, e, f] = taken;
                    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
                };
                tier.merge = Some(MergeState {
                    taken: record.taken.map(wide),
                    done: record.done.get(),
                    blocks: Vec::new(),
                });
            }
            ManifestKind::MergeBlock => tier.merge.as_mut()?.blocks.push(entry_of(&record)),
            ManifestKind::Bar => {
                let values = BarRecord::read_from_bytes(bytes).ok()?.values.map(U64::get);
                let [accounts, transfers, failed] = values;
                indexes.bars.push_back(Lengths {
                    accounts,
                    transfers,
                    failed,
                });
            }
            ManifestKind::Clock => {
                let values = BarRecord::read_from_bytes(bytes).ok()?.values.map(U64::get);
                let [bar_units, beat_units, bars] = values;
                indexes.clock = Clock {
                    bar_units,
                    beat_units,
                    bars,
                };
            }
        }
        Some(())
    }
}
