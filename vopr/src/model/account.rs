//! The rules of `create_accounts`.

use super::flags::account as flag;
use super::layout::Account;
use super::status::account as status;
use super::{Model, Refused, refuse_if};

impl Model {
    pub(super) fn create_account(
        &mut self,
        account: Account,
        event_timestamp: u64,
    ) -> Result<u64, Refused> {
        let a = &account;
        let imported = a.flags & flag::IMPORTED != 0;
        let limits = flag::DEBITS_MUST_NOT_EXCEED_CREDITS | flag::CREDITS_MUST_NOT_EXCEED_DEBITS;
        refuse_if(a.reserved != 0, status::RESERVED_FIELD)?;
        refuse_if(a.flags & flag::RESERVED != 0, status::RESERVED_FLAG)?;
        refuse_if(a.id == 0, status::ID_MUST_NOT_BE_ZERO)?;
        refuse_if(a.id == u128::MAX, status::ID_MUST_NOT_BE_INT_MAX)?;
        if let Some(existing) = self.account(a.id) {
            return Err(account_exists(a, &existing));
        }
        refuse_if(
            a.flags & limits == limits,
            status::FLAGS_ARE_MUTUALLY_EXCLUSIVE,
        )?;
        refuse_if(a.debits_pending != 0, status::DEBITS_PENDING_MUST_BE_ZERO)?;
        refuse_if(a.debits_posted != 0, status::DEBITS_POSTED_MUST_BE_ZERO)?;
        refuse_if(a.credits_pending != 0, status::CREDITS_PENDING_MUST_BE_ZERO)?;
        refuse_if(a.credits_posted != 0, status::CREDITS_POSTED_MUST_BE_ZERO)?;
        refuse_if(a.ledger == 0, status::LEDGER_MUST_NOT_BE_ZERO)?;
        refuse_if(a.code == 0, status::CODE_MUST_NOT_BE_ZERO)?;
        let last = self
            .accounts
            .last_key_value()
            .map_or(0, |(&timestamp, _)| timestamp);
        refuse_if(
            imported && (a.timestamp <= last || self.transfers.contains_key(&a.timestamp)),
            status::IMPORTED_EVENT_TIMESTAMP_MUST_NOT_REGRESS,
        )?;
        let timestamp = if imported {
            a.timestamp
        } else {
            event_timestamp
        };
        self.put_account(Account {
            timestamp,
            ..account
        });
        Ok(timestamp)
    }
}

/// All flags count, those of the stored account as they are now.
fn account_exists(a: &Account, e: &Account) -> Refused {
    let compared = [
        (a.flags != e.flags, status::EXISTS_WITH_DIFFERENT_FLAGS),
        (
            a.user_data_128 != e.user_data_128,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_128,
        ),
        (
            a.user_data_64 != e.user_data_64,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_64,
        ),
        (
            a.user_data_32 != e.user_data_32,
            status::EXISTS_WITH_DIFFERENT_USER_DATA_32,
        ),
        (a.ledger != e.ledger, status::EXISTS_WITH_DIFFERENT_LEDGER),
        (a.code != e.code, status::EXISTS_WITH_DIFFERENT_CODE),
    ];
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
