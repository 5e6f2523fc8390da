//! What each replica's disk holds, as far as it was written: damage at rest is left out of it.

use super::Checker;
use crate::cluster::quorum;
use crate::sim::disk::{Disk, Write, Zone};
use crate::sim::platter;
use crate::sim::protected::Protected;
use daftari::stdx::{to_u64, u64_to_usize};
use std::collections::BTreeSet;
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{Geometry, PrepareHeader, PrepareKind, SECTOR_SIZE, Superblock};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug)]
pub struct Platter {
    /// The superblock that a quorum of copies holds.
    pub superblock: Superblock,
    /// The newest checkpoint that it has had with all its blocks: it may have given that up for another's since.
    pub had_whole: u64,
    /// Whole prepares, by slot.
    prepares: Vec<Option<PrepareHeader>>,
    /// The ring of headers.
    headers: Vec<PrepareHeader>,
    /// Slots that rotted, and were not written since.
    rotten: BTreeSet<u64>,
    /// Blocks that are not to be overwritten.
    pub protected: Protected,
    /// The highest commit number that the process at work has named.
    pub commit_named: u64,
    /// Ops that it lacks, when that was measured last.
    lacking: u64,
    /// What was on disks that were lost, until all of that is here again.
    lost: Vec<Lost>,
    /// The newest view of all disks that were lost.
    view_lost: u32,
}

/// What was on a disk that was lost: others may still count on it.
#[derive(Debug)]
struct Lost {
    prepares: Vec<Option<PrepareHeader>>,
    checkpoint: u64,
}

impl Platter {
    /// An empty disk.
    pub(super) fn new(slots: u64) -> Self {
        Self {
            superblock: Superblock::zeroed(),
            had_whole: 0,
            prepares: vec![None; u64_to_usize(slots)],
            headers: vec![PrepareHeader::zeroed(); u64_to_usize(slots)],
            rotten: BTreeSet::new(),
            protected: Protected::default(),
            commit_named: 0,
            lacking: 0,
            lost: Vec::new(),
            view_lost: 0,
        }
    }

    /// The disk is lost.
    pub(super) fn lose(&mut self) {
        let mut empty = Self::new(self.slots());
        empty.view_lost = self.newest_view();
        let whole = self.superblock.content_missing == 0;
        let checkpoint = if whole { self.checkpoint() } else { 0 };
        empty.lost = std::mem::take(&mut self.lost);
        empty.lost.push(Lost {
            prepares: std::mem::take(&mut self.prepares),
            checkpoint,
        });
        *self = empty;
    }

    /// The disk that was lost last is there again.
    pub(super) fn find(&mut self) {
        self.lost.pop();
        self.view_lost = 0;
    }

    /// The newest view that the replica has ever had durable.
    pub(super) fn newest_view(&self) -> u32 {
        self.superblock.view.get().max(self.view_lost)
    }

    /// The prepare of an op that was on a disk which was lost.
    pub(super) fn forgotten(&self, op: u64) -> Option<&PrepareHeader> {
        let slot = u64_to_usize(op % self.slots());
        let mut found = self
            .lost
            .iter()
            .filter_map(|lost| lost.prepares[slot].as_ref());
        found.find(|found| found.op.get() == op && found.kind() != PrepareKind::Empty)
    }

    /// Whether a disk that was lost had a checkpoint for what the slot of an op held before.
    pub(super) fn covered(&self, op: u64, slots: u64) -> bool {
        let mut lost = self.lost.iter();
        lost.any(|lost| lost.checkpoint + slots >= op)
    }

    fn slots(&self) -> u64 {
        to_u64(self.prepares.len())
    }

    /// The prepare of an op, if it is there.
    #[must_use]
    pub fn prepare(&self, op: u64) -> Option<&PrepareHeader> {
        let slot = u64_to_usize(op % self.slots());
        let found = self.prepares[slot].as_ref()?;
        (found.op.get() == op && found.kind() != PrepareKind::Empty).then_some(found)
    }

