//! Expiry of pending transfers.

use super::Ledger;
use super::effect::Effect;
use super::fetch::sides_of;
use super::records::{Balances, ExpiryRecord, PendingStatus};
use super::resolve::reopen;
use crate::constants::{NANOSECONDS, PULSE_EXPIRIES_MAX};
use crate::grid::Grid;
use crate::io::Io;
use crate::stdx::{to_u64, u64_to_usize};
use crate::wire::Transfer;

/// (Time of expiry, time of creation, position of the transfer).
pub(super) type Due = (u64, u64, u64);

/// When a pending transfer expires, if ever.
pub(super) fn expires_at(transfer: &Transfer) -> Option<u64> {
    let timeout = u64::from(transfer.timeout.get());
    (timeout > 0).then(|| transfer.timestamp.get() + timeout * NANOSECONDS)
}

impl Ledger {
    /// When the next pending transfer expires; `u64::MAX` when none does.
    #[must_use]
    pub fn pulse_next(&self) -> u64 {
        self.due
            .first()
            .map_or(u64::MAX, |(expires, _, _)| *expires)
    }

    /// Whether a pending transfer has expired at that time.
    #[must_use]
    pub fn pulse_due(&self, timestamp: u64) -> bool {
        self.pulse_next() <= timestamp
    }

    /// Expires what has expired by `timestamp`, in the order of expiry and then of creation, so many
    /// at the most as fit a pulse; the last one at `timestamp`.
    pub async fn pulse<I: Io>(&mut self, grid: &mut Grid<'_, I>, timestamp: u64) {
        let due: Vec<Due> = self
            .due
            .iter()
            .take(u64_to_usize(PULSE_EXPIRIES_MAX))
            .take_while(|(expires, _, _)| *expires <= timestamp)
            .copied()
            .collect();
        self.fetched.clear();
        let positions = due.iter().map(|(_, _, transfer)| *transfer).collect();
        self.fetch_transfers(positions, grid).await;
        self.accounts.cache.begin();
        let transfers = due.iter().map(|(_, _, transfer)| self.transfer(*transfer));
        let ids = transfers.flat_map(sides_of).collect::<Vec<u128>>();
        self.fetch_accounts(ids.into_iter(), grid).await;
        let first = timestamp + 1 - to_u64(due.len());
        for (event_timestamp, due) in (first..).zip(due) {
            self.expire(event_timestamp, due);
        }
    }

    fn expire(&mut self, event_timestamp: u64, due: Due) {
        let removed = self.due.remove(&due);
        assert!(removed);
        let position = due.2;
        assert_eq!(self.status(position), PendingStatus::Pending);
        self.status_set(position, PendingStatus::Expired);
        let transfer = *self.transfer(position);
        let slots = self.slots_of(&transfer);
        let mut debit_flags = self.accounts.cache.get(slots.0).flags;
        let mut credit_flags = self.accounts.cache.get(slots.1).flags;
        reopen(&transfer, &mut debit_flags, &mut credit_flags);
        let effect = Effect {
            slots,
            released: transfer.amount.get(),
            held: 0,
            posted: 0,
            debit_flags,
            credit_flags,
        };
        effect.apply(&mut self.accounts.cache);
        let cache = &self.accounts.cache;
        let expiry = self.expiries.push(&ExpiryRecord {
            timestamp: event_timestamp.into(),
            transfer: position.into(),
            debit_account: cache.position(slots.0).into(),
            credit_account: cache.position(slots.1).into(),
            debit_flags,
            credit_flags,
            reserved: [0; 4],
            debit: Balances::of(cache.get(slots.0)),
            credit: Balances::of(cache.get(slots.1)),
        });
        self.accounts.moved(slots, expiry, true);
        self.expiry_timestamp = event_timestamp;
    }
}
