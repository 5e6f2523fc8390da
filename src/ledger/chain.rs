//! Linked events: what a batch of creates does in order, and what takes a failed chain back.

use super::Ledger;
use super::account_table::Saved;
use super::expiry::expires_at;
use super::records::PendingStatus;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::to_u64;
use crate::wire::{CreateResult, Operation, SparseResult};
use zerocopy::IntoBytes;

/// How to take the changes of a chain back, one record each.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Whether a chain is open.
    pub(super) active: bool,
    /// Accounts that the chain created.
    pub(super) accounts: u32,
    /// Transfers that the chain created.
    pub(super) transfers: Vec<TransferUndo>,
    /// Bytes of the table of statuses when it began.
    statuses: u64,
    /// Timestamp of the last account when it began.
    account_timestamp: u64,
}

impl Undo {
    fn clear(&mut self) {
        self.accounts = 0;
        self.transfers.clear();
    }

    fn begin(&mut self, statuses: u64, account_timestamp: u64) {
        self.clear();
        self.active = true;
        self.statuses = statuses;
        self.account_timestamp = account_timestamp;
    }
}

/// How to take a transfer back: its accounts as they were before.
#[derive(Debug)]
pub(super) struct TransferUndo {
    pub(super) accounts: [Saved; 2],
    /// The pending transfer that it resolved.
    pub(super) resolved: Option<u64>,
    /// Timestamp of the transfer before it.
    pub(super) timestamp_before: u64,
}

/// What becomes of one event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) status: u32,
    pub(super) timestamp: u64,
}

/// Statuses that both create operations share, by their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statuses {
    pub(super) created: u32,
    pub(super) linked_event_failed: u32,
    pub(super) linked_event_chain_open: u32,
    pub(super) imported_event_expected: u32,
    pub(super) imported_event_not_expected: u32,
    pub(super) imported_out_of_range: u32,
    pub(super) imported_must_not_advance: u32,
    pub(super) timestamp_must_be_zero: u32,
}

/// What the checks before all others need of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventFacts {
    pub(super) linked: bool,
    pub(super) imported: bool,
    pub(super) timestamp: u64,
}

/// A batch of creates on its way: chains, and the results so far.
#[derive(Debug)]
pub(super) struct Batch {
    statuses: Statuses,
    sparse: bool,
    count: usize,
    timestamp: u64,
    imported: bool,
    chain: Option<usize>,
    broken: bool,
    /// Where the results of the batch begin in the reply; sparse ones are filtered at the end.
    results: usize,
}

impl Batch {
    pub(super) fn new(
        statuses: Statuses,
        operation: Operation,
        timestamp: u64,
        count: usize,
        reply: &[u8],
    ) -> Self {
        Self {
            statuses,
            sparse: operation.is_sparse(),
            count,
            timestamp,
            imported: false,
            chain: None,
            broken: false,
            results: reply.len(),
        }
    }

    /// The timestamp of event `index`.
    pub(super) fn timestamp_of(&self, index: usize) -> u64 {
        self.timestamp - to_u64(self.count) + to_u64(index) + 1
    }

    /// Begins event `index`: gives the status that settles it before its own checks, if any.
    pub(super) fn begin(
        &mut self,
        ledger: &mut Ledger,
        index: usize,
        event: EventFacts,
    ) -> Option<u32> {
        if index == 0 {
            self.imported = event.imported;
        }
        if event.linked && self.chain.is_none() {
            self.chain = Some(index);
            ledger
                .undo
                .begin(ledger.statuses.len(), ledger.accounts.timestamp);
        }
        let statuses = &self.statuses;
        if event.linked && index == self.count - 1 && !planted(Bug::LeaveChainsOpen) {
            mark(Mark::ChainOpen);
            return Some(statuses.linked_event_chain_open);
        }
        if self.broken {
            return Some(statuses.linked_event_failed);
        }
        if self.imported && !event.imported {
            return Some(statuses.imported_event_expected);
        }
        if event.imported && !self.imported {
            return Some(statuses.imported_event_not_expected);
        }
        if event.imported {
            if !(1..=crate::constants::TIMESTAMP_MAX).contains(&event.timestamp) {
                return Some(statuses.imported_out_of_range);
            }
            if event.timestamp >= self.timestamp {
                return Some(statuses.imported_must_not_advance);
            }
        } else if event.timestamp != 0 {
            return Some(statuses.timestamp_must_be_zero);
        }
        None
    }

