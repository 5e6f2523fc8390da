//! The checker: it reads platters and the wire, never a replica's opinion.
//!
//! An op is taken as committed as soon as anybody acts as if it were: a frame or a superblock names a
//! commit number, or a reply leaves. Then the op has to be on a replication quorum of platters (I03),
//! the next of a chain (I02), and it is history: no other is ever committed in its place (I01).

pub mod platters;
mod proof;
mod votes;
mod wire;

use super::counts::Counts;
use super::options::Options;
use super::quorum;
use super::rot::Atlas;
use crate::random::Random;
use crate::sim::disk::{Disk, Survived, Write, Zone};
use crate::sim::frames::check_slot;
use crate::sim::history::History;
use crate::sim::platter;
use crate::sim::protected::Blocks;
use crate::sim::verdict::{Verdict, fail, require};
use daftari::io::ConnectionId;
use daftari::stdx::planted::Bug;
use daftari::stdx::{to_u64, to_usize};
use daftari::vsr::lineage;
use daftari::vsr::message::CheckpointState;
use daftari::vsr::release::names_checkpoint;
use platters::Platter;
use std::collections::{BTreeMap, BTreeSet};
use storage_format::{
    BlockHeader, Checksum, Geometry, PrepareHeader, PrepareKind, SECTOR_SIZE, Superblock,
};
use votes::Votes;
use zerocopy::FromBytes;

/// See the module.
#[derive(Debug)]
pub struct Checker {
    cluster: u128,
    geometry: Geometry,
    replicas: u8,
    /// The committed history.
    pub history: History,
    platters: Vec<Platter>,
    votes: Votes,
    blocks: Blocks,
    /// By op: what tells it from any other.
    checkpoints: BTreeMap<u64, CheckpointState>,
    /// Release of the log.
    release: u32,
    /// Of each member, the newest release that its binary has.
    binaries: Vec<u32>,
    /// Replies that clients got: the request, and the op that the reply named.
    received: BTreeMap<Checksum, u64>,
    /// Evictions that frames sent on purpose have earned.
    provoked: BTreeSet<(u128, u8)>,
    /// Clients whose requests came over a connection to a replica.
    routes: BTreeSet<(u8, ConnectionId, u128)>,
    /// Frames that a primary sent to a client through another replica.
    relayed: BTreeSet<Checksum>,
    /// Of each replica, view and op of the newest prepare that it made.
    made: Vec<(u32, u64)>,
    /// Ops that a replica asked others for.
    asked: BTreeSet<(u8, u64)>,
    /// What may rot.
    pub atlas: Atlas,
    /// Without an atlas: every prepare that was ever written, since no copy may be whole any more when it
    /// turns out to be committed.
    written: Option<BTreeMap<Checksum, Vec<u8>>>,
    /// Counts for the report.
    pub counts: Counts,
}

impl Checker {
    /// A checker of a new cluster.
    #[must_use]
    pub fn new(cluster: u128, options: &Options, bug: Option<Bug>) -> Self {
        let geometry = options.geometry;
        let slots = u64::from(geometry.journal_slot_count.get());
        let per_sector = to_u64(storage_format::geometry::HEADERS_PER_SECTOR);
        // Independent of all that happens, and different for each cluster.
        let low = u64::try_from(cluster & u128::from(u64::MAX)).expect("64 bits");
        let mut random = Random::stream(low, 207);
        Self {
            cluster,
            geometry,
            replicas: options.replicas,
            history: History::new(cluster, geometry, bug),
            platters: (0..options.members())
                .map(|_| Platter::new(slots))
                .collect(),
            votes: Votes::new(options.replicas),
            blocks: Blocks::default(),
            checkpoints: BTreeMap::new(),
            release: options.releases.log,
            binaries: vec![options.releases.log; usize::from(options.members())],
            received: BTreeMap::new(),
            provoked: BTreeSet::new(),
            routes: BTreeSet::new(),
            relayed: BTreeSet::new(),
            made: vec![(0, 0); usize::from(options.replicas)],
            asked: BTreeSet::new(),
            atlas: Atlas::new(options.replicas, slots / per_sector, &mut random),
            written: options.wild.then(BTreeMap::new),
            counts: Counts::default(),
        }
    }

