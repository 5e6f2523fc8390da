//! The events and results of the operations, byte for byte as on the wire.
#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derive makes a hidden type per field, which rustc takes for ours in a macro"
)]

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

macro_rules! wire_struct {
    ($(#[$doc:meta])* $name:ident, $size:literal {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
            Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == $size);

        impl $name {
            /// Every field zero.
            #[must_use]
            pub fn zeroed() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::zeroed()
            }
        }
    };
}

wire_struct! {
    /// An account: the event of a create, the result of a lookup or query.
    Account, 128 {
        /// Chosen by the client; neither 0 nor the maximum.
        id: U128,
        /// Reserved by pending transfers out of the account.
        debits_pending: U128,
        /// Transferred out of the account.
        debits_posted: U128,
        /// Reserved by pending transfers into the account.
        credits_pending: U128,
        /// Transferred into the account.
        credits_posted: U128,
        /// Free for the client.
        user_data_128: U128,
        /// Free for the client.
        user_data_64: U64,
        /// Free for the client.
        user_data_32: U32,
        /// Zero.
        reserved: U32,
        /// Accounts of one ledger can transfer to each other; not 0.
        ledger: U32,
        /// The kind of account, free for the client; not 0.
        code: U16,
        /// See [`account_flags`].
        flags: U16,
        /// When it was created; 0 in a create, but for imports.
        timestamp: U64,
    }
}

wire_struct! {
    /// A transfer: the event of a create, the result of a lookup or query.
    Transfer, 128 {
        /// Chosen by the client; neither 0 nor the maximum.
        id: U128,
        /// The account that it debits.
        debit_account_id: U128,
        /// The account that it credits.
        credit_account_id: U128,
        /// How much.
        amount: U128,
        /// The pending transfer that it posts or voids, or 0.
        pending_id: U128,
        /// Free for the client.
        user_data_128: U128,
        /// Free for the client.
        user_data_64: U64,
        /// Free for the client.
        user_data_32: U32,
        /// Seconds after which a pending transfer expires; 0 for never.
        timeout: U32,
        /// Ledger of both accounts.
        ledger: U32,
        /// The kind of transfer, free for the client; not 0.
        code: U16,
        /// See [`transfer_flags`].
        flags: U16,
        /// When it was created; 0 in a create, but for imports.
        timestamp: U64,
    }
}

wire_struct! {
    /// Which transfers or balances of an account.
    AccountFilter, 128 {
        /// The account.
        account_id: U128,
        /// Only this; 0 for any.
        user_data_128: U128,
        /// Only this; 0 for any.
        user_data_64: U64,
        /// Only this; 0 for any.
        user_data_32: U32,
        /// Only this; 0 for any.
        code: U16,
        /// Zero.
        reserved: [u8; 58],
        /// Not before; 0 for no bound.
        timestamp_min: U64,
        /// Not after; 0 for no bound.
        timestamp_max: U64,
        /// Results at most.
        limit: U32,
        /// See [`account_filter_flags`].
        flags: U32,
    }
}

wire_struct! {
    /// Which accounts or transfers.
    QueryFilter, 64 {
        /// Only this; 0 for any.
        user_data_128: U128,
        /// Only this; 0 for any.
        user_data_64: U64,
        /// Only this; 0 for any.
        user_data_32: U32,
        /// Only this; 0 for any.
        ledger: U32,
        /// Only this; 0 for any.
        code: U16,
        /// Zero.
        reserved: [u8; 6],
        /// Not before; 0 for no bound.
        timestamp_min: U64,
        /// Not after; 0 for no bound.
        timestamp_max: U64,
        /// Results at most.
        limit: U32,
        /// See [`query_filter_flags`].
        flags: U32,
    }
}

wire_struct! {
    /// Which change events.
    ChangeEventsFilter, 64 {
        /// Not before; 0 for no bound.
        timestamp_min: U64,
        /// Not after; 0 for no bound.
        timestamp_max: U64,
        /// Results at most.
        limit: U32,
        /// Zero.
        reserved: [u8; 44],
    }
}

wire_struct! {
    /// What became of one event of a create.
    CreateResult, 16 {
        /// When the object was created, or the event was refused.
        timestamp: U64,
        /// A [`CreateAccountStatus`](super::CreateAccountStatus) or
        /// [`CreateTransferStatus`](super::CreateTransferStatus).
        status: U32,
        /// Zero.
        reserved: U32,
    }
}

wire_struct! {
    /// What became of an event of a create that failed, for clients before 0.17.0.
    SparseResult, 8 {
        /// Of the event in its batch.
        index: U32,
        /// As in [`CreateResult`].
        status: U32,
    }
}

wire_struct! {
    /// The balances of an account after a transfer.
    AccountBalance, 128 {
        /// As in [`Account`].
        debits_pending: U128,
        /// As in [`Account`].
        debits_posted: U128,
        /// As in [`Account`].
        credits_pending: U128,
        /// As in [`Account`].
        credits_posted: U128,
        /// Of the transfer.
        timestamp: U64,
        /// Zero.
        reserved: [u8; 56],
    }
}

