//! Accounts, transfers, queries, expiry: the rules of double entry, and nothing of consensus.
//!
//! Invariants:
//! * A transfer moves one amount from one account to another: in each ledger, debits equal credits.
//! * An id takes effect at most once; an id burnt by a failure that depended on the moment never.
//! * A chain of linked events takes effect as a whole or not at all.
//! * Everything follows from the requests and their timestamps: no clock, no chance.

mod account_cache;
mod account_table;
mod accounts;
pub mod catalog;
mod chain;
mod checkpoint;
mod effect;
mod events;
mod exists;
mod expiry;
mod fetch;
mod in_memory;
mod index;
mod manifest;
mod query;
mod records;
mod resolve;
mod scan;
mod state;
#[cfg(test)]
mod tests;
mod transfers;

pub use checkpoint::{RestoreError, counts};
pub use in_memory::LedgerInMemory;
pub use state::{Ledger, LedgerOptions};

/// Bytes of the smallest cache of accounts that never grows beyond them.
pub const ACCOUNT_CACHE_SIZE_MIN: u64 = account_cache::SIZE_MIN;

use crate::grid::Grid;
use crate::io::Io;
use crate::stdx::planted::{Bug, planted};
use crate::wire::{Account, Family, Operation, ReplyEncoder, Transfer};
use zerocopy::FromBytes;

/// A request whose body was found valid.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it asks for.
    pub operation: Operation,
    /// That of its last event, over all batches.
    pub timestamp: u64,
    /// Its body.
    pub body: &'a [u8],
}

impl Ledger {
    /// Executes a request, and appends the body of the reply; [`Ledger::finish`] has to follow.
    ///
    /// # Panics
    /// When the body is not valid for the operation, or the operation is none of the ledger's.
    pub async fn execute<I: Io>(
        &mut self,
        grid: &mut Grid<'_, I>,
        request: &Request<'_>,
        reply: &mut Vec<u8>,
    ) {
        let Request {
            operation,
            timestamp,
            body,
        } = *request;
        let batches = operation.batches(body);
        let mut encoder = std::mem::take(&mut self.encoder);
        let mut events_left = operation.event_count(body);
        encoder.begin(operation.result_size(), reply);
        for batch in batches {
            if operation.is_create() {
                events_left -= crate::stdx::to_u64(batch.len() / operation.event_size());
            }
            let batch = Request {
                operation,
                timestamp: timestamp - events_left,
                body: batch,
            };
            self.execute_batch(grid, &batch, reply).await;
            if operation.is_multi_batch() {
                encoder.batch_end(reply);
            }
        }
        if operation.is_multi_batch() {
            encoder.finish(reply);
        }
        self.encoder = encoder;
    }

    async fn execute_batch<I: Io>(
        &mut self,
        grid: &mut Grid<'_, I>,
        request: &Request<'_>,
        reply: &mut Vec<u8>,
    ) {
        let batch = request.body;
        match request.operation.family() {
            Family::Register | Family::Pulse => unreachable!("not executed by the ledger"),
            Family::CreateAccounts => {
                let events = <[Account]>::ref_from_bytes(batch);
                let events = events.expect("the body was found valid");
                self.fetch_for_accounts(events, grid).await;
                self.create_accounts(request.operation, request.timestamp, events, reply);
            }
            Family::CreateTransfers => {
                let events = <[Transfer]>::ref_from_bytes(batch);
                let events = events.expect("the body was found valid");
                let (operation, timestamp) = (request.operation, request.timestamp);
                self.create_transfers((operation, timestamp), events, grid, reply)
                    .await;
            }
            Family::GetAccountTransfers
            | Family::GetAccountBalances
            | Family::QueryAccounts
            | Family::QueryTransfers
            | Family::GetChangeEvents => self.query(request, grid, reply).await,
            Family::LookupAccounts => self.lookup_accounts(batch, grid, reply).await,
            Family::LookupTransfers => self.lookup_transfers(batch, grid, reply).await,
        }
    }

    async fn query<I: Io>(
        &mut self,
        request: &Request<'_>,
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        // What earlier requests of the same op added.
        if !planted(Bug::QueryBeforeIndexing) {
            self.index_records();
        }
        self.indexes.sort_end().await;
        let batch = request.body;
        match request.operation.family() {
            Family::GetAccountTransfers => self.account_transfers(batch, grid, reply).await,
            Family::GetAccountBalances => self.account_balances(batch, grid, reply).await,
            Family::QueryAccounts => self.query_accounts(batch, grid, reply).await,
            Family::QueryTransfers => self.query_transfers(batch, grid, reply).await,
            Family::GetChangeEvents => self.change_events(batch, grid, reply).await,
            Family::Register
            | Family::Pulse
            | Family::CreateAccounts
            | Family::CreateTransfers
            | Family::LookupAccounts
            | Family::LookupTransfers => unreachable!("not a query"),
        }
    }
}

/// Gives a results encoder back; see [`Ledger::execute`].
fn encoder() -> ReplyEncoder {
    ReplyEncoder::with_capacity(16)
}
