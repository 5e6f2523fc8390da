//! Counts of a run, for the report.

use crate::sim::tally;

/// See the module.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Crashes.
    pub crashes: u64,
    /// Of them, before the replica wrote a prepare or sent a frame.
    pub crashes_in_recovery: u64,
    /// Pauses.
    pub pauses: u64,
    /// Partitions.
    pub partitions: u64,
    /// Steps of clocks.
    pub clock_steps: u64,
    /// Journal slots that rotted.
    pub rotten: u64,
    /// Of them, while the replica may have run.
    pub rotten_at_rest: u64,
    /// Blocks that rotted.
    pub rotten_blocks: u64,
    /// Reads that gave something else.
    pub misreads: u64,
    /// Writes that went astray, and replies that rotted.
    pub astray: u64,
    /// Blocks sent to other replicas.
    pub blocks: u64,
    /// Replicas that went on from a checkpoint of another.
    pub syncs: u64,
    /// Replicas that were brought back before they lagged too far.
    pub lags: u64,
    /// Disks that were lost.
    pub lost: u64,
    /// Replicas that take part again since.
    pub recovered: u64,
    /// Views that were started.
    pub views: u64,
    /// Prepares that a replica asked for, and got.
    pub repaired: u64,
    /// Votes for a view.
    pub votes: u64,
    /// Checkpoints that became durable on any replica.
    pub checkpoints: u64,
    /// Frames between replicas.
    pub frames: u64,
    /// Runs in which everything might rot.
    pub wild: u64,
    /// Of them, those that ended without an answer, for a reason that was proven.
    pub unavailable: u64,
    /// Replicas that were started with another binary.
    pub swaps: u64,
    /// Runs that took long to come together in the end.
    pub slow: u64,
}

impl Counts {
    fn fields(&mut self) -> [(&'static str, &mut u64); 24] {
        [
            ("crashes", &mut self.crashes),
            ("in recovery", &mut self.crashes_in_recovery),
            ("pauses", &mut self.pauses),
            ("partitions", &mut self.partitions),
            ("steps of clocks", &mut self.clock_steps),
            ("rotten slots", &mut self.rotten),
            ("at rest", &mut self.rotten_at_rest),
            ("rotten blocks", &mut self.rotten_blocks),
            ("reads gone wrong", &mut self.misreads),
            ("writes gone astray", &mut self.astray),
            ("blocks sent", &mut self.blocks),
            ("syncs", &mut self.syncs),
            ("brought back", &mut self.lags),
            ("disks lost", &mut self.lost),
            ("recovered", &mut self.recovered),
            ("views started", &mut self.views),
            ("prepares repaired", &mut self.repaired),
            ("votes", &mut self.votes),
            ("checkpoints of replicas", &mut self.checkpoints),
            ("frames of peers", &mut self.frames),
            ("wild seeds", &mut self.wild),
            ("of them unavailable", &mut self.unavailable),
            ("binaries swapped", &mut self.swaps),
            ("slow to come together", &mut self.slow),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        tally::add(self.fields(), other.fields());
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut copy = *self;
        tally::write(f, copy.fields())
    }
}
