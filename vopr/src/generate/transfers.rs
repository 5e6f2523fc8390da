//! Batches of transfers.

use super::{Generator, id_of};
use crate::model::flags::transfer as flag;
use crate::model::layout::{Layout, Transfer};

impl Generator {
    pub(super) fn transfer_batch(&mut self, count: u64) -> Vec<u8> {
        let imported = self.random.percent(self.swarm.imported_percent);
        let mut batch: Vec<Transfer> = Vec::new();
        let mut stamp = self.memory.latest();
        for _ in 0..count {
            let mut transfer = match batch.last() {
                Some(&before) if self.random.percent(self.swarm.resend_percent / 4) => before,
                _ => self.a_transfer(),
            };
            if imported {
                transfer.flags |= flag::IMPORTED;
                stamp += self.random.pick(&[1, 1, 1, 2, 50]);
                transfer.timestamp = self.imported_timestamp(&mut transfer, stamp);
                if self.random.percent(95) {
                    transfer.timeout = 0;
                }
            }
            if self.random.percent(self.swarm.invalid_percent) {
                self.spoil_transfer(&mut transfer, imported);
            }
            self.memory.sent_transfer(transfer, &mut self.random);
            batch.push(transfer);
        }
        self.link(count, |at| batch[at].flags |= flag::LINKED);
        let mut out = Vec::new();
        for transfer in batch {
            transfer.encode(&mut out);
        }
        out
    }

    /// Mostly after all that was; now and then at or next to another time, or just before the
    /// latest account, which is then one of the two.
    fn imported_timestamp(&mut self, transfer: &mut Transfer, stamp: u64) -> u64 {
        match self.random.below(20) {
            0 => self.memory.timestamp(&mut self.random),
            // An expiry's time is no transfer's, so an import may have it too.
            3 => self.memory.expired().unwrap_or(stamp),
            1 | 2 => {
                let latest = self.account_id(self.accounts.saturating_sub(1));
                if self.random.percent(50) {
                    transfer.debit_account_id = latest;
                } else {
                    transfer.credit_account_id = latest;
                }
                let near = self
                    .memory
                    .seen(latest)
                    .map_or(stamp, |account| account.timestamp);
                self.random.pick(&[near - 1, near - 1, near, near + 1])
            }
            _ => stamp,
        }
    }

    fn new_transfer_id(&mut self) -> u128 {
        self.transfers += 1;
        id_of(self.swarm.transfer_ids, self.transfers - 1)
    }

    fn a_transfer(&mut self) -> Transfer {
        if self.random.percent(self.swarm.resend_percent)
            && let Some(mut again) = self.memory.a_transfer(&mut self.random)
        {
            if self.random.percent(60) {
                self.change_transfer(&mut again);
            }
            return again;
        }
        if self.random.percent(self.swarm.resolve_percent)
            && let Some(pending) = self.memory.a_pending(&mut self.random)
        {
            return self.resolution(&pending);
        }
        let debit = self.account_number();
        let mut credit = self.account_number();
        for _ in 0..20 {
            if credit != debit && self.ledger(credit) == self.ledger(debit) {
                break;
            }
            credit = self.random.below(self.accounts.max(1));
        }
        let mut transfer = Transfer {
            id: self.new_transfer_id(),
            debit_account_id: self.account_id(debit),
            credit_account_id: self.account_id(credit),
            user_data_128: self.user_data_128(),
            user_data_64: self.user_data_64(),
            user_data_32: self.user_data(),
            ledger: self.ledger(debit),
            code: self.random.pick(&[1, 2, u16::MAX]),
            ..Transfer::zeroed()
        };
        if self.random.percent(self.swarm.pending_percent) {
            transfer.flags |= flag::PENDING;
            if self.random.percent(self.swarm.timeout_percent) {
                transfer.timeout = self.random.pick(&[1, 1, 2, 3, 10, 60, u32::MAX]);
            }
            if self.random.percent(self.swarm.closing_percent) {
                let closing = [flag::CLOSING_DEBIT, flag::CLOSING_CREDIT, 192];
                transfer.flags |= self.random.pick(&closing);
            }
        }
        if self.random.percent(self.swarm.balancing_percent) {
            let balancing = [flag::BALANCING_DEBIT, flag::BALANCING_CREDIT, 48];
            transfer.flags |= self.random.pick(&balancing);
        }
        transfer.amount = self.amount(&transfer);
        transfer
    }

    fn amount(&mut self, transfer: &Transfer) -> u128 {
        if !self.random.percent(self.swarm.extreme_percent) {
            return u128::from(self.random.below(1000));
        }
        let debit = self.memory.seen(transfer.debit_account_id);
        let credit = self.memory.seen(transfer.credit_account_id);
        let limit = match self.random.below(8) {
            0 => debit.map(|a| a.credits_posted.wrapping_sub(a.debits_posted)),
            1 => debit.map(|a| {
                a.credits_posted
                    .wrapping_sub(a.debits_posted)
                    .wrapping_sub(a.debits_pending)
            }),
            2 => credit.map(|a| {
                a.debits_posted
                    .wrapping_sub(a.credits_posted)
                    .wrapping_sub(a.credits_pending)
            }),
            3 => debit.map(|a| !a.debits_posted),
            4 => debit.map(|a| !a.debits_pending.wrapping_add(a.debits_posted)),
            5 => credit.map(|a| !a.credits_pending),
            _ => None,
        };
        match limit {
            Some(exact) => self
                .random
                .pick(&[exact, exact.wrapping_add(1), exact.wrapping_sub(1)]),
            None => self.random.pick(&[
                0,
                1,
                1 << 63,
                1 << 64,
                1 << 127,
                u128::MAX,
                u128::MAX - 1,
                u128::MAX / 3,
            ]),
        }
    }

