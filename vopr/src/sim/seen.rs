//! What the checker saw, for the report.

use super::tally;
use crate::generate::combinations;

/// What was seen in a run, for the report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// Ops in the history.
    pub ops: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Replies sent.
    pub replies: u64,
    /// Of them, sent again.
    pub replies_again: u64,
    /// Of them, for a request that an earlier process of the replica executed.
    pub replies_stored: u64,
    /// Evictions sent.
    pub evictions: u64,
    /// Of them, because the disk was full.
    pub refused_full: u64,
    /// Sessions that made room for others.
    pub sessions_lost: u64,
    /// Prepares of more than one request.
    pub packed: u64,
    /// Pulses.
    pub pulses: u64,
    /// Entries without effect, since their session was gone.
    pub entries_void: u64,
    /// Blocks that were written again with the same bytes.
    pub blocks_again: u64,
    /// Checkpoints that were found to be as without crashes.
    pub mirrored: u64,
    /// Bars that ended, up to the last checkpoint.
    pub bars: u64,
    /// Merges that were finished, up to the last checkpoint.
    pub merges: u64,
    /// Merges under way in checkpoints.
    pub merging: u64,
    /// Of them, those that had merged more than they had written.
    pub merging_partly: u64,
    /// Merges under way in the checkpoint that a crash left.
    pub merging_crash: u64,
    /// Runs by the highest tier that their last checkpoint had.
    pub tiers: [u64; TIERS],
    /// Requests that were refused since the file was full.
    pub refused: u64,
    /// Combinations of fields that queries named which found something, with three tiers.
    pub combinations: u128,
    /// Runs of at least five checkpoints and three tiers, that in memory included.
    pub deep: u64,
}

/// Tiers that are told apart.
pub const TIERS: usize = 6;

impl Seen {
    fn fields(&mut self) -> [(&'static str, &mut u64); 20] {
        [
            ("ops", &mut self.ops),
            ("checkpoints", &mut self.checkpoints),
            ("replies", &mut self.replies),
            ("again", &mut self.replies_again),
            ("stored", &mut self.replies_stored),
            ("evictions", &mut self.evictions),
            ("refused by a full disk", &mut self.refused_full),
            ("sessions lost", &mut self.sessions_lost),
            ("packed prepares", &mut self.packed),
            ("pulses", &mut self.pulses),
            ("void entries", &mut self.entries_void),
            ("blocks rewritten", &mut self.blocks_again),
            ("checkpoints mirrored", &mut self.mirrored),
            ("bars", &mut self.bars),
            ("merges finished", &mut self.merges),
            ("under way at a checkpoint", &mut self.merging),
            ("partly written", &mut self.merging_partly),
            ("under way at a crash", &mut self.merging_crash),
            ("refused for room", &mut self.refused),
            ("runs of 5 checkpoints and 3 tiers", &mut self.deep),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        self.combinations |= other.combinations;
        for (sum, value) in self.tiers.iter_mut().zip(other.tiers) {
            *sum += value;
        }
        tally::add(self.fields(), other.fields());
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut copy = *self;
        tally::write(f, copy.fields())?;
        let combinations = self.combinations.count_ones();
        write!(
            f,
            ", combinations of fields queried over 3 tiers {combinations} of {}",
            combinations::ALL
        )?;
        write!(f, ", runs by highest tier")?;
        let tiers = self.tiers.iter().enumerate();
        for (tier, count) in tiers.filter(|(_, count)| **count > 0) {
            write!(f, " {tier}:{count}")?;
        }
        Ok(())
    }
}
