//! What a batch needs of the disk, fetched before it is executed.
//!
//! Executing events never waits: their ids are looked for beforehand, and the transfers of those that
//! are there already, and of those that they post or void, are copied here. Accounts go to their cache.
//! What the batch itself creates is in memory.

use super::Ledger;
use super::account_table::Place;
use super::query::{before, records};
use super::transfers::Located;
use crate::grid::cache::PageKey;
use crate::grid::{Grid, PageCache, Pages};
use crate::io::Io;
use crate::lsm::{IdTree, LogTable, Lookup, Ranked, Record};
use crate::stdx::marks::{Mark, mark};
use crate::wire::types::{account_flags, transfer_flags};
use crate::wire::{Account, Transfer};
use hashbrown::HashTable;
use storage_format::BlockReference;
use zerocopy::little_endian::U128;
use zerocopy::{FromBytes, IntoBytes};

/// Events, and ids, whose needs are fetched together.
pub(super) const TOGETHER: usize = if cfg!(madsim) { 32 } else { 1024 };

/// Pages that looking for an id takes at most: two of each run, of which there are fewer than 16 in
/// each of four tiers.
const PAGES_OF_ID: usize = 128;

/// A value in the tree of ids: the id was burnt by a failure, and is no transfer's.
pub(super) const FAILED: u64 = 1 << 47;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    ids: HashTable<(u128, u64)>,
    transfers: HashTable<(u64, Transfer)>,
    /// Timestamps of imported accounts that a transfer has, or of imported transfers that an account
    /// has.
    timestamps: Vec<u64>,
}

const fn hash(key: u128) -> u64 {
    crate::lsm::hash::mix(key)
}

impl Fetched {
    pub(super) fn clear(&mut self) {
        self.ids.clear();
        self.transfers.clear();
        self.timestamps.clear();
    }

    pub(super) fn id(&self, id: u128) -> Option<u64> {
        if self.ids.is_empty() {
            return None;
        }
        let found = self.ids.find(hash(id), |(key, _)| *key == id);
        found.map(|(_, value)| *value)
    }

    fn add_id(&mut self, id: u128, value: u64) {
        if self.id(id).is_none() {
            let _ = self
                .ids
                .insert_unique(hash(id), (id, value), |(key, _)| hash(*key));
        }
    }

    pub(super) fn transfer(&self, position: u64) -> Option<&Transfer> {
        let found = self
            .transfers
            .find(hash(position.into()), |(key, _)| *key == position);
        found.map(|(_, transfer)| transfer)
    }

    fn add_transfer(&mut self, position: u64, transfer: &Transfer) {
        let _ = self.transfers.insert_unique(
            hash(position.into()),
            (position, *transfer),
            |(key, _)| hash(u128::from(*key)),
        );
    }

    pub(super) fn has_timestamp(&self, timestamp: u64) -> bool {
        self.timestamps.contains(&timestamp)
    }
}

impl Ledger {
    /// Fetches what else some events need whose ids were fetched, no more than [`TOGETHER`], and finds their accounts.
    pub(super) async fn fetch_for_transfers<I: Io>(
        &mut self,
        events: &[Transfer],
        located: &mut Vec<Located>,
        grid: &mut Grid<'_, I>,
    ) {
        let pending = events.iter().map(|event| event.pending_id.get());
        let pending = pending.filter(|id| *id != 0);
        self.fetch_ids(pending.clone(), grid).await;
        let imported = |event: &&Transfer| event.flags.get() & transfer_flags::IMPORTED != 0;
        for event in events.iter().filter(imported) {
            let timestamp = event.timestamp.get();
            if has_timestamp(&self.accounts.created, timestamp, grid).await {
                self.fetched.timestamps.push(timestamp);
            }
        }
        let resolved = pending.filter_map(|id| self.find_transfer(id));
        let resolved = resolved.flat_map(|position| sides_of(self.transfer(position)));
        let resolved: Vec<u128> = resolved.collect();
        self.fetch_accounts(resolved.into_iter(), grid).await;
        self.locate(events, located);
        self.fetch_accounts_of(events, located, grid).await;
    }

    /// Fetches the accounts of events that were not located.
    pub(super) async fn fetch_accounts_of<I: Io>(
        &mut self,
        events: &[Transfer],
        located: &mut [Located],
        grid: &mut Grid<'_, I>,
    ) {
        let mut ids = Vec::new();
        for (located, event) in located.iter().zip(events) {
            let missing = |slot: Option<u32>, id: U128| slot.is_none().then_some(id.get());
            ids.extend(missing(located.debit, event.debit_account_id));
            ids.extend(missing(located.credit, event.credit_account_id));
        }
        if ids.is_empty() {
            return;
        }
        self.fetch_accounts(ids.into_iter(), grid).await;
        for (located, event) in located.iter_mut().zip(events) {
            let find = |id: U128| self.find_account(id.get());
            located.debit = located.debit.or_else(|| find(event.debit_account_id));
            located.credit = located.credit.or_else(|| find(event.credit_account_id));
        }
    }

