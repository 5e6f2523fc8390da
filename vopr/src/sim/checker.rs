//! The checker: it reads the platter and the wire, never the replica's opinion.
//!
//! A prepare that is whole on the platter is history: the first one of an op fixes it (I01), the
//! model executes it then, and every reply that ever leaves the replica has to be the model's, byte
//! for byte (I17). The numbers of the invariants are those of `ARCHITECTURE.md`.

use super::disk::{Disk, Survived, Write, Zone};
use super::frames::{check_frame, check_pong, check_slot};
use super::history::{History, RequestKey};
use super::platter;
use super::protected::{Blocks, Protected};
use super::trees::Trees;
use super::verdict::{Verdict, fail, require};
use daftari::constants::PIPELINE_PREPARES_MAX;
use daftari::stdx::planted::Bug;
use daftari::stdx::to_usize;
use daftari::wire::header::command;
use daftari::wire::{Evicted, EvictionHeader, ReplyHeader};
use std::collections::BTreeSet;
use storage_format::{Geometry, PrepareHeader, PrepareKind, Superblock};
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug)]
pub struct Checker {
    cluster: u128,
    geometry: Geometry,
    /// The history.
    pub history: History,
    answered: BTreeSet<RequestKey>,
    /// Whether the file may get full: requests that create are refused by an eviction then.
    pub cramped: bool,
    /// Evictions that frames sent on purpose have earned.
    provoked: BTreeSet<(u128, u8)>,
    /// Clients whose stored reply was damaged.
    replies_damaged: BTreeSet<u128>,
    /// Clients that were evicted although they have a session: the disk was full.
    refused: BTreeSet<u128>,
    blocks: Blocks,
    /// Blocks that are not to be overwritten.
    pub protected: Protected,
    /// Prepares before this op were written by a process that is gone.
    incarnation_op: u64,
}

impl Checker {
    /// A checker of a new data file.
    #[must_use]
    pub fn new(cluster: u128, geometry: Geometry, bug: Option<Bug>) -> Self {
        Self {
            cluster,
            geometry,
            history: History::new(cluster, geometry, bug),
            answered: BTreeSet::new(),
            cramped: false,
            provoked: BTreeSet::new(),
            replies_damaged: BTreeSet::new(),
            refused: BTreeSet::new(),
            blocks: Blocks::default(),
            protected: Protected::default(),
            incarnation_op: 0,
        }
    }

    /// A frame was made that earns an eviction.
    pub fn on_provoked(&mut self, client: u128, reason: u8) {
        self.provoked.insert((client, reason));
    }

    /// Whether a client was ever refused by a full disk.
    #[must_use]
    pub fn was_refused(&self, client: u128) -> bool {
        self.refused.contains(&client)
    }

    /// The stored reply of a client was damaged: it may be evicted.
    pub fn on_reply_damaged(&mut self, client: u128) {
        self.replies_damaged.insert(client);
    }

    /// Whether the stored reply of a client was ever damaged.
    #[must_use]
    pub fn is_reply_damaged(&self, client: u128) -> bool {
        self.replies_damaged.contains(&client)
    }

    /// The replica starts.
    pub fn on_start(&mut self) {
        self.incarnation_op = self.history.head();
    }

    /// A write is given to the disk.
    pub fn on_write_start(&mut self, disk: &Disk, offset: u64, data: &[u8]) -> Verdict {
        match disk.zone(offset) {
            Zone::Superblock => match self.protected.check_superblock(disk, offset, data)? {
                Some(next) => self.history.check_checkpoint(disk, &next),
                None => Ok(()),
            },
            Zone::Headers => Ok(()),
            Zone::Prepares => self.check_prepare_write(disk, data),
            Zone::Replies => self.check_reply_write(data),
            Zone::Grid => {
                let header = self
                    .protected
                    .check_block(disk, &self.geometry, (offset, data))?;
                self.history.seen.blocks_again += u64::from(self.blocks.note(&header)?);
                Ok(())
            }
        }
    }

    /// A write is on the platter.
    pub fn on_write_done(&mut self, disk: &Disk, write: &Write) -> Verdict {
        match write.zone {
            Zone::Prepares => self.history.append(&write.data),
            Zone::Superblock => {
                self.protected.update(disk);
                Ok(())
            }
            Zone::Grid => {
                self.protected.on_block_written(&write.data);
                Ok(())
            }
            Zone::Headers | Zone::Replies => Ok(()),
        }
    }

