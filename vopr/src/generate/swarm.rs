//! What the workload of a seed consists of. Each feature is absent in about half of the seeds:
//! what is left out lets the rest go further.

use crate::random::Random;

/// How ids follow from their numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ids {
    /// 1, 2, 3 and so on.
    Ascending,
    /// From a large number downwards.
    Descending,
    /// All over the range.
    Random,
    /// Ascending in several places in turn.
    Clustered,
    /// All of one hash in the filters of ids, as somebody would choose them who read the source: no
    /// block of them has a filter.
    Colliding,
    /// All of one hash in memory, the same way.
    SameSlot,
}

impl Ids {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ascending,
        Self::Descending,
        Self::Random,
        Self::Clustered,
        Self::Colliding,
        Self::SameSlot,
    ];
}

/// The weights of a seed. `_percent` is of a hundred events or requests; 0 leaves a feature out.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Accounts that are made at most.
    pub accounts: u64,
    /// Ledgers.
    pub ledgers: u32,
    /// How account ids are made.
    pub account_ids: Ids,
    /// How transfer ids are made.
    pub transfer_ids: Ids,
    /// How often one of the first two accounts is taken.
    pub hot_percent: u64,
    /// How skewed the choice of the other accounts is.
    pub skew: u64,
    /// Accounts with a limit.
    pub limit_percent: u64,
    /// Accounts with history.
    pub history_percent: u64,
    /// Accounts that are created closed.
    pub closed_percent: u64,
    /// Transfers that are pending.
    pub pending_percent: u64,
    /// Transfers that post or void.
    pub resolve_percent: u64,
    /// Resolutions that void.
    pub void_percent: u64,
    /// Pending transfers with a timeout.
    pub timeout_percent: u64,
    /// Transfers that balance.
    pub balancing_percent: u64,
    /// Pending transfers that close.
    pub closing_percent: u64,
    /// Events that begin a chain.
    pub chain_percent: u64,
    /// Events of a chain at most.
    pub chain_max: u64,
    /// Events that were sent before, the same or changed.
    pub resend_percent: u64,
    /// Events with a fault.
    pub invalid_percent: u64,
    /// Amounts at the ends of the range.
    pub extreme_percent: u64,
    /// Batches of imported events.
    pub imported_percent: u64,
    /// Requests of several batches.
    pub multi_batch_percent: u64,
    /// Requests with operations of old clients.
    pub old_percent: u64,
    /// Pauses of seconds before a request, so that timeouts pass.
    pub pause_percent: u64,
    /// Events of a batch at most, but for the fullest.
    pub batch_max: u64,
    /// How often: accounts, transfers, lookups of both, account transfers, account balances,
    /// account and transfer queries, change events.
    pub operations: [u64; 9],
}

fn feature(random: &mut Random, low: u64, high: u64) -> u64 {
    if random.percent(50) {
        random.between(low, high)
    } else {
        0
    }
}

impl Swarm {
    /// Draws the weights.
    #[must_use]
    pub fn new(random: &mut Random) -> Self {
        let accounts = if random.percent(40) { 8 } else { 128 };
        Self {
            accounts: random.between(2, accounts),
            ledgers: random.between_32(1, 4),
            account_ids: random.pick(&Ids::ALL),
            transfer_ids: random.pick(&Ids::ALL),
            hot_percent: if random.percent(30) { 90 } else { 0 },
            skew: random.below(3),
            limit_percent: feature(random, 1, 80),
            history_percent: feature(random, 1, 80),
            closed_percent: feature(random, 1, 10),
            pending_percent: feature(random, 1, 100),
            resolve_percent: feature(random, 1, 60),
            void_percent: random.between(1, 60),
            timeout_percent: feature(random, 1, 100),
            balancing_percent: feature(random, 1, 30),
            closing_percent: feature(random, 1, 10),
            chain_percent: feature(random, 1, 60),
            chain_max: random.between(2, 12),
            resend_percent: feature(random, 1, 20),
            invalid_percent: feature(random, 1, 20),
            extreme_percent: feature(random, 1, 50),
            imported_percent: feature(random, 1, 80),
            multi_batch_percent: feature(random, 1, 40),
            old_percent: feature(random, 1, 30),
            pause_percent: feature(random, 1, 10),
            batch_max: random.between(1, 30),
            operations: [
                random.between(1, 10),
                random.between(10, 100),
                random.between(1, 20),
                random.between(1, 20),
                random.between(1, 20),
                random.between(1, 20),
                random.between(1, 20),
                random.between(1, 20),
                random.between(1, 20),
            ],
        }
    }
}