    /// Whether a member is a standby, which counts for nothing.
    fn is_standby(&self, member: u8) -> bool {
        member >= self.replicas
    }

    /// The platters of the replicas.
    fn voters(&self) -> &[Platter] {
        &self.platters[..usize::from(self.replicas)]
    }

    /// The primary of the newest view on any platter.
    #[must_use]
    pub fn primary(&self) -> u8 {
        self.votes.primary(self.newest_view())
    }

    /// The newest view on any platter.
    #[must_use]
    pub fn newest_view(&self) -> u32 {
        let views = self.platters.iter().map(|platter| platter.superblock.view);
        views.max().map_or(0, |view| view.get())
    }

    /// What is on the disk of a replica.
    #[must_use]
    pub fn platter(&self, replica: u8) -> &Platter {
        &self.platters[usize::from(replica)]
    }

    /// A disk is lost, with all that it held. What its replica promised stays promised: it may take part again
    /// only with a log that keeps it.
    pub fn on_lost(&mut self, replica: u8) {
        self.counts.lost += 1;
        self.platters[usize::from(replica)].lose();
    }

    /// A disk that was lost is there again, as it was.
    pub fn on_found(&mut self, disk: &Disk, replica: u8) {
        let platter = &mut self.platters[usize::from(replica)];
        platter.find();
        platter.reread(disk, &self.geometry);
    }

    /// A data file was made.
    pub fn on_formatted(&mut self, disk: &Disk, replica: u8) {
        self.platters[usize::from(replica)].reread(disk, &self.geometry);
    }

    /// A replica starts, by a binary of so many releases.
    pub fn on_start(&mut self, replica: u8, newest: u32) {
        self.binaries[usize::from(replica)] = newest;
    }

    /// What a replica says or writes is at the release of the log, and its binary has that (I25).
    fn check_release(&self, replica: u8, found: u32, what: impl Fn() -> String) -> Verdict {
        let (log, newest) = (self.release, self.binaries[usize::from(replica)]);
        require(found == log && newest >= log, "I25", || {
            let what = what();
            format!(
                "replica {replica}, up to {newest:#x}: {what} at {found:#x}, the log is at {log:#x}"
            )
        })
    }

    /// An op is executed at the release of the log (I25), on top of the checkpoint that all replicas have.
    fn check_op(&self, header: &PrepareHeader) -> Verdict {
        let (op, release) = (header.op, header.release.get());
        require(release == self.release, "I25", || {
            format!("op {op} is at {release:#x}, the log at {:#x}", self.release)
        })?;
        let base = lineage::base_of(op.get(), &self.geometry);
        let expected = match self.checkpoints.get(&base) {
            Some(checkpoint) if names_checkpoint(release) => checkpoint.identity(),
            Some(_) | None => Checksum::ZERO,
        };
        require(header.checkpoint_id == expected, "I11", || {
            format!("op {op} does not build on the checkpoint of op {base}")
        })
    }

    /// A replica gives a write to its disk.
    pub fn on_write_start(
        &mut self,
        disks: &[Disk],
        replica: u8,
        (offset, data): (u64, &[u8]),
    ) -> Verdict {
        let disk = &disks[usize::from(replica)];
        match disk.zone(offset) {
            Zone::Superblock => self.check_superblock(disks, replica, (offset, data)),
            Zone::Headers => Ok(()),
            Zone::Prepares => self.check_prepare(replica, data),
            Zone::Replies => self.check_stored_reply(disks, data),
            Zone::Grid => {
                let protected = &mut self.platters[usize::from(replica)].protected;
                let header = protected.check_block(disk, &self.geometry, (offset, data))?;
                self.history.seen.blocks_again += u64::from(self.blocks.note(&header)?);
                Ok(())
            }
        }
    }

