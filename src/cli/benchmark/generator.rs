//! The accounts and transfers of a run, each a function of the seed and its index.
//!
//! Accounts and transfers have the fields that the peer's benchmark gives them: random user data and
//! codes, so that every index of the server has work to do.

use super::options::IdOrder;
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::types::{account_flags, transfer_flags};
use crate::wire::{Account, Transfer};

/// Ledger of everything.
const LEDGER: u32 = 2;
/// A transfer is of 1 to so much.
const AMOUNT_MAX: u64 = 10_000;
/// Seconds after which a pending transfer expires, at most.
const TIMEOUT_MAX: u64 = 60;
/// Seconds after which one expires that is to be posted, at least: longer than a run.
const TIMEOUT_TWO_PHASE: u64 = 1_000_000;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub seed: u64,
    pub id_order: IdOrder,
    pub id_start: u64,
    pub account_count: u64,
    pub account_count_hot: u64,
    pub transfer_hot_percent: u64,
    pub transfer_count: u64,
    pub transfer_batch_size: u64,
    pub pending: bool,
    /// Each batch is pending, and posted when so many of them are open.
    pub two_phase_distance: Option<u64>,
    pub history: bool,
    pub imported: bool,
}

/// Numbers that look random (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(scramble(seed ^ scramble(stream.wrapping_add(1))))
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// A number below `bound`; the bias of at most `bound / 2^64` does not matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of a product of two u64")
    }
}

/// A bijection on 64 bits: the finalizer of SplitMix64.
fn scramble(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Makes accounts and transfers.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    workload: Workload,
}

impl Generator {
    pub fn new(workload: Workload) -> Self {
        assert!(workload.account_count >= 2 && workload.transfer_batch_size >= 1);
        Self { workload }
    }

    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Requests that create all transfers.
    pub fn batch_count(&self) -> u64 {
        self.workload
            .transfer_count
            .div_ceil(self.workload.transfer_batch_size)
    }

    /// Transfers in all, those that post others among them.
    pub fn created_count(&self) -> u64 {
        let phases = 1 + u64::from(self.two_phase());
        self.workload.transfer_count * phases
    }

    fn two_phase(&self) -> bool {
        self.workload.two_phase_distance.is_some()
    }

    /// The index of the id of a batch's first transfer. Two phases take turns in the ids, as they do
    /// in time at a distance of 1.
    fn id_first(&self, batch: u64, posting: bool) -> u64 {
        let turn = if self.two_phase() {
            2 * batch + u64::from(posting)
        } else {
            batch
        };
        turn * self.workload.transfer_batch_size
    }

    /// The id with that index, different from those of all other indexes.
    pub fn id(&self, index: u64) -> u128 {
        let number = self.workload.id_start + index;
        match self.workload.id_order {
            IdOrder::Sequential => u128::from(number),
            IdOrder::Reversed => u128::MAX - u128::from(number),
            IdOrder::Random => {
                // The low half is a bijection of the number, the high half only spreads it.
                let low = scramble(number ^ self.workload.seed);
                let high = scramble(low ^ 0x5851_f42d_4c95_7f2d);
                u128::from(high) << 64 | u128::from(low)
            }
        }
    }

    /// An account, from 0.
    pub fn account(&self, index: u64) -> Account {
        let mut random = Random::new(self.workload.seed, 2 * index);
        let mut account = Account::zeroed();
        account.id = self.id(index).into();
        account.user_data_128 = random_u128(&mut random).into();
        account.user_data_64 = random.next_u64().into();
        account.user_data_32 = random_u32(&mut random).into();
        account.ledger = LEDGER.into();
        account.code = random_code(&mut random).into();
        let mut flags = 0;
        if self.workload.history {
            flags |= account_flags::HISTORY;
        }
        if self.workload.imported {
            flags |= account_flags::IMPORTED;
            account.timestamp = (index + 1).into();
        }
        account.flags = flags.into();
        account
    }

    /// How many transfers the batch has.
    pub fn batch_size(&self, batch: u64) -> u64 {
        let first = batch * self.workload.transfer_batch_size;
        self.workload
            .transfer_batch_size
            .min(self.workload.transfer_count - first)
    }

