//! The simulated disk: a platter of sectors, and writes that are not on it yet.
//!
//! Invariants:
//! * The platter holds what a crash would leave, and nothing else: the checker reads it directly.
//! * A write changes the platter as a whole when it completes. At a crash, each write under way
//!   leaves none, all or any subset of its sectors, or of their 512-byte parts, and a sector may
//!   become unreadable.
//! * Writes are aligned, lie in one zone, never overlap another one under way, and at most one of
//!   them belongs to the journal (I13).

use super::draws::Draws;
use crate::random::Random;
use daftari::stdx::{to_u64, u64_to_usize};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;
use storage_format::geometry::SUPERBLOCK_COPY_SIZE;
use storage_format::{Geometry, SECTOR_SIZE};

/// The bytes of a sector.
pub type Sector = [u8; SECTOR_SIZE];

/// Bytes that a disk writes as one, in the seeds where sectors tear.
const TEAR_SIZE: usize = 512;

/// A part of the data file.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Zone {
    /// The four copies.
    Superblock,
    /// The header ring.
    Headers,
    /// The prepare ring.
    Prepares,
    /// The clients' replies.
    Replies,
    /// Blocks.
    Grid,
}

/// A write under way.
#[derive(Debug)]
pub struct Write {
    /// Where.
    pub offset: u64,
    /// What.
    pub data: Vec<u8>,
    /// Which part of the file.
    pub zone: Zone,
}

impl Write {
    fn end(&self) -> u64 {
        self.offset + to_u64(self.data.len())
    }
}

/// What a crash did to a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survived {
    /// Nothing of it is there.
    None,
    /// All of it is there.
    Whole,
    /// Some of it.
    Torn,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    geometry: Geometry,
    sectors: Vec<Option<Rc<Sector>>>,
    writes: BTreeMap<u64, Write>,
    /// Writes and reads that have completed, and were not collected yet.
    done: BTreeMap<u64, ()>,
    wakers: BTreeMap<u64, Waker>,
    next_id: u64,
    tear_inside_sectors: bool,
    /// Bytes that were asked for and given: blocks have to lie in them.
    reserved: u64,
    /// Bytes that are given at most, until so many were refused.
    room: u64,
    refusals_left: u64,
    /// When somebody did not get what was asked for, the last time.
    refused_at: Option<u64>,
    /// While the file is made, journal writes may go side by side.
    pub formatting: bool,
    /// Whether a torn write may make a sector of headers unreadable.
    pub loses_headers: bool,
    /// What becomes of writes under way at the next crash; drawn if not set.
    pub at_crash: Option<Survived>,
}

impl Disk {
    /// A disk full of zeroes.
    #[must_use]
    pub fn new(geometry: Geometry, tear_inside_sectors: bool) -> Self {
        let count = u64_to_usize(geometry.file_size_max.get()) / SECTOR_SIZE;
        Self {
            geometry,
            sectors: vec![None; count],
            writes: BTreeMap::new(),
            done: BTreeMap::new(),
            wakers: BTreeMap::new(),
            next_id: 0,
            tear_inside_sectors,
            reserved: 0,
            room: u64::MAX,
            refusals_left: 0,
            refused_at: None,
            formatting: true,
            loses_headers: true,
            at_crash: None,
        }
    }