wire_struct! {
    /// A transfer or an expiry, with both accounts as it left them.
    ChangeEvent, 384 {
        /// The transfer; for an expiry, the pending transfer that expired.
        transfer_id: U128,
        /// Its amount.
        transfer_amount: U128,
        /// The pending transfer that it posts or voids, or 0.
        transfer_pending_id: U128,
        /// As in [`Transfer`].
        transfer_user_data_128: U128,
        /// As in [`Transfer`].
        transfer_user_data_64: U64,
        /// As in [`Transfer`].
        transfer_user_data_32: U32,
        /// As in [`Transfer`].
        transfer_timeout: U32,
        /// As in [`Transfer`].
        transfer_code: U16,
        /// As in [`Transfer`].
        transfer_flags: U16,
        /// Ledger of the transfer and its accounts.
        ledger: U32,
        /// A [`ChangeEventKind`].
        kind: u8,
        /// Zero.
        reserved: [u8; 39],
        /// The account that was debited.
        debit_account_id: U128,
        /// As in [`Account`], after the event.
        debit_account_debits_pending: U128,
        /// As in [`Account`], after the event.
        debit_account_debits_posted: U128,
        /// As in [`Account`], after the event.
        debit_account_credits_pending: U128,
        /// As in [`Account`], after the event.
        debit_account_credits_posted: U128,
        /// As in [`Account`].
        debit_account_user_data_128: U128,
        /// As in [`Account`].
        debit_account_user_data_64: U64,
        /// As in [`Account`].
        debit_account_user_data_32: U32,
        /// As in [`Account`].
        debit_account_code: U16,
        /// As in [`Account`], after the event.
        debit_account_flags: U16,
        /// The account that was credited.
        credit_account_id: U128,
        /// As in [`Account`], after the event.
        credit_account_debits_pending: U128,
        /// As in [`Account`], after the event.
        credit_account_debits_posted: U128,
        /// As in [`Account`], after the event.
        credit_account_credits_pending: U128,
        /// As in [`Account`], after the event.
        credit_account_credits_posted: U128,
        /// As in [`Account`].
        credit_account_user_data_128: U128,
        /// As in [`Account`].
        credit_account_user_data_64: U64,
        /// As in [`Account`].
        credit_account_user_data_32: U32,
        /// As in [`Account`].
        credit_account_code: U16,
        /// As in [`Account`], after the event.
        credit_account_flags: U16,
        /// When it happened; increases along the events.
        timestamp: U64,
        /// When the transfer was created; differs from `timestamp` for an expiry.
        transfer_timestamp: U64,
        /// When the account was created.
        debit_account_timestamp: U64,
        /// When the account was created.
        credit_account_timestamp: U64,
    }
}

wire_struct! {
    /// The body of a register request.
    RegisterRequest, 256 {
        /// Zero: the server decides.
        batch_size_limit: U32,
        /// Zero.
        reserved: [u8; 252],
    }
}

wire_struct! {
    /// The body of the reply to a register request.
    RegisterResult, 64 {
        /// Bytes of the largest body that the client may send.
        batch_size_limit: U32,
        /// Zero.
        reserved: [u8; 60],
    }
}

/// What a [`ChangeEvent`] is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ChangeEventKind {
    /// A transfer that took effect at once.
    SinglePhase = 0,
    /// A pending transfer.
    TwoPhasePending = 1,
    /// A pending transfer was posted.
    TwoPhasePosted = 2,
    /// A pending transfer was voided.
    TwoPhaseVoided = 3,
    /// A pending transfer expired.
    TwoPhaseExpired = 4,
}

impl ChangeEventKind {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Bits of [`Account::flags`].
pub mod account_flags {
    /// The next event of the batch succeeds or fails with this one.
    pub const LINKED: u16 = 1 << 0;
    /// Debits, pending ones included, stay at or below posted credits.
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 1 << 1;
    /// Credits, pending ones included, stay at or below posted debits.
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 1 << 2;
    /// Balances are kept for every transfer.
    pub const HISTORY: u16 = 1 << 3;
    /// The timestamp is the client's.
    pub const IMPORTED: u16 = 1 << 4;
    /// The account takes part in no new transfer.
    pub const CLOSED: u16 = 1 << 5;
    /// All bits that mean something.
    pub const DEFINED: u16 = (1 << 6) - 1;
}

/// Bits of [`Transfer::flags`].
pub mod transfer_flags {
    /// The next event of the batch succeeds or fails with this one.
    pub const LINKED: u16 = 1 << 0;
    /// Reserves the amount only.
    pub const PENDING: u16 = 1 << 1;
    /// Carries out a pending transfer.
    pub const POST_PENDING_TRANSFER: u16 = 1 << 2;
    /// Takes back a pending transfer.
    pub const VOID_PENDING_TRANSFER: u16 = 1 << 3;
    /// The amount is cut to what the debit account's limit allows.
    pub const BALANCING_DEBIT: u16 = 1 << 4;
    /// The amount is cut to what the credit account's limit allows.
    pub const BALANCING_CREDIT: u16 = 1 << 5;
    /// Closes the debit account.
    pub const CLOSING_DEBIT: u16 = 1 << 6;
    /// Closes the credit account.
    pub const CLOSING_CREDIT: u16 = 1 << 7;
    /// The timestamp is the client's.
    pub const IMPORTED: u16 = 1 << 8;
    /// All bits that mean something.
    pub const DEFINED: u16 = (1 << 9) - 1;
}

/// Bits of [`AccountFilter::flags`].
pub mod account_filter_flags {
    /// Transfers that debit the account.
    pub const DEBITS: u32 = 1 << 0;
    /// Transfers that credit the account.
    pub const CREDITS: u32 = 1 << 1;
    /// The newest first.
    pub const REVERSED: u32 = 1 << 2;
    /// All bits that mean something.
    pub const DEFINED: u32 = (1 << 3) - 1;
}

/// Bits of [`QueryFilter::flags`].
pub mod query_filter_flags {
    /// The newest first.
    pub const REVERSED: u32 = 1 << 0;
    /// All bits that mean something.
    pub const DEFINED: u32 = 1;
}
