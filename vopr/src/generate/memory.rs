//! What a generator knows of the past: what it sent, and what it was told.

use std::collections::BTreeMap;

use crate::model::batch::{self, Kind, Op};
use crate::model::flags::transfer as flag;
use crate::model::layout::{Account, ChangeEvent, CreateResult, Layout, Transfer};
use crate::model::status;
use crate::random::Random;

/// Events that are kept of each kind.
const KEPT: usize = 300;

/// What was sent and learnt.
#[derive(Debug, Default)]
pub struct Memory {
    accounts: Vec<Account>,
    transfers: Vec<Transfer>,
    pending: Vec<Transfer>,
    /// Accounts as they last were in a reply.
    seen: BTreeMap<u128, Account>,
    /// Timestamps of events and requests.
    timestamps: Vec<u64>,
    latest: u64,
    expired: Option<u64>,
}

fn keep<T>(list: &mut Vec<T>, item: T, at: usize) {
    if list.len() < KEPT {
        list.push(item);
    } else {
        list[at] = item;
    }
}

impl Memory {
    pub(super) fn sent_account(&mut self, account: Account, random: &mut Random) {
        keep(&mut self.accounts, account, random.index(KEPT));
    }

    pub(super) fn sent_transfer(&mut self, transfer: Transfer, random: &mut Random) {
        keep(&mut self.transfers, transfer, random.index(KEPT));
        if transfer.flags & flag::PENDING != 0 {
            keep(&mut self.pending, transfer, random.index(KEPT));
        }
    }

    /// An account that was sent before: often one of the latest.
    pub(super) fn an_account(&self, random: &mut Random) -> Option<Account> {
        recent(&self.accounts, random)
    }

    pub(super) fn a_transfer(&self, random: &mut Random) -> Option<Transfer> {
        recent(&self.transfers, random)
    }

    pub(super) fn a_pending(&self, random: &mut Random) -> Option<Transfer> {
        recent(&self.pending, random)
    }

    /// An account as it last was in a reply.
    pub(super) fn seen(&self, id: u128) -> Option<Account> {
        self.seen.get(&id).copied()
    }

    /// A timestamp that something has, one next to it, or any other.
    pub(super) fn timestamp(&self, random: &mut Random) -> u64 {
        match (self.timestamps.is_empty(), random.below(20)) {
            (_, 0) => random.any(),
            (_, 1) => random.pick(&[0, 1, u64::MAX, 1 << 63, (1 << 63) - 1]),
            (true, _) => 0,
            (false, 2..=4) => random.pick(&self.timestamps).saturating_add(1),
            (false, 5..=7) => random.pick(&self.timestamps).saturating_sub(1),
            (false, _) => random.pick(&self.timestamps),
        }
    }

    /// The timestamp of an expiry that was seen last.
    pub(super) fn expired(&self) -> Option<u64> {
        self.expired
    }

    /// The latest timestamp of a reply.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    pub(super) fn learn(&mut self, operation: u8, body: &[u8], timestamp: u64, reply: &[u8]) {
        self.latest = self.latest.max(timestamp);
        let op = Op::from_code(operation).expect("a known operation");
        let cut = |size, bytes| {
            if op.multi_batch {
                batch::decode(size, bytes)
            } else {
                Some(vec![bytes])
            }
        };
        let requests = cut(op.event_size(), body).expect("the body was made here");
        let replies = cut(op.result_size(), reply).expect("a valid reply");
        let mut at = mixed(timestamp);
        let mut remember = |stamp: u64| {
            at = (at + 7) % KEPT;
            keep(&mut self.timestamps, stamp, at);
        };
        remember(timestamp);
        for (request, reply) in requests.into_iter().zip(replies) {
            match op.kind {
                Kind::CreateAccounts | Kind::CreateTransfers if !op.sparse => {
                    let events = request.chunks(op.event_size());
                    for (event, result) in events.zip(reply.chunks(CreateResult::SIZE)) {
                        let result = CreateResult::decode(result);
                        remember(result.timestamp);
                        if op.kind == Kind::CreateAccounts
                            && result.status == status::account::CREATED
                        {
                            let created = Account {
                                timestamp: result.timestamp,
                                ..Account::decode(event)
                            };
                            self.seen.insert(created.id, created);
                        }
                    }
                }
                Kind::LookupAccounts | Kind::QueryAccounts => {
                    for account in reply.chunks(Account::SIZE).map(Account::decode) {
                        self.seen.insert(account.id, account);
                    }
                }
                Kind::GetChangeEvents => {
                    // Those of expiries can be known from nowhere else.
                    for event in reply.chunks(ChangeEvent::SIZE).map(ChangeEvent::decode) {
                        if event.timestamp != event.transfer_timestamp {
                            remember(event.timestamp);
                            self.expired = Some(event.timestamp);
                        }
                    }
                }
                Kind::CreateAccounts
                | Kind::CreateTransfers
                | Kind::LookupTransfers
                | Kind::GetAccountTransfers
                | Kind::GetAccountBalances
                | Kind::QueryTransfers => {}
            }
        }
    }
}

fn mixed(timestamp: u64) -> usize {
    usize::try_from(crate::random::mix(timestamp) % 300).expect("small")
}

fn recent<T: Copy>(list: &[T], random: &mut Random) -> Option<T> {
    if list.is_empty() {
        return None;
    }
    let back = if random.percent(50) {
        list.len().min(8)
    } else {
        list.len()
    };
    Some(list[list.len() - 1 - random.index(back)])
}
