//! The history: what each transfer and each expiry left of the two accounts.
//!
//! The event of a transfer has the transfer's position. Expiries are a sequence of their own, since
//! an import may happen after an expiry and have an earlier timestamp; each sequence is in the order
//! of time, and whoever reads merges them.

use super::Ledger;
use super::account_table::Side;
use super::query::{Range, before, records};
use super::records::{Balances, EventRecord, ExpiryRecord};
use crate::constants::CHANGE_EVENTS_MAX;
use crate::grid::Grid;
use crate::io::Io;
use crate::stdx::u64_to_usize;
use crate::wire::types::transfer_flags as flags;
use crate::wire::{Account, ChangeEvent, ChangeEventKind, ChangeEventsFilter, Transfer};
use zerocopy::{FromBytes, IntoBytes};

/// Events that are read together.
const TOGETHER: u64 = if cfg!(madsim) { 16 } else { 512 };

/// An event with its balances, wherever they are stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) timestamp: u64,
    /// Position of the transfer.
    pub(super) transfer: u64,
    pub(super) debit_account: u32,
    pub(super) credit_account: u32,
    debit_flags: u16,
    credit_flags: u16,
    expired: bool,
    pub(super) debit: Balances,
    pub(super) credit: Balances,
}

impl Event {
    /// Leaves an account as it was after the event.
    pub(super) fn leave(&self, side: Side, account: &mut Account) {
        let (balances, flags) = match side {
            Side::Debit => (&self.debit, self.debit_flags),
            Side::Credit => (&self.credit, self.credit_flags),
        };
        account.debits_pending = balances.debits_pending;
        account.debits_posted = balances.debits_posted;
        account.credits_pending = balances.credits_pending;
        account.credits_posted = balances.credits_posted;
        account.flags = flags.into();
    }

    fn of_expiry(record: &ExpiryRecord) -> Self {
        Self {
            timestamp: record.timestamp.get(),
            transfer: record.transfer.get(),
            debit_account: record.debit_account.get(),
            credit_account: record.credit_account.get(),
            debit_flags: record.debit_flags.get(),
            credit_flags: record.credit_flags.get(),
            expired: true,
            debit: record.debit,
            credit: record.credit,
        }
    }

    fn of_transfer(transfer: u64, record: &EventRecord, balances: (Balances, Balances)) -> Self {
        Self {
            timestamp: record.timestamp.get(),
            transfer,
            debit_account: record.debit_account.get(),
            credit_account: record.credit_account.get(),
            debit_flags: record.debit_flags.get(),
            credit_flags: record.credit_flags.get(),
            expired: false,
            debit: balances.0,
            credit: balances.1,
        }
    }
}

fn kind_of(event: &Event, transfer: &Transfer) -> ChangeEventKind {
    let bits = transfer.flags.get();
    if event.expired {
        ChangeEventKind::TwoPhaseExpired
    } else if bits & flags::PENDING != 0 {
        ChangeEventKind::TwoPhasePending
    } else if bits & flags::POST_PENDING_TRANSFER != 0 {
        ChangeEventKind::TwoPhasePosted
    } else if bits & flags::VOID_PENDING_TRANSFER != 0 {
        ChangeEventKind::TwoPhaseVoided
    } else {
        ChangeEventKind::SinglePhase
    }
}

impl Ledger {
    /// The events of the transfers at positions.
    pub(super) async fn load_events<I: Io>(
        &self,
        positions: &[u64],
        grid: &mut Grid<'_, I>,
    ) -> Vec<Event> {
        let narrow = records(&self.events, positions, grid).await;
        let wide: Vec<u64> = narrow.iter().filter_map(EventRecord::wide).collect();
        let mut wide = records(&self.wide, &wide, grid).await.into_iter();
        let event = |(position, record): (&u64, &EventRecord)| {
            let balances = match record.wide() {
                Some(_) => wide.next().expect("it was asked for").balances(),
                None => record.balances(),
            };
            Event::of_transfer(*position, record, balances)
        };
        positions.iter().zip(&narrow).map(event).collect()
    }

    /// The expiries at positions.
    pub(super) async fn load_expiries<I: Io>(
        &self,
        positions: &[u64],
        grid: &mut Grid<'_, I>,
    ) -> Vec<Event> {
        let expiries = records(&self.expiries, positions, grid).await;
        expiries.iter().map(Event::of_expiry).collect()
    }

