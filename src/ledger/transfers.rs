//! `create_transfers` and `lookup_transfers`.

use super::Ledger;
use super::chain::{Batch, EventFacts, Outcome, Statuses, TransferUndo};
use super::effect::Effect;
use super::exists::transfer_exists;
use super::expiry::expires_at;
use super::fetch::{FAILED, TOGETHER};
use super::records::{EventRecord, FailedRecord};
use crate::constants;
use crate::grid::Grid;
use crate::io::Io;
use crate::wire::types::{account_flags, transfer_flags as flags};
use crate::wire::{Account, CreateTransferStatus as Status, Operation, Transfer};

const STATUSES: Statuses = Statuses {
    created: Status::Created.code(),
    linked_event_failed: Status::LinkedEventFailed.code(),
    linked_event_chain_open: Status::LinkedEventChainOpen.code(),
    imported_event_expected: Status::ImportedEventExpected.code(),
    imported_event_not_expected: Status::ImportedEventNotExpected.code(),
    imported_out_of_range: Status::ImportedEventTimestampOutOfRange.code(),
    imported_must_not_advance: Status::ImportedEventTimestampMustNotAdvance.code(),
    timestamp_must_be_zero: Status::TimestampMustBeZero.code(),
};

/// Whether a failure depends on the moment, so that the id must not succeed later.
fn burns_id(status: Status) -> bool {
    matches!(
        status,
        Status::DebitAccountNotFound
            | Status::CreditAccountNotFound
            | Status::PendingTransferNotFound
            | Status::ExceedsCredits
            | Status::ExceedsDebits
            | Status::DebitAccountAlreadyClosed
            | Status::CreditAccountAlreadyClosed
    )
}

/// Events that are executed together: what they need is read ahead, all at the same time, and is still in
/// the processor's nearest cache when it is used.
const GROUP: usize = 16;

/// Slots of the accounts of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub(super) debit: Option<u32>,
    pub(super) credit: Option<u32>,
}

impl Ledger {
    /// Fetches what some of the events need, executes them, and goes on with the next.
    pub(super) async fn create_transfers<I: Io>(
        &mut self,
        (operation, timestamp): (Operation, u64),
        events: &[Transfer],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        reply.reserve(events.len() * 16 + 256);
        self.fetched.clear();
        self.accounts.cache.begin();
        let mut batch = Batch::new(STATUSES, operation, timestamp, events.len(), reply);
        // Of the whole batch: many ids in order share what they read of the filters.
        self.fetch_ids(events.iter().map(|event| event.id.get()), grid)
            .await;
        let mut located = Vec::with_capacity(TOGETHER);
        for (first, events) in (0..).step_by(TOGETHER).zip(events.chunks(TOGETHER)) {
            self.fetch_for_transfers(events, &mut located, grid).await;
            let groups = events.chunks(GROUP).zip(located.chunks_mut(GROUP));
            for (first, (events, located)) in (first..).step_by(GROUP).zip(groups) {
                if !self.confirm(events, located) {
                    self.fetch_accounts_of(events, located, grid).await;
                }
                self.execute_transfers((&mut batch, first), events, located, reply);
            }
        }
        batch.finish(reply);
    }

    /// Executes events of a batch from an index on; all that they need was fetched.
    fn execute_transfers(
        &mut self,
        (batch, first): (&mut Batch, usize),
        events: &[Transfer],
        located: &[Located],
        reply: &mut Vec<u8>,
    ) {
        for (index, (event, at)) in (first..).zip(events.iter().zip(located)) {
            let facts = EventFacts {
                linked: event.flags.get() & flags::LINKED != 0,
                imported: event.flags.get() & flags::IMPORTED != 0,
                timestamp: event.timestamp.get(),
            };
            let event_timestamp = batch.timestamp_of(index);
            let mut burnt = false;
            let outcome = match batch.begin(self, index, facts) {
                Some(status) => Outcome {
                    status,
                    timestamp: event_timestamp,
                },
                None => {
                    let (status, timestamp) = self.create_transfer(event, at, event_timestamp);
                    burnt = burns_id(status);
                    Outcome {
                        status: status.code(),
                        timestamp,
                    }
                }
            };
            batch.end(self, facts, outcome, reply);
            if burnt {
                // After the roll-back of a chain, which keeps burnt ids burnt.
                let position = self.failed.push(&FailedRecord { id: event.id });
                self.indexes.ids.push(event.id.get(), FAILED | position);
            }
        }
    }

