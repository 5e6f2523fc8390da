//! The queries: what a filter selects, in the order of time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::batch::{Kind, Op};
use super::flags::{account as account_flag, account_filter, query_filter};
use super::layout::{
    Account, AccountBalance, AccountFilter, ChangeEventsFilter, Layout, QueryFilter, Transfer,
};
use super::{Model, TIMESTAMP_MAX};

impl Model {
    /// Appends what the filter selects: nothing, when the filter is invalid.
    pub(super) fn query(&self, op: Op, filter: &[u8], out: &mut Vec<u8>) {
        match op.kind {
            Kind::GetAccountTransfers => {
                for transfer in self.account_transfers(op, &AccountFilter::decode(filter)) {
                    transfer.encode(out);
                }
            }
            Kind::GetAccountBalances => {
                self.account_balances(op, &AccountFilter::decode(filter), out);
            }
            Kind::QueryAccounts => {
                let filter = QueryFilter::decode(filter);
                for account in generic(op, &filter, &self.accounts, |a| account_matches(&filter, a))
                {
                    account.encode(out);
                }
            }
            Kind::QueryTransfers => {
                let filter = QueryFilter::decode(filter);
                for transfer in generic(op, &filter, &self.transfers, |t| {
                    transfer_matches(&filter, t)
                }) {
                    transfer.encode(out);
                }
            }
            Kind::GetChangeEvents => {
                let f = ChangeEventsFilter::decode(filter);
                let valid = f.reserved == [0; 44];
                let Some(range) = time_range(f.timestamp_min, f.timestamp_max, f.limit, valid)
                else {
                    return;
                };
                let keys = (*range.start(), false)..=(*range.end(), true);
                for (_, event) in self.events.range(keys).take(limit(op, f.limit)) {
                    event.encode(out);
                }
            }
            Kind::CreateAccounts
            | Kind::CreateTransfers
            | Kind::LookupAccounts
            | Kind::LookupTransfers => unreachable!("no query"),
        }
    }

    fn account_transfers(&self, op: Op, f: &AccountFilter) -> Vec<&Transfer> {
        let sides = f.flags & (account_filter::DEBITS | account_filter::CREDITS);
        let valid = f.reserved == [0; 58]
            && f.flags & account_filter::RESERVED == 0
            && sides != 0
            && f.account_id != 0
            && f.account_id != u128::MAX;
        let Some(range) = time_range(f.timestamp_min, f.timestamp_max, f.limit, valid) else {
            return Vec::new();
        };
        let reversed = f.flags & account_filter::REVERSED != 0;
        scan(&self.transfers, range, reversed, limit(op, f.limit), |t| {
            let debits = t.debit_account_id == f.account_id;
            let credits = t.credit_account_id == f.account_id;
            (debits && sides & account_filter::DEBITS != 0
                || credits && sides & account_filter::CREDITS != 0)
                && (f.user_data_128 == 0 || f.user_data_128 == t.user_data_128)
                && (f.user_data_64 == 0 || f.user_data_64 == t.user_data_64)
                && (f.user_data_32 == 0 || f.user_data_32 == t.user_data_32)
                && (f.code == 0 || f.code == t.code)
        })
    }

    fn account_balances(&self, op: Op, filter: &AccountFilter, out: &mut Vec<u8>) {
        let account = self.account(filter.account_id);
        if account.is_none_or(|account| account.flags & account_flag::HISTORY == 0) {
            return;
        }
        for transfer in self.account_transfers(op, filter) {
            let e = &self.events[&(transfer.timestamp, false)];
            let debits = e.debit_account_id == filter.account_id;
            let pick = |debit: u128, credit: u128| if debits { debit } else { credit };
            AccountBalance {
                debits_pending: pick(
                    e.debit_account_debits_pending,
                    e.credit_account_debits_pending,
                ),
                debits_posted: pick(
                    e.debit_account_debits_posted,
                    e.credit_account_debits_posted,
                ),
                credits_pending: pick(
                    e.debit_account_credits_pending,
                    e.credit_account_credits_pending,
                ),
                credits_posted: pick(
                    e.debit_account_credits_posted,
                    e.credit_account_credits_posted,
                ),
                timestamp: transfer.timestamp,
                reserved: [0; 56],
            }
            .encode(out);
        }
    }
}

fn account_matches(f: &QueryFilter, a: &Account) -> bool {
    (f.user_data_128 == 0 || f.user_data_128 == a.user_data_128)
        && (f.user_data_64 == 0 || f.user_data_64 == a.user_data_64)
        && (f.user_data_32 == 0 || f.user_data_32 == a.user_data_32)
        && (f.ledger == 0 || f.ledger == a.ledger)
        && (f.code == 0 || f.code == a.code)
}

fn transfer_matches(f: &QueryFilter, t: &Transfer) -> bool {
    (f.user_data_128 == 0 || f.user_data_128 == t.user_data_128)
        && (f.user_data_64 == 0 || f.user_data_64 == t.user_data_64)
        && (f.user_data_32 == 0 || f.user_data_32 == t.user_data_32)
        && (f.ledger == 0 || f.ledger == t.ledger)
        && (f.code == 0 || f.code == t.code)
}

fn generic<'a, T>(
    op: Op,
    f: &QueryFilter,
    objects: &'a BTreeMap<u64, T>,
    matches: impl Fn(&T) -> bool,
) -> Vec<&'a T> {
    let valid = f.reserved == [0; 6] && f.flags & query_filter::RESERVED == 0;
    match time_range(f.timestamp_min, f.timestamp_max, f.limit, valid) {
        Some(range) => {
            let reversed = f.flags & query_filter::REVERSED != 0;
            scan(objects, range, reversed, limit(op, f.limit), matches)
        }
        None => Vec::new(),
    }
}

fn limit(op: Op, asked: u32) -> usize {
    usize::try_from(asked).expect("64 bits").min(op.limit_max())
}

/// The timestamps that are meant; `None` when the filter is invalid.
fn time_range(min: u64, max: u64, limit: u32, valid: bool) -> Option<RangeInclusive<u64>> {
    let bounds = min <= TIMESTAMP_MAX && max <= TIMESTAMP_MAX && (max == 0 || min <= max);
    (valid && bounds && limit != 0)
        .then_some(min.max(1)..=if max == 0 { TIMESTAMP_MAX } else { max })
}

fn scan<T>(
    objects: &BTreeMap<u64, T>,
    range: RangeInclusive<u64>,
    reversed: bool,
    limit: usize,
    matches: impl Fn(&T) -> bool,
) -> Vec<&T> {
    let found = objects.range(range).map(|(_, object)| object);
    if reversed {
        found
            .rev()
            .filter(|object| matches(object))
            .take(limit)
            .collect()
    } else {
        found.filter(|object| matches(object)).take(limit).collect()
    }
}
