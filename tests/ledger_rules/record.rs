//! Records of the wire whose fields are set and read by name.
//!
//! The bits of flags stand here once more, so that a table also notices a constant that changed.

use daftari::wire::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventsFilter, QueryFilter, Transfer,
};

/// Names of the bits, the lowest first.
type Bits = &'static [&'static str];

const NO_BITS: Bits = &[];
pub(crate) const ACCOUNT_FLAGS: Bits = &[
    "linked",
    "debits_must_not_exceed_credits",
    "credits_must_not_exceed_debits",
    "history",
    "imported",
    "closed",
];
pub(crate) const TRANSFER_FLAGS: Bits = &[
    "linked",
    "pending",
    "post",
    "void",
    "balancing_debit",
    "balancing_credit",
    "closing_debit",
    "closing_credit",
    "imported",
];
const ACCOUNT_FILTER_FLAGS: Bits = &["debits", "credits", "reversed"];
const QUERY_FILTER_FLAGS: Bits = &["reversed"];

struct Field {
    name: &'static str,
    offset: usize,
    size: usize,
    bits: Bits,
}

/// Where the fields of a record are.
pub(crate) struct Layout {
    size: usize,
    fields: &'static [Field],
}

const fn field_size<R, F>(_: fn(&R) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! layout {
    ($name:ident of $record:ident { $($field:ident $(= $bits:expr)?,)* }) => {
        pub(crate) static $name: Layout = Layout {
            size: size_of::<$record>(),
            fields: &[$(Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($record, $field),
                size: field_size(|record: &$record| &record.$field),
                bits: [$($bits,)? NO_BITS][0],
            },)*],
        };
    };
}

layout! { ACCOUNT of Account {
    id, debits_pending, debits_posted, credits_pending, credits_posted, user_data_128,
    user_data_64, user_data_32, reserved, ledger, code, flags = ACCOUNT_FLAGS, timestamp,
} }
layout! { TRANSFER of Transfer {
    id, debit_account_id, credit_account_id, amount, pending_id, user_data_128, user_data_64,
    user_data_32, timeout, ledger, code, flags = TRANSFER_FLAGS, timestamp,
} }
layout! { ACCOUNT_FILTER of AccountFilter {
    account_id, user_data_128, user_data_64, user_data_32, code, reserved, timestamp_min,
    timestamp_max, limit, flags = ACCOUNT_FILTER_FLAGS,
} }
layout! { QUERY_FILTER of QueryFilter {
    user_data_128, user_data_64, user_data_32, ledger, code, reserved, timestamp_min,
    timestamp_max, limit, flags = QUERY_FILTER_FLAGS,
} }
layout! { CHANGE_EVENTS_FILTER of ChangeEventsFilter {
    timestamp_min, timestamp_max, limit, reserved,
} }
layout! { BALANCE of AccountBalance {
    debits_pending, debits_posted, credits_pending, credits_posted, timestamp,
} }
layout! { CHANGE_EVENT of ChangeEvent {
    transfer_id, transfer_amount, transfer_pending_id, transfer_user_data_128,
    transfer_user_data_64, transfer_user_data_32, transfer_timeout, transfer_code,
    transfer_flags = TRANSFER_FLAGS, ledger, kind, debit_account_id,
    debit_account_debits_pending, debit_account_debits_posted, debit_account_credits_pending,
    debit_account_credits_posted, debit_account_user_data_128, debit_account_user_data_64,
    debit_account_user_data_32, debit_account_code, debit_account_flags = ACCOUNT_FLAGS,
    credit_account_id, credit_account_debits_pending, credit_account_debits_posted,
    credit_account_credits_pending, credit_account_credits_posted, credit_account_user_data_128,
    credit_account_user_data_64, credit_account_user_data_32, credit_account_code,
    credit_account_flags = ACCOUNT_FLAGS, timestamp, transfer_timestamp,
    debit_account_timestamp, credit_account_timestamp,
} }

/// The bytes of a record, and where its fields are.
pub(crate) struct Record {
    layout: &'static Layout,
    pub(crate) bytes: Vec<u8>,
}

impl Record {
    /// Every field zero.
    pub(crate) fn zeroed(layout: &'static Layout) -> Self {
        Self {
            layout,
            bytes: vec![0; layout.size],
        }
    }

    /// The records of a reply.
    pub(crate) fn all(layout: &'static Layout, bytes: &[u8]) -> Vec<Self> {
        assert!(bytes.len().is_multiple_of(layout.size));
        let records = bytes.chunks_exact(layout.size);
        records
            .map(|bytes| Self {
                layout,
                bytes: bytes.to_vec(),
            })
            .collect()
    }

    fn field(&self, name: &str) -> Result<&'static Field, String> {
        let mut fields = self.layout.fields.iter();
        let found = fields.find(|field| field.name == name);
        found.ok_or_else(|| format!("there is no field {name}"))
    }

    /// The value that a text stands for in that field.
    pub(crate) fn value(&self, name: &str, text: &str) -> Result<u128, String> {
        let field = self.field(name)?;
        let mut value = 0;
        for part in text.split('|') {
            value |= match field.bits.iter().position(|bit| *bit == part) {
                Some(bit) => 1 << bit,
                None => number(part)?,
            };
        }
        let fits = field.size >= 16 || value >> (8 * field.size) == 0;
        fits.then_some(value)
            .ok_or_else(|| format!("{name} has no room for {text}"))
    }

    pub(crate) fn set(&mut self, name: &str, value: u128) -> Result<(), String> {
        let field = self.field(name)?;
        let size = field.size.min(16);
        self.bytes[field.offset..field.offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Result<u128, String> {
        let field = self.field(name)?;
        let size = field.size.min(16);
        let mut bytes = [0; 16];
        bytes[..size].copy_from_slice(&self.bytes[field.offset..field.offset + size]);
        Ok(u128::from_le_bytes(bytes))
    }
}

/// A number: terms with `+` and `-` between them, such as `A1`, `7`, `5s` and `max63-5s+1`.
pub(crate) fn number(text: &str) -> Result<u128, String> {
    let mut total: u128 = 0;
    let mut rest = text;
    let mut minus = false;
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let value = term(&rest[..end]).ok_or_else(|| format!("{text} is not a number"))?;
        let sum = if minus {
            total.checked_sub(value)
        } else {
            total.checked_add(value)
        };
        total = sum.ok_or_else(|| format!("{text} overflows"))?;
        if end == rest.len() {
            return Ok(total);
        }
        minus = rest[end..].starts_with('-');
        rest = &rest[end + 1..];
    }
}

/// `A` and `T` before an id are for the reader; `s` after a number makes it seconds.
fn term(text: &str) -> Option<u128> {
    match text {
        "max" => Some(u128::MAX),
        "max32" => Some(u32::MAX.into()),
        "max63" => Some(i64::MAX.unsigned_abs().into()),
        "max64" => Some(u64::MAX.into()),
        _ => {
            let digits = text.strip_prefix(['A', 'T']).unwrap_or(text);
            match digits.strip_suffix('s') {
                Some(seconds) => Some(seconds.parse::<u128>().ok()? * 1_000_000_000),
                None => digits.parse().ok(),
            }
        }
    }
}
