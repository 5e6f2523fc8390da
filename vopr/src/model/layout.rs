//! The structs of the wire, field by field, with an encoding of their own.
//!
//! Deliberately not the types of `daftari::wire`: the tables here were written from the protocol a
//! second time, so that a field at a wrong place in either of the two is a difference.

/// A field: an integer, little-endian, or raw bytes.
pub trait Field: Sized {
    /// Takes the field from the front of `bytes`.
    fn take(bytes: &mut &[u8]) -> Self;
    /// Appends the field.
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! integer_fields {
    ($($kind:ty)*) => {$(
        impl Field for $kind {
            fn take(bytes: &mut &[u8]) -> Self {
                let (field, rest) = bytes.split_first_chunk().expect("a whole struct");
                *bytes = rest;
                Self::from_le_bytes(*field)
            }

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

integer_fields!(u8 u16 u32 u64 u128);

impl<const N: usize> Field for [u8; N] {
    fn take(bytes: &mut &[u8]) -> Self {
        let (field, rest) = bytes.split_first_chunk().expect("a whole struct");
        *bytes = rest;
        *field
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

/// A struct of the wire.
pub trait Layout: Sized {
    /// Bytes on the wire.
    const SIZE: usize;
    /// Names and sizes of the fields, in their order.
    const FIELDS: &'static [(&'static str, usize)];
    /// Reads one from exactly [`Self::SIZE`] bytes.
    fn decode(bytes: &[u8]) -> Self;
    /// Appends its bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// The one whose bytes are all zero.
    #[must_use]
    fn zeroed() -> Self {
        Self::decode(&vec![0; Self::SIZE])
    }

    /// Its bytes.
    #[must_use]
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::SIZE);
        self.encode(&mut out);
        out
    }
}

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident: $size:literal { $($field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name {
            $(#[doc = concat!("`", stringify!($field), "` of the protocol.")] pub $field: $kind,)*
        }

        impl Layout for $name {
            const SIZE: usize = $size;
            const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), size_of::<$kind>()),)*];

            fn decode(bytes: &[u8]) -> Self {
                assert_eq!(bytes.len(), Self::SIZE);
                let mut rest = bytes;
                Self { $($field: Field::take(&mut rest),)* }
            }

            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
        }

        const _: () = assert!($(size_of::<$kind>() +)* 0 == $size);
    };
}

layout! {
    /// An account.
    Account: 128 {
        id: u128,
        debits_pending: u128,
        debits_posted: u128,
        credits_pending: u128,
        credits_posted: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        reserved: u32,
        ledger: u32,
        code: u16,
        flags: u16,
        timestamp: u64,
    }
}

layout! {
    /// A transfer.
    Transfer: 128 {
        id: u128,
        debit_account_id: u128,
        credit_account_id: u128,
        amount: u128,
        pending_id: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        timeout: u32,
        ledger: u32,
        code: u16,
        flags: u16,
        timestamp: u64,
    }
}

layout! {
    /// What a lookup asks for.
    Id: 16 {
        id: u128,
    }
}

layout! {
    /// Which transfers or balances of an account.
    AccountFilter: 128 {
        account_id: u128,
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        code: u16,
        reserved: [u8; 58],
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        flags: u32,
    }
}

layout! {
    /// Which accounts or transfers.
    QueryFilter: 64 {
        user_data_128: u128,
        user_data_64: u64,
        user_data_32: u32,
        ledger: u32,
        code: u16,
        reserved: [u8; 6],
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        flags: u32,
    }
}

layout! {
    /// Which change events.
    ChangeEventsFilter: 64 {
        timestamp_min: u64,
        timestamp_max: u64,
        limit: u32,
        reserved: [u8; 44],
    }
}

layout! {
    /// What became of an event.
    CreateResult: 16 {
        timestamp: u64,
        status: u32,
        reserved: u32,
    }
}

layout! {
    /// What became of an event that failed, for old clients.
    SparseResult: 8 {
        index: u32,
        status: u32,
    }
}

layout! {
    /// The balances of an account after a transfer.
    AccountBalance: 128 {
        debits_pending: u128,
        debits_posted: u128,
        credits_pending: u128,
        credits_posted: u128,
        timestamp: u64,
        reserved: [u8; 56],
    }
}

layout! {
    /// A transfer or an expiry, with the accounts as they were after it.
    ChangeEvent: 384 {
        transfer_id: u128,
        transfer_amount: u128,
        transfer_pending_id: u128,
        transfer_user_data_128: u128,
        transfer_user_data_64: u64,
        transfer_user_data_32: u32,
        transfer_timeout: u32,
        transfer_code: u16,
        transfer_flags: u16,
        ledger: u32,
        kind: u8,
        reserved: [u8; 39],
        debit_account_id: u128,
        debit_account_debits_pending: u128,
        debit_account_debits_posted: u128,
        debit_account_credits_pending: u128,
        debit_account_credits_posted: u128,
        debit_account_user_data_128: u128,
        debit_account_user_data_64: u64,
        debit_account_user_data_32: u32,
        debit_account_code: u16,
        debit_account_flags: u16,
        credit_account_id: u128,
        credit_account_debits_pending: u128,
        credit_account_debits_posted: u128,
        credit_account_credits_pending: u128,
        credit_account_credits_posted: u128,
        credit_account_user_data_128: u128,
        credit_account_user_data_64: u64,
        credit_account_user_data_32: u32,
        credit_account_code: u16,
        credit_account_flags: u16,
        timestamp: u64,
        transfer_timestamp: u64,
        debit_account_timestamp: u64,
        credit_account_timestamp: u64,
    }
}