    /// Has accounts in the cache, those that there are; they stay until the next batch begins.
    pub(super) async fn fetch_accounts<I: Io>(
        &mut self,
        ids: impl Iterator<Item = u128>,
        grid: &mut Grid<'_, I>,
    ) {
        let cache = &mut self.accounts.cache;
        let valid = ids.filter(|id| *id != 0 && *id != u128::MAX);
        let unknown = valid.filter(|id| cache.keep(*id).is_none());
        let mut unknown: Vec<u128> = unknown.collect();
        if unknown.is_empty() {
            return;
        }
        unknown.sort_unstable();
        unknown.dedup();
        let tree = &self.indexes.account_ids;
        let mut positions = Vec::new();
        unknown.retain(|id| {
            let found = tree.find(*id);
            positions.extend(found);
            found.is_none()
        });
        let on_disk = look_up(tree, &unknown, grid).await;
        positions.extend(on_disk.into_iter().map(|(_, position)| position));
        positions.sort_unstable();
        for positions in positions.chunks(TOGETHER) {
            let accounts = self.load_accounts(positions, grid).await;
            for (position, account) in positions.iter().zip(&accounts) {
                let position = u32::try_from(*position).expect("there are fewer accounts");
                self.accounts.cache.insert(position, account);
            }
        }
    }

    /// Accounts as they are now, at positions, no more than [`TOGETHER`].
    pub(super) async fn load_accounts<I: Io>(
        &self,
        positions: &[u64],
        grid: &mut Grid<'_, I>,
    ) -> Vec<Account> {
        let mut accounts = records(&self.accounts.created, positions, grid).await;
        let place = |(number, position): (usize, &u64)| {
            let place = self.accounts.heads.get(*position).place()?;
            Some((number, place))
        };
        let places = positions.iter().enumerate().filter_map(place);
        let (expired, moved): (Vec<_>, Vec<_>) = places.partition(|(_, place)| place.expiry);
        let at = |places: &[(usize, Place)]| -> Vec<u64> {
            places.iter().map(|(_, place)| place.position).collect()
        };
        if !expired.is_empty() {
            mark(Mark::HeadIsExpiry);
        }
        let expiries = self.load_expiries(&at(&expired), grid).await;
        let events = self.load_events(&at(&moved), grid).await;
        let events = moved
            .iter()
            .zip(&events)
            .chain(expired.iter().zip(&expiries));
        for ((number, place), event) in events {
            event.leave(place.side, &mut accounts[*number]);
        }
        accounts
    }

    /// Fetches the values of ids, and the transfers that they lead to.
    pub(super) async fn fetch_ids<I: Io>(
        &mut self,
        ids: impl Iterator<Item = u128>,
        grid: &mut Grid<'_, I>,
    ) {
        let mut positions = Vec::new();
        let mut unknown = Vec::new();
        for id in ids {
            match self.indexes.ids.find(id) {
                Some(value) => positions.push(value),
                None => unknown.push(id),
            }
        }
        for (id, value) in look_up(&self.indexes.ids, &unknown, grid).await {
            self.fetched.add_id(id, value);
            positions.push(value);
        }
        self.fetch_transfers(positions, grid).await;
    }

    /// Fetches the transfers at positions, but for those in memory.
    pub(super) async fn fetch_transfers<I: Io>(
        &mut self,
        mut positions: Vec<u64>,
        grid: &mut Grid<'_, I>,
    ) {
        let in_memory = self.transfers.written();
        positions.retain(|at| at & FAILED == 0 && *at < in_memory);
        positions.sort_unstable();
        positions.dedup();
        positions.retain(|at| self.fetched.transfer(*at).is_none());
        for positions in positions.chunks(TOGETHER) {
            let transfers = records(&self.transfers, positions, grid).await;
            for (position, transfer) in positions.iter().zip(&transfers) {
                self.fetched.add_transfer(*position, transfer);
            }
        }
    }

    /// Fetches what a batch of accounts needs: those that are there already, and whether a transfer has
    /// the timestamp of an imported one.
    pub(super) async fn fetch_for_accounts<I: Io>(
        &mut self,
        events: &[Account],
        grid: &mut Grid<'_, I>,
    ) {
        self.fetched.clear();
        for event in events {
            let timestamp = event.timestamp.get();
            let imported = event.flags.get() & account_flags::IMPORTED != 0;
            if imported && has_timestamp(&self.transfers, timestamp, grid).await {
                self.fetched.timestamps.push(timestamp);
            }
        }
        self.accounts.cache.begin();
        for events in events.chunks(TOGETHER) {
            let ids = events.iter().map(|event| event.id.get());
            self.fetch_accounts(ids, grid).await;
        }
    }

    /// The number of transfers before a time.
    pub(super) async fn transfers_before<I: Io>(
        &self,
        timestamp: u64,
        grid: &mut Grid<'_, I>,
    ) -> u64 {
        before(&self.transfers, timestamp, grid).await
    }