    /// Finds the accounts of events in the cache, as far as its index tells: what is not there is `None`,
    /// and what is may be another account. They stay where they are during the batch.
    pub(super) fn locate(&mut self, events: &[Transfer], located: &mut Vec<Located>) {
        let cache = &mut self.accounts.cache;
        located.clear();
        located.extend(events.iter().map(|event| Located {
            debit: cache.keep_candidate(event.debit_account_id.get()),
            credit: cache.keep_candidate(event.credit_account_id.get()),
        }));
    }

    /// Reads the accounts of events, so that none is waited for before the next one is asked for. Gives
    /// whether what was located are their accounts; what is not is `None` then.
    fn confirm(&self, events: &[Transfer], located: &mut [Located]) -> bool {
        let cache = &self.accounts.cache;
        let mut right = true;
        let mut confirm = |slot: &mut Option<u32>, id: u128| {
            if slot.is_some_and(|at| cache.id(at) != id) {
                *slot = None;
                right = false;
            }
        };
        for (event, located) in events.iter().zip(located) {
            confirm(&mut located.debit, event.debit_account_id.get());
            confirm(&mut located.credit, event.credit_account_id.get());
        }
        right
    }

    fn create_transfer(
        &mut self,
        event: &Transfer,
        located: &Located,
        event_timestamp: u64,
    ) -> (Status, u64) {
        let id = event.id.get();
        let bits = event.flags.get();
        if bits & !flags::DEFINED != 0 {
            return (Status::ReservedFlag, event_timestamp);
        }
        if id == 0 {
            return (Status::IdMustNotBeZero, event_timestamp);
        }
        if id == u128::MAX {
            return (Status::IdMustNotBeIntMax, event_timestamp);
        }
        if let Some(value) = self.find_id(id) {
            if value & FAILED != 0 {
                return (Status::IdAlreadyFailed, event_timestamp);
            }
            let existing = self.transfer(value);
            let pending = self.find_transfer(event.pending_id.get());
            let pending = pending.map(|position| self.transfer(position));
            let status = transfer_exists(event, existing, pending);
            if status == Status::Exists {
                return (status, existing.timestamp.get());
            }
            return (status, event_timestamp);
        }
        let resolves = bits & (flags::POST_PENDING_TRANSFER | flags::VOID_PENDING_TRANSFER) != 0;
        let stored = if resolves {
            self.resolve(event, event_timestamp)
        } else {
            self.store(event, located, event_timestamp)
        };
        match stored {
            Ok(timestamp) => (Status::Created, timestamp),
            Err(status) => (status, event_timestamp),
        }
    }

    /// Checks and stores a transfer that resolves none; gives its timestamp.
    fn store(
        &mut self,
        event: &Transfer,
        located: &Located,
        event_timestamp: u64,
    ) -> Result<u64, Status> {
        let mut transfer = *event;
        let effect = self.check_transfer(&mut transfer, located, event_timestamp)?;
        self.accept(&transfer, &effect, None);
        Ok(transfer.timestamp.get())
    }

