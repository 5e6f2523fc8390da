//! Random workloads: a seed determines a sequence of requests, all of them valid on the wire.
//!
//! Faults in events, their order and their ids are wanted; malformed bodies are not, as they are
//! refused before they reach a ledger. A generator learns from the replies that it is shown, so
//! that amounts hit limits exactly and filters hit timestamps exactly, and works without.

mod accounts;
pub mod combinations;
mod memory;
mod queries;
mod swarm;
mod transfers;

pub use self::memory::Memory;
pub use self::swarm::{Ids, Swarm};
use crate::model::batch::{self, Kind, Op};
use crate::model::layout::Layout;
use crate::random::{Random, mix};
use daftari::lsm::{fuse, hash};

/// The largest body.
const BODY_MAX: usize = 1_048_320;

/// A request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Nanoseconds that pass before it.
    pub pause: u64,
    /// The operation.
    pub operation: u8,
    /// A valid body.
    pub body: Vec<u8>,
}

/// Makes requests.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    swarm: Swarm,
    memory: Memory,
    /// Accounts and transfers that were given ids so far.
    accounts: u64,
    transfers: u64,
}

/// The id of the account or transfer of that number.
fn id_of(ids: Ids, number: u64) -> u128 {
    match ids {
        Ids::Ascending => u128::from(number) + 1,
        Ids::Descending => (1 << 100) - u128::from(number),
        Ids::Random => u128::from(mix(number)) << 64 | u128::from(mix(!number)) | 1,
        Ids::Clustered => u128::from(number % 5 + 1) << 96 | u128::from(number),
        Ids::Colliding => fuse::colliding(number),
        Ids::SameSlot => hash::colliding(number),
    }
}

