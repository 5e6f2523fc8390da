//! The scrubber: reads all of the data file in the background, and reports what is damaged.
//!
//! * One read is under way at most, when it is due; nothing waits for it. What it reads passes the
//!   cache by, and nothing that is written depends on it.
//! * A block of a checkpoint is not overwritten before a later one is durable. So what does not match
//!   is damaged if the newest checkpoint still references it: nothing was written there meanwhile.
//! * With one replica nothing is repaired: there is no other copy. One of several has blocks and prepares
//!   repaired from the others, and copies of the superblock and headers are written anew sooner or later.

use super::journal::HeaderRing;
use super::journal::read_prepare;
use super::open::read_reply;
use super::superblock::Keeper;
use crate::constants;
use crate::grid::Damage;
use crate::grid::scrub::{Next, SEGMENT_MAX, Scrub, Summary};
use crate::io::{Io, Storage};
use crate::ledger::catalog;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::vsr::sessions::{Session, SharedSessions};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use storage_format::block::{BlockError, BlockHeader, verify};
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use storage_format::{
    BlockReference, Geometry, PrepareHeader, PrepareKind, SECTOR_SIZE, Superblock,
};
use zerocopy::FromBytes;

/// Nanoseconds between two reads of a walk over the manifest.
const WALK_PAUSE: u64 = 1_000_000;

/// What the scrubber has to say.
#[derive(Clone, Copy, Debug)]
pub enum Scrubbed {
    /// A block of the checkpoint is damaged.
    Block {
        /// Which.
        block: BlockReference,
        /// What is wrong with it.
        error: BlockError,
    },
    /// A copy of the superblock is damaged.
    Superblock {
        /// Which.
        copy: usize,
    },
    /// The prepare of an op that is in no checkpoint yet is damaged.
    Prepare {
        /// Its op.
        op: u64,
    },
    /// A stored reply is damaged.
    Reply {
        /// Whose it is.
        client: u128,
    },
    /// A tour is complete.
    Tour(Summary),
}

/// Writes it to the log.
pub fn log(scrubbed: &Scrubbed) {
    match scrubbed {
        Scrubbed::Block { block, error } => tracing::error!(
            block = block.address.get(),
            table = block.table,
            name = catalog::name(block.table),
            "scrub: a block is damaged: {error}; one of several replicas gets it from the others; alone, \
             whoever needs it stops the server: restore the file from a backup"
        ),
        Scrubbed::Superblock { copy } => tracing::error!(
            copy,
            "scrub: a copy of the superblock is damaged: the next checkpoint writes it anew"
        ),
        Scrubbed::Prepare { op } => tracing::error!(
            op,
            "scrub: the prepare of an op is damaged: one of several replicas gets it from the others; \
             alone, the server cannot start again before the next checkpoint has the op"
        ),
        Scrubbed::Reply { client } => {
            tracing::error!(client, "scrub: a stored reply is damaged");
        }
        Scrubbed::Tour(Summary { read, damaged }) => {
            tracing::info!(read, damaged, "scrub: a tour of the data file is complete");
        }
    }
}

/// How to scrub.
#[derive(Clone, Copy, Debug)]
pub struct ScrubOptions {
    /// Nanoseconds in which all is read once; above 0.
    pub period: u64,
    /// Who is told.
    pub report: fn(&Scrubbed),
}

/// The last durable checkpoint, as the state tells the scrubber.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Durable {
    pub(super) op: u64,
    pub(super) index: BlockReference,
}

impl Durable {
    pub(super) fn of(superblock: &Superblock) -> Self {
        Self {
            op: superblock.checkpoint.op.get(),
            index: superblock.checkpoint_index,
        }
    }
}

pub(super) type SharedDurable = Rc<Cell<Durable>>;

/// Bytes that the scrubber takes at most.
pub(super) fn memory(geometry: &Geometry) -> u64 {
    let blocks = 2 * u64::from(geometry.block_size.get());
    let message = u64::from(geometry.journal_slot_size.get());
    blocks + message + to_u64(SEGMENT_MAX * 4 * size_of::<BlockReference>())
}

/// The blocks of the newest checkpoint, as the manifest on disk lists them.
pub(super) struct Listing<'a, I: Io> {
    pub(super) io: &'a I,
    pub(super) geometry: Geometry,
    pub(super) durable: SharedDurable,
    /// What is damaged can come from other replicas, if there are any.
    pub(super) repair: Option<Damage>,
}