    /// Power failed.
    pub fn on_crash(&mut self, disk: &Disk, writes: &[(Write, Survived)]) -> Verdict {
        self.protected.update(disk);
        let manifest = platter::superblock(disk).map(|found| platter::manifest(disk, &found));
        if let Some(Ok(manifest)) = manifest {
            self.history.seen.merging_crash += Trees::of_manifest(&manifest.records).merging;
        }
        for (write, survived) in writes {
            if write.zone != Zone::Prepares || *survived == Survived::None {
                continue;
            }
            // Even a torn write may leave a whole prepare: with what an earlier one left, of which
            // only the header differs. It was never acknowledged, but it is in the log now.
            let size = to_usize(self.geometry.journal_slot_size.get());
            let data = disk.bytes(write.offset, size);
            let (header, _) = PrepareHeader::read_from_prefix(&data).expect("at least a sector");
            let marker = header.kind == PrepareKind::Empty.code();
            let next = header.op.get() == self.history.head() + 1 && !marker;
            if next && platter::prepare_intact(&data, self.cluster) {
                self.history.append(&data)?;
            }
        }
        self.blocks.forget_after(self.history.head());
        Ok(())
    }

    /// A slot is reused only when a durable checkpoint covers what is in it (I12).
    fn check_prepare_write(&self, disk: &Disk, data: &[u8]) -> Verdict {
        let (header, _) = PrepareHeader::read_from_prefix(data).expect("at least a sector");
        let slots = u64::from(self.geometry.journal_slot_count.get());
        let op = header.op.get();
        let Some(durable) = platter::superblock(disk) else {
            return fail("I14", "no superblock has a quorum");
        };
        let checkpoint = durable.checkpoint.op.get();
        require(op <= checkpoint + slots, "I12", || {
            format!(
                "op {op} overwrites op {} above checkpoint {checkpoint}",
                op - slots
            )
        })?;
        require(header.view == durable.view, "I06", || {
            format!(
                "op {op} is of view {}, durable is {}",
                header.view, durable.view
            )
        })
    }

    /// The replica sends a frame.
    pub fn on_send(&mut self, disk: &Disk, frame: &[u8]) -> Verdict {
        let header = check_frame(frame, self.cluster)?;
        let Some(durable) = platter::superblock(disk) else {
            return fail("I14", "no superblock has a quorum");
        };
        require(header.view == durable.view, "I06", || {
            format!(
                "a frame of view {}, durable is {}",
                header.view, durable.view
            )
        })?;
        match header.command {
            command::REPLY => self.check_reply(disk, frame, &durable),
            command::EVICTION => {
                let eviction = EvictionHeader::read_from_bytes(frame).expect("256 bytes");
                self.check_eviction(disk, eviction.client.get(), eviction.reason)
            }
            command::PONG_CLIENT => check_pong(frame),
            other => fail("I17", format!("a frame of command {other}")),
        }
    }

    fn check_reply(&mut self, disk: &Disk, frame: &[u8], durable: &Superblock) -> Verdict {
        let (header, _) = ReplyHeader::read_from_prefix(frame).expect("a whole frame");
        let op = header.op.get();
        require(op <= self.history.head(), "I03", || {
            format!("a reply names op {op}, not durable yet")
        })?;
        let key = self.history.check_reply(frame)?;
        require(header.replica == 0, "I17", || {
            format!("a reply of replica {}", header.replica)
        })?;
        if op > durable.checkpoint.op.get() {
            let known = self.history.prepare(op);
            let intact = platter::prepare_at(disk, &self.geometry, op).as_ref() == known;
            require(intact, "I03", || {
                format!("op {op} was answered, but is not on the platter")
            })?;
        }
        let seen = &mut self.history.seen;
        seen.replies += 1;
        seen.replies_again += u64::from(!self.answered.insert(key));
        seen.replies_stored += u64::from(op <= self.incarnation_op);
        Ok(())
    }

    /// A stored reply is one that was expected.
    fn check_reply_write(&self, data: &[u8]) -> Verdict {
        let (_, frame) = check_slot(data)?;
        let _key: RequestKey = self.history.check_reply(frame)?;
        Ok(())
    }

    /// A client is told that its session is gone only when it is, or was a moment ago.
    fn check_eviction(&mut self, disk: &Disk, client: u128, reason: u8) -> Verdict {
        self.history.seen.evictions += 1;
        if self.provoked.contains(&(client, reason)) {
            return Ok(());
        }
        let known = self.history.session(client);
        self.history.seen.refused += u64::from(self.cramped && known.is_some());
        let no_session = reason == Evicted::NoSession.code();
        if no_session && known.is_some() && disk.was_full(super::world::now()) {
            let _new = self.refused.insert(client);
            self.history.seen.refused_full += 1;
            return Ok(());
        }
        let justified = if no_session {
            // The replica may not have executed the newest durable ops yet: the session's own, whose prepare takes a
            // buffer, one less than a pipeline of others that ran ahead of the journal and take none, and one less in
            // the other buffers.
            let behind = 2 * PIPELINE_PREPARES_MAX - 1;
            let fresh = |session: u64| session + behind > self.history.head();
            self.cramped || known.is_none_or(fresh) || self.replies_damaged.contains(&client)
        } else if reason == Evicted::SessionTooLow.code() {
            self.history.registered(client).len() > 1
        } else {
            false
        };
        require(justified, "I22", || {
            let head = self.history.head();
            format!(
                "client {client:x} is evicted for reason {reason}: session {known:?}, op {head}"
            )
        })
    }
}
