//! A view at work: the primary sends prepares, backups acknowledge them, quorums commit.

use super::timers::{HEARTBEAT, PATIENCE, REPAIR};
use super::{Effect, Prepare, Replica, Status, Way};
use crate::constants::{self, REPLICA_COUNT_MAX};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::vsr::log::Body;
use crate::vsr::members::Voter;
use crate::vsr::message;
use crate::wire::PeerHeader;
use crate::wire::frame::concat;
use crate::wire::header::command;
use bytes::Bytes;
use storage_format::PrepareHeader;

impl Replica {
    /// What is due. To be called before effects are polled.
    pub fn tick(&mut self) {
        let now = self.timers.now;
        if self.members.is_alone() {
            return;
        }
        if self.timers.due(self.timers.heartbeat) && self.leads() && !self.stalls() {
            self.timers.heartbeat = now + HEARTBEAT;
            self.send_commit();
        }
        if self.solo() {
            return;
        }
        self.look_at_clocks();
        if self.timers.due(self.timers.patience) {
            self.be_patient();
            self.lose_patience();
        }
        if self.timers.due(self.timers.resend) {
            self.resend();
        }
        if self.timers.due(self.timers.repair) {
            self.timers.repair = now + REPAIR;
            self.repair();
            self.forget_relays();
            self.say_progress();
        }
    }

    /// Nanoseconds until time means something to the replica; none alone.
    #[must_use]
    pub fn until_tick(&self) -> Option<u64> {
        let timers = &self.timers;
        let mut next = u64::MAX;
        if !self.solo() {
            next = timers.patience.min(timers.resend).min(timers.repair);
            if !self.is_recovering() {
                next = next.min(timers.ping);
            }
        }
        if !self.members.is_alone() && self.leads() && !self.stalls() {
            next = next.min(timers.heartbeat);
        }
        (next < u64::MAX).then(|| next.saturating_sub(timers.now))
    }

    /// Whether this is the primary of a view at work.
    pub(super) fn leads(&self) -> bool {
        self.status == Status::Normal && self.is_primary()
    }

    /// Whether the superblock has view and log view as they are here, and the newest headers of that log: where it
    /// ended is known by them after a crash, also when it was installed in the same view again.
    pub(super) fn view_is_durable(&self) -> bool {
        self.view_durable == (self.view, self.log_view)
            && self.installs_durable == self.installs
            && self.syncing.is_none()
    }

    /// A message to other replicas. The view is the one in the superblock: nobody hears of another.
    pub(super) fn peer_header(&self, command: u8) -> PeerHeader {
        let mut header = PeerHeader::zeroed();
        header.cluster = self.cluster.into();
        header.view = self.view_durable.0.into();
        header.log_view = self.view_durable.1.into();
        header.release = self.release.into();
        header.release_newest = self.releases.newest.into();
        header.replica_count = self.members.replica_count();
        header.command = command;
        header.replica = self.members.own();
        header.synchronized = u8::from(self.astray.is_none());
        header.commit = self.commit_max.into();
        header.checkpoint_op = self.checkpoint_told().into();
        header
    }

    pub(super) fn send_peer(&mut self, replica: u8, frame: Bytes) {
        let to = Way::Peer(replica);
        self.effects.push_back(Effect::Send { to, frame });
    }

    /// Sends a frame to all other replicas.
    pub(super) fn broadcast(&mut self, frame: &Bytes) {
        for replica in self.members.other_replicas() {
            self.send_peer(replica, frame.clone());
        }
    }

    fn send_standbys(&mut self, frame: &Bytes) {
        for standby in self.members.standbys() {
            self.send_peer(standby, frame.clone());
        }
    }

    pub(super) fn send_prepare(&mut self, replica: u8, prepare: &Prepare) {
        self.send_peer(replica, prepare.frame());
    }

    // The primary.

    /// A prepare was made: all backups get it, and pass it on to standbys. Those whose backup is not heard
    /// get it from here.
    pub(super) fn replicate(&mut self, prepare: &Prepare) {
        let hungry = |standby: &u8| {
            let feeder = self.members.feeder(self.view, *standby);
            feeder.is_none_or(|feeder| !self.is_heard(&self.peers[feeder.at()]))
        };
        let hungry: Vec<u8> = self.members.standbys().filter(hungry).collect();
        if self.solo() && hungry.is_empty() {
            return;
        }
        let frame = prepare.frame();
        self.broadcast(&frame);
        for standby in hungry {
            self.send_peer(standby, frame.clone());
        }
    }