    /// Ends event `index`: writes its result, takes a chain back that it breaks.
    pub(super) fn end(
        &mut self,
        ledger: &mut Ledger,
        event: EventFacts,
        outcome: Outcome,
        reply: &mut Vec<u8>,
    ) {
        let result = CreateResult {
            timestamp: outcome.timestamp.into(),
            status: outcome.status.into(),
            reserved: 0.into(),
        };
        let index = (reply.len() - self.results) / size_of::<CreateResult>();
        reply.extend_from_slice(result.as_bytes());
        let Some(first) = self.chain else {
            return;
        };
        if outcome.status != self.statuses.created && !self.broken {
            self.broken = true;
            mark(if index > first {
                Mark::ChainUndone
            } else {
                Mark::ChainFailsFirst
            });
            if !planted(Bug::LoseChainRollback) {
                ledger.roll_back();
            }
            ledger.undo.clear();
            for earlier in first..index {
                let at = self.results + earlier * size_of::<CreateResult>() + 8;
                let status = self.statuses.linked_event_failed;
                reply[at..at + 4].copy_from_slice(&status.to_le_bytes());
            }
        }
        if !event.linked || outcome.status == self.statuses.linked_event_chain_open {
            self.chain = None;
            self.broken = false;
            ledger.undo.active = false;
            ledger.undo.clear();
        }
    }

    /// Ends the batch: older operations get the results of failures only.
    pub(super) fn finish(self, reply: &mut Vec<u8>) {
        if !self.sparse {
            return;
        }
        let results = reply.split_off(self.results);
        for (index, result) in (0_u32..).zip(results.chunks_exact(size_of::<CreateResult>())) {
            let status = u32::from_le_bytes([result[8], result[9], result[10], result[11]]);
            if status != self.statuses.created {
                let sparse = SparseResult {
                    index: index.into(),
                    status: status.into(),
                };
                reply.extend_from_slice(sparse.as_bytes());
            }
        }
    }
}

impl Ledger {
    /// Takes back everything since the chain began, the latest first.
    fn roll_back(&mut self) {
        for _ in 0..self.undo.accounts {
            let account = self.accounts.pop();
            let popped = self.indexes.account_ids.pop();
            assert!(popped.is_some_and(|entry| entry.id == account.id.get()));
        }
        self.accounts.timestamp = self.undo.account_timestamp;
        while let Some(undo) = self.undo.transfers.pop() {
            self.undo_transfer(undo.resolved);
            self.transfer_timestamp = undo.timestamp_before;
            for saved in &undo.accounts {
                self.accounts.take_back(saved);
            }
        }
        while self.statuses.len() > self.undo.statuses {
            let _ = self.statuses.pop();
        }
    }

    fn undo_transfer(&mut self, resolved: Option<u64>) {
        let event = self.events.pop();
        if event.wide().is_some() {
            mark(Mark::WideUndone);
            let _ = self.wide.pop();
        }
        let transfer = self.transfers.pop();
        let popped = self.indexes.ids.pop();
        assert!(popped.is_some_and(|entry| entry.id == transfer.id.get()));
        if let Some(expires) = expires_at(&transfer) {
            let due = (expires, transfer.timestamp.get(), self.transfers.len());
            let removed = self.due.remove(&due);
            assert!(removed);
        }
        if let Some(pending) = resolved {
            mark(Mark::ResolutionUndone);
            self.status_set(pending, PendingStatus::Pending);
            let original = self.transfer(pending);
            if let Some(expires) = expires_at(original) {
                let due = (expires, original.timestamp.get(), pending);
                let _ = self.due.insert(due);
            }
        }
    }
}