    pub(super) async fn lookup_transfers<I: Io>(
        &mut self,
        batch: &[u8],
        grid: &mut Grid<'_, I>,
        reply: &mut Vec<u8>,
    ) {
        let ids = <[U128]>::ref_from_bytes(batch).expect("the body was found valid");
        self.fetched.clear();
        for ids in ids.chunks(TOGETHER) {
            self.fetch_ids(ids.iter().map(|id| id.get()), grid).await;
        }
        for id in ids {
            if let Some(position) = self.find_transfer(id.get()) {
                reply.extend_from_slice(self.transfer(position).as_bytes());
            }
        }
    }

    /// The transfer at a position that was fetched, or is in memory.
    pub(super) fn transfer(&self, position: u64) -> &Transfer {
        if position >= self.transfers.written() {
            return self.transfers.get_recent(position);
        }
        let fetched = self.fetched.transfer(position);
        fetched.expect("what a batch needs was fetched before")
    }
}

/// The accounts of both sides of a transfer.
pub(super) fn sides_of(transfer: &Transfer) -> [u128; 2] {
    [
        transfer.debit_account_id.get(),
        transfer.credit_account_id.get(),
    ]
}

/// Whether a record has that timestamp.
async fn has_timestamp<T: Record + Ranked, I: Io>(
    table: &LogTable<T>,
    timestamp: u64,
    grid: &mut Grid<'_, I>,
) -> bool {
    let position = before(table, timestamp, grid).await;
    if position == table.len() {
        return false;
    }
    let found = records(table, &[position], grid).await;
    found.iter().any(|record| record.rank() == timestamp)
}

/// Pages that are in the cache. What is missing is not noted: it is asked for again, for a few ids at a time.
struct Here<'a>(&'a PageCache);

impl Pages for Here<'_> {
    fn page(&self, block: &BlockReference, page: usize) -> Option<&[u8]> {
        self.0.look(PageKey::new(block.address.get(), page))
    }
}

/// Looks for ids on disk; gives those that are there, with their values.
async fn look_up<I: Io>(tree: &IdTree, ids: &[u128], grid: &mut Grid<'_, I>) -> Vec<(u128, u64)> {
    let mut lookups = Vec::new();
    grid.cache.begin();
    tree.lookup_many(&Here(&grid.cache), ids, &mut lookups);
    let (mut found, mut unclear) = (Vec::new(), Vec::new());
    for (id, lookup) in ids.iter().zip(lookups) {
        match lookup {
            Lookup::Found(value) => found.push((*id, value)),
            Lookup::Missing => unclear.push(*id),
            Lookup::Absent => {}
        }
    }
    // An id may need two pages of every run: no more ids at a time than fit the cache.
    let group = (grid.cache.pages_max() / PAGES_OF_ID).max(1);
    for ids in unclear.chunks(group) {
        grid.cache.begin();
        let values = loop {
            let values = ids.iter().map(|id| (*id, tree.lookup(&grid.cache, *id)));
            let values: Vec<(u128, Lookup)> = values.collect();
            if !grid.cache.has_missing() {
                break values;
            }
            grid.load_missing().await;
        };
        found.extend(values.into_iter().filter_map(|(id, lookup)| match lookup {
            Lookup::Found(value) => Some((id, value)),
            Lookup::Absent | Lookup::Missing => None,
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Grid, IdTree, TOGETHER, look_up};
    use crate::io::MemoryIo;
    use crate::ledger::LedgerInMemory;
    use crate::lsm::TreeOptions;
    use crate::lsm::fuse::colliding;
    use crate::stdx::{run_to_end, to_u64};

    const CACHE_SIZE: u64 = 640 << 10;

    async fn filled(ids: &[u128], grid: &mut Grid<'_, MemoryIo>) -> IdTree {
        let options = TreeOptions {
            bar: 4,
            pages: 1,
            ..TreeOptions::default()
        };
        let mut tree = IdTree::new(8, options);
        for (number, id) in (0..).zip(ids) {
            tree.push(*id, number);
            if (number + 1) % options.bar == 0 {
                tree.bar();
                tree.begin_merges(grid);
                tree.beat(grid, options.bar).await;
            }
        }
        grid.finish_writes().await;
        tree
    }

    #[test]
    fn ids_without_filters_need_no_more_pages_than_the_cache_has() {
        let io = MemoryIo::default();
        let mut grid = LedgerInMemory::grid(&io, CACHE_SIZE);
        let ids: Vec<u128> = (0..30_000).map(colliding).collect();
        run_to_end(async {
            let tree = filled(&ids, &mut grid).await;
            let pages = 2 * tree.block_count();
            assert!(pages > 2 * to_u64(grid.cache.pages_max()), "{pages} pages");
            let batch: Vec<u128> = ids.iter().step_by(30_000 / TOGETHER).copied().collect();
            let found = look_up(&tree, &batch, &mut grid).await;
            let in_memory = batch.iter().filter(|id| tree.find(**id).is_some()).count();
            assert_eq!(found.len() + in_memory, batch.len());
            for (id, value) in found {
                assert_eq!(ids[usize::try_from(value).unwrap()], id);
            }
        });
    }
}
