//! Accounts as they are now: those that were used lately.
//!
//! * What a batch needs is fetched before it executes, and stays until the next one begins.
//! * Nothing is written back: the balances of an account are in the event of its last change.
//! * A cache that is too small for a batch grows for it, and begins anew with the next.
//! * Which accounts are here decides nothing but how often the disk is read.

use crate::lsm::{Chunk, Hash, IdIndex};
use crate::stdx::{to_u64, to_usize, u64_to_usize};
use crate::wire::Account;

/// Accounts that a batch needs at most: those that its events name, those of the pending transfers that
/// they resolve, and others of the same hash as those named. An unbatched request has one event more.
const BATCH_ACCOUNTS_MAX: u64 = 6 * (crate::constants::BATCH_EVENTS_MAX as u64 + 1);

/// Accounts of the smallest cache that never grows beyond its capacity: there is always one that the
/// batch does not need.
const CAPACITY_MIN: u64 = BATCH_ACCOUNTS_MAX + 1;

/// Bytes that an account takes at most: itself (131), its slot (12), and its entry in the index. Where
/// ids come and go, a table of the index may double when 7 of 16 places are taken, and is there twice
/// meanwhile: 9 bytes for each of 32 / 7 places, and half of that again. Whoever knows the hash can
/// have all ids in one table.
const ACCOUNT_SIZE: u64 = 208;

/// Bytes of the smallest cache that never grows beyond them.
pub(super) const SIZE_MIN: u64 = CAPACITY_MIN * ACCOUNT_SIZE;

/// A slot without an account.
const FREE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Of the account; [`FREE`] if there is none.
    position: u32,
    /// The batch that needed it last.
    batch: u32,
    /// Whether it was needed since the hand came by.
    recent: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct AccountCache {
    capacity: usize,
    /// Slots by id.
    ids: IdIndex,
    chunks: Vec<Chunk<Account>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slot that is looked at next for an account to give up.
    hand: usize,
    batch: u32,
}

impl AccountCache {
    const PER_CHUNK: usize = Chunk::<Account>::CAPACITY;

    /// An empty cache of so many bytes.
    pub(super) fn new(size: u64) -> Self {
        let capacity = size / ACCOUNT_SIZE;
        Self::of(u64_to_usize(capacity.clamp(1, FREE.into())))
    }

    fn of(capacity: usize) -> Self {
        Self {
            capacity,
            ids: IdIndex::new(),
            chunks: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            batch: 0,
        }
    }

    /// A batch begins: what the last one needed may go.
    pub(super) fn begin(&mut self) {
        if self.slots.len() > self.capacity {
            *self = Self::of(self.capacity);
        }
        self.batch = self.batch.wrapping_add(1);
    }

    /// The slot of an id.
    #[inline]
    pub(super) fn find(&self, id: u128) -> Option<u32> {
        self.ids
            .find(Hash::of(id), |slot| self.get(slot).id.get() == id)
    }

    /// The slot of an id, which the batch needs.
    #[inline]
    pub(super) fn keep(&mut self, id: u128) -> Option<u32> {
        let slot = self.find(id)?;
        self.mark(slot);
        Some(slot)
    }

    /// The slot of an id, which the batch needs, or of another id with the same hash, if there is one.
    #[inline]
    pub(super) fn keep_candidate(&mut self, id: u128) -> Option<u32> {
        let slot = self.ids.candidate(Hash::of(id))?;
        self.mark(slot);
        Some(slot)
    }

    #[inline]
    fn mark(&mut self, slot: u32) {
        let slot = &mut self.slots[to_usize(slot)];
        slot.batch = self.batch;
        slot.recent = true;
    }

    /// The id of the account in a slot; all of the account is read, so that the next use finds it in the
    /// processor's cache.
    #[inline]
    pub(super) fn id(&self, slot: u32) -> u128 {
        let account = self.get(slot);
        // The other cache line.
        let _ = std::hint::black_box(account.timestamp);
        account.id.get()
    }

