//! The checker: it reads the platter and the wire, never the replica's opinion.
//!
//! A prepare that is whole on the platter is history: the first one of an op fixes it (I01), the
//! model executes it then, and every reply that ever leaves the replica has to be the model's, byte
//! for byte (I17). The numbers of the invariants are those of `ARCHITECTURE.md`.

mod written;

use super::disk::{Disk, Survived, Write, Zone};
use super::mirror::{Mirror, Work};
use super::platter;
use super::trees::Trees;
use crate::generate::combinations;
use crate::model::Model;
use daftari::constants::PIPELINE_PREPARES_MAX;
use daftari::stdx::planted::Bug;
use daftari::stdx::{to_u64, to_usize, u64_to_usize};
use daftari::wire::header::command;
use daftari::wire::{
    CommonHeader, Evicted, EvictionHeader, Operation, PongClientHeader, ReplyHeader, RequestHeader,
};
use std::collections::{BTreeMap, BTreeSet};
use storage_format::{
    Checksum, Geometry, PrepareHeader, PrepareKind, RequestEntry, Superblock, checksum,
};
use zerocopy::{FromBytes, IntoBytes};

/// What went wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// The invariant, or `panic`, `liveness`, `fatal`, `nondeterminism`.
    pub kind: &'static str,
    /// What was seen.
    pub what: String,
}

/// The verdict on one event.
pub type Verdict = Result<(), Failure>;

/// Fails with a kind and a sentence.
pub fn fail<T>(kind: &'static str, what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure {
        kind,
        what: what.into(),
    })
}

fn require(holds: bool, kind: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { fail(kind, what()) }
}

/// A request that a client sent.
#[derive(Clone, Debug)]
struct Sent {
    header: RequestHeader,
    body: Vec<u8>,
    /// The highest op in any reply that any client had when this was sent first (I22).
    after_op: u64,
}

/// A session as the log makes it.
#[derive(Clone, Copy, Debug)]
struct Known {
    session: u64,
    request: u32,
    context: Checksum,
    last: (u64, usize),
}

/// The reply that the model gives.
#[derive(Clone, Debug)]
struct Expected {
    op: u64,
    header: ReplyHeader,
    body: Vec<u8>,
}

/// What was seen in a run, for the report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Seen {
    /// Ops in the history.
    pub ops: u64,
    /// Checkpoints that became durable.
    pub checkpoints: u64,
    /// Replies sent.
    pub replies: u64,
    /// Of them, sent again.
    pub replies_again: u64,
    /// Of them, for a request that an earlier process of the replica executed.
    pub replies_stored: u64,
    /// Evictions sent.
    pub evictions: u64,
    /// Of them, because the disk was full.
    pub refused_full: u64,
    /// Sessions that made room for others.
    pub sessions_lost: u64,
    /// Prepares of more than one request.
    pub packed: u64,
    /// Pulses.
    pub pulses: u64,
    /// Entries without effect, since their session was gone.
    pub entries_void: u64,
    /// Blocks that were written again with the same bytes.
    pub blocks_again: u64,
    /// Checkpoints that were found to be as without crashes.
    pub mirrored: u64,
    /// Bars that ended, up to the last checkpoint.
    pub bars: u64,
    /// Merges that were finished, up to the last checkpoint.
    pub merges: u64,
    /// Merges under way in checkpoints.
    pub merging: u64,
    /// Of them, those that had merged more than they had written.
    pub merging_partly: u64,
    /// Merges under way in the checkpoint that a crash left.
    pub merging_crash: u64,
    /// Runs by the highest tier that their last checkpoint had.
    pub tiers: [u64; TIERS],
    /// Requests that were refused since the file was full.
    pub refused: u64,
    /// Combinations of fields that queries named which found something, with three tiers.
    pub combinations: u128,
    /// Runs of at least five checkpoints and three tiers, that in memory included.
    pub deep: u64,
}

/// Tiers that are told apart.
const TIERS: usize = 6;

