//! Blocks that are damaged here come from other replicas; what they ask for goes to them.
//!
//! A block is asked for by address and identity, and every replica has the same blocks at the same
//! addresses, so it does not matter who answers.

use super::superblock::Keeper;
use crate::constants;
use crate::grid::Damage;
use crate::io::{Io, Network, Storage, once_more};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::{SectorBuf, to_usize};
use crate::vsr::members::Members;
use crate::vsr::message;
use crate::wire::header::command;
use crate::wire::{CommonHeader, PeerHeader};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use storage_format::block::{verify, verify_header};
use storage_format::{BlockHeader, BlockReference, SECTOR_SIZE};
use zerocopy::FromBytes;

/// Blocks that are asked for at the same time.
const ASKED_MAX: usize = 16;
/// Blocks that are being read for others.
const SERVED_MAX: usize = 16;
/// When a block is asked for again, of another replica.
const PATIENCE: u64 = 100_000_000;

/// See the module.
pub(super) struct BlockRepair<'a, I: Io> {
    io: &'a I,
    superblock: Rc<Keeper>,
    members: Members,
    damage: Damage,
    /// When to ask again, by address.
    asked: BTreeMap<u64, u64>,
    attempts: u64,
    serving: usize,
    /// Nothing is written: what is wanted is of a state that is given up.
    paused: bool,
}

/// What came of a read or a write for a repair.
pub(super) enum Repaired {
    /// A block for another replica, if it is whole here.
    Read { replica: u8, frame: Option<Bytes> },
    /// A block that is whole again.
    Written(BlockReference),
    /// A block that there is no room for.
    NoRoom(BlockReference),
}

type Work<'a> = Pin<Box<dyn Future<Output = Repaired> + 'a>>;

impl<'a, I: Io> BlockRepair<'a, I> {
    pub(super) fn new(
        io: &'a I,
        (superblock, members): (Rc<Keeper>, Members),
        damage: Damage,
    ) -> Self {
        Self {
            io,
            superblock,
            members,
            damage,
            asked: BTreeMap::new(),
            attempts: 0,
            serving: 0,
            paused: false,
        }
    }

