//! `create_accounts` and `lookup_accounts`.

use super::Ledger;
use super::chain::{Batch, EventFacts, Outcome, Statuses};
use super::fetch::TOGETHER;
use crate::grid::Grid;
use crate::io::Io;
use crate::wire::types::account_flags as flags;
use crate::wire::{Account, CreateAccountStatus as Status, Operation};
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, IntoBytes};

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

impl Ledger {
    pub(super) fn create_accounts(
        &mut self,
        operation: Operation,
        timestamp: u64,
        events: &[Account],
        reply: &mut Vec<u8>,
    ) {
        let mut batch = Batch::new(STATUSES, operation, timestamp, events.len(), reply);
        for (index, event) in events.iter().enumerate() {
            let facts = EventFacts {
                linked: event.flags.get() & flags::LINKED != 0,
                imported: event.flags.get() & flags::IMPORTED != 0,
                timestamp: event.timestamp.get(),
            };
            let event_timestamp = batch.timestamp_of(index);
            let outcome = match batch.begin(self, index, facts) {
                Some(status) => Outcome {
                    status,
                    timestamp: event_timestamp,
                },
                None => {
                    let (status, timestamp) = self.create_account(event, event_timestamp);
                    Outcome {
                        status: status.code(),
                        timestamp,
                    }
                }
            };
            batch.end(self, facts, outcome, reply);
        }
        batch.finish(reply);
    }

    fn create_account(&mut self, event: &Account, event_timestamp: u64) -> (Status, u64) {
        let id = event.id.get();
        if let Err(status) = check_before_exists(event) {
            return (status, event_timestamp);
        }
        if let Some(slot) = self.find_account(id) {
            let account = self.accounts.cache.get(slot);
            let status = exists(event, account);
            if status == Status::Exists {
                return (status, account.timestamp.get());
            }
            return (status, event_timestamp);
        }
        if let Err(status) = check_after_exists(event) {
            return (status, event_timestamp);
        }
        let mut timestamp = event_timestamp;
        if event.flags.get() & flags::IMPORTED != 0 {
            timestamp = event.timestamp.get();
            if timestamp <= self.accounts.timestamp || self.fetched.has_timestamp(timestamp) {
                return (
                    Status::ImportedEventTimestampMustNotRegress,
                    event_timestamp,
                );
            }
        }
        let mut account = *event;
        account.timestamp = timestamp.into();
        let position = self.accounts.push(&account);
        self.indexes.account_ids.push(id, position);
        if self.undo.active {
            self.undo.accounts += 1;
        }
        (Status::Created, timestamp)
    }

    pub(super) async fn lookup_accounts<I: Io>(
        &mut self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let ids = <[U128]>::ref_from_bytes(batch).expect("the body was found valid");
        for ids in ids.chunks(TOGETHER) {
            self.accounts.cache.begin();
            self.fetch_accounts(ids.iter().map(|id| id.get()), grid)
                .await;
            for id in ids {
                if let Some(slot) = self.find_account(id.get()) {
                    reply.extend_from_slice(self.accounts.cache.get(slot).as_bytes());
                }
            }
        }
    }
}

fn check_before_exists(event: &Account) -> Result<(), Status> {
    if event.reserved.get() != 0 {
        return Err(Status::ReservedField);
    }
    if event.flags.get() & !flags::DEFINED != 0 {
        return Err(Status::ReservedFlag);
    }
    if event.id.get() == 0 {
        return Err(Status::IdMustNotBeZero);
    }
    if event.id.get() == u128::MAX {
        return Err(Status::IdMustNotBeIntMax);
    }
    Ok(())
}

fn exists(event: &Account, account: &Account) -> Status {
    if event.flags != account.flags {
        Status::ExistsWithDifferentFlags
    } else if event.user_data_128 != account.user_data_128 {
        Status::ExistsWithDifferentUserData128
    } else if event.user_data_64 != account.user_data_64 {
        Status::ExistsWithDifferentUserData64
    } else if event.user_data_32 != account.user_data_32 {
        Status::ExistsWithDifferentUserData32
    } else if event.ledger != account.ledger {
        Status::ExistsWithDifferentLedger
    } else if event.code != account.code {
        Status::ExistsWithDifferentCode
    } else {
        Status::Exists
    }
}

fn check_after_exists(event: &Account) -> Result<(), Status> {
    let both = flags::DEBITS_MUST_NOT_EXCEED_CREDITS | flags::CREDITS_MUST_NOT_EXCEED_DEBITS;
    if event.flags.get() & both == both {
        return Err(Status::FlagsAreMutuallyExclusive);
    }
    if event.debits_pending.get() != 0 {
        return Err(Status::DebitsPendingMustBeZero);
    }
    if event.debits_posted.get() != 0 {
        return Err(Status::DebitsPostedMustBeZero);
    }
    if event.credits_pending.get() != 0 {
        return Err(Status::CreditsPendingMustBeZero);
    }
    if event.credits_posted.get() != 0 {
        return Err(Status::CreditsPostedMustBeZero);
    }
    if event.ledger.get() == 0 {
        return Err(Status::LedgerMustNotBeZero);
    }
    if event.code.get() == 0 {
        return Err(Status::CodeMustNotBeZero);
    }
    Ok(())
}