    /// The account in a slot.
    #[inline]
    pub(super) fn get(&self, slot: u32) -> &Account {
        let slot = to_usize(slot);
        self.chunks[slot / Self::PER_CHUNK].get(slot % Self::PER_CHUNK)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Account {
        let slot = to_usize(slot);
        self.chunks[slot / Self::PER_CHUNK].get_mut(slot % Self::PER_CHUNK)
    }

    /// The position of the account in a slot.
    #[inline]
    pub(super) fn position(&self, slot: u32) -> u32 {
        self.slots[to_usize(slot)].position
    }

    /// Adds an account, which is not here; the batch needs it.
    pub(super) fn insert(&mut self, position: u32, account: &Account) {
        assert!(position != FREE, "no account has that position");
        let slot = Slot {
            position,
            batch: self.batch,
            // Whoever needs it once only does not drive out what is needed often.
            recent: false,
        };
        let at = match self.room() {
            Some(at) => {
                self.slots[to_usize(at)] = slot;
                *self.get_mut(at) = *account;
                at
            }
            None => self.append(slot, account),
        };
        self.ids.insert(Hash::of(account.id.get()), at);
    }

    fn append(&mut self, slot: Slot, account: &Account) -> u32 {
        if self.slots.capacity() == 0 {
            self.slots.reserve_exact(self.capacity);
        }
        if self.chunks.last().is_none_or(Chunk::is_full) {
            self.chunks.push(Chunk::new());
        }
        let last = self.chunks.last_mut().expect("there is one now");
        last.push(account);
        self.slots.push(slot);
        u32::try_from(self.slots.len() - 1).expect("the capacity has 32 bits")
    }

    /// A slot for another account, which may be one that had another so far; `None` if there is to be
    /// a new one.
    fn room(&mut self) -> Option<u32> {
        if let Some(free) = self.free.pop() {
            return Some(free);
        }
        if self.slots.len() < self.capacity {
            return None;
        }
        // Twice around: what was needed lately has a second chance.
        for _ in 0..2 * self.slots.len() {
            let at = self.hand;
            self.hand = (at + 1) % self.slots.len();
            let slot = &mut self.slots[at];
            if slot.batch == self.batch {
                continue;
            }
            if !std::mem::take(&mut slot.recent) {
                let at = u32::try_from(at).expect("the capacity has 32 bits");
                self.ids.remove(Hash::of(self.get(at).id.get()), at);
                return Some(at);
            }
        }
        None
    }

    /// Removes the account of an id, which is here.
    pub(super) fn remove(&mut self, id: u128) {
        let slot = self.find(id).expect("it was inserted in this batch");
        self.ids.remove(Hash::of(id), slot);
        self.slots[to_usize(slot)].position = FREE;
        self.free.push(slot);
    }

    /// Bytes that the cache takes at most.
    pub(super) fn memory_max(&self) -> u64 {
        to_u64(self.capacity).max(CAPACITY_MIN) * ACCOUNT_SIZE + IdIndex::new().memory()
    }
}

#[cfg(test)]
mod tests {
    use super::{ACCOUNT_SIZE, AccountCache, BATCH_ACCOUNTS_MAX, CAPACITY_MIN, SIZE_MIN};
    use crate::lsm::Hash;
    use crate::wire::Account;

    fn account(position: u32) -> Account {
        Account {
            id: (u128::from(position) + 1).into(),
            ..Account::zeroed()
        }
    }

    fn id(position: u32) -> u128 {
        account(position).id.get()
    }

    #[test]
    fn a_cache_keeps_what_the_batch_needs_and_never_grows() {
        let mut cache = AccountCache::new(SIZE_MIN);
        let capacity = u32::try_from(CAPACITY_MIN).unwrap();
        for position in 0..capacity {
            cache.insert(position, &account(position));
        }
        let batch = u32::try_from(BATCH_ACCOUNTS_MAX).unwrap();
        for round in 1..4 {
            cache.begin();
            let first = round * batch;
            for position in first..first + batch {
                if cache.keep(id(position)).is_none() {
                    cache.insert(position, &account(position));
                }
            }
            for position in first..first + batch {
                let slot = cache.find(id(position)).expect("the batch needs it");
                assert_eq!(cache.position(slot), position);
                assert_eq!(cache.get(slot).id.get(), id(position));
            }
        }
        assert_eq!(cache.slots.len(), cache.capacity);
        let taken = cache.ids.memory() + 12 * CAPACITY_MIN + 130 * CAPACITY_MIN;
        assert!(taken <= cache.memory_max(), "{taken}");
    }

    #[test]
    fn what_is_used_stays_and_what_was_removed_is_gone() {
        let capacity = 100;
        let mut cache = AccountCache::new(u64::from(capacity) * ACCOUNT_SIZE);
        for position in 0..capacity {
            cache.insert(position, &account(position));
        }
        for position in capacity..3 * capacity {
            cache.begin();
            assert!(cache.keep(id(0)).is_some());
            cache.insert(position, &account(position));
        }
        assert!(cache.find(id(0)).is_some());
        cache.remove(id(0));
        assert!(cache.find(id(0)).is_none());
        cache.insert(0, &account(0));
        assert_eq!(cache.slots.len(), cache.capacity);
    }

    /// Ids of one shard of the index, eight neighbours each time, come and go.
    #[test]
    fn chosen_ids_stay_within_the_bound() {
        const CAPACITY: u64 = 2000;
        let cell = |group: u128| Hash::of(group << 3).cell;
        let groups = (1_u128..).filter(|group| cell(*group) == cell(1));
        let ids = groups.flat_map(|group| (0..8).map(move |id| group << 3 | id));
        let mut cache = AccountCache::new(CAPACITY * ACCOUNT_SIZE);
        let empty = cache.ids.memory();
        let mut most = 0;
        for (position, id) in (0..).zip(ids.take(12_000)) {
            cache.begin();
            let account = Account {
                id: id.into(),
                ..Account::zeroed()
            };
            cache.insert(position, &account);
            most = most.max(cache.ids.memory() - empty);
        }
        // While a table is copied, one of half the size is there too.
        let index = most + most / 2;
        let others = ACCOUNT_SIZE - 131 - 12;
        assert!(index <= CAPACITY * others, "{index} bytes");
    }

    #[test]
    fn a_cache_that_grew_for_a_batch_begins_anew() {
        let mut cache = AccountCache::new(2 * ACCOUNT_SIZE);
        for position in 0..5 {
            cache.insert(position, &account(position));
        }
        assert!((0..5).all(|position| cache.find(id(position)).is_some()));
        cache.begin();
        assert!((0..5).all(|position| cache.find(id(position)).is_none()));
        cache.insert(3, &account(3));
        assert!(cache.find(id(3)).is_some());
    }
}
