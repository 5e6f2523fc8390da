//! What a manifest says of the trees: how far a run got, as the platter has it.

use std::collections::BTreeMap;
use storage_format::{BarRecord, MANIFEST_RECORD_SIZE, ManifestKind, ManifestRecord, MergeRecord};
use zerocopy::FromBytes;

/// Runs that are merged at a time.
const FAN: u64 = 8;

/// The trees of a checkpoint, all together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trees {
    /// The highest tier that has a run; 0 is that in memory.
    pub tier: u64,
    /// Merges that were finished since the file was made.
    pub merges: u64,
    /// Merges under way that have merged something.
    pub merging: u64,
    /// Of them, those that have more in memory than their output blocks hold.
    pub merging_partly: u64,
    /// Bars that ended since the file was made.
    pub bars: u64,
}

impl Trees {
    /// The trees of a manifest.
    #[must_use]
    pub fn of_manifest(manifest: &[u8]) -> Self {
        let mut trees = Self::default();
        // By tree and tier, the runs.
        let mut runs: BTreeMap<(u8, u8), u64> = BTreeMap::new();
        for bytes in manifest.chunks_exact(MANIFEST_RECORD_SIZE) {
            let record = ManifestRecord::read_from_bytes(bytes).expect("the size of a record");
            let tag = record.tag;
            match ManifestKind::from_code(tag.kind) {
                Some(ManifestKind::Run) => {
                    trees.tier = trees.tier.max(u64::from(tag.tier));
                    *runs.entry((tag.table, tag.tier)).or_default() += 1;
                }
                Some(ManifestKind::Merge) => {
                    let merge = MergeRecord::read_from_bytes(bytes).expect("the same size");
                    let taken = merge.taken.iter().map(|taken| {
                        let [a, b, c, d, e, f] = *taken;
                        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
                    });
                    let written: u64 = taken.sum();
                    let done = merge.done.get();
                    trees.merging += u64::from(done > 0);
                    trees.merging_partly += u64::from(done > written);
                }
                Some(ManifestKind::Clock) => {
                    let clock = BarRecord::read_from_bytes(bytes).expect("the same size");
                    trees.bars = clock.values[2].get();
                }
                Some(
                    ManifestKind::TableBlock
                    | ManifestKind::RunBlock
                    | ManifestKind::MergeBlock
                    | ManifestKind::Bar
                    | ManifestKind::Tree,
                )
                | None => {}
            }
        }
        // A run of a tier is there, or was one of the eight of a merge that made one of the next.
        let tables: Vec<u8> = runs.keys().map(|(table, _)| *table).collect();
        let mut tables = tables;
        tables.dedup();
        for table in tables {
            let mut made = 0;
            for tier in (1..=u8::MAX).rev() {
                let here = runs.get(&(table, tier)).copied().unwrap_or(0);
                made = here + FAN * made;
                trees.merges += made;
            }
        }
        trees
    }
}
