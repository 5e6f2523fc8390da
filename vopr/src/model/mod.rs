//! The reference model of the ledger: plain ordered maps and one function per rule.
//!
//! It owns a whole ledger in memory and executes whole requests: from an operation, the timestamp
//! of its last event and a valid body it gives the exact bytes of the reply body. It shares no code
//! with `daftari::ledger` nor with `daftari::wire`, so that a difference between the two is a
//! fault in one of them. Invariants: every account and transfer has its own timestamp, `ids` name
//! exactly the stored objects, and the pending transfers with a timeout are exactly those of
//! `expiry`.

mod account;
mod audit;
/// Operations and multi-batch bodies.
pub mod batch;
mod create;
/// The bits of all flag fields.
pub mod flags;
/// The structs of the wire.
pub mod layout;
mod query;
mod resolve;
/// The status codes.
pub mod status;
#[cfg(test)]
mod tests;
mod transfer;
mod undo;

use std::collections::{BTreeMap, BTreeSet};

use self::batch::{Kind, Op};
use self::flags::{account as account_flag, transfer as transfer_flag};
use self::layout::{Account, ChangeEvent, Id, Layout, Transfer};
use self::undo::Undo;

const NANOSECONDS: u64 = 1_000_000_000;
const TIMESTAMP_MAX: u64 = (1 << 63) - 1;
/// Expiries of one pulse at most.
const PULSE_MAX: usize = 8190;

/// What became of a pending transfer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Pending,
    Posted,
    Voided,
    Expired,
}

/// Why a change event happened, as the protocol numbers it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    SinglePhase = 0,
    Pending = 1,
    Posted = 2,
    Voided = 3,
    Expired = 4,
}

/// An event is not created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Refused {
    status: u32,
    /// That of the object which exists already; else the result has that of the event.
    timestamp: Option<u64>,
}

/// The first check that fails decides.
fn refuse_if(fails: bool, status: u32) -> Result<(), Refused> {
    if fails {
        Err(Refused {
            status,
            timestamp: None,
        })
    } else {
        Ok(())
    }
}

/// Where a change event is: an import may take a timestamp that an expiry has.
type EventKey = (u64, bool);

/// A ledger.
#[derive(Debug, Default)]
pub struct Model {
    /// By timestamp, as the transfers are.
    accounts: BTreeMap<u64, Account>,
    account_ids: BTreeMap<u128, u64>,
    transfers: BTreeMap<u64, Transfer>,
    transfer_ids: BTreeMap<u128, u64>,
    /// Ids of transfers that failed and may not be used again.
    burnt: BTreeSet<u128>,
    /// By the timestamp of the pending transfer.
    statuses: BTreeMap<u64, Status>,
    /// When a pending transfer expires, and its timestamp.
    expiry: BTreeSet<(u64, u64)>,
    /// By timestamp, and whether it is an expiry.
    events: BTreeMap<EventKey, ChangeEvent>,
    /// Changes since the open chain began.
    undo: Option<Vec<Undo>>,
    /// The latest timestamp that was executed.
    latest: u64,
}

impl Model {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Executes a request, and gives the body of the reply. `timestamp` is that of its last event.
    ///
    /// # Panics
    /// When the operation is unknown or the body invalid: such requests are never committed. When
    /// timestamps do not increase.
    pub fn execute(&mut self, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
        let op = Op::from_code(operation).expect("an operation of the ledger");
        let batches = if op.multi_batch {
            batch::decode(op.event_size(), body).expect("a valid body")
        } else {
            vec![body]
        };
        let events: usize = batches
            .iter()
            .map(|batch| batch.len() / op.event_size())
            .sum();
        let mut reached = timestamp;
        if op.creates() {
            reached -= u64::try_from(events).expect("few events");
            assert!(reached >= self.latest, "a timestamp is given out twice");
        }
        assert!(timestamp > self.latest, "timestamps increase");
        self.latest = timestamp;
        let mut replies = Vec::with_capacity(batches.len());
        for batch in batches {
            let count = batch.len() / op.event_size();
            if op.creates() {
                reached += u64::try_from(count).expect("few events");
            }
            replies.push(self.execute_batch(op, reached, batch));
        }
        assert!(self.undo.is_none());
        if op.multi_batch {
            batch::encode(op.result_size(), &replies)
        } else {
            replies.concat()
        }
    }