    /// Whether the slot of an op is damaged.
    pub(super) fn is_rotten(&self, op: u64) -> bool {
        self.rotten.contains(&(op % self.slots()))
    }

    /// Whether the replica cannot know where its log ended: the slot after all that is left of it is damaged, or torn
    /// by a crash while something beyond it is damaged.
    pub(super) fn may_have_lost_head(&self) -> bool {
        let left = |header: &&PrepareHeader| !self.is_rotten(header.op.get());
        let known = self.superblock.view_headers[0].op.get();
        let next = self.highest_of_log(left).max(known) + 1;
        let mut beyond = next + 1..self.checkpoint() + self.slots();
        let torn = self.prepares[u64_to_usize(next % self.slots())].is_none();
        self.is_rotten(next) || torn && beyond.any(|op| self.is_rotten(op))
    }

    /// Whether both rings have the same in a slot, and nothing of it is damaged.
    fn is_whole(&self, slot: u64) -> bool {
        let prepare = self.prepares[u64_to_usize(slot)];
        let header = &self.headers[u64_to_usize(slot)];
        prepare.as_ref() == Some(header) && !self.rotten.contains(&slot)
    }

    /// The op whose prepare is in the slot of another, 0 if there is none.
    #[must_use]
    pub fn in_slot(&self, op: u64) -> u64 {
        let found = self.prepares[u64_to_usize(op % self.slots())];
        let found = found.filter(|header| header.kind() != PrepareKind::Empty);
        found.map_or(0, |header| header.op.get())
    }

    /// The header in the ring at the slot of an op.
    #[must_use]
    pub fn header(&self, op: u64) -> &PrepareHeader {
        &self.headers[u64_to_usize(op % self.slots())]
    }

