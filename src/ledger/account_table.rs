//! Accounts: as they were created, and where the balances are that each has now.
//!
//! * An account is written once, without balances. Every change of its balances is in an event already,
//!   so all that changes of an account is its *head*: which event was its last.
//! * Heads are in memory (8 bytes an account); a checkpoint writes the chunks that differ.

use super::account_cache::AccountCache;
use super::catalog::table;
use crate::lsm::{LogTable, MutableTable, Ranked};
use crate::stdx::planted::{Bug, planted};
use crate::wire::Account;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Accounts that there may be: positions have 32 bits.
pub(super) const ACCOUNTS_MAX: u64 = u32::MAX as u64;

/// A side of a transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Debit = 0,
    Credit = 1,
}

/// Where the balances of an account are (8 bytes).
///
/// 0 as long as it has none. Else four times one more than the position of the event or of the expiry,
/// 2 more if it is an expiry, and 1 more if the account is the credit account.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub(super) struct Head(U64);

/// What a head says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    /// Of the event, or of the expiry.
    pub(super) position: u64,
    pub(super) expiry: bool,
    pub(super) side: Side,
}

impl Head {
    pub(super) fn of(place: Place) -> Self {
        let kind = u64::from(place.expiry) << 1 | place.side as u64;
        Self((((place.position + 1) << 2) | kind).into())
    }

    pub(super) fn place(self) -> Option<Place> {
        let value = self.0.get();
        Some(Place {
            position: (value >> 2).checked_sub(1)?,
            expiry: value & 2 != 0,
            side: if value & 1 == 0 {
                Side::Debit
            } else {
                Side::Credit
            },
        })
    }
}

impl Ranked for Account {
    fn rank(&self) -> u64 {
        self.timestamp.get()
    }
}

/// An account as it was.
#[derive(Debug)]
pub(super) struct Saved {
    slot: u32,
    account: Account,
    head: Head,
}

/// See the module.
#[derive(Debug)]
pub(super) struct AccountTable {
    /// In the order of their timestamps; without balances.
    pub(super) created: LogTable<Account>,
    /// By position.
    pub(super) heads: MutableTable<Head>,
    pub(super) cache: AccountCache,
    /// Of the last account.
    pub(super) timestamp: u64,
}

impl AccountTable {
    /// An empty table with a cache of so many bytes.
    pub(super) fn new(cache_size: u64) -> Self {
        Self {
            created: LogTable::new(table::ACCOUNTS, true),
            heads: MutableTable::new(table::ACCOUNT_HEADS),
            cache: AccountCache::new(cache_size),
            timestamp: 0,
        }
    }

    /// Adds an account; gives its position.
    pub(super) fn push(&mut self, account: &Account) -> u64 {
        let position = self.created.push(account);
        let _ = self.heads.push(&Head::default());
        let at = u32::try_from(position).expect("there is room for a position");
        self.cache.insert(at, account);
        self.timestamp = account.timestamp.get();
        position
    }

    /// Takes back the last account, which this op added; the timestamp is the caller's.
    pub(super) fn pop(&mut self) -> Account {
        let account = self.created.pop();
        let _ = self.heads.pop();
        self.cache.remove(account.id.get());
        account
    }

    /// The account in a slot as it is.
    pub(super) fn save(&self, slot: u32) -> Saved {
        Saved {
            slot,
            account: *self.cache.get(slot),
            head: *self.heads.get(self.cache.position(slot).into()),
        }
    }

    /// Makes an account what it was, in the same batch.
    pub(super) fn take_back(&mut self, saved: &Saved) {
        let position = self.cache.position(saved.slot);
        *self.heads.get_mut(position.into()) = saved.head;
        *self.cache.get_mut(saved.slot) = saved.account;
    }

    /// The balances of the accounts in the slots of a debit and a credit account are in an event, or in
    /// an expiry, from now on.
    #[inline]
    pub(super) fn moved(&mut self, slots: (u32, u32), position: u64, expiry: bool) {
        for (slot, side) in [(slots.0, Side::Debit), (slots.1, Side::Credit)] {
            if side == Side::Credit && planted(Bug::ForgetHead) {
                continue;
            }
            let account = self.cache.position(slot);
            *self.heads.get_mut(account.into()) = Head::of(Place {
                position,
                expiry,
                side,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Head, Place, Side};

    #[test]
    fn heads_say_what_they_were_made_of() {
        assert_eq!(Head::default().place(), None);
        for position in [0, 1, 77, (1 << 48) - 1] {
            for expiry in [false, true] {
                for side in [Side::Debit, Side::Credit] {
                    let place = Place {
                        position,
                        expiry,
                        side,
                    };
                    assert_eq!(Head::of(place).place(), Some(place));
                }
            }
        }
    }
}