    /// A write is on the platter.
    pub fn on_write_done(&mut self, disks: &[Disk], replica: u8, write: &Write) -> Verdict {
        let (disk, standby) = (&disks[usize::from(replica)], self.is_standby(replica));
        let platter = &mut self.platters[usize::from(replica)];
        let before = platter.superblock;
        platter.on_written(disk, &self.geometry, write);
        if platter.superblock.log_view > before.log_view && !standby {
            self.votes.on_log_installed(replica, &platter.superblock);
        }
        let checkpointed = platter.superblock.checkpoint.op > before.checkpoint.op;
        self.counts.checkpoints += u64::from(checkpointed);
        let recovered = platter.superblock.recovering < before.recovering;
        self.counts.recovered += u64::from(recovered);
        let synced = platter.superblock.content_missing > before.content_missing;
        self.counts.syncs += u64::from(synced);
        if self.replicas == 1 && !standby && write.zone == Zone::Prepares {
            // What a single replica has is committed, and nobody may ever name it.
            let head = platter.head();
            return self.learn_commit(disks, head, || "the only platter".into());
        }
        Ok(())
    }

    /// Power failed.
    pub fn on_crash(
        &mut self,
        disks: &[Disk],
        replica: u8,
        writes: &[(Write, Survived)],
    ) -> Verdict {
        for (write, _) in writes {
            self.on_write_done(disks, replica, write)?;
        }
        let platter = &mut self.platters[usize::from(replica)];
        platter.protected.update(&disks[usize::from(replica)]);
        platter.commit_named = 0;
        if self.replicas == 1 && !self.is_standby(replica) {
            self.blocks.forget_after(self.history.head());
        }
        Ok(())
    }

    /// A client got a reply.
    pub fn on_reply_received(&mut self, request: Checksum, op: u64) {
        self.history.on_reply_received(op);
        self.received.insert(request, op);
    }

    /// Somebody acts as if an op were committed.
    fn learn_commit(&mut self, disks: &[Disk], op: u64, who: impl Fn() -> String) -> Verdict {
        while self.history.head() < op {
            let next = self.history.head() + 1;
            let parent = self.history.prepare(next - 1).expect("it is the head");
            let parent = parent.checksum;
            let mut copies: BTreeMap<(u32, Checksum), Vec<u8>> = BTreeMap::new();
            for replica in 0..self.replicas {
                let platter = self.platter(replica);
                if let Some(header) = platter.prepare(next).or(platter.forgotten(next)) {
                    let key = (header.view.get(), header.checksum);
                    copies.entry(key).or_default().push(replica);
                }
            }
            let enough = quorum::replication(self.replicas);
            let held = |holders: &Vec<u8>| holders.len() >= enough;
            let mut candidates = copies.values().filter(|holders| held(holders)).rev();
            let chosen = candidates.find_map(|holders| {
                let mut copies = holders.iter().map(|holder| self.platter(*holder));
                let first = copies.find_map(|platter| platter.prepare(next))?;
                (first.parent == parent).then(|| (*first, holders.clone()))
            });
            let Some((header, holders)) = chosen else {
                let copies: Vec<_> = copies
                    .iter()
                    .map(|((view, _), holders)| format!("of view {view} on {holders:?}"))
                    .collect();
                let copies = copies.join(", ");
                return fail(
                    "I03",
                    format!(
                        "{} takes op {op} as committed; op {next} is on platters as: {copies}",
                        who()
                    ),
                );
            };
            let data = holders.iter().find_map(|replica| {
                let disk = &disks[usize::from(*replica)];
                let intact = platter::prepare_at(disk, &self.geometry, next) == Some(header);
                let size = to_usize(header.size.get()).next_multiple_of(SECTOR_SIZE);
                let offset = platter::slot_offset(&self.geometry, next);
                intact.then(|| disk.bytes(offset, size))
            });
            let written = self.written.as_ref();
            let data = data.or_else(|| written?.get(&header.checksum).cloned());
            let data = data.expect("a copy is whole, or was kept when it was written");
            self.check_op(&header)?;
            self.history.append(&data)?;
        }
        Ok(())
    }