    /// Op of the checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.superblock.checkpoint.op.get()
    }

    /// The highest op that there is a prepare of.
    #[must_use]
    pub fn head(&self) -> u64 {
        let prepares = self.prepares.iter().flatten();
        let prepares = prepares.filter(|header| header.kind() != PrepareKind::Empty);
        let highest = prepares.map(|header| header.op.get()).max();
        highest.unwrap_or(0).max(self.checkpoint())
    }

    /// The highest op of the log: what a view dropped may still be in its slot.
    #[must_use]
    pub fn head_of_view(&self) -> u64 {
        self.highest_of_log(|_| true)
    }

    /// The highest of those ops of its log that `counts`.
    fn highest_of_log(&self, counts: impl Fn(&&PrepareHeader) -> bool) -> u64 {
        let superblock = &self.superblock;
        let prepares = self.prepares.iter().flatten();
        let of_log = prepares.filter(|header| {
            let known = superblock.view_headers.contains(header);
            let of_view = header.view == superblock.log_view && counts(header);
            header.kind() != PrepareKind::Empty && (of_view || known)
        });
        let highest = of_log.map(|header| header.op.get()).max();
        highest.unwrap_or(0).max(self.checkpoint())
    }

    /// Whether all blocks of the checkpoint are there, as far as is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        // What was damaged may have been released since, and never be written again.
        let damaged = |address: u64| self.protected.damaged.contains(&address);
        self.superblock.content_missing == 0 && !self.protected.addresses().any(damaged)
    }

    /// Reads everything.
    pub(super) fn reread(&mut self, disk: &Disk, geometry: &Geometry) {
        for slot in 0..self.slots() {
            self.reread_prepare(disk, geometry, slot);
        }
        let sector = to_u64(HEADERS_PER_SECTOR);
        for first in (0..self.slots()).step_by(HEADERS_PER_SECTOR) {
            self.reread_headers(disk, geometry, first / sector);
        }
        self.reread_superblock(disk);
    }

    /// A write is on the platter, whole or torn.
    pub(super) fn on_written(&mut self, disk: &Disk, geometry: &Geometry, write: &Write) {
        match write.zone {
            Zone::Superblock => self.reread_superblock(disk),
            Zone::Headers => {
                let within = write.offset - geometry.headers_offset();
                self.reread_headers(disk, geometry, within / to_u64(SECTOR_SIZE));
            }
            Zone::Prepares => {
                let slot = platter::slot_at(geometry, write.offset);
                self.reread_prepare(disk, geometry, slot);
            }
            Zone::Grid => self.protected.on_block_written(&write.data),
            Zone::Replies => {}
        }
    }

    fn reread_superblock(&mut self, disk: &Disk) {
        self.superblock =
            platter::superblock(disk).expect("each write was found to leave a quorum");
        if self.superblock.content_missing == 0 {
            self.had_whole = self.checkpoint();
        }
        self.protected.update(disk);
    }

    fn reread_headers(&mut self, disk: &Disk, geometry: &Geometry, sector: u64) {
        let ring = geometry.headers_offset();
        let bytes = disk.bytes(ring + sector * to_u64(SECTOR_SIZE), SECTOR_SIZE);
        let headers = <[PrepareHeader]>::ref_from_bytes(&bytes).expect("whole headers");
        let first = u64_to_usize(sector) * HEADERS_PER_SECTOR;
        self.headers[first..first + HEADERS_PER_SECTOR].copy_from_slice(headers);
        // What was damaged of a slot may have been its header only.
        let (prepares, known) = (&self.prepares, &self.headers);
        self.rotten.retain(|slot| {
            let at = u64_to_usize(*slot);
            let written = slot / to_u64(HEADERS_PER_SECTOR) == sector;
            let mended = prepares[at].as_ref() == Some(&known[at])
                && platter::prepare_at(disk, geometry, *slot) == prepares[at];
            !(written && mended)
        });
    }

    fn reread_prepare(&mut self, disk: &Disk, geometry: &Geometry, slot: u64) {
        self.prepares[u64_to_usize(slot)] = platter::prepare_at(disk, geometry, slot);
        self.rotten.remove(&slot);
    }
}

impl Checker {
    /// Measures how many ops a replica lacks that others have; whether it lags now and did not before.
    pub fn measure_lag(&mut self, replica: u8) -> bool {
        let newest = self.voters().iter().map(Platter::head).max().unwrap_or(0);
        let platter = self.platter(replica);
        let before = self.lags(replica);
        let has = |op: u64| match (self.history.prepare(op), platter.prepare(op)) {
            _ if platter.rotten.contains(&(op % platter.slots())) => false,
            (Some(known), found) => found == Some(known),
            (None, found) => found.is_some(),
        };
        let mut ops = platter.checkpoint() + 1..=newest;
        let first = ops.find(|op| !has(*op)).unwrap_or(newest + 1);
        self.platters[usize::from(replica)].lacking = newest + 1 - first;
        !before && self.lags(replica)
    }

    /// Whether a replica lacks so much that it has to be brought back.
    #[must_use]
    pub fn lags(&self, replica: u8) -> bool {
        let platter = self.platter(replica);
        platter.lacking > platter.slots() / 4
    }