    /// The transfers of a batch, from 0.
    pub fn transfers(&self, batch: u64) -> Vec<Transfer> {
        let first = batch * self.workload.transfer_batch_size;
        let mut random = Random::new(self.workload.seed, 2 * batch + 1);
        let mut transfers = Vec::with_capacity(u64_to_usize(self.batch_size(batch)));
        let id_first = self.id_first(batch, false);
        for index in 0..self.batch_size(batch) {
            let id = self.id(id_first + index);
            transfers.push(self.transfer(first + index, id, &mut random));
        }
        transfers
    }

    /// The transfers that post those of a batch, whole. Every field says what the server will say,
    /// so that it reads back as it was sent.
    pub fn postings(&self, batch: u64) -> Vec<Transfer> {
        let mut random = Random::new(!self.workload.seed, batch);
        let id_first = self.id_first(batch, true);
        let mut transfers = self.transfers(batch);
        for (index, transfer) in transfers.iter_mut().enumerate() {
            transfer.pending_id = transfer.id;
            transfer.id = self.id(id_first + to_u64(index)).into();
            transfer.flags = transfer_flags::POST_PENDING_TRANSFER.into();
            transfer.timeout = 0.into();
            transfer.user_data_128 = random_u128(&mut random).into();
            transfer.user_data_64 = random.next_u64().into();
            transfer.user_data_32 = random_u32(&mut random).into();
        }
        transfers
    }

    fn transfer(&self, index: u64, id: u128, random: &mut Random) -> Transfer {
        let (debit, credit) = self.account_pair(random);
        let mut transfer = Transfer::zeroed();
        transfer.id = id.into();
        transfer.debit_account_id = self.id(debit).into();
        transfer.credit_account_id = self.id(credit).into();
        transfer.amount = u128::from(1 + random.below(AMOUNT_MAX)).into();
        transfer.user_data_128 = random_u128(random).into();
        transfer.user_data_64 = random.next_u64().into();
        transfer.user_data_32 = random_u32(random).into();
        transfer.ledger = LEDGER.into();
        transfer.code = random_code(random).into();
        let mut flags = 0;
        if self.workload.imported {
            flags |= transfer_flags::IMPORTED;
            transfer.timestamp = (self.workload.account_count + index + 1).into();
        }
        if self.workload.pending {
            flags |= transfer_flags::PENDING;
            if !self.workload.imported {
                let timeout = 1 + random.below(TIMEOUT_MAX);
                transfer.timeout = u32::try_from(timeout).expect("it is small").into();
            }
        }
        if self.two_phase() {
            flags |= transfer_flags::PENDING;
            let timeout = TIMEOUT_TWO_PHASE + random.below(TIMEOUT_MAX);
            transfer.timeout = u32::try_from(timeout).expect("it is small").into();
        }
        transfer.flags = flags.into();
        transfer
    }

    /// Two different accounts.
    fn account_pair(&self, random: &mut Random) -> (u64, u64) {
        let count = self.workload.account_count;
        let hot = self.workload.account_count_hot;
        let debit = if hot > 0 && random.below(100) < self.workload.transfer_hot_percent {
            random.below(hot)
        } else {
            random.below(count)
        };
        let credit = (debit + 1 + random.below(count - 1)) % count;
        (debit, credit)
    }
}

fn random_u128(random: &mut Random) -> u128 {
    u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
}

fn random_u32(random: &mut Random) -> u32 {
    u32::try_from(random.next_u64() >> 32).expect("32 bits are left")
}

