//! Queries: by account, by fields, by time. All bounds are inclusive; an invalid filter finds nothing.

use super::Ledger;
use super::fetch::TOGETHER;
use super::index::{Fields, account_fields, transfer_fields};
use super::scan::Scan;
use crate::constants::{BATCH_EVENTS_MAX, TIMESTAMP_MAX};
use crate::grid::Grid;
use crate::io::Io;
use crate::lsm::{LogTable, Ranked, Record};
use crate::stdx::to_usize;
use crate::wire::types::{account_filter_flags, account_flags, query_filter_flags};
use crate::wire::{AccountBalance, AccountFilter, QueryFilter, Transfer};
use std::ops::RangeInclusive;
use zerocopy::{FromBytes, IntoBytes};

/// The times that a filter names, and how it wants the results.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) min: u64,
    pub(super) max: u64,
    reversed: bool,
    pub(super) limit: usize,
}

impl Range {
    pub(super) fn new(
        min: u64,
        max: u64,
        limit: u32,
        limit_max: u32,
        reversed: bool,
    ) -> Option<Self> {
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

/// What an account filter asks for, once it was found valid.
struct AccountQuery {
    id: u128,
    debits: bool,
    credits: bool,
    range: Range,
    fields: Fields,
}

impl AccountQuery {
    fn new(filter: &AccountFilter) -> Option<Self> {
        let flags = filter.flags.get();
        let debits = flags & account_filter_flags::DEBITS != 0;
        let credits = flags & account_filter_flags::CREDITS != 0;
        let id = filter.account_id.get();
        let valid = filter.reserved == [0; 58]
            && flags & !account_filter_flags::DEFINED == 0
            && (debits || credits)
            && id != 0
            && id != u128::MAX;
        if !valid {
            return None;
        }
        let reversed = flags & account_filter_flags::REVERSED != 0;
        let (min, max) = (filter.timestamp_min.get(), filter.timestamp_max.get());
        let range = Range::new(min, max, filter.limit.get(), BATCH_EVENTS_MAX, reversed)?;
        Some(Self {
            id,
            debits,
            credits,
            range,
            fields: Fields {
                user_data_128: filter.user_data_128.get(),
                user_data_64: filter.user_data_64.get(),
                user_data_32: filter.user_data_32.get(),
                ledger: 0,
                code: filter.code.get(),
            },
        })
    }

    fn accepts(&self, transfer: &Transfer) -> bool {
        let side = self.debits && transfer.debit_account_id.get() == self.id
            || self.credits && transfer.credit_account_id.get() == self.id;
        side && matches(&self.fields, &transfer_fields(transfer))
    }
}

impl Ledger {
    /// Positions of the transfers of those times; `None` when there is none.
    async fn transfer_positions<I: Io>(
        &self,
        range: &Range,
        grid: &mut Grid<'_, I>,
    ) -> Option<RangeInclusive<u64>> {
        let low = self.transfers_before(range.min, grid).await;
        let end = self.transfers_before(range.max + 1, grid).await;
        (low < end).then(|| low..=end - 1)
    }

    pub(super) async fn query_accounts<I: Io>(
        &self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let filter = QueryFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(range) = query_range(filter) else {
            return;
        };
        let wanted = query_fields(filter);
        let created = &self.accounts.created;
        let low = before(created, range.min, grid).await;
        let end = before(created, range.max + 1, grid).await;
        if low == end {
            return;
        }
        let asked = self.indexes.of_accounts(&wanted);
        let mut scan = Scan::new(asked, low..=end - 1, range.reversed, grid).await;
        let mut left = range.limit;
        while left > 0 {
            let positions = scan.next_window(left, grid).await;
            if positions.is_empty() {
                return;
            }
            for positions in positions.chunks(TOGETHER) {
                let accounts = records(created, positions, grid).await;
                let accepted = positions.iter().zip(&accounts);
                let accepted =
                    accepted.filter(|(_, account)| matches(&wanted, &account_fields(account)));
                let accepted: Vec<u64> = accepted.map(|(at, _)| *at).take(left).collect();
                let accounts = self.load_accounts(&accepted, grid).await;
                reply.extend_from_slice(accounts.as_bytes());
                left -= accounts.len();
            }
        }
    }

    pub(super) async fn query_transfers<I: Io>(
        &self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let filter = QueryFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(range) = query_range(filter) else {
            return;
        };
        let wanted = query_fields(filter);
        let Some(bounds) = self.transfer_positions(&range, grid).await else {
            return;
        };
        let asked = self.indexes.of_transfers(&wanted);
        let mut scan = Scan::new(asked, bounds, range.reversed, grid).await;
        let accepts = |transfer: &Transfer| matches(&wanted, &transfer_fields(transfer));
        self.write_transfers((&mut scan, range.limit), accepts, grid, reply)
            .await;
    }

    /// Appends the transfers of a scan that are accepted, up to a limit.
    async fn write_transfers<I: Io>(
        &self,
        (scan, limit): (&mut Scan<'_>, usize),
        accepts: impl Fn(&Transfer) -> bool,
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let mut left = limit;
        while left > 0 {
            let positions = scan.next_window(left, grid).await;
            if positions.is_empty() {
                return;
            }
            for transfer in records(&self.transfers, &positions, grid).await {
                if left > 0 && accepts(&transfer) {
                    reply.extend_from_slice(transfer.as_bytes());
                    left -= 1;
                }
            }
        }
    }

    /// A scan of the transfers of an account.
    async fn scan_account<'t, I: Io>(
        &'t self,
        query: &AccountQuery,
        grid: &mut Grid<'_, I>,
    ) -> Option<Scan<'t>> {
        let bounds = self.transfer_positions(&query.range, grid).await?;
        let asked = self.indexes.of_account(query.id, &query.fields);
        Some(Scan::new(asked, bounds, query.range.reversed, grid).await)
    }

    pub(super) async fn account_transfers<I: Io>(
        &self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let filter = AccountFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(query) = AccountQuery::new(filter) else {
            return;
        };
        let Some(mut scan) = self.scan_account(&query, grid).await else {
            return;
        };
        let accepts = |transfer: &Transfer| query.accepts(transfer);
        self.write_transfers((&mut scan, query.range.limit), accepts, grid, reply)
            .await;
    }

    pub(super) async fn account_balances<I: Io>(
        &mut self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let filter = AccountFilter::ref_from_bytes(batch).expect("the body was found valid");
        let Some(query) = AccountQuery::new(filter) else {
            return;
        };
        self.accounts.cache.begin();
        self.fetch_accounts(std::iter::once(query.id), grid).await;
        let Some(slot) = self.find_account(query.id) else {
            return;
        };
        if self.accounts.cache.get(slot).flags.get() & account_flags::HISTORY == 0 {
            return;
        }
        let account = self.accounts.cache.position(slot);
        let Some(mut scan) = self.scan_account(&query, grid).await else {
            return;
        };
        let mut left = query.range.limit;
        while left > 0 {
            let mut positions = scan.next_window(left, grid).await;
            if positions.is_empty() {
                return;
            }
            if query.fields != Fields::default() {
                let transfers = records(&self.transfers, &positions, grid).await;
                let accepted = positions.iter().zip(&transfers);
                let accepted = accepted.filter(|(_, transfer)| query.accepts(transfer));
                positions = accepted.map(|(at, _)| *at).collect();
            }
            for event in self.load_events(&positions, grid).await {
                let debit = query.debits && event.debit_account == account;
                let credit = query.credits && event.credit_account == account;
                if left == 0 || !debit && !credit {
                    continue;
                }
                let balances = if debit { event.debit } else { event.credit };
                let balance = AccountBalance {
                    debits_pending: balances.debits_pending,
                    debits_posted: balances.debits_posted,
                    credits_pending: balances.credits_pending,
                    credits_posted: balances.credits_posted,
                    timestamp: event.timestamp.into(),
                    reserved: [0; 56],
                };
                reply.extend_from_slice(balance.as_bytes());
                left -= 1;
            }
        }
    }
}

/// The records at positions. All pages that are missing are asked for before the first is waited for.
pub(super) async fn records<T: Record + Ranked, I: Io>(
    table: &LogTable<T>,
    positions: &[u64],
    grid: &mut Grid<'_, I>,
) -> Vec<T> {
    let mut records = Vec::with_capacity(positions.len());
    grid.cache.begin();
    loop {
        records.clear();
        let here = |position: &u64| table.get(&grid.cache, *position).copied();
        records.extend(positions.iter().filter_map(here));
        if !grid.cache.has_missing() {
            return records;
        }
        grid.load_missing().await;
    }
}

/// The number of records before a time.
pub(super) async fn before<T: Record + Ranked, I: Io>(
    table: &LogTable<T>,
    timestamp: u64,
    grid: &mut Grid<'_, I>,
) -> u64 {
    grid.cache.begin();
    loop {
        if let Some(count) = table.lower_bound(&grid.cache, timestamp) {
            return count;
        }
        grid.load_missing().await;
    }
}
