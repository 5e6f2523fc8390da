//! `create_transfers` and `lookup_transfers`.

use super::Ledger;
use super::chain::{Batch, EventFacts, Outcome, Statuses, TransferUndo};
use super::exists::transfer_exists;
use super::expiry::expires_at;
use super::fetch::FAILED;
use super::records::{EventRecord, FailedRecord};
use crate::constants;
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

/// Events whose accounts are looked for together: the processor then waits for the memory of many
/// of them at the same time.
const LOCATE_AHEAD: usize = 64;

/// Where the accounts of an event are.
#[derive(Clone, Copy, Default)]
struct Located {
    debit: Option<u32>,
    credit: Option<u32>,
}

/// A transfer that passed all checks, and the accounts as they are to be.
pub(super) struct Accepted {
    pub(super) transfer: Transfer,
    pub(super) debit: (u32, Account),
    pub(super) credit: (u32, Account),
    /// The pending transfer that it resolves.
    pub(super) resolved: Option<u64>,
}

impl Ledger {
    pub(super) fn create_transfers(
        &mut self,
        operation: Operation,
        timestamp: u64,
        events: &[Transfer],
        reply: &mut Vec<u8>,
    ) {
        reply.reserve(events.len() * 16 + 256);
        let mut batch = Batch::new(STATUSES, operation, timestamp, events.len(), reply);
        let mut located = [Located::default(); LOCATE_AHEAD];
        for (index, event) in events.iter().enumerate() {
            if index.is_multiple_of(LOCATE_AHEAD) {
                for (located, event) in located.iter_mut().zip(&events[index..]) {
                    *located = self.locate(event);
                }
            }
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
                    let located = &located[index % LOCATE_AHEAD];
                    let (status, timestamp) = self.create_transfer(event, located, event_timestamp);
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
        batch.finish(reply);
    }

    /// Finds the accounts of an event, which stay where they are during the batch, and reads what
    /// its execution is going to need.
    #[inline]
    fn locate(&self, event: &Transfer) -> Located {
        self.indexes.ids.touch(event.id.get());
        Located {
            debit: self.find_account(event.debit_account_id.get()),
            credit: self.find_account(event.credit_account_id.get()),
        }
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
        let accepted = if resolves {
            self.check_resolve(event, event_timestamp)
        } else {
            self.check_transfer(event, located, event_timestamp)
        };
        match accepted {
            Ok(accepted) => (Status::Created, self.accept(accepted)),
            Err(status) => (status, event_timestamp),
        }
    }

    fn check_transfer(
        &self,
        event: &Transfer,
        located: &Located,
        event_timestamp: u64,
    ) -> Result<Accepted, Status> {
        check_fields(event)?;
        let debit_at = located.debit.ok_or(Status::DebitAccountNotFound)?;
        let credit_at = located.credit.ok_or(Status::CreditAccountNotFound)?;
        let mut debit = *self.accounts.get(debit_at.into());
        let mut credit = *self.accounts.get(credit_at.into());
        if debit.ledger != credit.ledger {
            return Err(Status::AccountsMustHaveTheSameLedger);
        }
        if event.ledger != debit.ledger {
            return Err(Status::TransferMustHaveTheSameLedgerAsAccounts);
        }
        let bits = event.flags.get();
        let mut timestamp = event_timestamp;
        if bits & flags::IMPORTED != 0 {
            timestamp = event.timestamp.get();
            self.check_import(event, &debit, &credit)?;
        }
        if debit.flags.get() & account_flags::CLOSED != 0 {
            return Err(Status::DebitAccountAlreadyClosed);
        }
        if credit.flags.get() & account_flags::CLOSED != 0 {
            return Err(Status::CreditAccountAlreadyClosed);
        }
        let amount = balanced_amount(event, &debit, &credit);
        let pending = bits & flags::PENDING != 0;
        check_overflows(amount, pending, &debit, &credit)?;
        let expires = u64::from(event.timeout.get()) * constants::NANOSECONDS;
        if timestamp + expires > constants::TIMESTAMP_MAX {
            return Err(Status::OverflowsTimeout);
        }
        check_limits(amount, &debit, &credit)?;

        if pending {
            debit.debits_pending = (debit.debits_pending.get() + amount).into();
            credit.credits_pending = (credit.credits_pending.get() + amount).into();
        } else {
            debit.debits_posted = (debit.debits_posted.get() + amount).into();
            credit.credits_posted = (credit.credits_posted.get() + amount).into();
        }
        if bits & flags::CLOSING_DEBIT != 0 {
            debit.flags = (debit.flags.get() | account_flags::CLOSED).into();
        }
        if bits & flags::CLOSING_CREDIT != 0 {
            credit.flags = (credit.flags.get() | account_flags::CLOSED).into();
        }
        let mut transfer = *event;
        transfer.amount = amount.into();
        transfer.timestamp = timestamp.into();
        Ok(Accepted {
            transfer,
            debit: (debit_at, debit),
            credit: (credit_at, credit),
            resolved: None,
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
        timestamp <= self.transfer_timestamp || self.account_at(timestamp)
    }

    /// Stores a transfer, its accounts and its event. Gives its timestamp.
    fn accept(&mut self, accepted: Accepted) -> u64 {
        let Accepted {
            transfer,
            debit,
            credit,
            resolved,
        } = accepted;
        let timestamp = transfer.timestamp.get();
        let position = self.transfers.push(&transfer);
        self.indexes.ids.push(transfer.id.get(), position);
        if self.undo.active {
            self.undo.transfers.push(TransferUndo {
                debit: (debit.0, *self.accounts.get(debit.0.into())),
                credit: (credit.0, *self.accounts.get(credit.0.into())),
                resolved,
                timestamp_before: self.transfer_timestamp,
            });
        }
        self.transfer_timestamp = timestamp;
        if let Some(expires) = expires_at(&transfer) {
            let _ = self.due.insert((expires, timestamp, position));
        }
        let at = (debit.0, credit.0);
        let wide = self.wide.len();
        let (event, balances) = EventRecord::new(timestamp, at, &debit.1, &credit.1, wide);
        let _ = self.events.push(&event);
        if let Some(balances) = balances {
            let _ = self.wide.push(&balances);
        }
        *self.accounts.get_mut(debit.0.into()) = debit.1;
        *self.accounts.get_mut(credit.0.into()) = credit.1;
        timestamp
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