    /// An empty disk in its place. Accesses to the old one that were under way mean nothing to it.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut new = Self::new(self.geometry, self.tear_inside_sectors);
        new.loses_headers = self.loses_headers;
        new.next_id = self.next_id;
        new
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        to_u64(self.sectors.len() * SECTOR_SIZE)
    }

    /// Gives space as far as there is room.
    pub fn reserve(&mut self, now: u64, size: u64, limit: u64) -> u64 {
        self.reserved = self.reserved.max(size.min(limit).min(self.room));
        if self.reserved < size {
            self.refused_at = Some(now);
            self.refusals_left -= 1;
            if self.refusals_left == 0 {
                self.room = u64::MAX;
            }
        }
        self.reserved
    }

    /// The disk has room for so many bytes, until so many (more than none) were refused.
    pub fn set_room(&mut self, room: u64, refusals: u64) {
        assert!(refusals > 0);
        (self.room, self.refusals_left) = (room, refusals);
    }

    /// Whether somebody who asked for space was refused at that time: who asked for less may have got
    /// it since, and the answer leaves in the same instant.
    #[must_use]
    pub fn was_full(&self, now: u64) -> bool {
        self.refused_at == Some(now)
    }

    /// The zone that holds `offset`.
    #[must_use]
    pub fn zone(&self, offset: u64) -> Zone {
        let geometry = &self.geometry;
        if offset < geometry.headers_offset() {
            Zone::Superblock
        } else if offset < geometry.prepares_offset() {
            Zone::Headers
        } else if offset < geometry.replies_offset() {
            Zone::Prepares
        } else if offset < geometry.grid_offset() {
            Zone::Replies
        } else {
            Zone::Grid
        }
    }

    /// Starts a write; gives its number.
    ///
    /// # Errors
    /// Says what rule of the storage it breaks.
    pub fn start_write(&mut self, offset: u64, data: &[u8]) -> Result<u64, String> {
        let size = to_u64(data.len());
        let sector = to_u64(SECTOR_SIZE);
        if size == 0 || !size.is_multiple_of(sector) || !offset.is_multiple_of(sector) {
            return Err(format!(
                "a write of {size} bytes at {offset} is not whole sectors"
            ));
        }
        if offset + size > self.size() {
            return Err(format!(
                "a write of {size} bytes at {offset} ends beyond the file"
            ));
        }
        let zone = self.zone(offset);
        if zone != self.zone(offset + size - 1) {
            return Err(format!(
                "a write of {size} bytes at {offset} leaves its zone {zone:?}"
            ));
        }
        if zone == Zone::Grid && offset + size > self.reserved {
            return Err(format!(
                "a write of {size} bytes at {offset} goes beyond what was reserved, {}",
                self.reserved
            ));
        }
        self.check_slot(zone, offset, size)?;
        let journal = |zone: Zone| matches!(zone, Zone::Headers | Zone::Prepares);
        for other in self.writes.values() {
            if offset < other.end() && other.offset < offset + size {
                return Err(format!(
                    "two writes at {offset} and {} overlap",
                    other.offset
                ));
            }
            if journal(zone) && journal(other.zone) && !self.formatting {
                return Err(format!(
                    "two journal writes at once: {offset} and {}",
                    other.offset
                ));
            }
            if zone == Zone::Superblock && other.zone == Zone::Superblock {
                return Err("two superblock copies are written at once".into());
            }
        }
        self.next_id += 1;
        self.writes.insert(
            self.next_id,
            Write {
                offset,
                data: data.to_vec(),
                zone,
            },
        );
        Ok(self.next_id)
    }

    /// A write stays within its superblock copy, journal slot, reply slot or block.
    fn check_slot(&self, zone: Zone, offset: u64, size: u64) -> Result<(), String> {
        let (start, slot) = self.slot(zone, offset);
        if start != offset || size > slot {
            return Err(format!(
                "a write of {size} bytes at {offset} leaves its slot in {zone:?}"
            ));
        }
        Ok(())
    }

    /// Where the superblock copy, sector of headers, journal slot, reply slot or block begins that `offset`
    /// lies in, and how long it is.
    #[must_use]
    pub fn slot(&self, zone: Zone, offset: u64) -> (u64, u64) {
        let geometry = &self.geometry;
        let (first, size) = match zone {
            Zone::Superblock => (0, to_u64(SUPERBLOCK_COPY_SIZE)),
            Zone::Headers => (geometry.headers_offset(), to_u64(SECTOR_SIZE)),
            Zone::Prepares => (
                geometry.prepares_offset(),
                u64::from(geometry.journal_slot_size.get()),
            ),
            Zone::Replies => (geometry.replies_offset(), geometry.reply_slot_size()),
            Zone::Grid => (geometry.grid_offset(), u64::from(geometry.block_size.get())),
        };
        (offset - (offset - first) % size, size)
    }

    /// Starts a read; gives its number.
    pub fn start_read(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The zone of a write under way.
    #[must_use]
    pub fn zone_of_write(&self, id: u64) -> Option<Zone> {
        self.writes.get(&id).map(|write| write.zone)
    }

    /// What is where a write under way goes to; nothing when there is no such write.
    #[must_use]
    pub fn written_over(&self, id: u64) -> Vec<u8> {
        let write = self.writes.get(&id);
        write.map_or(Vec::new(), |write| {
            self.bytes(write.offset, write.data.len())
        })
    }

    /// Puts a write on the platter; the write, unless a crash came before.
    pub fn complete_write(&mut self, id: u64) -> Option<Write> {
        let write = self.writes.remove(&id)?;
        self.put(write.offset, &write.data);
        Some(write)
    }

    /// Tells whoever waits for `id`.
    pub fn finish(&mut self, id: u64) {
        self.done.insert(id, ());
        if let Some(waker) = self.wakers.remove(&id) {
            waker.wake();
        }
    }

    /// Whether `id` has completed; if not, `waker` is told later.
    pub fn poll(&mut self, id: u64, waker: &Waker) -> bool {
        if self.done.remove(&id).is_some() {
            return true;
        }
        self.wakers.insert(id, waker.clone());
        false
    }

    /// Whether a write to that place is under way.
    #[must_use]
    pub fn is_written(&self, offset: u64) -> bool {
        self.writes.values().any(|write| write.offset == offset)
    }

    /// Writes under way.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.writes.values()
    }

    /// Overwrites bytes of the platter, whole sectors.
    pub fn put(&mut self, offset: u64, data: &[u8]) {
        let first = u64_to_usize(offset) / SECTOR_SIZE;
        for (index, bytes) in data.chunks_exact(SECTOR_SIZE).enumerate() {
            let sector: Sector = bytes.try_into().expect("the chunks are whole sectors");
            self.sectors[first + index] = Some(Rc::new(sector));
        }
    }

    /// Bytes of the platter.
    pub fn get(&self, offset: u64, buffer: &mut [u8]) {
        let first = u64_to_usize(offset) / SECTOR_SIZE;
        assert!(u64_to_usize(offset).is_multiple_of(SECTOR_SIZE));
        for (index, bytes) in buffer.chunks_mut(SECTOR_SIZE).enumerate() {
            match self.sectors.get(first + index).and_then(Option::as_ref) {
                Some(sector) => bytes.copy_from_slice(&sector[..bytes.len()]),
                None => bytes.fill(0),
            }
        }
    }

    /// The same as a vector.
    #[must_use]
    pub fn bytes(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut buffer = vec![0; size];
        self.get(offset, &mut buffer);
        buffer
    }

    /// The sectors from `offset` on, to be put back by [`Self::restore`].
    #[must_use]
    pub fn snapshot(&self, offset: u64, size: u64) -> Vec<Option<Rc<Sector>>> {
        let first = u64_to_usize(offset) / SECTOR_SIZE;
        self.sectors[first..first + u64_to_usize(size) / SECTOR_SIZE].to_vec()
    }

    /// Puts sectors back.
    pub fn restore(&mut self, offset: u64, sectors: &[Option<Rc<Sector>>]) {
        let first = u64_to_usize(offset) / SECTOR_SIZE;
        self.sectors[first..first + sectors.len()].clone_from_slice(sectors);
    }

    /// Damages the sector at `offset`: zeroes, noise, or one bit of it.
    pub fn damage(&mut self, offset: u64, random: &mut Random) {
        let mut sector = self.bytes(offset, SECTOR_SIZE);
        match random.below(3) {
            0 if sector.iter().any(|byte| *byte != 0) => sector.fill(0),
            1 => {
                for bytes in sector.chunks_exact_mut(8) {
                    bytes.copy_from_slice(&random.any().to_le_bytes());
                }
            }
            _ => {
                // Every structure has its checksums in the first bytes of its sector.
                let at = random.index(256);
                sector[at] ^= 1 << random.below(8);
            }
        }
        self.put(offset, &sector);
    }

    /// Power fails: what was under way is torn. Gives the writes with what became of them.
    pub fn crash(&mut self, random: &mut Random) -> Vec<(Write, Survived)> {
        self.done.clear();
        self.wakers.clear();
        let writes = std::mem::take(&mut self.writes);
        let fixed = self.at_crash.take();
        let mut survived = Vec::new();
        for (_, write) in writes {
            let drawn = match random.below(4) {
                0 => Survived::None,
                1 => Survived::Whole,
                _ => Survived::Torn,
            };
            let what = match fixed.unwrap_or(drawn) {
                Survived::None => Survived::None,
                Survived::Whole => {
                    self.put(write.offset, &write.data);
                    Survived::Whole
                }
                Survived::Torn if fixed.is_some() => {
                    // Its first sector, which has the header, is no longer readable.
                    self.put(write.offset, &[0xa5; SECTOR_SIZE]);
                    Survived::Torn
                }
                Survived::Torn => {
                    self.tear(&write, random);
                    if self.bytes(write.offset, write.data.len()) == write.data {
                        Survived::Whole
                    } else {
                        Survived::Torn
                    }
                }
            };
            survived.push((write, what));
        }
        survived
    }

    fn tear(&mut self, write: &Write, random: &mut Random) {
        let unreadable = random
            .chance(200)
            .then(|| random.index(write.data.len() / SECTOR_SIZE))
            .filter(|_| self.loses_headers || write.zone != Zone::Headers);
        for (index, new) in write.data.chunks_exact(SECTOR_SIZE).enumerate() {
            let offset = write.offset + to_u64(index * SECTOR_SIZE);
            let mut sector = self.bytes(offset, SECTOR_SIZE);
            if unreadable == Some(index) {
                sector.fill(if random.chance(500) { 0 } else { 0xa5 });
            } else if self.tear_inside_sectors {
                let parts = sector
                    .chunks_exact_mut(TEAR_SIZE)
                    .zip(new.chunks_exact(TEAR_SIZE));
                for (old, new) in parts {
                    if random.chance(500) {
                        old.copy_from_slice(new);
                    }
                }
            } else if random.chance(500) {
                sector.copy_from_slice(new);
            }
            self.put(offset, &sector);
        }
    }
}
