//! The rules of `create_transfers` for transfers of one phase and for pending ones.

use super::flags::{account as account_flag, transfer as flag};
use super::layout::{Account, Transfer};
use super::status::transfer as status;
use super::{Cause, Model, NANOSECONDS, Refused, Status, TIMESTAMP_MAX, refuse_if};

impl Model {
    pub(super) fn create_transfer(
        &mut self,
        transfer: Transfer,
        event_timestamp: u64,
    ) -> Result<u64, Refused> {
        let t = &transfer;
        refuse_if(t.flags & flag::RESERVED != 0, status::RESERVED_FLAG)?;
        refuse_if(t.id == 0, status::ID_MUST_NOT_BE_ZERO)?;
        refuse_if(t.id == u128::MAX, status::ID_MUST_NOT_BE_INT_MAX)?;
        if let Some(existing) = self.transfer(t.id) {
            return Err(self.transfer_exists(t, &existing));
        }
        refuse_if(self.burnt.contains(&t.id), status::ID_ALREADY_FAILED)?;
        if t.flags & (flag::POST | flag::VOID) != 0 {
            return self.resolve(t, event_timestamp);
        }
        check_fields(t)?;
        let imported = t.flags & flag::IMPORTED != 0;
        let timestamp = if imported {
            t.timestamp
        } else {
            event_timestamp
        };
        let (debit, credit) = self.check_accounts(t)?;
        let amount = balanced_amount(t, &debit, &credit);
        check_amount(t, amount, &debit, &credit, timestamp)?;
        let created = Transfer {
            amount,
            timestamp,
            ..transfer
        };
        self.apply(&created, debit, credit);
        Ok(timestamp)
    }

    /// The accounts, and the checks that need them but no amount.
    fn check_accounts(&self, t: &Transfer) -> Result<(Account, Account), Refused> {
        let missing = |status| Refused {
            status,
            timestamp: None,
        };
        let debit = self
            .account(t.debit_account_id)
            .ok_or_else(|| missing(status::DEBIT_ACCOUNT_NOT_FOUND))?;
        let credit = self
            .account(t.credit_account_id)
            .ok_or_else(|| missing(status::CREDIT_ACCOUNT_NOT_FOUND))?;
        refuse_if(
            debit.ledger != credit.ledger,
            status::ACCOUNTS_MUST_HAVE_THE_SAME_LEDGER,
        )?;
        refuse_if(
            t.ledger != debit.ledger,
            status::TRANSFER_MUST_HAVE_THE_SAME_LEDGER_AS_ACCOUNTS,
        )?;
        if t.flags & flag::IMPORTED != 0 {
            self.check_regress(t.timestamp)?;
            refuse_if(
                t.timestamp <= debit.timestamp,
                status::IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_DEBIT_ACCOUNT,
            )?;
            refuse_if(
                t.timestamp <= credit.timestamp,
                status::IMPORTED_EVENT_TIMESTAMP_MUST_POSTDATE_CREDIT_ACCOUNT,
            )?;
            refuse_if(t.timeout != 0, status::IMPORTED_EVENT_TIMEOUT_MUST_BE_ZERO)?;
        }
        refuse_if(
            debit.flags & account_flag::CLOSED != 0,
            status::DEBIT_ACCOUNT_ALREADY_CLOSED,
        )?;
        refuse_if(
            credit.flags & account_flag::CLOSED != 0,
            status::CREDIT_ACCOUNT_ALREADY_CLOSED,
        )?;
        Ok((debit, credit))
    }

    /// An import follows the last transfer, and takes no account's timestamp.
    pub(super) fn check_regress(&self, timestamp: u64) -> Result<(), Refused> {
        let last = self
            .transfers
            .last_key_value()
            .map_or(0, |(&timestamp, _)| timestamp);
        refuse_if(
            timestamp <= last || self.accounts.contains_key(&timestamp),
            status::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS,
        )
    }