    /// A slot is reused only when durable checkpoints of a quorum cover what is in it (I12).
    fn check_prepare(&mut self, replica: u8, data: &[u8]) -> Verdict {
        let (header, _) = PrepareHeader::read_from_prefix(data).expect("at least a sector");
        if let Some(written) = &mut self.written {
            written
                .entry(header.checksum)
                .or_insert_with(|| data.into());
        }
        let intact = platter::prepare_intact(data, self.cluster);
        let op = header.op.get();
        require(intact, "I15", || {
            format!("replica {replica} writes a prepare that is not intact, op {op}")
        })?;
        if header.kind() == PrepareKind::Empty {
            return Ok(());
        }
        self.check_release(replica, header.release.get(), || format!("prepare {op}"))?;
        let durable = &self.platter(replica).superblock;
        require(header.view <= durable.view, "I06", || {
            let (view, durable) = (header.view, durable.view);
            format!("replica {replica} writes op {op} of view {view}, durable is {durable}")
        })?;
        let slots = u64::from(self.geometry.journal_slot_count.get());
        let covers = |platter: &Platter| platter.superblock.checkpoint.op.get() + slots >= op;
        require(covers(self.platter(replica)), "I12", || {
            let checkpoint = durable.checkpoint.op;
            format!("replica {replica} writes op {op} at checkpoint {checkpoint}")
        })?;
        let newer = self.platter(replica).in_slot(op);
        require(newer <= op, "I12", || {
            format!("replica {replica} writes op {op} over op {newer}")
        })?;
        let quorum = quorum::replication(self.replicas);
        // Nobody may rely on a checkpoint whose blocks are on their way.
        let whole = |platter: &&Platter| platter.superblock.content_missing == 0 && covers(platter);
        let whole = self.voters().iter().filter(whole).count();
        // One that was lost, or given up for another's, counts as a fault, of which a quorum less one may be.
        let had = |platter: &&Platter| {
            platter.superblock.content_missing == 1 && platter.had_whole + slots >= op
                || platter.covered(op, slots)
        };
        let had = self.voters().iter().filter(had).count();
        require(whole + had.min(quorum - 1) >= quorum, "I12", || {
            format!(
                "replica {replica} writes op {op}, and no quorum has a checkpoint of {}",
                op - slots
            )
        })
    }

    fn check_superblock(
        &mut self,
        disks: &[Disk],
        replica: u8,
        (offset, data): (u64, &[u8]),
    ) -> Verdict {
        let disk = &disks[usize::from(replica)];
        let platter = &self.platters[usize::from(replica)];
        let checkpoint = platter.protected.check_superblock(disk, offset, data)?;
        let before = platter.superblock.commit_max;
        let next = Superblock::read_from_bytes(data).expect("it was found valid");
        // A standby that was just made may not have heard of the log.
        let blank = self.is_standby(replica) && next.view == 0;
        if next.recovering == 0 && !blank {
            let release = next.release.get();
            self.check_release(replica, release, || "its superblock".into())?;
        }
        require(next.commit_max >= before, "I06", || {
            format!(
                "replica {replica}: commit_max {} after {before}",
                next.commit_max
            )
        })?;
        let commit = next.commit_max.max(next.checkpoint.op).get();
        let who = || format!("the superblock of replica {replica}");
        self.learn_commit(disks, commit, who)?;
        match checkpoint {
            Some(next) => self.check_checkpoint(disk, replica, &next),
            None => Ok(()),
        }
    }

    /// Checkpoints of one op are equal on all replicas, and equal to that of a ledger that nothing ever
    /// happened to (I11).
    fn check_checkpoint(&mut self, disk: &Disk, replica: u8, next: &Superblock) -> Verdict {
        let op = next.checkpoint.op.get();
        let checkpoint = CheckpointState::of(next);
        let Some(known) = self.checkpoints.get(&op) else {
            // One that nobody has made, and that was not made here, has no manifest on this disk.
            self.checkpoints.insert(op, checkpoint);
            return self.history.check_checkpoint(disk, next);
        };
        let header = self.history.prepare(op) == Some(&next.checkpoint);
        require(*known == checkpoint && header, "I11", || {
            format!("checkpoint {op} of replica {replica} is another than that of others")
        })
    }