impl Generator {
    /// The workload of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let swarm = Swarm::new(&mut Random::stream(seed, 0));
        Self::with_swarm(seed, swarm)
    }

    /// A workload with given weights.
    #[must_use]
    pub fn with_swarm(seed: u64, swarm: Swarm) -> Self {
        let random = Random::stream(seed, 1);
        Self {
            random,
            swarm,
            memory: Memory::default(),
            accounts: 0,
            transfers: 0,
        }
    }

    /// The weights.
    #[must_use]
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Learns from the reply to a request.
    pub fn learn(&mut self, request: &Request, timestamp: u64, reply: &[u8]) {
        self.memory
            .learn(request.operation, &request.body, timestamp, reply);
    }

    /// The next request.
    pub fn request(&mut self) -> Request {
        let pause = if self.random.percent(self.swarm.pause_percent) {
            // Often a multiple of a second, so that the time is up to the nanosecond.
            self.random.between(1, 70) * 1_000_000_000 - self.random.below(2)
        } else {
            self.random.pick(&[
                0,
                1,
                1_000,
                1_000_000,
                self.random.clone().below(300_000_000),
            ])
        };
        let modern = if self.accounts == 0 {
            146
        } else {
            let operations = [146, 147, 140, 141, 142, 143, 144, 145, 137];
            operations[self.random.weighted(&self.swarm.operations)]
        };
        let operation = if self.random.percent(self.swarm.old_percent) {
            self.old(modern)
        } else {
            modern
        };
        let op = Op::from_code(operation).expect("a known operation");
        let many = op.multi_batch && self.random.percent(self.swarm.multi_batch_percent);
        let batches: Vec<Vec<u8>> = if many {
            (0..self.random.between(2, 6))
                .map(|_| self.batch(op, true))
                .collect()
        } else {
            vec![self.batch(op, false)]
        };
        let body = if op.multi_batch {
            batch::encode(op.event_size(), &batches)
        } else {
            batches.concat()
        };
        assert!(body.len() <= BODY_MAX);
        Request {
            pause,
            operation,
            body,
        }
    }

    /// The operation by which an old client does the same.
    fn old(&mut self, modern: u8) -> u8 {
        match modern {
            146 => self.random.pick(&[129, 138]),
            147 => self.random.pick(&[130, 139]),
            140..=145 => modern - 9,
            _ => modern,
        }
    }

    fn batch(&mut self, op: Op, one_of_many: bool) -> Vec<u8> {
        match op.kind {
            Kind::CreateAccounts => {
                let count = if self.accounts == 0 {
                    10
                } else {
                    self.batch_size()
                };
                self.account_batch(count)
            }
            Kind::CreateTransfers => {
                let count = self.batch_size();
                self.transfer_batch(count)
            }
            Kind::LookupAccounts | Kind::LookupTransfers => {
                let count = self.batch_size();
                let mut out = Vec::new();
                for _ in 0..count {
                    let id = if op.kind == Kind::LookupAccounts {
                        self.any_account_id()
                    } else {
                        self.any_transfer_id()
                    };
                    out.extend_from_slice(&id.to_le_bytes());
                }
                out
            }
            Kind::GetAccountTransfers | Kind::GetAccountBalances => {
                self.account_filter(one_of_many).bytes()
            }
            Kind::QueryAccounts | Kind::QueryTransfers => self.query_filter(one_of_many).bytes(),
            Kind::GetChangeEvents => self.change_events_filter().bytes(),
        }
    }

    fn batch_size(&mut self) -> u64 {
        match self.random.below(10) {
            0 => 0,
            1 | 2 => 1,
            3 => self.swarm.batch_max,
            _ => self.random.between(1, self.swarm.batch_max),
        }
    }

    /// Links events to chains.
    fn link(&mut self, count: u64, mut set: impl FnMut(usize)) {
        let count = usize::try_from(count).expect("64 bits");
        let mut index = 0;
        while index < count {
            if self.random.percent(self.swarm.chain_percent) {
                let length = match self.random.below(8) {
                    0 => count,
                    1 => 1,
                    _ => usize::try_from(self.random.between(2, self.swarm.chain_max))
                        .expect("64 bits"),
                };
                // The last event of a chain is not linked; at the end of a batch it may be open.
                let end = (index + length).min(count);
                let open = self.random.percent(5);
                for at in index..end {
                    if at + 1 < end || open {
                        set(at);
                    }
                }
                index = end;
            } else {
                index += 1;
            }
        }
    }

    /// Some number of an account, with the skew of the seed.
    fn account_number(&mut self) -> u64 {
        let count = self.accounts.max(1);
        if self.random.percent(self.swarm.hot_percent) {
            return self.random.below(count.min(2));
        }
        let mut number = self.random.below(count);
        for _ in 0..self.swarm.skew {
            number = self.random.below(number + 1);
        }
        number
    }

    fn account_id(&self, number: u64) -> u128 {
        id_of(self.swarm.account_ids, number)
    }

    /// The ledger that the account of a number has.
    fn ledger(&self, number: u64) -> u32 {
        u32::try_from(mix(number) % u64::from(self.swarm.ledgers)).expect("few ledgers") + 1
    }

    /// An id to ask for: mostly of an account that may exist.
    fn any_account_id(&mut self) -> u128 {
        match self.random.below(20) {
            0 => self.random.pick(&[0, u128::MAX, u128::MAX - 1]),
            1 => {
                let beyond = self.random.below(3);
                self.account_id(self.accounts + beyond)
            }
            _ => {
                let number = self.account_number();
                self.account_id(number)
            }
        }
    }

    fn any_transfer_id(&mut self) -> u128 {
        match self.random.below(20) {
            0 => self.random.pick(&[0, u128::MAX, u128::MAX - 1]),
            1 => id_of(self.swarm.transfer_ids, self.transfers + 1),
            _ => {
                let number = self.random.below(self.transfers.max(1));
                id_of(self.swarm.transfer_ids, number)
            }
        }
    }

    /// A value of a user data field: few, so that filters find several, and 0 often.
    fn user_data(&mut self) -> u32 {
        self.random.pick(&[0, 0, 0, 1, 2, u32::MAX])
    }

    fn user_data_128(&mut self) -> u128 {
        self.random.pick(&[0, 0, 0, 1, 1 << 64, u128::MAX])
    }

    fn user_data_64(&mut self) -> u64 {
        self.random.pick(&[0, 0, 0, 1, 1 << 32, u64::MAX])
    }
}

#[cfg(test)]
mod tests {
    use super::{Generator, Ids, id_of};

    #[test]
    fn a_seed_gives_the_same_requests_again() {
        let requests = |seed| {
            let mut generator = Generator::new(seed);
            (0..50).map(|_| generator.request()).collect::<Vec<_>>()
        };
        assert_eq!(requests(3), requests(3));
        assert_ne!(requests(3), requests(4));
    }

    #[test]
    fn numbers_have_different_ids() {
        for ids in Ids::ALL {
            let all: std::collections::BTreeSet<u128> = (0..1000).map(|n| id_of(ids, n)).collect();
            assert_eq!(all.len(), 1000);
            assert!(!all.contains(&0) && !all.contains(&u128::MAX));
        }
    }
}
