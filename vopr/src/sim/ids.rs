//! The ids that requests would create, and how to read back what became of them.

use crate::model::layout::{AccountFilter, ChangeEventsFilter, Layout, QueryFilter};
use crate::random::Random;
use daftari::wire::{Batches, Operation};
use std::collections::{BTreeSet, VecDeque};

/// Ids in one lookup.
const LOOKUP_IDS: usize = 100;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    /// Ids in requests that create accounts.
    accounts: BTreeSet<u128>,
    /// Ids in requests that create transfers.
    transfers: BTreeSet<u128>,
}

impl Ids {
    /// Remembers the ids that a request would create.
    pub fn note(&mut self, operation: Operation, body: &[u8]) {
        if !operation.is_create() {
            return;
        }
        let accounts = matches!(
            operation,
            Operation::CreateAccounts
                | Operation::CreateAccountsSparse
                | Operation::CreateAccountsUnbatched
        );
        let events = if operation.is_multi_batch() {
            match Batches::decode(operation.event_size(), body) {
                Ok(batches) => batches.payload().to_vec(),
                Err(_) => return,
            }
        } else {
            body.to_vec()
        };
        for event in events.chunks_exact(128) {
            let id = u128::from_le_bytes(event[..16].try_into().expect("16 bytes"));
            let ids = if accounts {
                &mut self.accounts
            } else {
                &mut self.transfers
            };
            ids.insert(id);
        }
    }

    /// Lookups of all of them.
    #[must_use]
    pub fn lookups(&self) -> VecDeque<(Operation, Vec<u8>)> {
        let tables = [
            (Operation::LookupAccountsUnbatched, &self.accounts),
            (Operation::LookupTransfersUnbatched, &self.transfers),
        ];
        let mut script = VecDeque::new();
        for (operation, ids) in tables {
            let ids: Vec<u128> = ids.iter().copied().collect();
            for ids in ids.chunks(LOOKUP_IDS) {
                script.push_back((
                    operation,
                    ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
                ));
            }
        }
        script
    }

    /// Everything there is, by all ways that lead to it, in any order.
    #[must_use]
    pub fn everything(&self, random: &mut Random) -> VecDeque<(Operation, Vec<u8>)> {
        let mut script: Vec<(Operation, Vec<u8>)> = self.lookups().into();
        for (account_id, flags) in self.accounts.iter().zip((3..8).cycle().step_by(4)) {
            let filter = AccountFilter {
                account_id: *account_id,
                limit: 8189,
                flags,
                ..AccountFilter::zeroed()
            };
            for operation in [
                Operation::GetAccountTransfersUnbatched,
                Operation::GetAccountBalancesUnbatched,
            ] {
                script.push((operation, filter.bytes()));
            }
        }
        let fields = [
            |filter: &mut QueryFilter| filter.user_data_128 = 1,
            |filter: &mut QueryFilter| filter.user_data_128 = u128::MAX,
            |filter: &mut QueryFilter| filter.user_data_64 = 1 << 32,
            |filter: &mut QueryFilter| filter.user_data_32 = 2,
            |filter: &mut QueryFilter| filter.ledger = 1,
            |filter: &mut QueryFilter| filter.code = u16::MAX,
        ];
        for set in fields {
            let mut filter = QueryFilter {
                limit: 8189,
                ..QueryFilter::zeroed()
            };
            set(&mut filter);
            for operation in [
                Operation::QueryAccountsUnbatched,
                Operation::QueryTransfersUnbatched,
            ] {
                script.push((operation, filter.bytes()));
            }
        }
        let events = ChangeEventsFilter {
            limit: u32::MAX,
            ..ChangeEventsFilter::zeroed()
        };
        script.push((Operation::GetChangeEvents, events.bytes()));
        for at in (1..script.len()).rev() {
            script.swap(at, random.index(at + 1));
        }
        script.into()
    }
}