/// Codes are not 0.
fn random_code(random: &mut Random) -> u16 {
    u16::try_from(1 + random.below(u64::from(u16::MAX))).expect("at most the maximum")
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Generator, Workload};
    use crate::cli::benchmark::options::IdOrder;
    use std::collections::BTreeSet;

    pub(in crate::cli::benchmark) fn workload(id_order: IdOrder) -> Workload {
        Workload {
            seed: 7,
            id_order,
            id_start: 1,
            account_count: 100,
            account_count_hot: 0,
            transfer_hot_percent: 100,
            transfer_count: 25_000,
            transfer_batch_size: 1000,
            pending: false,
            two_phase_distance: None,
            history: false,
            imported: false,
        }
    }

    #[test]
    fn ids_are_unique_and_legal_in_every_order() {
        for order in [IdOrder::Sequential, IdOrder::Random, IdOrder::Reversed] {
            let generator = Generator::new(workload(order));
            let ids: BTreeSet<u128> = (0..25_000).map(|index| generator.id(index)).collect();
            assert_eq!(ids.len(), 25_000);
            assert!(!ids.contains(&0) && !ids.contains(&u128::MAX));
        }
    }

    #[test]
    fn orders_are_what_they_say() {
        let ids = |order| -> Vec<u128> {
            let generator = Generator::new(workload(order));
            (0..1000).map(|index| generator.id(index)).collect()
        };
        assert_eq!(ids(IdOrder::Sequential)[..3], [1, 2, 3]);
        assert!(ids(IdOrder::Reversed).is_sorted_by(|a, b| a > b));
        let ascending = ids(IdOrder::Random)
            .windows(2)
            .filter(|pair| pair[0] < pair[1])
            .count();
        assert!((400..600).contains(&ascending), "{ascending}");
    }

    #[test]
    fn batches_cover_all_transfers_once_and_can_be_made_again() {
        let generator = Generator::new(Workload {
            transfer_count: 2500,
            ..workload(IdOrder::Sequential)
        });
        assert_eq!(generator.batch_count(), 3);
        let all: Vec<_> = (0..3)
            .flat_map(|batch| generator.transfers(batch))
            .collect();
        let ids: Vec<u128> = all.iter().map(|transfer| transfer.id.get()).collect();
        assert!(ids.into_iter().eq(1..=2500));
        assert_eq!(generator.transfers(1), all[1000..2000]);
        for transfer in &all {
            assert_ne!(transfer.debit_account_id, transfer.credit_account_id);
            assert!((1..=100).contains(&transfer.debit_account_id.get()));
            assert!((1..=100).contains(&transfer.credit_account_id.get()));
            assert!(transfer.amount.get() > 0 && transfer.code.get() > 0);
        }
    }

    #[test]
    fn hot_accounts_are_debited_as_often_as_asked() {
        let generator = Generator::new(Workload {
            account_count_hot: 2,
            transfer_hot_percent: 90,
            ..workload(IdOrder::Sequential)
        });
        let hot = (0..25)
            .flat_map(|batch| generator.transfers(batch))
            .filter(|transfer| transfer.debit_account_id.get() <= 2)
            .count();
        assert!((22_000..23_500).contains(&hot), "{hot}");
    }

    #[test]
    fn flags_are_set_when_asked_for() {
        let base = workload(IdOrder::Sequential);
        let all = Workload {
            pending: true,
            history: true,
            imported: true,
            ..base
        };
        let generator = Generator::new(all);
        assert_eq!(generator.account(3).flags.get(), 8 | 16);
        let transfer = generator.transfers(0)[0];
        assert_eq!(transfer.flags.get(), 2 | 256);
        assert_eq!((transfer.timeout.get(), transfer.timestamp.get()), (0, 101));
        let pending = Generator::new(Workload {
            pending: true,
            ..base
        })
        .transfers(0);
        assert!(
            pending
                .iter()
                .all(|transfer| (1..=60).contains(&transfer.timeout.get()))
        );
    }

    #[test]
    fn two_phases_post_each_pending_transfer_once_with_ids_that_grow() {
        let generator = Generator::new(Workload {
            transfer_count: 2500,
            two_phase_distance: Some(1),
            ..workload(IdOrder::Sequential)
        });
        assert_eq!(generator.created_count(), 5000);
        let mut ids = Vec::new();
        for batch in 0..3 {
            let pending = generator.transfers(batch);
            let postings = generator.postings(batch);
            assert_eq!(pending.len(), postings.len());
            ids.extend(pending.iter().map(|transfer| transfer.id.get()));
            ids.extend(postings.iter().map(|transfer| transfer.id.get()));
            for (pending, posting) in pending.iter().zip(&postings) {
                assert_eq!(posting.pending_id, pending.id);
                assert_eq!((pending.flags.get(), posting.flags.get()), (2, 4));
                assert_eq!(pending.amount, posting.amount);
                assert!(pending.timeout.get() >= 1_000_000 && posting.timeout.get() == 0);
            }
        }
        assert_eq!(ids.len(), 5000);
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
