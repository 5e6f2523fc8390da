//! Which combinations of fields the queries of a run named that found something.

use crate::model::batch::{self, Kind, Op};
use crate::model::layout::{AccountFilter, Layout, QueryFilter};

/// Combinations that there are: 32 of each query by fields, 16 of each query by account.
pub const ALL: u32 = 2 * 32 + 2 * 16;

/// A set of combinations, one bit each, of the queries in a request that found something.
#[must_use]
pub fn of_request(operation: u8, body: &[u8], reply: &[u8]) -> u128 {
    let Some(op) = Op::from_code(operation) else {
        return 0;
    };
    let first = match op.kind {
        Kind::QueryAccounts => 0,
        Kind::QueryTransfers => 32,
        Kind::GetAccountTransfers => 64,
        Kind::GetAccountBalances => 80,
        Kind::CreateAccounts
        | Kind::CreateTransfers
        | Kind::LookupAccounts
        | Kind::LookupTransfers
        | Kind::GetChangeEvents => return 0,
    };
    let cut = |size, bytes| {
        if op.multi_batch {
            batch::decode(size, bytes)
        } else {
            Some(vec![bytes])
        }
    };
    let filters = cut(op.event_size(), body).unwrap_or_default();
    let replies = cut(op.result_size(), reply).unwrap_or_default();
    let found = filters.into_iter().zip(replies);
    let found = found.filter(|(filter, reply)| !filter.is_empty() && !reply.is_empty());
    found.fold(0, |set, (filter, _)| {
        set | 1 << (first + subset(op, filter))
    })
}

/// The number of the subset of fields that a filter names.
#[must_use]
pub fn subset(op: Op, filter: &[u8]) -> u32 {
    let named = if matches!(op.kind, Kind::QueryAccounts | Kind::QueryTransfers) {
        let filter = QueryFilter::decode(filter);
        [
            filter.user_data_128 != 0,
            filter.user_data_64 != 0,
            filter.user_data_32 != 0,
            filter.code != 0,
            filter.ledger != 0,
        ]
    } else {
        let filter = AccountFilter::decode(filter);
        [
            filter.user_data_128 != 0,
            filter.user_data_64 != 0,
            filter.user_data_32 != 0,
            filter.code != 0,
            false,
        ]
    };
    let bits = (0..).zip(named).map(|(bit, named)| u32::from(named) << bit);
    bits.sum()
}
