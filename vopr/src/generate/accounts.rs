//! Batches of accounts.

use super::Generator;
use crate::model::flags::account as flag;
use crate::model::layout::{Account, Layout};

impl Generator {
    pub(super) fn account_batch(&mut self, count: u64) -> Vec<u8> {
        let imported = self.random.percent(self.swarm.imported_percent);
        let mut batch: Vec<Account> = Vec::new();
        let mut stamp = self.memory.latest();
        for _ in 0..count {
            let mut account = match batch.last() {
                Some(&before) if self.random.percent(self.swarm.resend_percent / 4) => before,
                _ => self.an_account(),
            };
            if imported {
                account.flags |= flag::IMPORTED;
                stamp += self.random.pick(&[1, 1, 2, 50]);
                account.timestamp = stamp;
            }
            if self.random.percent(self.swarm.invalid_percent) {
                self.spoil_account(&mut account, imported);
            }
            batch.push(account);
        }
        self.link(count, |at| batch[at].flags |= flag::LINKED);
        let mut out = Vec::new();
        for account in batch {
            self.memory.sent_account(account, &mut self.random);
            account.encode(&mut out);
        }
        out
    }

    /// A new account, or one that was sent before.
    fn an_account(&mut self) -> Account {
        let full = self.accounts >= self.swarm.accounts;
        if (full || self.random.percent(self.swarm.resend_percent))
            && let Some(mut again) = self.memory.an_account(&mut self.random)
        {
            again.flags &= !flag::LINKED;
            if self.random.percent(60) {
                self.change_account(&mut again);
            }
            return again;
        }
        let number = self.accounts;
        self.accounts += 1;
        let mut flags = 0;
        if self.random.percent(self.swarm.limit_percent) {
            flags |= self.random.pick(&[
                flag::DEBITS_MUST_NOT_EXCEED_CREDITS,
                flag::CREDITS_MUST_NOT_EXCEED_DEBITS,
            ]);
        }
        if self.random.percent(self.swarm.history_percent) {
            flags |= flag::HISTORY;
        }
        if self.random.percent(self.swarm.closed_percent) {
            flags |= flag::CLOSED;
        }
        Account {
            id: self.account_id(number),
            user_data_128: self.user_data_128(),
            user_data_64: self.user_data_64(),
            user_data_32: self.user_data(),
            ledger: self.ledger(number),
            code: self.random.pick(&[1, 2, u16::MAX]),
            flags,
            ..Account::zeroed()
        }
    }

    /// Changes one field in a way that an existing account shows.
    fn change_account(&mut self, account: &mut Account) {
        match self.random.below(7) {
            0 => account.flags ^= self.random.pick(&[flag::HISTORY, flag::CLOSED, 2, 4]),
            1 => account.user_data_128 ^= 1,
            2 => account.user_data_64 ^= 1,
            3 => account.user_data_32 ^= 1,
            4 => account.ledger ^= 1,
            5 => account.code ^= 2,
            _ => account.id = account.id.wrapping_add(1 << 120),
        }
    }

    fn spoil_account(&mut self, account: &mut Account, imported: bool) {
        match self.random.below(18) {
            0 => account.reserved = self.random.pick(&[1, u32::MAX]),
            1 => account.flags |= self.random.pick(&[1 << 6, 1 << 15]),
            2 => account.id = 0,
            3 => account.id = u128::MAX,
            4 => account.flags |= 6,
            5 => account.debits_pending = 1,
            6 => account.debits_posted = u128::MAX,
            7 => account.credits_pending = 1,
            8 => account.credits_posted = 1,
            9 => account.ledger = 0,
            10 => account.code = 0,
            11 => account.flags ^= flag::IMPORTED,
            12 => account.timestamp = self.memory.timestamp(&mut self.random),
            13 if imported => account.timestamp = self.random.pick(&[0, 1 << 63, u64::MAX]),
            14 if imported => account.timestamp = (1 << 63) - 1,
            15 if imported => account.timestamp = self.random.pick(&[1, 2, self.memory.latest()]),
            13..=15 => account.timestamp = 1,
            // Faults often come in pairs; the order of the checks decides.
            _ => {
                self.spoil_account(account, imported);
                self.spoil_account(account, imported);
            }
        }
    }
}