    fn apply(&mut self, t: &Transfer, mut debit: Account, mut credit: Account) {
        self.add_transfer(*t);
        let pending = t.flags & flag::PENDING != 0;
        if pending {
            debit.debits_pending += t.amount;
            credit.credits_pending += t.amount;
            self.set_status(t.timestamp, Status::Pending);
            if let Some(expires_at) = super::expires_at(t) {
                self.add_expiry((expires_at, t.timestamp));
            }
        } else {
            debit.debits_posted += t.amount;
            credit.credits_posted += t.amount;
        }
        if t.flags & flag::CLOSING_DEBIT != 0 {
            debit.flags |= account_flag::CLOSED;
        }
        if t.flags & flag::CLOSING_CREDIT != 0 {
            credit.flags |= account_flag::CLOSED;
        }
        self.put_account(debit);
        self.put_account(credit);
        let cause = if pending {
            Cause::Pending
        } else {
            Cause::SinglePhase
        };
        self.record(t.timestamp, t, &debit, &credit, cause);
    }

    /// Why a transfer whose id is taken is refused.
    fn transfer_exists(&self, t: &Transfer, e: &Transfer) -> Refused {
        let resolves = t.flags & (flag::POST | flag::VOID) != 0;
        let mut compared = vec![
            (t.flags != e.flags, status::EXISTS_WITH_DIFFERENT_FLAGS),
            (
                t.pending_id != e.pending_id,
                status::EXISTS_WITH_DIFFERENT_PENDING_ID,
            ),
            (
                t.timeout != e.timeout,
                status::EXISTS_WITH_DIFFERENT_TIMEOUT,
            ),
        ];
        // Without the same flags and pending id there may be no pending transfer to inherit from.
        if resolves && t.flags == e.flags && t.pending_id == e.pending_id {
            let pending = self
                .transfer(t.pending_id)
                .expect("the stored transfer resolved it");
            compared.extend(resolved_differences(t, e, &pending));
        } else if !resolves {
            compared.extend(differences(t, e));
        }
        match compared.into_iter().find(|&(differs, _)| differs) {
            Some((_, status)) => Refused {
                status,
                timestamp: None,
            },
            None => Refused {
                status: status::EXISTS,
                timestamp: Some(e.timestamp),
            },
        }
    }
}

fn differences(t: &Transfer, e: &Transfer) -> [(bool, u32); 8] {
    let balancing = t.flags & (flag::BALANCING_DEBIT | flag::BALANCING_CREDIT) != 0;
    let amount_differs = if balancing {
        t.amount < e.amount
    } else {
        t.amount != e.amount
    };
    [
        (
            t.debit_account_id != e.debit_account_id,
            status::EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID,
        ),
        (
            t.credit_account_id != e.credit_account_id,
            status::EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID,
        ),
        (amount_differs, status::EXISTS_WITH_DIFFERENT_AMOUNT),
        (
            t.user_data_128 != e.user_data_128,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_128,
        ),
        (
            t.user_data_64 != e.user_data_64,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_64,
        ),
        (
            t.user_data_32 != e.user_data_32,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_32,
        ),
        (t.ledger != e.ledger, status::EXISTS_WITH_DIFFERENT_LEDGER),
        (t.code != e.code, status::EXISTS_WITH_DIFFERENT_CODE),
    ]
}

/// Fields that are zero were inherited from the pending transfer.
fn resolved_differences(t: &Transfer, e: &Transfer, pending: &Transfer) -> [(bool, u32); 8] {
    let all = if t.flags & flag::VOID != 0 {
        0
    } else {
        u128::MAX
    };
    let amount = if t.amount == all {
        pending.amount
    } else {
        t.amount
    };
    let inherit_128 = if t.user_data_128 == 0 {
        pending.user_data_128
    } else {
        t.user_data_128
    };
    let inherit_64 = if t.user_data_64 == 0 {
        pending.user_data_64
    } else {
        t.user_data_64
    };
    let inherit_32 = if t.user_data_32 == 0 {
        pending.user_data_32
    } else {
        t.user_data_32
    };
    [
        (
            t.debit_account_id != 0 && t.debit_account_id != e.debit_account_id,
            status::EXISTS_WITH_DIFFERENT_DEBIT_ACCOUNT_ID,
        ),
        (
            t.credit_account_id != 0 && t.credit_account_id != e.credit_account_id,
            status::EXISTS_WITH_DIFFERENT_CREDIT_ACCOUNT_ID,
        ),
        (amount != e.amount, status::EXISTS_WITH_DIFFERENT_AMOUNT),
        (
            inherit_128 != e.user_data_128,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_128,
        ),
        (
            inherit_64 != e.user_data_64,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_64,
        ),
        (
            inherit_32 != e.user_data_32,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_32,
        ),
        (
            t.ledger != 0 && t.ledger != e.ledger,
            status::EXISTS_WITH_DIFFERENT_LEDGER,
        ),
        (
            t.code != 0 && t.code != e.code,
            status::EXISTS_WITH_DIFFERENT_CODE,
        ),
    ]
}