/// See the module.
pub(super) struct Scrubber<'a, I: Io> {
    pub(super) options: ScrubOptions,
    pub(super) superblock: Rc<Keeper>,
    pub(super) listing: Listing<'a, I>,
    pub(super) headers: Rc<RefCell<HeaderRing>>,
    pub(super) sessions: SharedSessions,
    /// Prepares that were found damaged.
    pub(super) damaged: Rc<RefCell<Vec<PrepareHeader>>>,
}

/// How far a walk through the blocks of a checkpoint came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Walked {
    /// To the end.
    Whole,
    /// To a damaged block of the manifest, which it visited.
    Damaged,
    /// To one that a newer checkpoint overwrote.
    Overwritten,
}

impl<I: Io> Listing<'_, I> {
    /// Visits the blocks of the newest checkpoint, those of its manifest included.
    pub(super) async fn walk(&self, mut visit: impl FnMut(&BlockReference)) -> Walked {
        let durable = self.durable.get();
        let mut next = durable.index;
        let mut buffer = SectorBuf::zeroed(constants::BLOCK_SIZE);
        while next.address.get() != 0 {
            visit(&next);
            let read = self.read(&next, buffer).await;
            let header = match read.1 {
                Ok(header) => header,
                Err(_) if self.durable.get().op != durable.op => return Walked::Overwritten,
                Err(_) => return Walked::Damaged,
            };
            buffer = read.0;
            let data = &buffer[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
            for record in storage_format::manifest::blocks(data) {
                visit(&record.block);
            }
            next = header.next;
            self.io.sleep(WALK_PAUSE).await;
        }
        Walked::Whole
    }

    /// Reads a block, and what makes no sense again.
    pub(super) async fn read(
        &self,
        block: &BlockReference,
        buffer: SectorBuf,
    ) -> (SectorBuf, Result<BlockHeader, BlockError>) {
        let offset = self.geometry.block_offset(block.address.get());
        let buffer = self.io.storage().read(offset, buffer).await;
        if let Ok(header) = verify(&buffer, block) {
            return (buffer, Ok(header));
        }
        mark(Mark::ScrubReadAgain);
        let buffer = self.io.storage().read(offset, buffer).await;
        let verified = verify(&buffer, block);
        (buffer, verified)
    }

    /// Reads a block; what is wrong with it, and whether the newest checkpoint references it for sure, unless it does
    /// not. If it does, it is repaired, if there are others.
    async fn damage_of(&self, block: &BlockReference) -> Option<(BlockError, bool)> {
        let buffer = SectorBuf::zeroed(constants::BLOCK_SIZE);
        let error = self.read(block, buffer).await.1.err()?;
        let (referenced, all) = self.referenced(std::slice::from_ref(block)).await;
        if !referenced.is_empty() {
            mark(Mark::ScrubbedBlock);
            if let Some(damage) = &self.repair {
                damage.want(block, error);
            }
            return Some((error, true));
        }
        if all {
            // A checkpoint has come since it was listed, and something else may be there.
            mark(Mark::ScrubbedTooLate);
            return None;
        }
        // What says so is damaged, too, and comes first.
        Some((error, false))
    }

    /// Which of some blocks the newest checkpoint references, and whether that are certainly all.
    pub(super) async fn referenced(
        &self,
        blocks: &[BlockReference],
    ) -> (Vec<BlockReference>, bool) {
        loop {
            let durable = self.durable.get();
            let mut found = Vec::new();
            let walked = self.walk(|listed| {
                if blocks.contains(listed) {
                    found.push(*listed);
                }
            });
            match walked.await {
                // The newer checkpoint may not have them any more.
                _ if durable != self.durable.get() => {}
                Walked::Whole => return (found, true),
                Walked::Damaged => return (found, false),
                Walked::Overwritten => {}
            }
        }
    }
}

