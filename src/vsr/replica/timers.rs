//! When a replica does what, and for how long it waits.

use storage_format::checksum;

const MS: u64 = 1_000_000;
/// How often the primary says that it is there.
pub(super) const HEARTBEAT: u64 = 100 * MS;
/// How long a backup waits for its primary, and a replica for a view to start; up to half as much again.
pub(super) const PATIENCE: u64 = 500 * MS;
/// How often what may have been lost is said again.
pub(super) const RESEND: u64 = 100 * MS;
/// How often a replica looks for what it misses, and asks again.
pub(super) const REPAIR: u64 = 50 * MS;
/// How often others are asked for their time of day, once a quorum agrees on it.
pub(super) const PING: u64 = 1000 * MS;
/// How long a question for a new view counts.
pub(super) const ASKED: u64 = 500 * MS;
/// How often a replica that recovers says in the log how far it is.
pub(super) const PROGRESS: u64 = 2000 * MS;

/// When to do what, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    pub(super) now: u64,
    /// The time of day at that moment, as this machine has it.
    pub(super) realtime: u64,
    /// To ask for the time of day.
    pub(super) ping: u64,
    /// To say that the primary is there.
    pub(super) heartbeat: u64,
    /// When the primary was heard last.
    pub(super) heard: u64,
    /// When patience with the primary, or with the view change, ends.
    pub(super) patience: u64,
    /// To say again what may have been lost.
    pub(super) resend: u64,
    /// To look for what is missing.
    pub(super) repair: u64,
    /// A start of a view is not asked for again before that.
    pub(super) start_view: u64,
    /// When something was committed last.
    pub(super) progress: u64,
    /// When the state waited for no missing block last.
    pub(super) content: u64,
    /// Draws of jitter so far.
    pub(super) draws: u64,
}

impl Timers {
    /// Whether a moment has come.
    pub(super) fn due(&self, time: u64) -> bool {
        time <= self.now
    }

    /// The next of a stream of numbers that differ from replica to replica.
    pub(super) fn draw(&mut self, replica: u8) -> u64 {
        self.draws += 1;
        let seed = u128::from(self.draws) << 8 | u128::from(replica);
        let drawn = checksum(&seed.to_le_bytes());
        let (low, _) = drawn.0.split_at(8);
        u64::from_le_bytes(low.try_into().expect("8 bytes"))
    }
}