    pub(super) async fn change_events<I: Io>(
        &self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let filter = ChangeEventsFilter::ref_from_bytes(batch).expect("the body was found valid");
        let (min, max) = (filter.timestamp_min.get(), filter.timestamp_max.get());
        let range = Range::new(min, max, filter.limit.get(), CHANGE_EVENTS_MAX, false);
        let (true, Some(range)) = (filter.reserved == [0; 44], range) else {
            return;
        };
        let mut transfers = self.transfers_before(range.min, grid).await;
        let mut expiries = before(&self.expiries, range.min, grid).await;
        let mut left = range.limit;
        while left > 0 {
            let mut events = self.events_from(transfers, expiries, grid).await;
            events.truncate(left);
            events.retain(|event| event.timestamp <= range.max);
            if events.is_empty() {
                return;
            }
            for event in &events {
                if event.expired {
                    expiries += 1;
                } else {
                    transfers += 1;
                }
            }
            left -= events.len();
            for events in events.chunks(u64_to_usize(TOGETHER)) {
                self.write_events(events, grid, reply).await;
            }
        }
    }

    /// Some of the events from two positions on, in the order of time; none when there are no more.
    async fn events_from<I: Io>(
        &self,
        transfers: u64,
        expiries: u64,
        grid: &mut Grid<'_, I>,
    ) -> Vec<Event> {
        let transfers_end = self.events.len().min(transfers + TOGETHER);
        let positions: Vec<u64> = (transfers..transfers_end).collect();
        let mut of_transfers = self.load_events(&positions, grid).await;
        let expiries_end = self.expiries.len().min(expiries + TOGETHER);
        let positions: Vec<u64> = (expiries..expiries_end).collect();
        let of_expiries = self.load_expiries(&positions, grid).await;
        // What may come after an event that was not read yet waits for the next time.
        let last_transfer = of_transfers
            .last()
            .filter(|_| transfers_end < self.events.len());
        let last_expiry = of_expiries
            .last()
            .filter(|_| expiries_end < self.expiries.len());
        let horizon = [last_transfer, last_expiry]
            .into_iter()
            .flatten()
            .map(|event| event.timestamp)
            .min();
        of_transfers.extend(of_expiries);
        of_transfers.retain(|event| horizon.is_none_or(|horizon| event.timestamp <= horizon));
        of_transfers.sort_by_key(|event| event.timestamp);
        of_transfers
    }

    /// Appends events as clients see them, no more than [`TOGETHER`].
    async fn write_events<I: Io>(
        &self,
        events: &[Event],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let sides = |event: &Event| [event.debit_account.into(), event.credit_account.into()];
        let positions: Vec<u64> = events.iter().flat_map(sides).collect();
        let accounts = records(&self.accounts.created, &positions, grid).await;
        let positions: Vec<u64> = events.iter().map(|event| event.transfer).collect();
        let transfers = records(&self.transfers, &positions, grid).await;
        let accounts = accounts.as_chunks().0;
        for ((event, transfer), accounts) in events.iter().zip(&transfers).zip(accounts) {
            reply.extend_from_slice(change_event(event, transfer, accounts).as_bytes());
        }
    }
}

/// An event as clients see it.
fn change_event(event: &Event, transfer: &Transfer, accounts: &[Account; 2]) -> ChangeEvent {
    let [debit, credit] = accounts;
    ChangeEvent {
        transfer_id: transfer.id,
        transfer_amount: transfer.amount,
        transfer_pending_id: transfer.pending_id,
        transfer_user_data_128: transfer.user_data_128,
        transfer_user_data_64: transfer.user_data_64,
        transfer_user_data_32: transfer.user_data_32,
        transfer_timeout: transfer.timeout,
        transfer_code: transfer.code,
        transfer_flags: transfer.flags,
        ledger: transfer.ledger,
        kind: kind_of(event, transfer).code(),
        reserved: [0; 39],
        debit_account_id: debit.id,
        debit_account_debits_pending: event.debit.debits_pending,
        debit_account_debits_posted: event.debit.debits_posted,
        debit_account_credits_pending: event.debit.credits_pending,
        debit_account_credits_posted: event.debit.credits_posted,
        debit_account_user_data_128: debit.user_data_128,
        debit_account_user_data_64: debit.user_data_64,
        debit_account_user_data_32: debit.user_data_32,
        debit_account_code: debit.code,
        debit_account_flags: event.debit_flags.into(),
        credit_account_id: credit.id,
        credit_account_debits_pending: event.credit.debits_pending,
        credit_account_debits_posted: event.credit.debits_posted,
        credit_account_credits_pending: event.credit.credits_pending,
        credit_account_credits_posted: event.credit.credits_posted,
        credit_account_user_data_128: credit.user_data_128,
        credit_account_user_data_64: credit.user_data_64,
        credit_account_user_data_32: credit.user_data_32,
        credit_account_code: credit.code,
        credit_account_flags: event.credit_flags.into(),
        timestamp: event.timestamp.into(),
        transfer_timestamp: transfer.timestamp,
        debit_account_timestamp: debit.timestamp,
        credit_account_timestamp: credit.timestamp,
    }
}
