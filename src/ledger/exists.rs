//! A transfer whose id is there already: the same, or what differs.

use crate::wire::types::transfer_flags as flags;
use crate::wire::{CreateTransferStatus as Status, Transfer};

/// Compares `event` with the stored transfer of its id. `pending` is the transfer that
/// `event.pending_id` names.
pub(super) fn transfer_exists(
    event: &Transfer,
    existing: &Transfer,
    pending: Option<&Transfer>,
) -> Status {
    if event.flags != existing.flags {
        return Status::ExistsWithDifferentFlags;
    }
    if event.pending_id != existing.pending_id {
        return Status::ExistsWithDifferentPendingId;
    }
    if event.timeout != existing.timeout {
        return Status::ExistsWithDifferentTimeout;
    }
    let resolves = flags::POST_PENDING_TRANSFER | flags::VOID_PENDING_TRANSFER;
    if event.flags.get() & resolves == 0 {
        plain_exists(event, existing)
    } else {
        let pending = pending.expect("a stored transfer names a pending one that is there");
        resolve_exists(event, existing, pending)
    }
}

fn plain_exists(event: &Transfer, existing: &Transfer) -> Status {
    if event.debit_account_id != existing.debit_account_id {
        return Status::ExistsWithDifferentDebitAccountId;
    }
    if event.credit_account_id != existing.credit_account_id {
        return Status::ExistsWithDifferentCreditAccountId;
    }
    let balancing = flags::BALANCING_DEBIT | flags::BALANCING_CREDIT;
    let amount_differs = if event.flags.get() & balancing != 0 {
        event.amount.get() < existing.amount.get()
    } else {
        event.amount != existing.amount
    };
    if amount_differs {
        return Status::ExistsWithDifferentAmount;
    }
    if event.user_data_128 != existing.user_data_128 {
        return Status::ExistsWithDifferentUserData128;
    }
    if event.user_data_64 != existing.user_data_64 {
        return Status::ExistsWithDifferentUserData64;
    }
    if event.user_data_32 != existing.user_data_32 {
        return Status::ExistsWithDifferentUserData32;
    }
    if event.ledger != existing.ledger {
        return Status::ExistsWithDifferentLedger;
    }
    if event.code != existing.code {
        return Status::ExistsWithDifferentCode;
    }
    Status::Exists
}

/// A zero field of a post or void stands for that of the pending transfer.
fn resolve_exists(event: &Transfer, existing: &Transfer, pending: &Transfer) -> Status {
    let differs = |asked: u128, stored: u128| asked != 0 && asked != stored;
    if differs(
        event.debit_account_id.get(),
        existing.debit_account_id.get(),
    ) {
        return Status::ExistsWithDifferentDebitAccountId;
    }
    if differs(
        event.credit_account_id.get(),
        existing.credit_account_id.get(),
    ) {
        return Status::ExistsWithDifferentCreditAccountId;
    }
    if resolved_amount(event, pending) != existing.amount.get() {
        return Status::ExistsWithDifferentAmount;
    }
    let inherited = |asked: u128, pending: u128| if asked == 0 { pending } else { asked };
    let user_data_128 = inherited(event.user_data_128.get(), pending.user_data_128.get());
    if user_data_128 != existing.user_data_128.get() {
        return Status::ExistsWithDifferentUserData128;
    }
    let user_data_64 = inherited(
        event.user_data_64.get().into(),
        pending.user_data_64.get().into(),
    );
    if user_data_64 != u128::from(existing.user_data_64.get()) {
        return Status::ExistsWithDifferentUserData64;
    }
    let user_data_32 = inherited(
        event.user_data_32.get().into(),
        pending.user_data_32.get().into(),
    );
    if user_data_32 != u128::from(existing.user_data_32.get()) {
        return Status::ExistsWithDifferentUserData32;
    }
    if differs(event.ledger.get().into(), existing.ledger.get().into()) {
        return Status::ExistsWithDifferentLedger;
    }
    if differs(event.code.get().into(), existing.code.get().into()) {
        return Status::ExistsWithDifferentCode;
    }
    Status::Exists
}

/// The amount that a post or void of `pending` asks for.
pub(super) fn resolved_amount(event: &Transfer, pending: &Transfer) -> u128 {
    let amount = event.amount.get();
    let bits = event.flags.get();
    let void_all = bits & flags::VOID_PENDING_TRANSFER != 0 && amount == 0;
    let post_all = bits & flags::POST_PENDING_TRANSFER != 0 && amount == u128::MAX;
    if void_all || post_all {
        pending.amount.get()
    } else {
        amount
    }
}
