//! Accounts, transfers, queries, expiry: the rules of double entry, and nothing of consensus.
//!
//! Invariants:
//! * A transfer moves one amount from one account to another: in each ledger, debits equal credits.
//! * An id takes effect at most once; an id burnt by a failure that depended on the moment never.
//! * A chain of linked events takes effect as a whole or not at all.
//! * Everything follows from the requests and their timestamps: no clock, no chance.

mod accounts;
mod chain;
mod events;
mod exists;
mod expiry;
mod index;
mod query;
mod records;
mod resolve;
mod state;
mod transfers;

pub use state::{Ledger, LedgerOptions, RestoreError};

use crate::wire::{Family, Operation, ReplyEncoder};

impl Ledger {
    /// Executes one request whose body was found valid, and appends the body of the reply.
    /// `timestamp` is that of its last event, over all batches.
    ///
    /// # Panics
    /// When the body is not valid for the operation, or the operation is none of the ledger's.
    pub fn execute(
        &mut self,
        operation: Operation,
        timestamp: u64,
        body: &[u8],
        reply: &mut Vec<u8>,
    ) {
        match operation.family() {
            Family::CreateAccounts | Family::CreateTransfers => self.index_enough(),
            Family::GetAccountTransfers
            | Family::GetAccountBalances
            | Family::QueryAccounts
            | Family::QueryTransfers => self.index_all(),
            Family::Register
            | Family::Pulse
            | Family::LookupAccounts
            | Family::LookupTransfers
            | Family::GetChangeEvents => {}
        }
        let batches = operation.batches(body);
        let mut encoder = std::mem::take(&mut self.encoder);
        let mut events_left = operation.event_count(body);
        encoder.begin(operation.result_size(), reply);
        for batch in batches {
            if operation.is_create() {
                events_left -= crate::stdx::to_u64(batch.len() / operation.event_size());
            }
            self.execute_batch(operation, timestamp - events_left, batch, reply);
            if operation.is_multi_batch() {
                encoder.batch_end(reply);
            }
        }
        if operation.is_multi_batch() {
            encoder.finish(reply);
        }
        self.encoder = encoder;
    }

    fn execute_batch(
        &mut self,
        operation: Operation,
        timestamp: u64,
        batch: &[u8],
        reply: &mut Vec<u8>,
    ) {
        match operation.family() {
            Family::Register | Family::Pulse => unreachable!("not executed by the ledger"),
            Family::CreateAccounts => self.create_accounts(operation, timestamp, batch, reply),
            Family::CreateTransfers => self.create_transfers(operation, timestamp, batch, reply),
            Family::LookupAccounts => self.lookup_accounts(batch, reply),
            Family::LookupTransfers => self.lookup_transfers(batch, reply),
            Family::GetAccountTransfers => self.account_transfers(batch, reply),
            Family::GetAccountBalances => self.account_balances(batch, reply),
            Family::QueryAccounts => self.query_accounts(batch, reply),
            Family::QueryTransfers => self.query_transfers(batch, reply),
            Family::GetChangeEvents => self.change_events(batch, reply),
        }
    }
}

/// Gives a results encoder back; see [`Ledger::execute`].
fn encoder() -> ReplyEncoder {
    ReplyEncoder::with_capacity(16)
}
