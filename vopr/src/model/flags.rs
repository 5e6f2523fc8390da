//! The bits of all flag fields.

/// `flags` of an account.
pub mod account {
    /// The next event shares this one's fate.
    pub const LINKED: u16 = 1;
    /// Pending and posted debits stay within posted credits.
    pub const DEBITS_MUST_NOT_EXCEED_CREDITS: u16 = 2;
    /// Pending and posted credits stay within posted debits.
    pub const CREDITS_MUST_NOT_EXCEED_DEBITS: u16 = 4;
    /// Balances can be queried.
    pub const HISTORY: u16 = 8;
    /// The timestamp is the user's.
    pub const IMPORTED: u16 = 16;
    /// No transfers but voids.
    pub const CLOSED: u16 = 32;
    /// The bits that no flag uses.
    pub const RESERVED: u16 = !63;
}

/// `flags` of a transfer.
pub mod transfer {
    /// The next event shares this one's fate.
    pub const LINKED: u16 = 1;
    /// Reserves the amount.
    pub const PENDING: u16 = 2;
    /// Posts a pending transfer.
    pub const POST: u16 = 4;
    /// Voids a pending transfer.
    pub const VOID: u16 = 8;
    /// At most what the debit account has.
    pub const BALANCING_DEBIT: u16 = 16;
    /// At most what the credit account has.
    pub const BALANCING_CREDIT: u16 = 32;
    /// Closes the debit account.
    pub const CLOSING_DEBIT: u16 = 64;
    /// Closes the credit account.
    pub const CLOSING_CREDIT: u16 = 128;
    /// The timestamp is the user's.
    pub const IMPORTED: u16 = 256;
    /// The bits that no flag uses.
    pub const RESERVED: u16 = !511;
}

/// `flags` of an account filter.
pub mod account_filter {
    /// Transfers that debit the account.
    pub const DEBITS: u32 = 1;
    /// Transfers that credit the account.
    pub const CREDITS: u32 = 2;
    /// The latest first.
    pub const REVERSED: u32 = 4;
    /// The bits that no flag uses.
    pub const RESERVED: u32 = !7;
}

/// `flags` of a query filter.
pub mod query_filter {
    /// The latest first.
    pub const REVERSED: u32 = 1;
    /// The bits that no flag uses.
    pub const RESERVED: u32 = !1;
}