    /// Completes a transfer with its amount and timestamp.
    #[inline]
    fn check_transfer(
        &self,
        transfer: &mut Transfer,
        located: &Located,
        event_timestamp: u64,
    ) -> Result<Effect, Status> {
        check_fields(transfer)?;
        let debit_at = located.debit.ok_or(Status::DebitAccountNotFound)?;
        let credit_at = located.credit.ok_or(Status::CreditAccountNotFound)?;
        let debit = self.accounts.cache.get(debit_at);
        let credit = self.accounts.cache.get(credit_at);
        if debit.ledger != credit.ledger {
            return Err(Status::AccountsMustHaveTheSameLedger);
        }
        if transfer.ledger != debit.ledger {
            return Err(Status::TransferMustHaveTheSameLedgerAsAccounts);
        }
        let bits = transfer.flags.get();
        if bits & flags::IMPORTED != 0 {
            self.check_import(transfer, debit, credit)?;
        } else {
            transfer.timestamp = event_timestamp.into();
        }
        if debit.flags.get() & account_flags::CLOSED != 0 {
            return Err(Status::DebitAccountAlreadyClosed);
        }
        if credit.flags.get() & account_flags::CLOSED != 0 {
            return Err(Status::CreditAccountAlreadyClosed);
        }
        let amount = balanced_amount(transfer, debit, credit);
        let pending = bits & flags::PENDING != 0;
        check_overflows(amount, pending, debit, credit)?;
        let expires = u64::from(transfer.timeout.get()) * constants::NANOSECONDS;
        if transfer.timestamp.get() + expires > constants::TIMESTAMP_MAX {
            return Err(Status::OverflowsTimeout);
        }
        check_limits(amount, debit, credit)?;

        transfer.amount = amount.into();
        let closed = |flag: u16, account: &Account| {
            let closed = if bits & flag != 0 {
                account_flags::CLOSED
            } else {
                0
            };
            (account.flags.get() | closed).into()
        };
        Ok(Effect {
            slots: (debit_at, credit_at),
            released: 0,
            held: if pending { amount } else { 0 },
            posted: if pending { 0 } else { amount },
            debit_flags: closed(flags::CLOSING_DEBIT, debit),
            credit_flags: closed(flags::CLOSING_CREDIT, credit),
        })
    }

    fn check_import(
        &self,
        event: &Transfer,
        debit: &Account,
        credit: &Account,
    ) -> Result<(), Status> {
        let timestamp = event.timestamp.get();
        if self.import_regresses(timestamp) {
            return Err(Status::ImportedEventTimestampMustNotRegress);
        }
        if timestamp <= debit.timestamp.get() {
            return Err(Status::ImportedEventTimestampMustPostdateDebitAccount);
        }
        if timestamp <= credit.timestamp.get() {
            return Err(Status::ImportedEventTimestampMustPostdateCreditAccount);
        }
        if event.timeout.get() != 0 {
            return Err(Status::ImportedEventTimeoutMustBeZero);
        }
        Ok(())
    }

    /// Whether an imported transfer of that time would come before another, or equal an account.
    pub(super) fn import_regresses(&self, timestamp: u64) -> bool {
        timestamp <= self.transfer_timestamp || self.fetched.has_timestamp(timestamp)
    }

    /// Stores a transfer that passed all checks, what it does to its accounts, and its event.
    #[inline]
    pub(super) fn accept(&mut self, transfer: &Transfer, effect: &Effect, resolved: Option<u64>) {
        let timestamp = transfer.timestamp.get();
        let position = self.transfers.push(transfer);
        self.indexes.ids.push(transfer.id.get(), position);
        let at = effect.slots;
        if self.undo.active {
            self.undo.transfers.push(TransferUndo {
                accounts: [at.0, at.1].map(|slot| self.accounts.save(slot)),
                resolved,
                timestamp_before: self.transfer_timestamp,
            });
        }
        self.transfer_timestamp = timestamp;
        if let Some(expires) = expires_at(transfer) {
            let _ = self.due.insert((expires, timestamp, position));
        }
        let cache = &mut self.accounts.cache;
        effect.apply(cache);
        let positions = (cache.position(at.0), cache.position(at.1));
        let (debit, credit) = (cache.get(at.0), cache.get(at.1));
        let wide = self.wide.len();
        let (event, balances) = EventRecord::new(timestamp, positions, debit, credit, wide);
        let event = self.events.push(&event);
        self.accounts.moved(at, event, false);
        if let Some(balances) = balances {
            let _ = self.wide.push(&balances);
        }
    }
}