    fn execute_batch(&mut self, op: Op, timestamp: u64, batch: &[u8]) -> Vec<u8> {
        assert!(
            !op.queries() || batch.len() == op.event_size(),
            "one filter to a batch"
        );
        let mut out = Vec::new();
        match op.kind {
            Kind::CreateAccounts => {
                create::create::<Account>(self, timestamp, batch, op.sparse, &mut out);
            }
            Kind::CreateTransfers => {
                create::create::<Transfer>(self, timestamp, batch, op.sparse, &mut out);
            }
            Kind::LookupAccounts => {
                for id in batch.chunks(Id::SIZE) {
                    if let Some(found) = self.account(Id::decode(id).id) {
                        found.encode(&mut out);
                    }
                }
            }
            Kind::LookupTransfers => {
                for id in batch.chunks(Id::SIZE) {
                    if let Some(found) = self.transfer(Id::decode(id).id) {
                        found.encode(&mut out);
                    }
                }
            }
            Kind::GetAccountTransfers
            | Kind::GetAccountBalances
            | Kind::QueryAccounts
            | Kind::QueryTransfers
            | Kind::GetChangeEvents => self.query(op, batch, &mut out),
        }
        out
    }

    /// When the next pending transfer expires.
    #[must_use]
    pub fn pulse_next(&self) -> Option<u64> {
        self.expiry.first().map(|&(expires_at, _)| expires_at)
    }

    /// Whether a pending transfer has reached its timeout, so that a pulse should come first.
    #[must_use]
    pub fn pulse_due(&self, now: u64) -> bool {
        self.pulse_next()
            .is_some_and(|expires_at| expires_at <= now)
    }

    /// Expires pending transfers whose timeout is reached; `timestamp` is that of the last.
    ///
    /// # Panics
    /// When timestamps do not increase.
    pub fn pulse(&mut self, timestamp: u64) {
        let due: Vec<(u64, u64)> = self
            .expiry
            .range(..=(timestamp, u64::MAX))
            .take(PULSE_MAX)
            .copied()
            .collect();
        let mut reached = timestamp - u64::try_from(due.len()).expect("few expiries");
        assert!(
            reached >= self.latest && timestamp > self.latest,
            "timestamps increase"
        );
        self.latest = timestamp;
        for key in due {
            reached += 1;
            assert!(self.expiry.remove(&key));
            let pending = self.transfers[&key.1];
            let mut debit = self
                .account(pending.debit_account_id)
                .expect("it is referred to");
            let mut credit = self
                .account(pending.credit_account_id)
                .expect("it is referred to");
            debit.debits_pending -= pending.amount;
            credit.credits_pending -= pending.amount;
            reopen(&pending, &mut debit, &mut credit);
            self.set_status(key.1, Status::Expired);
            self.put_account(debit);
            self.put_account(credit);
            self.record(reached, &pending, &debit, &credit, Cause::Expired);
        }
    }

    fn account(&self, id: u128) -> Option<Account> {
        self.account_ids
            .get(&id)
            .map(|timestamp| self.accounts[timestamp])
    }

    fn transfer(&self, id: u128) -> Option<Transfer> {
        self.transfer_ids
            .get(&id)
            .map(|timestamp| self.transfers[timestamp])
    }
}

/// A closing transfer that comes to nothing opens the accounts again.
fn reopen(pending: &Transfer, debit: &mut Account, credit: &mut Account) {
    if pending.flags & transfer_flag::CLOSING_DEBIT != 0 {
        debit.flags &= !account_flag::CLOSED;
    }
    if pending.flags & transfer_flag::CLOSING_CREDIT != 0 {
        credit.flags &= !account_flag::CLOSED;
    }
}

/// When a pending transfer expires, if it does.
fn expires_at(pending: &Transfer) -> Option<u64> {
    (pending.timeout != 0).then(|| pending.timestamp + u64::from(pending.timeout) * NANOSECONDS)
}
