//! The records that only the ledger has: what transfers and expiries left of their accounts, and what
//! became of pending transfers.

use crate::lsm::Ranked;
use crate::wire::{Account, Transfer};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What became of a pending transfer: two bits in the table of statuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PendingStatus {
    /// Nothing yet, if it is a pending transfer at all.
    Pending = 0,
    Posted = 1,
    Voided = 2,
    Expired = 3,
}

impl PendingStatus {
    /// Transfers whose statuses share a byte.
    const PER_BYTE: u64 = 4;

    /// Which byte of the table has the status of a transfer.
    pub(super) const fn byte(transfer: u64) -> u64 {
        transfer / Self::PER_BYTE
    }

    /// The status of a transfer in its byte.
    pub(super) fn read(byte: u8, transfer: u64) -> Self {
        match byte >> (transfer % Self::PER_BYTE * 2) & 3 {
            0 => Self::Pending,
            1 => Self::Posted,
            2 => Self::Voided,
            _ => Self::Expired,
        }
    }

    /// The byte with the status of a transfer in it.
    pub(super) fn written(self, byte: u8, transfer: u64) -> u8 {
        let shift = transfer % Self::PER_BYTE * 2;
        byte & !(3 << shift) | (self as u8) << shift
    }
}

/// Balances of an account (64 bytes).
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

    /// The same with 64 bits each, if they fit.
    fn narrow(&self) -> Option<NarrowBalances> {
        let narrow = |wide: U128| u64::try_from(wide.get()).ok().map(U64::new);
        Some(NarrowBalances {
            debits_pending: narrow(self.debits_pending)?,
            debits_posted: narrow(self.debits_posted)?,
            credits_pending: narrow(self.credits_pending)?,
            credits_posted: narrow(self.credits_posted)?,
        })
    }
}

/// Balances that fit 64 bits (32 bytes).
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
pub(super) struct NarrowBalances {
    debits_pending: U64,
    debits_posted: U64,
    credits_pending: U64,
    credits_posted: U64,
}

impl NarrowBalances {
    fn wide(&self) -> Balances {
        let wide = |narrow: U64| U128::new(narrow.get().into());
        Balances {
            debits_pending: wide(self.debits_pending),
            debits_posted: wide(self.debits_posted),
            credits_pending: wide(self.credits_pending),
            credits_posted: wide(self.credits_posted),
        }
    }
}

/// What a transfer left of its accounts (90 bytes). It has the transfer's position.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct EventRecord {
    pub(super) timestamp: U64,
    /// Positions of the accounts.
    pub(super) debit_account: U32,
    pub(super) credit_account: U32,
    pub(super) debit_flags: U16,
    pub(super) credit_flags: U16,
    /// 0 if the balances are here; else one more than the position of the record that has them.
    wide: [u8; 6],
    debit: NarrowBalances,
    credit: NarrowBalances,
}

const _: () = assert!(size_of::<EventRecord>() == 90);

impl EventRecord {
    /// The record, and the balances if they do not fit it; `wide` is where those would be.
    #[inline]
    pub(super) fn new(
        timestamp: u64,
        accounts: (u32, u32),
        debit: &Account,
        credit: &Account,
        wide: u64,
    ) -> (Self, Option<WideRecord>) {
        let balances = WideRecord {
            debit: Balances::of(debit),
            credit: Balances::of(credit),
        };
        let mut record = Self {
            timestamp: timestamp.into(),
            debit_account: accounts.0.into(),
            credit_account: accounts.1.into(),
            debit_flags: debit.flags,
            credit_flags: credit.flags,
            wide: [0; 6],
            debit: NarrowBalances::default(),
            credit: NarrowBalances::default(),
        };
        if let (Some(debit), Some(credit)) = (balances.debit.narrow(), balances.credit.narrow()) {
            (record.debit, record.credit) = (debit, credit);
            return (record, None);
        }
        assert!(wide < 1 << 47, "positions have 48 bits");
        record.wide.copy_from_slice(&(wide + 1).to_le_bytes()[..6]);
        (record, Some(balances))
    }

    /// Position of the record that has the balances, if this one does not.
    pub(super) fn wide(&self) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&self.wide);
        u64::from_le_bytes(bytes).checked_sub(1)
    }

    /// The balances of the debit and the credit account, if they are here.
    pub(super) fn balances(&self) -> (Balances, Balances) {
        (self.debit.wide(), self.credit.wide())
    }
}

impl Ranked for EventRecord {
    fn rank(&self) -> u64 {
        self.timestamp.get()
    }
}

/// Balances that need more than 64 bits (128 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct WideRecord {
    debit: Balances,
    credit: Balances,
}

const _: () = assert!(size_of::<WideRecord>() == 128);

impl WideRecord {
    /// The balances of the debit and the credit account.
    pub(super) fn balances(&self) -> (Balances, Balances) {
        (self.debit, self.credit)
    }
}

impl Ranked for WideRecord {
    /// Nobody looks for one by time.
    fn rank(&self) -> u64 {
        0
    }
}

/// What an expiry left of the accounts (160 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct ExpiryRecord {
    pub(super) timestamp: U64,
    /// Position of the transfer.
    pub(super) transfer: U64,
    /// Positions of the accounts.
    pub(super) debit_account: U32,
    pub(super) credit_account: U32,
    pub(super) debit_flags: U16,
    pub(super) credit_flags: U16,
    pub(super) reserved: [u8; 4],
    pub(super) debit: Balances,
    pub(super) credit: Balances,
}

const _: () = assert!(size_of::<ExpiryRecord>() == 160);

impl Ranked for ExpiryRecord {
    fn rank(&self) -> u64 {
        self.timestamp.get()
    }
}

impl Ranked for Transfer {
    fn rank(&self) -> u64 {
        self.timestamp.get()
    }
}

/// An id burnt by a failure (16 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct FailedRecord {
    pub(super) id: U128,
}

const _: () = assert!(size_of::<FailedRecord>() == 16);

impl Ranked for FailedRecord {
    /// Nobody looks for one by time.
    fn rank(&self) -> u64 {
        0
    }
}

/// A pending transfer that is going to expire (24 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct DueRecord {
    /// When it expires.
    pub(super) expires: U64,
    /// When it was created.
    pub(super) timestamp: U64,
    /// Position of the transfer.
    pub(super) transfer: U64,
}

const _: () = assert!(size_of::<DueRecord>() == 24);
