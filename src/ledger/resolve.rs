//! Posting and voiding pending transfers.

use super::Ledger;
use super::effect::Effect;
use super::exists::resolved_amount;
use super::expiry::expires_at;
use super::records::PendingStatus;
use crate::stdx::planted::{Bug, planted};
use crate::wire::types::{account_flags, transfer_flags as flags};
use crate::wire::{CreateTransferStatus as Status, Transfer};

impl Ledger {
    /// Checks and stores a post or void; gives its timestamp.
    pub(super) fn resolve(
        &mut self,
        event: &Transfer,
        event_timestamp: u64,
    ) -> Result<u64, Status> {
        check_fields(event)?;
        let bits = event.flags.get();
        let post = bits & flags::POST_PENDING_TRANSFER != 0;
        let pending_at = self.find_transfer(event.pending_id.get());
        let pending_at = pending_at.ok_or(Status::PendingTransferNotFound)?;
        let pending = *self.transfer(pending_at);
        if pending.flags.get() & flags::PENDING == 0 {
            return Err(Status::PendingTransferNotPending);
        }
        check_against_pending(event, &pending)?;
        let amount = resolved_amount(event, &pending);
        if amount > pending.amount.get() {
            return Err(Status::ExceedsPendingTransferAmount);
        }
        if !post && amount < pending.amount.get() {
            return Err(Status::PendingTransferHasDifferentAmount);
        }
        check_unresolved(self.status(pending_at))?;
        let expires = expires_at(&pending);
        if expires.is_some_and(|expires| expires <= event_timestamp) {
            return Err(Status::PendingTransferExpired);
        }
        let mut timestamp = event_timestamp;
        if bits & flags::IMPORTED != 0 {
            timestamp = event.timestamp.get();
            if self.import_regresses(timestamp) {
                return Err(Status::ImportedEventTimestampMustNotRegress);
            }
        }
        let slots = self.slots_of(&pending);
        let debit = self.accounts.cache.get(slots.0);
        let credit = self.accounts.cache.get(slots.1);
        if post && debit.flags.get() & account_flags::CLOSED != 0 {
            return Err(Status::DebitAccountAlreadyClosed);
        }
        if post && credit.flags.get() & account_flags::CLOSED != 0 {
            return Err(Status::CreditAccountAlreadyClosed);
        }
        let (mut debit_flags, mut credit_flags) = (debit.flags, credit.flags);
        if !post {
            reopen(&pending, &mut debit_flags, &mut credit_flags);
        }
        let posted = if post { amount } else { 0 };
        let effect = Effect {
            slots,
            released: pending.amount.get(),
            held: 0,
            posted: if planted(Bug::PostTwice) {
                2 * posted
            } else {
                posted
            },
            debit_flags,
            credit_flags,
        };
        if let Some(expires) = expires {
            let due = (expires, pending.timestamp.get(), pending_at);
            let removed = self.due.remove(&due);
            assert!(removed, "an unresolved transfer that expires waits for it");
        }
        let status = if post {
            PendingStatus::Posted
        } else {
            PendingStatus::Voided
        };
        self.status_set(pending_at, status);
        let mut transfer = inherit(event, &pending);
        transfer.amount = amount.into();
        transfer.timestamp = timestamp.into();
        self.accept(&transfer, &effect, Some(pending_at));
        Ok(timestamp)
    }
}

fn check_unresolved(status: PendingStatus) -> Result<(), Status> {
    match status {
        PendingStatus::Pending => Ok(()),
        PendingStatus::Posted => Err(Status::PendingTransferAlreadyPosted),
        PendingStatus::Voided => Err(Status::PendingTransferAlreadyVoided),
        PendingStatus::Expired => Err(Status::PendingTransferExpired),
    }
}

/// A closing transfer that is voided or expires opens its accounts again.
pub(super) fn reopen(
    pending: &Transfer,
    debit_flags: &mut zerocopy::little_endian::U16,
    credit_flags: &mut zerocopy::little_endian::U16,
) {
    if pending.flags.get() & flags::CLOSING_DEBIT != 0 {
        *debit_flags = (debit_flags.get() & !account_flags::CLOSED).into();
    }
    if pending.flags.get() & flags::CLOSING_CREDIT != 0 {
        *credit_flags = (credit_flags.get() & !account_flags::CLOSED).into();
    }
}

fn check_fields(event: &Transfer) -> Result<(), Status> {
    let bits = event.flags.get();
    let both = flags::POST_PENDING_TRANSFER | flags::VOID_PENDING_TRANSFER;
    let others = flags::PENDING
        | flags::BALANCING_DEBIT
        | flags::BALANCING_CREDIT
        | flags::CLOSING_DEBIT
        | flags::CLOSING_CREDIT;
    if bits & both == both || bits & others != 0 {
        return Err(Status::FlagsAreMutuallyExclusive);
    }
    if event.pending_id.get() == 0 {
        return Err(Status::PendingIdMustNotBeZero);
    }
    if event.pending_id.get() == u128::MAX {
        return Err(Status::PendingIdMustNotBeIntMax);
    }
    if event.pending_id == event.id {
        return Err(Status::PendingIdMustBeDifferent);
    }
    if event.timeout.get() != 0 {
        return Err(Status::TimeoutReservedForPendingTransfer);
    }
    Ok(())
}

fn check_against_pending(event: &Transfer, pending: &Transfer) -> Result<(), Status> {
    let differs = |asked: u128, stored: u128| asked != 0 && asked != stored;
    if differs(event.debit_account_id.get(), pending.debit_account_id.get()) {
        return Err(Status::PendingTransferHasDifferentDebitAccountId);
    }
    if differs(
        event.credit_account_id.get(),
        pending.credit_account_id.get(),
    ) {
        return Err(Status::PendingTransferHasDifferentCreditAccountId);
    }
    if differs(event.ledger.get().into(), pending.ledger.get().into()) {
        return Err(Status::PendingTransferHasDifferentLedger);
    }
    if differs(event.code.get().into(), pending.code.get().into()) {
        return Err(Status::PendingTransferHasDifferentCode);
    }
    Ok(())
}

/// The transfer that is stored: zero fields are those of the pending one.
fn inherit(event: &Transfer, pending: &Transfer) -> Transfer {
    let mut transfer = *event;
    transfer.debit_account_id = pending.debit_account_id;
    transfer.credit_account_id = pending.credit_account_id;
    transfer.ledger = pending.ledger;
    transfer.code = pending.code;
    transfer.timeout = 0.into();
    if transfer.user_data_128.get() == 0 {
        transfer.user_data_128 = pending.user_data_128;
    }
    if transfer.user_data_64.get() == 0 {
        transfer.user_data_64 = pending.user_data_64;
    }
    if transfer.user_data_32.get() == 0 {
        transfer.user_data_32 = pending.user_data_32;
    }
    transfer
}