    /// Posts or voids a pending transfer, in one of the many ways.
    fn resolution(&mut self, pending: &Transfer) -> Transfer {
        let voids = self.random.percent(self.swarm.void_percent);
        let mut transfer = Transfer {
            id: self.new_transfer_id(),
            pending_id: pending.id,
            flags: if voids { flag::VOID } else { flag::POST },
            ..Transfer::zeroed()
        };
        let all = if voids { 0 } else { u128::MAX };
        transfer.amount = match self.random.below(10) {
            0 => 0,
            1 => pending.amount,
            2 => pending.amount.wrapping_add(1),
            3 => pending.amount.wrapping_sub(1),
            4 => pending.amount / 2,
            _ => all,
        };
        if self.random.percent(30) {
            transfer.debit_account_id = pending.debit_account_id;
            transfer.credit_account_id = pending.credit_account_id;
            transfer.ledger = pending.ledger;
            transfer.code = pending.code;
        }
        if self.random.percent(30) {
            transfer.user_data_128 = self.user_data_128();
            transfer.user_data_64 = self.user_data_64();
            transfer.user_data_32 = self.user_data();
        }
        if self.random.percent(2 * self.swarm.invalid_percent) {
            self.spoil_resolution(&mut transfer, pending);
        }
        transfer
    }

    fn spoil_resolution(&mut self, transfer: &mut Transfer, pending: &Transfer) {
        match self.random.below(13) {
            0 => transfer.debit_account_id = pending.credit_account_id,
            1 => transfer.credit_account_id = pending.debit_account_id,
            2 => transfer.ledger = pending.ledger + 1,
            3 => transfer.code = pending.code ^ 2,
            4 => transfer.pending_id = 0,
            5 => transfer.pending_id = u128::MAX,
            6 => transfer.pending_id = transfer.id,
            7 => transfer.pending_id = id_of(self.swarm.transfer_ids, self.transfers + 9),
            8 => transfer.pending_id = self.any_transfer_id(),
            9 => transfer.timeout = 1,
            10 => transfer.flags |= self.random.pick(&[2, 4, 8, 16, 32, 64, 128]),
            11 => transfer.amount = self.random.any_128(),
            _ => {
                self.spoil_resolution(transfer, pending);
                self.spoil_resolution(transfer, pending);
            }
        }
    }

    /// Changes one field in a way that an existing transfer shows.
    fn change_transfer(&mut self, transfer: &mut Transfer) {
        match self.random.below(13) {
            0 => transfer.flags ^= 1 << self.random.below(9),
            1 => transfer.pending_id ^= 1,
            2 => transfer.timeout ^= 1,
            3 => transfer.debit_account_id = self.any_account_id(),
            4 => transfer.credit_account_id = self.any_account_id(),
            5 => transfer.amount = transfer.amount.wrapping_add(1),
            6 => {
                transfer.amount = self
                    .random
                    .pick(&[0, u128::MAX, transfer.amount.wrapping_sub(1)])
            }
            7 => transfer.user_data_128 ^= 1,
            8 => transfer.user_data_64 ^= 1,
            9 => transfer.user_data_32 ^= 1,
            10 => transfer.ledger ^= 1,
            11 => transfer.code ^= 2,
            _ => transfer.pending_id = self.any_transfer_id(),
        }
    }

    fn spoil_transfer(&mut self, transfer: &mut Transfer, imported: bool) {
        match self.random.below(24) {
            0 => transfer.flags |= self.random.pick(&[1 << 9, 1 << 15]),
            1 => transfer.id = 0,
            2 => transfer.id = u128::MAX,
            3 => transfer.debit_account_id = self.random.pick(&[0, u128::MAX]),
            4 => transfer.credit_account_id = self.random.pick(&[0, u128::MAX]),
            5 => transfer.credit_account_id = transfer.debit_account_id,
            6 => transfer.pending_id = self.random.pick(&[0, 1, u128::MAX, transfer.id]),
            7 => transfer.timeout = 1,
            8 => {
                transfer.flags ^= self
                    .random
                    .pick(&[flag::CLOSING_DEBIT, flag::CLOSING_CREDIT])
            }
            9 => transfer.ledger = 0,
            10 => transfer.code = 0,
            11 => transfer.debit_account_id = self.account_id(self.accounts + 1),
            12 => transfer.credit_account_id = self.account_id(self.accounts + 1),
            13 => transfer.credit_account_id = self.any_account_id(),
            14 => transfer.ledger += 1,
            15 => transfer.flags ^= 1 << self.random.below(9),
            16 => transfer.flags ^= flag::IMPORTED,
            17 => transfer.timestamp = self.memory.timestamp(&mut self.random),
            18 if imported => transfer.timestamp = self.random.pick(&[0, 1 << 63, u64::MAX]),
            19 if imported => transfer.timestamp = (1 << 63) - 1,
            20 if imported => {
                transfer.timestamp = self.random.pick(&[1, 2, self.memory.latest()]);
            }
            18..=20 => transfer.timestamp = 1,
            21 => transfer.amount = self.random.any_128(),
            // Faults often come in pairs; the order of the checks decides.
            _ => {
                self.spoil_transfer(transfer, imported);
                self.spoil_transfer(transfer, imported);
            }
        }
    }
}