/// The checks of a transfer's own fields, in order.
fn check_fields(event: &Transfer) -> Result<(), Status> {
    let bits = event.flags.get();
    let (debit, credit) = (event.debit_account_id.get(), event.credit_account_id.get());
    let pending = bits & flags::PENDING != 0;
    if debit == 0 {
        return Err(Status::DebitAccountIdMustNotBeZero);
    }
    if debit == u128::MAX {
        return Err(Status::DebitAccountIdMustNotBeIntMax);
    }
    if credit == 0 {
        return Err(Status::CreditAccountIdMustNotBeZero);
    }
    if credit == u128::MAX {
        return Err(Status::CreditAccountIdMustNotBeIntMax);
    }
    if debit == credit {
        return Err(Status::AccountsMustBeDifferent);
    }
    if event.pending_id.get() != 0 {
        return Err(Status::PendingIdMustBeZero);
    }
    if !pending && event.timeout.get() != 0 {
        return Err(Status::TimeoutReservedForPendingTransfer);
    }
    if !pending && bits & (flags::CLOSING_DEBIT | flags::CLOSING_CREDIT) != 0 {
        return Err(Status::ClosingTransferMustBePending);
    }
    if event.ledger.get() == 0 {
        return Err(Status::LedgerMustNotBeZero);
    }
    if event.code.get() == 0 {
        return Err(Status::CodeMustNotBeZero);
    }
    Ok(())
}

/// The amount, cut to what balances the accounts where a flag asks for it.
fn balanced_amount(event: &Transfer, debit: &Account, credit: &Account) -> u128 {
    let mut amount = event.amount.get();
    let bits = event.flags.get();
    if bits & flags::BALANCING_DEBIT != 0 {
        let used = debit
            .debits_posted
            .get()
            .saturating_add(debit.debits_pending.get());
        amount = amount.min(debit.credits_posted.get().saturating_sub(used));
    }
    if bits & flags::BALANCING_CREDIT != 0 {
        let used = credit
            .credits_posted
            .get()
            .saturating_add(credit.credits_pending.get());
        amount = amount.min(credit.debits_posted.get().saturating_sub(used));
    }
    amount
}

fn check_overflows(
    amount: u128,
    pending: bool,
    debit: &Account,
    credit: &Account,
) -> Result<(), Status> {
    let over = |balance: u128| balance.checked_add(amount).is_none();
    if pending && over(debit.debits_pending.get()) {
        return Err(Status::OverflowsDebitsPending);
    }
    if pending && over(credit.credits_pending.get()) {
        return Err(Status::OverflowsCreditsPending);
    }
    if over(debit.debits_posted.get()) {
        return Err(Status::OverflowsDebitsPosted);
    }
    if over(credit.credits_posted.get()) {
        return Err(Status::OverflowsCreditsPosted);
    }
    let both = |a: u128, b: u128| a.checked_add(b).is_none_or(over);
    if both(debit.debits_pending.get(), debit.debits_posted.get()) {
        return Err(Status::OverflowsDebits);
    }
    if both(credit.credits_pending.get(), credit.credits_posted.get()) {
        return Err(Status::OverflowsCredits);
    }
    Ok(())
}

/// The limits that the accounts' flags set; no sum overflows after `check_overflows`.
fn check_limits(amount: u128, debit: &Account, credit: &Account) -> Result<(), Status> {
    if debit.flags.get() & account_flags::DEBITS_MUST_NOT_EXCEED_CREDITS != 0 {
        let debits = debit.debits_pending.get() + debit.debits_posted.get() + amount;
        if debits > debit.credits_posted.get() {
            return Err(Status::ExceedsCredits);
        }
    }
    if credit.flags.get() & account_flags::CREDITS_MUST_NOT_EXCEED_DEBITS != 0 {
        let credits = credit.credits_pending.get() + credit.credits_posted.get() + amount;
        if credits > credit.debits_posted.get() {
            return Err(Status::ExceedsDebits);
        }
    }
    Ok(())
}