    /// A stored reply is one of the model's.
    fn check_stored_reply(&mut self, disks: &[Disk], data: &[u8]) -> Verdict {
        let (slot, frame) = check_slot(data)?;
        self.learn_commit(disks, slot.op.get(), || "a stored reply".into())?;
        let _request = self.history.check_reply(frame)?;
        Ok(())
    }

    /// What keeps the replicas from being in the same state, if anything (LV2).
    #[must_use]
    pub fn missing(&self, disks: &[Disk]) -> Option<String> {
        let head = self.history.head();
        let newest = self.platters.iter().map(Platter::head_of_view).max();
        if newest > Some(head) {
            return Some(format!("op {newest:?} is not committed, but {head} is"));
        }
        let checkpoint = self.platters.iter().map(Platter::checkpoint).max();
        for (replica, platter) in self.platters.iter().enumerate() {
            if Some(platter.checkpoint()) < checkpoint {
                return Some(format!(
                    "replica {replica} is at checkpoint {}, others at {checkpoint:?}",
                    platter.checkpoint()
                ));
            }
            if !platter.is_complete() {
                let (checkpoint, damaged) = (platter.checkpoint(), &platter.protected.damaged);
                return Some(format!(
                    "replica {replica} lacks blocks of checkpoint {checkpoint}, damaged are {damaged:?}"
                ));
            }
            let lacks = (platter.checkpoint() + 1..=head).find(|op| {
                let found = platter::prepare_at(&disks[replica], &self.geometry, *op);
                found.as_ref() != self.history.prepare(*op)
            });
            if let Some(op) = lacks {
                return Some(format!("replica {replica} lacks op {op} of {head}"));
            }
            if self.platters.len() > 1 && platter.commit_named < head {
                return Some(format!(
                    "replica {replica} knows of commit {}, not {head}",
                    platter.commit_named
                ));
            }
        }
        None
    }

    /// Checkpoints are equal on all replicas, byte for byte (I11).
    pub fn compare(&self, disks: &[Disk]) -> Verdict {
        let first = &self.platters[0].superblock;
        let blocks = match platter::references(&disks[0], first, &BTreeSet::new()) {
            Ok(blocks) => blocks,
            Err(what) => return fail("I11", format!("replica 0: {what}")),
        };
        for (replica, (disk, platter)) in disks.iter().zip(&self.platters).enumerate().skip(1) {
            let other = &platter.superblock;
            let same = first.checkpoint == other.checkpoint
                && first.checkpoint_index == other.checkpoint_index
                && first.checkpoint_block_count == other.checkpoint_block_count
                && first.ledger_state == other.ledger_state;
            require(same, "I11", || {
                format!("replicas 0 and {replica} have different checkpoints")
            })?;
            for address in blocks.keys() {
                let offset = self.geometry.block_offset(*address);
                // What lies beyond the pages in use is whatever was there before.
                let first = disks[0].bytes(offset, SECTOR_SIZE);
                let (header, _) = BlockHeader::read_from_prefix(&first).expect("a sector");
                let used = to_usize(header.size.get()).next_multiple_of(SECTOR_SIZE);
                let size = SECTOR_SIZE + used;
                let equal = disks[0].bytes(offset, size) == disk.bytes(offset, size);
                require(equal, "I11", || {
                    format!("block {address} differs on replicas 0 and {replica}")
                })?;
            }
        }
        Ok(())
    }

    /// After all is over: every request that was answered is in the history, at the op that its reply
    /// named, and the totals of the model are balanced (I18).
    pub fn finish(&mut self) -> Verdict {
        for (request, op) in &self.received {
            let executed = self.history.executed(request);
            require(executed.contains(op), "I22", || {
                format!("a request was answered by op {op}, and executed by {executed:?}")
            })?;
        }
        self.history.finish()
    }
}