impl<I: Io> Scrubber<'_, I> {
    /// Goes on tours for ever.
    pub(super) async fn run(self) -> Infallible {
        let slots = u64::from(self.listing.geometry.journal_slot_count.get());
        let sessions = u64::from(self.listing.geometry.session_count_max.get());
        let zones = 1 + slots + sessions;
        let now = self.listing.io.monotonic();
        let mut scrub = Scrub::new(self.options.period, SEGMENT_MAX, zones, now);
        loop {
            self.until(scrub.due()).await;
            match scrub.next() {
                Next::List => self.list(&mut scrub).await,
                Next::Zone(0) => {
                    let damaged = self.superblock().await;
                    scrub.read(damaged);
                }
                Next::Zone(unit) if unit <= slots => {
                    let damaged = self.prepare(u64_to_usize(unit - 1)).await;
                    scrub.read(damaged);
                }
                Next::Zone(unit) => {
                    let damaged = self.reply(unit - 1 - slots).await;
                    scrub.read(damaged);
                }
                Next::Block(block) => {
                    let damaged = self.block(&block).await;
                    scrub.read(damaged);
                }
                Next::Complete => {
                    let summary = scrub.complete(self.listing.io.monotonic());
                    (self.options.report)(&Scrubbed::Tour(summary));
                }
            }
        }
    }

    async fn until(&self, due: u64) {
        // A timer may be early by the resolution of its clock.
        loop {
            let left = due.saturating_sub(self.listing.io.monotonic());
            if left == 0 {
                return;
            }
            self.listing.io.sleep(left).await;
        }
    }

    fn found(&self, scrubbed: &Scrubbed) -> bool {
        (self.options.report)(scrubbed);
        true
    }

    /// Lists the blocks of the newest checkpoint; a manifest that is overwritten meanwhile is begun
    /// anew.
    async fn list(&self, scrub: &mut Scrub) {
        loop {
            scrub.list_begin();
            let walked = self.listing.walk(|block| scrub.list(block)).await;
            if walked != Walked::Overwritten {
                scrub.list_end();
                return;
            }
        }
    }

    /// Reads a block; whether it is damaged.
    async fn block(&self, block: &BlockReference) -> bool {
        match self.listing.damage_of(block).await {
            Some((error, true)) => self.found(&Scrubbed::Block {
                block: *block,
                error,
            }),
            Some((_, false)) | None => false,
        }
    }

    async fn superblock(&self) -> bool {
        let before = self.superblock.current().checksum;
        let buffer = SectorBuf::zeroed(SUPERBLOCK_COPY_COUNT * SUPERBLOCK_COPY_SIZE);
        let buffer = self.listing.io.storage().read(0, buffer).await;
        // A write that began and ended meanwhile left another.
        if self.superblock.is_writing() || self.superblock.current().checksum != before {
            return false;
        }
        let mut damaged = false;
        for (copy, bytes) in buffer.chunks_exact(SUPERBLOCK_COPY_SIZE).enumerate() {
            let superblock = Superblock::ref_from_bytes(bytes).expect("a copy is of that size");
            if !superblock.valid() || superblock.checksum != before {
                mark(Mark::ScrubbedCopy);
                damaged = self.found(&Scrubbed::Superblock { copy });
            }
        }
        damaged
    }

    /// Reads the prepare that a slot of the journal has to have for the next start.
    async fn prepare(&self, slot: usize) -> bool {
        let header = {
            let ring = self.headers.borrow();
            if ring.unsettled.contains(&slot) {
                return false;
            }
            ring.headers[slot]
        };
        let op = header.op.get();
        // What was damaged at the start is told then.
        let intact = header.checksum == header.checksum_expected();
        let needed =
            intact && header.kind > PrepareKind::Root.code() && op > self.listing.durable.get().op;
        if !needed
            || read_prepare(self.listing.io, &self.listing.geometry, &header)
                .await
                .is_some()
        {
            return false;
        }
        // Its slot may have been taken again meanwhile.
        let taken = self.headers.borrow().headers[slot] != header
            || self.headers.borrow().unsettled.contains(&slot);
        if taken {
            return false;
        }
        mark(Mark::ScrubbedPrepare);
        self.damaged.borrow_mut().push(header);
        self.found(&Scrubbed::Prepare { op })
    }

    /// Reads the reply that a slot has to have, if the last checkpoint wrote it.
    async fn reply(&self, slot: u64) -> bool {
        let stored = |session: &Session| {
            let record = &session.record;
            let of_slot = u64::from(record.slot.get()) == slot;
            (of_slot && session.saved).then_some(*record)
        };
        let record = self.sessions.borrow().iter().find_map(stored);
        let Some(record) = record else {
            return false;
        };
        if read_reply(self.listing.io, &self.listing.geometry, &record)
            .await
            .is_some()
        {
            return false;
        }
        // A slot is written when its session has a newer reply, or another session has the slot.
        let client = record.reply.client.get();
        let again = self.sessions.borrow().iter().find_map(stored);
        again.is_some_and(|again| again.reply == record.reply)
            && self.found(&Scrubbed::Reply { client })
    }
}
