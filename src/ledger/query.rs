//! Queries: by account, by fields, by time. All bounds are inclusive; an invalid filter finds nothing.

use super::Ledger;
use super::index::{Fields, account_fields, transfer_fields};
use crate::constants::{BATCH_EVENTS_MAX, CHANGE_EVENTS_MAX, TIMESTAMP_MAX};
use crate::lsm::{Record, RecordTable, Tree};
use crate::stdx::to_usize;
use crate::wire::types::{account_filter_flags, account_flags, query_filter_flags};
use crate::wire::{AccountBalance, AccountFilter, ChangeEventsFilter, QueryFilter, Transfer};
use std::ops::RangeInclusive;
use zerocopy::{FromBytes, IntoBytes};

/// The times that a filter names, and how it wants the results.
#[derive(Clone, Copy)]
struct Range {
    min: u64,
    max: u64,
    reversed: bool,
    limit: usize,
}

impl Range {
    fn new(min: u64, max: u64, limit: u32, limit_max: u32, reversed: bool) -> Option<Self> {
        let valid = min <= TIMESTAMP_MAX && max <= TIMESTAMP_MAX && (max == 0 || min <= max);
        if !valid || limit == 0 {
            return None;
        }
        let max = if max == 0 { TIMESTAMP_MAX } else { max };
        Some(Self {
            min,
            max,
            reversed,
            limit: to_usize(limit.min(limit_max)),
        })
    }
}

/// Positions of the records of those times; `None` when there is none.
fn positions<T: Record>(
    range: &Range,
    table: &RecordTable<T>,
    timestamp_of: impl Fn(&T) -> u64,
) -> Option<RangeInclusive<u32>> {
    let low = table.partition_point(|record| timestamp_of(record) < range.min);
    let end = table.partition_point(|record| timestamp_of(record) <= range.max);
    (low < end).then(|| low..=end - 1)
}

/// Calls `visit` with the positions within bounds that may hold what is wanted, in the order that
/// the range asks for, until it says that enough is found; `asked` are the trees to choose from.
fn walk<'a>(
    asked: impl Iterator<Item = (&'a Tree, u32)>,
    bounds: RangeInclusive<u32>,
    reversed: bool,
    mut visit: impl FnMut(u32) -> bool,
) {
    match asked.min_by_key(|(tree, key)| tree.count(*key, &bounds)) {
        Some((tree, key)) => tree.walk(key, &bounds, reversed, visit),
        None if reversed => {
            let _ = bounds.rev().all(&mut visit);
        }
        None => {
            let _ = { bounds }.all(&mut visit);
        }
    }
}

/// Whether the fields are those asked for; zero asks for nothing.
fn matches(wanted: &Fields, found: &Fields) -> bool {
    (wanted.user_data_128 == 0 || wanted.user_data_128 == found.user_data_128)
        && (wanted.user_data_64 == 0 || wanted.user_data_64 == found.user_data_64)
        && (wanted.user_data_32 == 0 || wanted.user_data_32 == found.user_data_32)
        && (wanted.ledger == 0 || wanted.ledger == found.ledger)
        && (wanted.code == 0 || wanted.code == found.code)
}

fn query_fields(filter: &QueryFilter) -> Fields {
    Fields {
        user_data_128: filter.user_data_128.get(),
        user_data_64: filter.user_data_64.get(),
        user_data_32: filter.user_data_32.get(),
        ledger: filter.ledger.get(),
        code: filter.code.get(),
    }
}

fn query_range(filter: &QueryFilter) -> Option<Range> {
    let flags = filter.flags.get();
    if filter.reserved != [0; 6] || flags & !query_filter_flags::DEFINED != 0 {
        return None;
    }
    let reversed = flags & query_filter_flags::REVERSED != 0;
    let (min, max) = (filter.timestamp_min.get(), filter.timestamp_max.get());
    Range::new(min, max, filter.limit.get(), BATCH_EVENTS_MAX, reversed)
}

impl Ledger {
    pub(super) fn query_accounts(&self, batch: &[u8], reply: &mut Vec<u8>) {
        let filter = QueryFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(range) = query_range(filter) else {
            return;
        };
        let wanted = query_fields(filter);
        let mut found = 0;
        let Some(bounds) = positions(&range, &self.accounts, |account| account.timestamp.get())
        else {
            return;
        };
        walk(
            self.indexes.of_accounts(&wanted),
            bounds,
            range.reversed,
            |position| {
                let account = self.accounts.get(position);
                if matches(&wanted, &account_fields(account)) {
                    reply.extend_from_slice(account.as_bytes());
                    found += 1;
                }
                found < range.limit
            },
        );
    }