impl Seen {
    fn fields(&mut self) -> [(&'static str, &mut u64); 20] {
        [
            ("ops", &mut self.ops),
            ("checkpoints", &mut self.checkpoints),
            ("replies", &mut self.replies),
            ("again", &mut self.replies_again),
            ("stored", &mut self.replies_stored),
            ("evictions", &mut self.evictions),
            ("refused by a full disk", &mut self.refused_full),
            ("sessions lost", &mut self.sessions_lost),
            ("packed prepares", &mut self.packed),
            ("pulses", &mut self.pulses),
            ("void entries", &mut self.entries_void),
            ("blocks rewritten", &mut self.blocks_again),
            ("checkpoints mirrored", &mut self.mirrored),
            ("bars", &mut self.bars),
            ("merges finished", &mut self.merges),
            ("under way at a checkpoint", &mut self.merging),
            ("partly written", &mut self.merging_partly),
            ("under way at a crash", &mut self.merging_crash),
            ("refused for room", &mut self.refused),
            ("runs of 5 checkpoints and 3 tiers", &mut self.deep),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        self.combinations |= other.combinations;
        for (sum, value) in self.tiers.iter_mut().zip(other.tiers) {
            *sum += value;
        }
        for ((_, sum), (_, value)) in self.fields().into_iter().zip(other.fields()) {
            *sum += *value;
        }
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut copy = *self;
        for (index, (name, value)) in copy.fields().into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name} {value}")?;
        }
        let combinations = self.combinations.count_ones();
        write!(
            f,
            ", combinations of fields queried over 3 tiers {combinations} of {}",
            combinations::ALL
        )?;
        write!(f, ", runs by highest tier")?;
        let tiers = self.tiers.iter().enumerate();
        for (tier, count) in tiers.filter(|(_, count)| **count > 0) {
            write!(f, " {tier}:{count}")?;
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Checker {
    cluster: u128,
    geometry: Geometry,
    model: Model,
    history: Vec<PrepareHeader>,
    sessions: BTreeMap<u128, Known>,
    registered: BTreeMap<u128, Vec<u64>>,
    expected: BTreeMap<(u128, u64, u32), Expected>,
    answered: BTreeSet<(u128, u64, u32)>,
    sent: BTreeMap<Checksum, Sent>,
    /// Whether the file may get full: requests that create are refused by an eviction then.
    pub cramped: bool,
    /// Evictions that frames sent on purpose have earned.
    provoked: BTreeSet<(u128, u8)>,
    /// Clients whose stored reply was damaged.
    replies_damaged: BTreeSet<u128>,
    /// Clients that were evicted although they have a session: the disk was full.
    refused: BTreeSet<u128>,
    op_received: u64,
    /// Identity of each block by what it holds, as first written.
    blocks: BTreeMap<(u64, u8, u8, u64), Checksum>,
    /// Blocks that superblocks on the platter reference, by the identity of the index.
    protected: BTreeMap<Checksum, BTreeSet<u64>>,
    /// Prepares before this op were written by a process that is gone.
    incarnation_op: u64,
    mirror: Mirror,
    /// The trees of the newest checkpoint.
    trees: Trees,
    /// The block of a checkpoint that was damaged on purpose, until it is written again.
    pub damaged: Option<u64>,
    /// What was seen.
    pub seen: Seen,
}

impl Checker {
    /// A checker of a new data file.
    #[must_use]
    pub fn new(cluster: u128, geometry: Geometry, bug: Option<Bug>) -> Self {
        Self {
            cluster,
            geometry,
            model: Model::new(),
            history: vec![PrepareHeader::root(cluster)],
            sessions: BTreeMap::new(),
            registered: BTreeMap::new(),
            expected: BTreeMap::new(),
            answered: BTreeSet::new(),
            sent: BTreeMap::new(),
            cramped: false,
            provoked: BTreeSet::new(),
            replies_damaged: BTreeSet::new(),
            refused: BTreeSet::new(),
            op_received: 0,
            blocks: BTreeMap::new(),
            protected: BTreeMap::new(),
            incarnation_op: 0,
            mirror: Mirror::new(cluster, geometry, bug),
            trees: Trees::default(),
            damaged: None,
            seen: Seen::default(),
        }
    }

    /// Highest op of the history.
    #[must_use]
    pub fn head(&self) -> u64 {
        to_u64(self.history.len()) - 1
    }

    /// The model, as of the last op.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// Timestamp of the newest prepare.
    #[must_use]
    pub fn timestamp_last(&self) -> u64 {
        self.history
            .last()
            .map_or(0, |header| header.timestamp.get())
    }

    /// The client whose session's request was the last one, if it has a session: its reply slot may
    /// be asked for.
    pub fn clients(&self) -> impl Iterator<Item = u128> {
        self.sessions.keys().copied()
    }

    /// A client is about to send a request.
    pub fn on_request_made(&mut self, frame: &[u8]) {
        let (header, body) = RequestHeader::read_from_prefix(frame).expect("a whole frame");
        let sent = Sent {
            header,
            body: body.to_vec(),
            after_op: self.op_received,
        };
        self.sent.entry(header.checksum).or_insert(sent);
    }

    /// A client got a reply.
    pub fn on_reply_received(&mut self, op: u64) {
        self.op_received = self.op_received.max(op);
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
        self.incarnation_op = self.head();
    }

    /// A write is given to the disk.
    pub fn on_write_start(&mut self, disk: &Disk, offset: u64, data: &[u8]) -> Verdict {
        match disk.zone(offset) {
            Zone::Superblock => self.check_superblock_write(disk, offset, data),
            Zone::Headers => Ok(()),
            Zone::Prepares => self.check_prepare_write(disk, data),
            Zone::Replies => self.check_reply_write(data),
            Zone::Grid => self.check_block_write(offset, data),
        }
    }

    /// A write is on the platter.
    pub fn on_write_done(&mut self, disk: &Disk, write: &Write) -> Verdict {
        match write.zone {
            Zone::Prepares => self.append(&write.data),
            Zone::Superblock => {
                self.protect(disk);
                Ok(())
            }
            Zone::Headers | Zone::Replies | Zone::Grid => Ok(()),
        }
    }

    /// Power failed.
    pub fn on_crash(&mut self, disk: &Disk, writes: &[(Write, Survived)]) -> Verdict {
        self.protect(disk);
        let manifest = platter::superblock(disk).map(|found| platter::manifest(disk, &found));
        if let Some(Ok(manifest)) = manifest {
            self.seen.merging_crash += Trees::of_manifest(&manifest.records).merging;
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
            let next = header.op.get() == self.head() + 1 && !marker;
            if next && platter::prepare_intact(&data, self.cluster) {
                self.append(&data)?;
            }
        }
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

    /// A prepare is whole on the platter: the history grows by it, or knows it already.
    fn append(&mut self, data: &[u8]) -> Verdict {
        let (header, _) = PrepareHeader::read_from_prefix(data).expect("at least a sector");
        let op = header.op.get();
        require(platter::prepare_intact(data, self.cluster), "I15", || {
            format!("the journal was given a prepare that is not intact, op {op}")
        })?;
        let head = *self.history.last().expect("op 0 is always there");
        if op <= self.head() {
            let known = self.history[u64_to_usize(op)];
            return require(known == header, "I01", || {
                format!("op {op} was {}, is now {}", known.checksum, header.checksum)
            });
        }
        require(op == self.head() + 1, "I10", || {
            format!("op {op} follows {}", self.head())
        })?;
        require(header.parent == head.checksum, "I02", || {
            format!("op {op}: wrong parent")
        })?;
        require(header.view >= head.view, "I02", || {
            format!("op {op}: the view fell")
        })?;
        require(header.timestamp > head.timestamp, "I24", || {
            format!(
                "op {op}: time {} after {}",
                header.timestamp, head.timestamp
            )
        })?;
        self.history.push(header);
        self.seen.ops += 1;
        match header.kind() {
            PrepareKind::Pulse => {
                self.seen.pulses += 1;
                self.model.pulse(header.timestamp.get());
                self.mirror.push(Work::Pulse(header.timestamp.get()));
                Ok(())
            }
            PrepareKind::Requests => self.append_requests(&header, &head, data),
            PrepareKind::Empty | PrepareKind::Root => fail("I10", "an op of no kind"),
        }
    }

    fn append_requests(
        &mut self,
        header: &PrepareHeader,
        previous: &PrepareHeader,
        data: &[u8],
    ) -> Verdict {
        let count = to_usize(header.request_count.get());
        self.seen.packed += u64::from(count > 1);
        require(count > 0, "I10", || "a prepare without requests".into())?;
        let mut body_at = 256 + 64 * count;
        let mut timestamp = previous.timestamp.get();
        let mut work = Vec::new();
        for index in 0..count {
            let at = 256 + 64 * index;
            let entry = RequestEntry::read_from_bytes(&data[at..at + 64]).expect("64 bytes");
            let body = &data[body_at..body_at + to_usize(entry.body_size.get())];
            body_at += body.len();
            let events = self.check_sent(header, &entry, body)?;
            require(entry.timestamp.get() >= timestamp + events, "I24", || {
                format!("op {}: {events} events do not fit their time", header.op)
            })?;
            timestamp = entry.timestamp.get();
            let executed = self.execute(header, &entry, index, body)?;
            let operation = Operation::from_u8(entry.operation);
            let operation = operation.filter(|operation| *operation != Operation::Register);
            if let (true, Some(operation)) = (executed, operation) {
                work.push((operation, timestamp, body.to_vec()));
            }
        }
        self.mirror.push(Work::Requests(work));
        require(timestamp == header.timestamp.get(), "I24", || {
            "the time of the last entry".into()
        })
    }

    /// The entry is what some client sent (I23), after all that it could know of (I22).
    fn check_sent(
        &self,
        prepare: &PrepareHeader,
        entry: &RequestEntry,
        body: &[u8],
    ) -> Result<u64, Failure> {
        let op = prepare.op.get();
        let Some(sent) = self.sent.get(&entry.request_checksum) else {
            return fail("I23", format!("op {op} has a request that nobody sent"));
        };
        let header = &sent.header;
        let same = header.client == entry.client
            && header.session == entry.session
            && header.request == entry.request
            && header.operation == entry.operation
            && header.release == entry.release
            && sent.body == body;
        require(same, "I23", || format!("op {op} has an altered request"))?;
        require(op > sent.after_op, "I22", || {
            format!("op {op} was sent by one who knew op {}", sent.after_op)
        })?;
        let operation = Operation::from_u8(entry.operation);
        let Some(operation) = operation else {
            return fail("I23", format!("op {op}: operation {}", entry.operation));
        };
        Ok(operation.event_count(body))
    }

    /// What the entry does to sessions and model; whether it has an effect.
    fn execute(
        &mut self,
        prepare: &PrepareHeader,
        entry: &RequestEntry,
        index: usize,
        body: &[u8],
    ) -> Result<bool, Failure> {
        let (op, client, request) = (prepare.op.get(), entry.client.get(), entry.request.get());
        let known = self.sessions.get(&client).copied();
        let register = entry.operation == Operation::Register.code();
        let parent = self
            .sent
            .get(&entry.request_checksum)
            .map(|sent| sent.header.parent.get());
        match known {
            Some(_) if register => return fail("I22", format!("op {op}: registered twice")),
            None if !register => {
                self.seen.entries_void += 1;
                return Ok(false);
            }
            Some(known) if known.session != entry.session.get() => {
                self.seen.entries_void += 1;
                return Ok(false);
            }
            Some(known) => {
                require(request == known.request + 1, "I22", || {
                    format!(
                        "op {op}: request {request} of {client:x} after {}",
                        known.request
                    )
                })?;
                let parent = parent.map(u128::to_le_bytes);
                require(parent == Some(known.context.0), "I22", || {
                    format!("op {op}: request {request} names another reply as its parent")
                })?;
            }
            None => self.make_room(),
        }
        let reply = if register {
            daftari::wire::build::register_result().as_bytes().to_vec()
        } else {
            self.model
                .execute(entry.operation, entry.timestamp.get(), body)
        };
        if self.trees.tier >= 2 {
            self.seen.combinations |= combinations::of_request(entry.operation, body, &reply);
        }
        let header = expected_reply(self.cluster, prepare, entry, &reply);
        let session = if register { op } else { entry.session.get() };
        if register {
            self.registered.entry(client).or_default().push(op);
        }
        let known = Known {
            session,
            request,
            context: header.context,
            last: (op, index),
        };
        self.sessions.insert(client, known);
        let expected = Expected {
            op,
            header,
            body: reply,
        };
        self.expected.insert((client, session, request), expected);
        Ok(true)
    }

    /// A session more: when the table is full, the one whose last commit is the oldest goes.
    fn make_room(&mut self) {
        if self.sessions.len() < to_usize(self.geometry.session_count_max.get()) {
            return;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, known)| known.last);
        let client = *oldest.expect("a full table is not empty").0;
        self.sessions.remove(&client);
        self.seen.sessions_lost += 1;
    }

    /// The replica sends a frame.
    pub fn on_send(&mut self, disk: &Disk, frame: &[u8]) -> Verdict {
        let (header, body) = CommonHeader::read_from_prefix(frame).expect("a whole frame");
        let intact = header.checksum == checksum(&frame[16..256])
            && header.checksum_body == checksum(body)
            && to_usize(header.size.get()) == frame.len()
            && header.cluster.get() == self.cluster;
        require(intact, "I15", || "a frame left that is not intact".into())?;
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
            command::PONG_CLIENT => {
                let pong = PongClientHeader::read_from_bytes(frame).expect("256 bytes");
                require(pong.reserved == [0; 120], "I17", || {
                    "a pong with a tail".into()
                })
            }
            other => fail("I17", format!("a frame of command {other}")),
        }
    }

    fn check_reply(&mut self, disk: &Disk, frame: &[u8], durable: &Superblock) -> Verdict {
        let (header, body) = ReplyHeader::read_from_prefix(frame).expect("a whole frame");
        let (client, request) = (header.client.get(), header.request.get());
        let op = header.op.get();
        require(op <= self.head(), "I03", || {
            format!("a reply names op {op}, not durable yet")
        })?;
        let session = if request == 0 {
            op
        } else {
            let candidates = self.registered.get(&client).map_or(&[][..], Vec::as_slice);
            candidates
                .iter()
                .rev()
                .copied()
                .find(|session| *session < op)
                .unwrap_or(0)
        };
        let key = (client, session, request);
        let Some(expected) = self.expected.get(&key) else {
            return fail(
                "I17",
                format!("a reply to request {request} of {client:x}, never made"),
            );
        };
        let due = expected.header.with_view(header.view.get(), header.replica);
        require(expected.body == body, "I17", || {
            let at = expected.body.iter().zip(body).position(|(a, b)| a != b);
            format!(
                "op {op}, operation {}: {} bytes of reply instead of {}, first difference at {at:?}",
                header.operation,
                body.len(),
                expected.body.len(),
            )
        })?;
        require(due == header && header.replica == 0, "I17", || {
            let (due, header) = (due.as_bytes(), header.as_bytes());
            let differ = due.iter().zip(header).skip(16).position(|(a, b)| a != b);
            format!(
                "op {op}: the reply's header differs in byte {:?}",
                differ.map(|at| at + 16)
            )
        })?;
        if op > durable.checkpoint.op.get() {
            let known = &self.history[u64_to_usize(op)];
            let intact = platter::prepare_at(disk, &self.geometry, op) == Some(*known);
            require(intact, "I03", || {
                format!("op {op} was answered, but is not on the platter")
            })?;
        }
        self.seen.replies += 1;
        self.seen.replies_again += u64::from(!self.answered.insert(key));
        self.seen.replies_stored += u64::from(op <= self.incarnation_op);
        Ok(())
    }

    /// A client is told that its session is gone only when it is, or was a moment ago.
    fn check_eviction(&mut self, disk: &Disk, client: u128, reason: u8) -> Verdict {
        self.seen.evictions += 1;
        if self.provoked.contains(&(client, reason)) {
            return Ok(());
        }
        let known = self.sessions.get(&client);
        self.seen.refused += u64::from(self.cramped && known.is_some());
        let no_session = reason == Evicted::NoSession.code();
        if no_session && known.is_some() && disk.was_full(super::world::now()) {
            let _new = self.refused.insert(client);
            self.seen.refused_full += 1;
            return Ok(());
        }
        let justified = if no_session {
            // The replica may not have executed the newest durable ops yet.
            let fresh = |session: u64| session + PIPELINE_PREPARES_MAX + 1 > self.head();
            self.cramped
                || known.is_none_or(|known| fresh(known.session))
                || self.replies_damaged.contains(&client)
        } else if reason == Evicted::SessionTooLow.code() {
            self.registered
                .get(&client)
                .is_some_and(|sessions| sessions.len() > 1)
        } else {
            false
        };
        require(justified, "I22", || {
            format!("client {client:x} is evicted for reason {reason}")
        })
    }

    /// What was seen, that included which can be told only in the end.
    #[must_use]
    pub fn seen_in_all(&self) -> Seen {
        let mut seen = self.seen;
        seen.bars = self.trees.bars;
        seen.merges = self.trees.merges;
        seen.tiers[u64_to_usize(self.trees.tier).min(TIERS - 1)] = 1;
        seen.deep = u64::from(seen.checkpoints >= 5 && self.trees.tier >= 2);
        seen
    }

    /// After all is over: every request that was answered is in the history, by construction once;
    /// the totals of the model are balanced (I18).
    pub fn finish(&mut self) -> Verdict {
        if let Err(what) = self.model.check_conservation() {
            return fail("I18", what);
        }
        let expected = self
            .expected
            .values()
            .all(|expected| expected.op <= self.head());
        require(expected, "I03", || {
            "a reply of an op that is not there".into()
        })
    }
}

/// The header of the reply, as the replica has to make it in the prepare's view.
fn expected_reply(
    cluster: u128,
    prepare: &PrepareHeader,
    entry: &RequestEntry,
    body: &[u8],
) -> ReplyHeader {
    let mut header = ReplyHeader::zeroed();
    header.cluster = cluster.into();
    header.view = prepare.view;
    header.replica = prepare.replica;
    header.release = entry.release;
    header.command = command::REPLY;
    header.size = u32::try_from(256 + body.len())
        .expect("a reply is small")
        .into();
    header.request_checksum = entry.request_checksum;
    header.client = entry.client;
    header.op = prepare.op;
    header.commit = prepare.op;
    header.timestamp = entry.timestamp;
    header.request = entry.request;
    header.operation = entry.operation;
    header.checksum_body = checksum(body);
    header.context = checksum(&header.as_bytes()[16..]);
    header.seal();
    header
}