    /// Says that the primary is there, what is committed, and how long the log is.
    fn send_commit(&mut self) {
        let mut header = self.peer_header(command::COMMIT);
        header.op = self.log.head().op;
        self.ask_time(&mut header);
        let frame = message::frame(header, &[]);
        self.broadcast(&frame);
        self.send_standbys(&frame);
    }

    /// A backup has a prepare on stable storage.
    pub(super) fn on_prepare_ok(&mut self, from: Voter, ok: &PeerHeader) {
        if !self.leads() || ok.view.get() != self.view {
            mark(Mark::AckOfOtherView);
            return;
        }
        let op = ok.op.get();
        let same = self
            .log
            .entry(op)
            .is_some_and(|entry| entry.header.checksum == ok.checksum_item);
        if same {
            self.count(op, from);
        } else {
            mark(Mark::AckOfOtherPrepare);
        }
    }

    /// Counts one more replica that has `op`; what a quorum has is committed, in order.
    fn count(&mut self, op: u64, replica: Voter) {
        if let Some(in_flight) = self.pipeline.iter_mut().find(|other| other.op == op) {
            in_flight.acks |= replica.bit();
        }
        let quorum = if planted(Bug::CommitWithoutQuorum) {
            1
        } else {
            u32::from(self.quorums.replication)
        };
        for in_flight in &self.pipeline {
            if in_flight.op == self.commit_max + 1 && in_flight.acks.count_ones() >= quorum {
                self.commit_max += 1;
                self.timers.progress = self.timers.now;
            }
        }
    }

    /// Highest op that may be prepared: a replication quorum has a checkpoint of the op whose slot it
    /// takes, so whoever lags finds that in a checkpoint.
    pub(super) fn limit_of_quorum(&self) -> u64 {
        let mut ops = [0; REPLICA_COUNT_MAX as usize];
        for (op, peer) in ops.iter_mut().zip(&self.peers) {
            *op = peer.checkpoint_op;
        }
        ops[usize::from(self.members.own())] = self.checkpoint_told();
        ops.sort_unstable_by(|a, b| b.cmp(a));
        self.limit_of(ops[usize::from(self.quorums.replication) - 1])
    }

    // A backup.

    /// A prepare came: the next one of the view, or one that is missing here.
    pub(super) fn on_prepare(&mut self, header: &PrepareHeader, body: Bytes) {
        let whole = header.size <= self.geometry.journal_slot_size
            && message::is_prepare(header, &body, self.cluster);
        if !whole {
            tracing::warn!(
                op = header.op.get(),
                "a prepare that makes no sense is ignored"
            );
            return;
        }
        if self.contradicts(header) {
            self.reject(header);
            return;
        }
        let op = header.op.get();
        let of_view = header.view.get() == self.view && self.follows();
        if of_view {
            self.commit_max = self.commit_max.max(header.commit.get());
        }
        if let Some(entry) = self.log.entry(op)
            && entry.header.checksum == header.checksum
        {
            match entry.body {
                Body::Missing => self.on_missing(header, &body),
                Body::Durable => {
                    mark(Mark::PrepareAgain);
                    self.acknowledge(header);
                }
                Body::Writing | Body::Written => {}
            }
        } else if header.view.get() < self.view {
            assert!(!planted(Bug::AssertOneView), "op {op} is another");
        } else if header.view.get() > self.view {
            mark(Mark::PrepareOfLaterView);
            self.ask_start_view(self.primary_of(header.view.get()));
        } else if of_view && op > self.log.head().op.get() {
            // What the log has already comes from anybody; more of it from the primary only.
            self.hear_primary();
            if op <= self.log.head().op.get() + constants::PIPELINE_PREPARES_MAX {
                mark(Mark::PrepareKept);
                self.early.insert(op, (*header, body));
            } else {
                mark(Mark::PrepareTooFar);
            }
            self.append_next();
            self.ask_missing(op);
        }
    }

    /// Adds the next ops of the view to the log, as far as they are there and have room.
    pub(super) fn append_next(&mut self) {
        loop {
            let next = self.log.head().op.get() + 1;
            let first = self.early.first_key_value();
            let Some((&op, (header, _))) = first.filter(|(op, _)| **op <= next) else {
                return;
            };
            let follows = op == next && header.parent == self.log.head().checksum;
            if follows && next > self.limit() {
                mark(Mark::BackupAtLimit);
                return;
            }
            // Those that are asked for need buffers, too.
            if follows && self.buffers.len() <= self.buffers_promised() {
                mark(Mark::BackupWithoutBuffer);
                return;
            }
            let (header, body) = self.early.remove(&op).expect("it was there just now");
            if self.contradicts(&header) {
                // When it came, the checkpoint that it builds on was not made here yet.
                self.reject(&header);
                continue;
            }
            if follows {
                self.pass_on(&header, &body);
                self.log.append(header);
                let taken = self.take(&header, &body);
                assert!(taken, "there was a buffer");
            }
        }
    }