    pub(super) fn query_transfers(&self, batch: &[u8], reply: &mut Vec<u8>) {
        let filter = QueryFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(range) = query_range(filter) else {
            return;
        };
        let wanted = query_fields(filter);
        let mut found = 0;
        let Some(bounds) = positions(&range, &self.transfers, |transfer| transfer.timestamp.get())
        else {
            return;
        };
        walk(
            self.indexes.of_transfers(&wanted),
            bounds,
            range.reversed,
            |position| {
                let transfer = self.transfers.get(position);
                if matches(&wanted, &transfer_fields(transfer)) {
                    reply.extend_from_slice(transfer.as_bytes());
                    found += 1;
                }
                found < range.limit
            },
        );
    }

    /// Calls `found_one` with the transfers of an account that a filter asks for.
    fn walk_account(&self, filter: &AccountFilter, mut found_one: impl FnMut(u32, &Transfer)) {
        let flags = filter.flags.get();
        let debits = flags & account_filter_flags::DEBITS != 0;
        let credits = flags & account_filter_flags::CREDITS != 0;
        let id = filter.account_id.get();
        let valid = filter.reserved == [0; 58]
            && flags & !account_filter_flags::DEFINED == 0
            && (debits || credits)
            && id != 0
            && id != u128::MAX;
        let reversed = flags & account_filter_flags::REVERSED != 0;
        let (min, max) = (filter.timestamp_min.get(), filter.timestamp_max.get());
        let range = Range::new(min, max, filter.limit.get(), BATCH_EVENTS_MAX, reversed);
        let (true, Some(range)) = (valid, range) else {
            return;
        };
        let wanted = Fields {
            user_data_128: filter.user_data_128.get(),
            user_data_64: filter.user_data_64.get(),
            user_data_32: filter.user_data_32.get(),
            ledger: 0,
            code: filter.code.get(),
        };
        let mut found = 0;
        let Some(bounds) = positions(&range, &self.transfers, |transfer| transfer.timestamp.get())
        else {
            return;
        };
        let visit = |position| {
            let transfer = self.transfers.get(position);
            let side = debits && transfer.debit_account_id.get() == id
                || credits && transfer.credit_account_id.get() == id;
            if side && matches(&wanted, &transfer_fields(transfer)) {
                found_one(position, transfer);
                found += 1;
            }
            found < range.limit
        };
        let (tree, key) = self.indexes.of_account(id);
        tree.walk(key, &bounds, range.reversed, visit);
    }

    pub(super) fn account_transfers(&self, batch: &[u8], reply: &mut Vec<u8>) {
        let filter = AccountFilter::ref_from_bytes(batch).expect("the body was found valid");
        self.walk_account(filter, |_, transfer| {
            reply.extend_from_slice(transfer.as_bytes())
        });
    }

    pub(super) fn account_balances(&self, batch: &[u8], reply: &mut Vec<u8>) {
        let filter = AccountFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(position) = self.find_account(filter.account_id.get()) else {
            return;
        };
        if self.accounts.get(position).flags.get() & account_flags::HISTORY == 0 {
            return;
        }
        self.walk_account(filter, |transfer_at, transfer| {
            let event = self.event_of(transfer_at);
            let debit_side = event.debit_account.get() == position;
            let balances = if debit_side {
                event.debit
            } else {
                event.credit
            };
            let balance = AccountBalance {
                debits_pending: balances.debits_pending,
                debits_posted: balances.debits_posted,
                credits_pending: balances.credits_pending,
                credits_posted: balances.credits_posted,
                timestamp: transfer.timestamp,
                reserved: [0; 56],
            };
            reply.extend_from_slice(balance.as_bytes());
        });
    }

    pub(super) fn change_events(&self, batch: &[u8], reply: &mut Vec<u8>) {
        let filter = ChangeEventsFilter::ref_from_bytes(batch).expect("the body was found valid");
        let (min, max) = (filter.timestamp_min.get(), filter.timestamp_max.get());
        let range = Range::new(min, max, filter.limit.get(), CHANGE_EVENTS_MAX, false);
        let (true, Some(range)) = (filter.reserved == [0; 44], range) else {
            return;
        };
        for event in self.events_from(range.min).take(range.limit) {
            if event.timestamp.get() > range.max {
                return;
            }
            reply.extend_from_slice(self.change_event(event).as_bytes());
        }
    }
}
