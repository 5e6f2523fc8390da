//! The records that only the ledger has: pending transfers and events.

use crate::wire::Account;
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What became of a pending transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PendingStatus {
    Pending = 0,
    Posted = 1,
    Voided = 2,
    Expired = 3,
}

/// A pending transfer and what became of it (16 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct PendingRecord {
    /// Position of the transfer.
    pub(super) transfer: U32,
    /// A [`PendingStatus`].
    pub(super) status: u8,
    reserved: [u8; 11],
}

impl PendingRecord {
    pub(super) fn new(transfer: u32) -> Self {
        Self {
            transfer: transfer.into(),
            status: 0,
            reserved: [0; 11],
        }
    }

    pub(super) fn status(&self) -> PendingStatus {
        match self.status {
            0 => PendingStatus::Pending,
            1 => PendingStatus::Posted,
            2 => PendingStatus::Voided,
            3 => PendingStatus::Expired,
            other => unreachable!("status {other} is refused when a data file is opened"),
        }
    }

    pub(super) fn set(&mut self, status: PendingStatus) {
        self.status = status as u8;
    }
}

/// Balances of an account.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct Balances {
    pub(super) debits_pending: U128,
    pub(super) debits_posted: U128,
    pub(super) credits_pending: U128,
    pub(super) credits_posted: U128,
}

impl Balances {
    pub(super) fn of(account: &Account) -> Self {
        Self {
            debits_pending: account.debits_pending,
            debits_posted: account.debits_posted,
            credits_pending: account.credits_pending,
            credits_posted: account.credits_posted,
        }
    }
}

/// A change of two accounts, as both were afterwards (160 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct EventRecord {
    pub(super) timestamp: U64,
    /// Position of the transfer.
    pub(super) transfer: U32,
    /// Positions of the accounts.
    pub(super) debit_account: U32,
    pub(super) credit_account: U32,
    pub(super) debit_flags: U16,
    pub(super) credit_flags: U16,
    /// As in a change event.
    pub(super) kind: u8,
    pub(super) reserved: [u8; 7],
    pub(super) debit: Balances,
    pub(super) credit: Balances,
}

const _: () = assert!(size_of::<EventRecord>() == 160);