/// The checks that need the transfer alone.
fn check_fields(t: &Transfer) -> Result<(), Refused> {
    let pending = t.flags & flag::PENDING != 0;
    let closing = t.flags & (flag::CLOSING_DEBIT | flag::CLOSING_CREDIT) != 0;
    refuse_if(
        t.debit_account_id == 0,
        status::DEBIT_ACCOUNT_ID_MUST_NOT_BE_ZERO,
    )?;
    refuse_if(
        t.debit_account_id == u128::MAX,
        status::DEBIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX,
    )?;
    refuse_if(
        t.credit_account_id == 0,
        status::CREDIT_ACCOUNT_ID_MUST_NOT_BE_ZERO,
    )?;
    refuse_if(
        t.credit_account_id == u128::MAX,
        status::CREDIT_ACCOUNT_ID_MUST_NOT_BE_INT_MAX,
    )?;
    refuse_if(
        t.debit_account_id == t.credit_account_id,
        status::ACCOUNTS_MUST_BE_DIFFERENT,
    )?;
    refuse_if(t.pending_id != 0, status::PENDING_ID_MUST_BE_ZERO)?;
    refuse_if(
        !pending && t.timeout != 0,
        status::TIMEOUT_RESERVED_FOR_PENDING_TRANSFER,
    )?;
    refuse_if(
        !pending && closing,
        status::CLOSING_TRANSFER_MUST_BE_PENDING,
    )?;
    refuse_if(t.ledger == 0, status::LEDGER_MUST_NOT_BE_ZERO)?;
    refuse_if(t.code == 0, status::CODE_MUST_NOT_BE_ZERO)
}

/// Balancing moves at most what the accounts have.
fn balanced_amount(t: &Transfer, debit: &Account, credit: &Account) -> u128 {
    let mut amount = t.amount;
    if t.flags & flag::BALANCING_DEBIT != 0 {
        let spent = debit.debits_posted + debit.debits_pending;
        amount = amount.min(debit.credits_posted.saturating_sub(spent));
    }
    if t.flags & flag::BALANCING_CREDIT != 0 {
        let received = credit.credits_posted + credit.credits_pending;
        amount = amount.min(credit.debits_posted.saturating_sub(received));
    }
    amount
}

/// Overflows and limits.
fn check_amount(
    t: &Transfer,
    amount: u128,
    debit: &Account,
    credit: &Account,
    timestamp: u64,
) -> Result<(), Refused> {
    let pending = t.flags & flag::PENDING != 0;
    let overflows = |balance: u128| balance.checked_add(amount).is_none();
    let debits = debit.debits_pending + debit.debits_posted;
    let credits = credit.credits_pending + credit.credits_posted;
    refuse_if(
        pending && overflows(debit.debits_pending),
        status::OVERFLOWS_DEBITS_PENDING,
    )?;
    refuse_if(
        pending && overflows(credit.credits_pending),
        status::OVERFLOWS_CREDITS_PENDING,
    )?;
    refuse_if(
        overflows(debit.debits_posted),
        status::OVERFLOWS_DEBITS_POSTED,
    )?;
    refuse_if(
        overflows(credit.credits_posted),
        status::OVERFLOWS_CREDITS_POSTED,
    )?;
    refuse_if(overflows(debits), status::OVERFLOWS_DEBITS)?;
    refuse_if(overflows(credits), status::OVERFLOWS_CREDITS)?;
    let timeout = u64::from(t.timeout) * NANOSECONDS;
    refuse_if(
        timestamp + timeout > TIMESTAMP_MAX,
        status::OVERFLOWS_TIMEOUT,
    )?;
    refuse_if(
        debit.flags & account_flag::DEBITS_MUST_NOT_EXCEED_CREDITS != 0
            && debits + amount > debit.credits_posted,
        status::EXCEEDS_CREDITS,
    )?;
    refuse_if(
        credit.flags & account_flag::CREDITS_MUST_NOT_EXCEED_DEBITS != 0
            && credits + amount > credit.debits_posted,
        status::EXCEEDS_DEBITS,
    )
}