    /// Passes a new op on to the standbys that get theirs from this backup. What is committed by now they
    /// have, or ask for.
    fn pass_on(&mut self, header: &PrepareHeader, body: &[u8]) {
        let (members, own) = (self.members, self.members.own_voter());
        if own.is_none() || header.op.get() <= self.commit_max {
            return;
        }
        let fed = |standby: &u8| members.feeder(self.view, *standby) == own;
        for standby in members.standbys().filter(fed).collect::<Vec<_>>() {
            self.send_peer(standby, concat(header, body));
        }
    }

    /// Has a prepare of the log written; `false` without a buffer for it, or a slot.
    pub(super) fn take(&mut self, header: &PrepareHeader, body: &[u8]) -> bool {
        // The slot of an op in the checkpoint may have a newer one by now.
        let op = header.op.get();
        if op <= self.checkpoint.op() || op > self.limit() {
            mark(Mark::RepairWithoutSlot);
            return false;
        }
        let Some(buffer) = self.buffers.pop() else {
            return false;
        };
        let current = self.log.set_body(header, Body::Writing);
        assert!(current, "it is in the log");
        self.wanted.remove(&op);
        let prepare = Prepare::new(header, body, buffer);
        self.to_write.push_back(prepare);
        true
    }

    /// Whether this is a backup of a view at work.
    pub(super) fn follows(&self) -> bool {
        self.status == Status::Normal && !self.is_primary()
    }

    /// The primary is there.
    pub(super) fn hear_primary(&mut self) {
        self.asking = None;
        if self.timers.due(self.timers.heard + 2 * PATIENCE) {
            // It was cut off, and what it lacks may come now.
            mark(Mark::PrimaryHeardAgain);
            self.timers.progress = self.timers.now;
        }
        self.timers.heard = self.timers.now;
        self.be_patient();
    }

    /// The primary says what is committed, and how long the log is.
    pub(super) fn on_commit(&mut self, from: Voter, commit: &PeerHeader) {
        let view = commit.view.get();
        if view < self.view || commit.replica != self.primary_of(view) {
            mark(Mark::HeartbeatOfOldView);
            return;
        }
        if view > self.view || self.status != Status::Normal {
            mark(Mark::HeartbeatOfUnknownView);
            if planted(Bug::CommitAcrossViews) {
                self.commit_max = self.commit_max.max(commit.commit.get());
            }
            self.ask_start_view(commit.replica);
            return;
        }
        if self.is_primary() {
            return;
        }
        self.hear_primary();
        self.commit_max = self.commit_max.max(commit.commit.get());
        self.hear_commit(commit.commit.get());
        if self.log.head().op < commit.op {
            mark(Mark::HeartbeatTellsOfMore);
            self.ask_missing(commit.op.get());
        }
        // What was said before may have been lost.
        self.acknowledge_all(commit.commit.get());
        self.on_ping_of_replica(from, commit);
    }

    /// Acknowledges everything beyond `commit` that is durable here.
    pub(super) fn acknowledge_all(&mut self, commit: u64) {
        for op in commit + 1..=self.log.head().op.get() {
            if let Some(entry) = self.log.entry(op)
                && entry.body == Body::Durable
            {
                let header = entry.header;
                self.acknowledge(&header);
            }
        }
    }

    /// Prepare and redundant header are on stable storage: the primary counts it. A standby may lose them at
    /// any time, so it says nothing.
    pub(super) fn acknowledge(&mut self, header: &PrepareHeader) {
        if self.status != Status::Normal || !self.view_is_durable() {
            return;
        }
        let own = self.members.own_voter();
        if own.is_none() && !planted(Bug::StandbyAcknowledges) {
            return;
        }
        if let Some(own) = own.filter(|_| self.is_primary()) {
            self.count(header.op.get(), own);
            return;
        }
        let mut ok = self.peer_header(command::PREPARE_OK);
        ok.op = header.op;
        ok.checksum_item = header.checksum;
        let primary = self.primary_of(self.view);
        self.send_peer(primary, message::frame(ok, &[]));
    }
}