    /// Begins no more writes, or goes on to.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    fn header(&self, command: u8, block: &BlockReference) -> PeerHeader {
        let superblock = self.superblock.current();
        let mut header = PeerHeader::zeroed();
        header.cluster = superblock.cluster;
        header.view = superblock.view;
        header.log_view = superblock.log_view;
        header.release = superblock.release;
        header.command = command;
        header.replica = superblock.replica;
        header.replica_count = superblock.replica_count;
        header.checksum_item = block.checksum;
        header.op = block.address;
        header
    }

    /// Asks for what is damaged; `now` is the monotonic clock.
    pub(super) fn tick(&mut self, now: u64) {
        if self.asked.is_empty() && self.damage.found().is_none() {
            return;
        }
        self.asked.retain(|_, until| *until > now);
        for block in self.damage.wanted() {
            let address = block.address.get();
            if self.asked.len() >= ASKED_MAX {
                mark(Mark::BlocksAskedMax);
                return;
            }
            if self.asked.contains_key(&address) {
                continue;
            }
            let Some(replica) = self.members.other_replica(self.attempts) else {
                // No replica has a copy.
                return;
            };
            self.asked.insert(address, now + PATIENCE);
            self.attempts += 1;
            let header = self.header(command::REQUEST_BLOCK, &block);
            let frame = message::frame(header, &[]);
            self.io.network().send_peer(replica, frame);
        }
    }

    /// Takes a frame that is about blocks; what is to be done for it.
    pub(super) fn on_frame(&mut self, header: &[u8; 256], body: &[u8]) -> Option<Work<'a>> {
        let header = PeerHeader::read_from_bytes(header).expect("256 bytes");
        match header.command {
            command::REQUEST_BLOCK => self.on_request(&header),
            command::BLOCK => self.on_block(&header, body),
            _ => None,
        }
    }

    /// Whether a frame is about blocks.
    pub(super) fn is_concerned(&self, header: &[u8; 256]) -> bool {
        let common = CommonHeader::read_from_bytes(header).expect("256 bytes");
        let superblock = self.superblock.current();
        matches!(common.command, command::REQUEST_BLOCK | command::BLOCK)
            && self.members.hears(common.replica)
            && common.release == superblock.release
    }

    /// Another replica asks for a block.
    fn on_request(&mut self, request: &PeerHeader) -> Option<Work<'a>> {
        let superblock = self.superblock.current();
        let address = request.op.get();
        let known = address > 0 && address <= superblock.geometry.block_count_max();
        if self.serving >= SERVED_MAX || !known {
            mark(Mark::BlocksServedMax);
            return None;
        }
        self.serving += 1;
        let block = BlockReference {
            checksum: request.checksum_item,
            address: request.op,
            ..BlockReference::default()
        };
        let (io, replica) = (self.io, request.replica);
        let offset = superblock.geometry.block_offset(address);
        drop(superblock);
        let header = self.header(command::BLOCK, &block);
        Some(Box::pin(async move {
            let found = read_block(io, offset, block).await;
            if found.is_none() {
                mark(Mark::BlockNotHeld);
            }
            let frame = found.map(|buffer| message::frame(header, &buffer[..used(&buffer)]));
            Repaired::Read { replica, frame }
        }))
    }

    /// A block came: it is written if it is the one that is wanted.
    fn on_block(&mut self, header: &PeerHeader, body: &[u8]) -> Option<Work<'a>> {
        let block = BlockReference {
            checksum: header.checksum_item,
            address: header.op,
            ..BlockReference::default()
        };
        let sizes = 2 * SECTOR_SIZE..=constants::BLOCK_SIZE;
        let sized = sizes.contains(&body.len()) && body.len().is_multiple_of(SECTOR_SIZE);
        if !sized || verify(body, &with_table(block, body)).is_err() {
            tracing::warn!(
                address = block.address.get(),
                "a block that is not whole is ignored"
            );
            return None;
        }
        if self.paused || !self.damage.repair_begin(&block) {
            mark(Mark::BlockNotWanted);
            return None;
        }
        let geometry = self.superblock.current().geometry;
        let (address, last) = (block.address.get(), geometry.block_count_max());
        let offset = geometry.block_offset(address);
        let (end, limit) = (
            geometry.block_offset(address + 1),
            geometry.block_offset(last + 1),
        );
        let size = body.len();
        let mut buffer = SectorBuf::zeroed(constants::BLOCK_SIZE);
        buffer[..size].copy_from_slice(body);
        let io = self.io;
        Some(Box::pin(async move {
            // Whoever found it damaged may have read it before it was repaired.
            let read = async || read_block(io, offset, block).await;
            if once_more(Mark::BlockReadAgain, read).await.is_some() {
                mark(Mark::BlockWholeAlready);
                return Repaired::Written(block);
            }
            if io.storage().reserve(end, limit) < end {
                tracing::error!(
                    address,
                    "the disk is full: a damaged block cannot be repaired"
                );
                return Repaired::NoRoom(block);
            }
            drop(io.storage().write(offset, buffer, size).await);
            Repaired::Written(block)
        }))
    }

    /// A read or a write has completed.
    pub(super) fn on_done(&mut self, done: Repaired) {
        match done {
            Repaired::Read { replica, frame } => {
                self.serving -= 1;
                if let Some(frame) = frame {
                    self.io.network().send_peer(replica, frame);
                }
            }
            Repaired::Written(block) => {
                mark(Mark::BlockRepaired);
                tracing::info!(address = block.address.get(), "block repaired");
                let _ = self.asked.remove(&block.address.get());
                self.damage.repair_end(&block);
            }
            Repaired::NoRoom(block) => {
                self.damage.repair_failed(&block);
            }
        }
    }
}

/// What is at an offset, if it is the block. Of another block only the header page is read.
async fn read_block<I: Io>(io: &I, offset: u64, block: BlockReference) -> Option<SectorBuf> {
    let page = io.storage().read(offset, SectorBuf::zeroed(SECTOR_SIZE));
    verify_header(&page.await, &block.checksum.0, block.address.get()).ok()?;
    let buffer = SectorBuf::zeroed(constants::BLOCK_SIZE);
    let buffer = io.storage().read(offset, buffer).await;
    let whole = verify(&buffer, &with_table(block, &buffer)).is_ok();
    whole.then_some(buffer)
}

/// Bytes of a whole block that are written: its header page and the pages that have data.
fn used(bytes: &[u8]) -> usize {
    let (header, _) = BlockHeader::read_from_prefix(bytes).expect("a block has a header");
    SECTOR_SIZE + to_usize(header.size.get()).next_multiple_of(SECTOR_SIZE)
}

/// A reference to a block of the table that the block itself names, which is part of its identity.
fn with_table(block: BlockReference, bytes: &[u8]) -> BlockReference {
    let (header, _) = BlockHeader::read_from_prefix(bytes).expect("a block has a header");
    BlockReference {
        table: header.table,
        ..block
    }
}
