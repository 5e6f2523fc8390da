//! What must hold of every ledger, and a digest of its balances.

use std::collections::BTreeMap;

use super::flags::transfer as flag;
use super::layout::{Account, Layout, Transfer};
use super::{Model, Status, expires_at};

/// A sum of 128-bit amounts that cannot overflow: how often it wrapped, and the rest.
type Sum = (u64, u128);

fn add(sum: &mut Sum, amount: u128) {
    let (rest, wrapped) = sum.1.overflowing_add(amount);
    *sum = (sum.0 + u64::from(wrapped), rest);
}

/// The sums over a ledger.
#[derive(Debug, Default)]
struct Totals {
    debits_pending: Sum,
    debits_posted: Sum,
    credits_pending: Sum,
    credits_posted: Sum,
    /// Amounts of transfers that are pending now.
    pending: Sum,
}

impl Model {
    /// All accounts, in the order of their timestamps.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// All transfers, in the order of their timestamps.
    pub fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        self.transfers.values()
    }

    /// A checksum over all accounts, balances included, in the order of their timestamps.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut bytes = Vec::with_capacity(self.accounts.len() * Account::SIZE);
        for account in self.accounts.values() {
            account.encode(&mut bytes);
        }
        u128::from_le_bytes(storage_format::checksum(&bytes).0)
    }

    /// Checks that money is conserved: in every ledger debits equal credits, posted and pending,
    /// and what is pending is the sum of the pending transfers. Says what does not hold.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check_conservation(&self) -> Result<(), String> {
        let mut ledgers: BTreeMap<u32, Totals> = BTreeMap::new();
        for account in self.accounts.values() {
            let totals = ledgers.entry(account.ledger).or_default();
            add(&mut totals.debits_pending, account.debits_pending);
            add(&mut totals.debits_posted, account.debits_posted);
            add(&mut totals.credits_pending, account.credits_pending);
            add(&mut totals.credits_posted, account.credits_posted);
        }
        let mut expiring = 0;
        for transfer in self.transfers.values() {
            let status = self.statuses.get(&transfer.timestamp).copied();
            if (transfer.flags & flag::PENDING != 0) != status.is_some() {
                return Err(format!(
                    "transfer {} has the status {status:?}",
                    transfer.id
                ));
            }
            if status == Some(Status::Pending) {
                let totals = ledgers.entry(transfer.ledger).or_default();
                add(&mut totals.pending, transfer.amount);
                if let Some(expires_at) = expires_at(transfer) {
                    expiring += 1;
                    if !self.expiry.contains(&(expires_at, transfer.timestamp)) {
                        return Err(format!("transfer {} will never expire", transfer.id));
                    }
                }
            }
        }
        if expiring != self.expiry.len() {
            return Err("a transfer that is not pending will expire".to_owned());
        }
        for (ledger, totals) in &ledgers {
            let conserved = totals.debits_posted == totals.credits_posted
                && totals.debits_pending == totals.credits_pending
                && totals.debits_pending == totals.pending;
            if !conserved {
                return Err(format!("ledger {ledger}: {totals:?}"));
            }
        }
        Ok(())
    }
}
