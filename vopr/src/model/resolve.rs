//! The rules of `create_transfers` for transfers that post or void a pending one.

use super::flags::{account as account_flag, transfer as flag};
use super::layout::{Account, Transfer};
use super::status::transfer as status;
use super::{Cause, Model, Refused, Status, expires_at, refuse_if, reopen};

impl Model {
    pub(super) fn resolve(&mut self, t: &Transfer, event_timestamp: u64) -> Result<u64, Refused> {
        check_fields(t)?;
        let pending = self.transfer(t.pending_id).ok_or(Refused {
            status: status::PENDING_TRANSFER_NOT_FOUND,
            timestamp: None,
        })?;
        let amount = check_pending(t, &pending)?;
        let timeout = expires_at(&pending);
        let now = self.statuses[&pending.timestamp];
        refuse_if(
            now == Status::Posted,
            status::PENDING_TRANSFER_ALREADY_POSTED,
        )?;
        refuse_if(
            now == Status::Voided,
            status::PENDING_TRANSFER_ALREADY_VOIDED,
        )?;
        // The timeout counts even when the pulse has not come yet.
        let late = timeout.is_some_and(|expires_at| expires_at <= event_timestamp);
        refuse_if(
            now == Status::Expired || late,
            status::PENDING_TRANSFER_EXPIRED,
        )?;
        let imported = t.flags & flag::IMPORTED != 0;
        let timestamp = if imported {
            t.timestamp
        } else {
            event_timestamp
        };
        if imported {
            self.check_regress(timestamp)?;
        }
        let debit = self
            .account(pending.debit_account_id)
            .expect("it is referred to");
        let credit = self
            .account(pending.credit_account_id)
            .expect("it is referred to");
        if t.flags & flag::VOID == 0 {
            let closed = |account: &Account| account.flags & account_flag::CLOSED != 0;
            refuse_if(closed(&debit), status::DEBIT_ACCOUNT_ALREADY_CLOSED)?;
            refuse_if(closed(&credit), status::CREDIT_ACCOUNT_ALREADY_CLOSED)?;
        }
        let created = Transfer {
            amount,
            timestamp,
            ..inherit(t, &pending)
        };
        if let Some(expires_at) = timeout {
            self.remove_expiry((expires_at, pending.timestamp));
        }
        self.apply_resolution(&created, &pending, debit, credit);
        Ok(timestamp)
    }

    fn apply_resolution(
        &mut self,
        t: &Transfer,
        pending: &Transfer,
        mut debit: Account,
        mut credit: Account,
    ) {
        self.add_transfer(*t);
        debit.debits_pending -= pending.amount;
        credit.credits_pending -= pending.amount;
        let cause = if t.flags & flag::POST != 0 {
            debit.debits_posted += t.amount;
            credit.credits_posted += t.amount;
            self.set_status(pending.timestamp, Status::Posted);
            Cause::Posted
        } else {
            reopen(pending, &mut debit, &mut credit);
            self.set_status(pending.timestamp, Status::Voided);
            Cause::Voided
        };
        self.put_account(debit);
        self.put_account(credit);
        self.record(t.timestamp, t, &debit, &credit, cause);
    }
}

/// The checks that need the transfer alone.
fn check_fields(t: &Transfer) -> Result<(), Refused> {
    let both = flag::POST | flag::VOID;
    let others = flag::PENDING
        | flag::BALANCING_DEBIT
        | flag::BALANCING_CREDIT
        | flag::CLOSING_DEBIT
        | flag::CLOSING_CREDIT;
    refuse_if(
        t.flags & both == both || t.flags & others != 0,
        status::FLAGS_ARE_MUTUALLY_EXCLUSIVE,
    )?;
    refuse_if(t.pending_id == 0, status::PENDING_ID_MUST_NOT_BE_ZERO)?;
    refuse_if(
        t.pending_id == u128::MAX,
        status::PENDING_ID_MUST_NOT_BE_INT_MAX,
    )?;
    refuse_if(t.pending_id == t.id, status::PENDING_ID_MUST_BE_DIFFERENT)?;
    refuse_if(
        t.timeout != 0,
        status::TIMEOUT_RESERVED_FOR_PENDING_TRANSFER,
    )
}

/// The checks against the pending transfer as it was created; gives the amount that is meant.
fn check_pending(t: &Transfer, p: &Transfer) -> Result<u128, Refused> {
    refuse_if(
        p.flags & flag::PENDING == 0,
        status::PENDING_TRANSFER_NOT_PENDING,
    )?;
    refuse_if(
        t.debit_account_id != 0 && t.debit_account_id != p.debit_account_id,
        status::PENDING_TRANSFER_HAS_DIFFERENT_DEBIT_ACCOUNT_ID,
    )?;
    refuse_if(
        t.credit_account_id != 0 && t.credit_account_id != p.credit_account_id,
        status::PENDING_TRANSFER_HAS_DIFFERENT_CREDIT_ACCOUNT_ID,
    )?;
    refuse_if(
        t.ledger != 0 && t.ledger != p.ledger,
        status::PENDING_TRANSFER_HAS_DIFFERENT_LEDGER,
    )?;
    refuse_if(
        t.code != 0 && t.code != p.code,
        status::PENDING_TRANSFER_HAS_DIFFERENT_CODE,
    )?;
    let voids = t.flags & flag::VOID != 0;
    let all = if voids { 0 } else { u128::MAX };
    let amount = if t.amount == all { p.amount } else { t.amount };
    refuse_if(amount > p.amount, status::EXCEEDS_PENDING_TRANSFER_AMOUNT)?;
    refuse_if(
        voids && amount < p.amount,
        status::PENDING_TRANSFER_HAS_DIFFERENT_AMOUNT,
    )?;
    Ok(amount)
}

/// What a post or void takes from the pending transfer.
fn inherit(t: &Transfer, p: &Transfer) -> Transfer {
    Transfer {
        debit_account_id: p.debit_account_id,
        credit_account_id: p.credit_account_id,
        ledger: p.ledger,
        code: p.code,
        timeout: 0,
        user_data_128: if t.user_data_128 == 0 {
            p.user_data_128
        } else {
            t.user_data_128
        },
        user_data_64: if t.user_data_64 == 0 {
            p.user_data_64
        } else {
            t.user_data_64
        },
        user_data_32: if t.user_data_32 == 0 {
            p.user_data_32
        } else {
            t.user_data_32
        },
        ..*t
    }
}