    /// Whether a replica lacks so much that clients have to wait for it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.platters
            .iter()
            .any(|platter| platter.lacking > platter.slots() / 3)
    }

    /// Whether a disk may be lost: all others have blocks for their checkpoints, and fewer disks than hold an
    /// op are lost and not replaced in full.
    pub fn may_lose(&mut self, replica: u8) -> bool {
        let others = (0..self.replicas).filter(|other| *other != replica);
        let others: Vec<u8> = others.collect();
        for other in &others {
            if self.is_restored(*other) {
                self.platters[usize::from(*other)].lost.clear();
            }
        }
        let platters = others.iter().map(|other| self.platter(*other));
        let lacking = platters.clone().filter(|platter| !platter.lost.is_empty());
        let whole = platters
            .clone()
            .all(|platter| platter.superblock.content_missing == 0 || !platter.lost.is_empty());
        lacking.count() + 1 < quorum::replication(self.replicas) && whole
    }

    /// Whether a replica has all that may have been on a disk that it lost.
    fn is_restored(&self, replica: u8) -> bool {
        let platter = self.platter(replica);
        let superblock = &platter.superblock;
        let held = |header: &PrepareHeader| {
            let op = header.op.get();
            op <= platter.checkpoint() || platter.prepare(op) == Some(header)
        };
        let ops = platter.checkpoint() + 1..=self.history.head();
        let mut committed = ops.filter_map(|op| self.history.prepare(op));
        let log = superblock.view_headers.iter();
        let mut log = log.take_while(|header| header.kind > PrepareKind::Empty.code());
        superblock.recovering == 0
            && superblock.sequence > 1
            && platter.is_complete()
            && !platter
                .lost
                .iter()
                .any(|lost| lost.checkpoint > platter.checkpoint())
            && committed.all(held)
            && log.all(held)
    }

    /// Whether a slot may rot: it is whole, and others keep what it holds for long enough. At the head and
    /// beyond only if the replica may be uncertain of that.
    #[must_use]
    pub fn may_rot(&self, replica: u8, slot: u64, uncertain: bool) -> bool {
        let platter = self.platter(replica);
        let Some(held) = platter.prepares[u64_to_usize(slot)] else {
            return false;
        };
        let op = held.op.get();
        let needed = op > platter.checkpoint() && held.kind() != PrepareKind::Empty;
        let kept = self.is_kept(op);
        let below = needed && op < platter.head();
        if self.is_standby(replica) {
            return platter.is_whole(slot);
        }
        platter.is_whole(slot) && (!needed || kept) && (below || uncertain)
    }

    /// Whether what was just written to a slot may not be there: nothing else of it is damaged, and others keep what
    /// it holds for long enough.
    #[must_use]
    pub fn may_go_astray(&self, replica: u8, slot: u64) -> bool {
        let platter = self.platter(replica);
        let Some(held) = platter.prepares[u64_to_usize(slot)] else {
            return false;
        };
        let rotten = platter.rotten.contains(&slot);
        !rotten && (self.is_kept(held.op.get()) || self.is_standby(replica))
    }

    /// Whether others keep an op in their journals for long enough to mend it here.
    fn is_kept(&self, op: u64) -> bool {
        let newest = self.platters.iter().map(Platter::head).max().unwrap_or(0);
        op + self.platters[0].slots() / 4 >= newest
    }

    /// A block was written, and is not there.
    pub fn on_block_astray(&mut self, replica: u8, address: u64) {
        let protected = &mut self.platters[usize::from(replica)].protected;
        protected.lose(address);
    }

    /// A block of a replica's checkpoint rots.
    pub fn on_block_rot(&mut self, replica: u8, address: u64) {
        let protected = &mut self.platters[usize::from(replica)].protected;
        protected.damaged.insert(address);
        self.counts.rotten_blocks += 1;
    }

    /// A block that rotted is whole again, and nobody wrote it.
    pub fn on_block_healed(&mut self, replica: u8, address: u64) {
        let protected = &mut self.platters[usize::from(replica)].protected;
        protected.damaged.remove(&address);
    }

    /// Blocks that a replica's superblocks reference, and that are not damaged.
    #[must_use]
    pub fn blocks(&self, replica: u8) -> Vec<u64> {
        let protected = &self.platter(replica).protected;
        let intact = protected.addresses();
        intact
            .filter(|address| !protected.damaged.contains(address))
            .collect()
    }

    /// A slot rots.
    pub fn on_rot(&mut self, replica: u8, slot: u64) {
        self.platters[usize::from(replica)].rotten.insert(slot);
        self.counts.rotten += 1;
    }
}
