//! The committed history: what it does to sessions and model, and the replies that follow from it.
//!
//! It takes one prepare after the other, each as the platter has it. The model executes it at once, so
//! every reply that ever leaves can be compared, byte for byte (I17).

use super::disk::Disk;
use super::mirror::{Mirror, SESSIONS_TABLE, Work};
use super::platter;
use super::seen::{Seen, TIERS};
use super::trees::Trees;
use super::verdict::{Failure, Verdict, fail, require};
use crate::generate::combinations;
use crate::model::Model;
use daftari::stdx::planted::Bug;
use daftari::stdx::{to_u64, to_usize, u64_to_usize};
use daftari::wire::header::command;
use daftari::wire::{Operation, ReplyHeader, RequestHeader};
use std::collections::BTreeMap;
use storage_format::{
    Checksum, Geometry, PrepareHeader, PrepareKind, RequestEntry, SECTOR_SIZE, Superblock, checksum,
};
use zerocopy::{FromBytes, IntoBytes};

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

/// A client, its session, and the number of its request.
pub type RequestKey = (u128, u64, u32);

/// See the module.
#[derive(Debug)]
pub struct History {
    cluster: u128,
    session_count_max: usize,
    model: Model,
    headers: Vec<PrepareHeader>,
    sessions: BTreeMap<u128, Known>,
    registered: BTreeMap<u128, Vec<u64>>,
    expected: BTreeMap<RequestKey, Expected>,
    sent: BTreeMap<Checksum, Sent>,
    /// The ops that executed a request: a client that comes back registers with the same again.
    executed: BTreeMap<Checksum, Vec<u64>>,
    op_received: u64,
    mirror: Mirror,
    /// The trees of the newest checkpoint.
    pub trees: Trees,
    /// What was seen.
    pub seen: Seen,
}

impl History {
    /// The history of a new cluster.
    #[must_use]
    pub fn new(cluster: u128, geometry: Geometry, bug: Option<Bug>) -> Self {
        Self {
            cluster,
            session_count_max: to_usize(geometry.session_count_max.get()),
            model: Model::new(),
            headers: vec![PrepareHeader::root(cluster)],
            sessions: BTreeMap::new(),
            registered: BTreeMap::new(),
            expected: BTreeMap::new(),
            sent: BTreeMap::new(),
            executed: BTreeMap::new(),
            op_received: 0,
            mirror: Mirror::new(cluster, geometry, bug),
            trees: Trees::default(),
            seen: Seen::default(),
        }
    }

    /// Highest op of the history.
    #[must_use]
    pub fn head(&self) -> u64 {
        to_u64(self.headers.len()) - 1
    }

    /// The model, as of the last op.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// Timestamp of the newest prepare.
    #[must_use]
    pub fn timestamp_last(&self) -> u64 {
        self.headers
            .last()
            .map_or(0, |header| header.timestamp.get())
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

    /// The prepare of an op, if it is in the history.
    #[must_use]
    pub fn prepare(&self, op: u64) -> Option<&PrepareHeader> {
        self.headers.get(u64_to_usize(op))
    }

    /// The session that a client has now.
    #[must_use]
    pub fn session(&self, client: u128) -> Option<u64> {
        self.sessions.get(&client).map(|known| known.session)
    }

    /// Sessions that there are now.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The ops that executed a request.
    #[must_use]
    pub fn executed(&self, request: &Checksum) -> &[u64] {
        self.executed.get(request).map_or(&[], Vec::as_slice)
    }

    /// All sessions that a client ever had.
    #[must_use]
    pub fn registered(&self, client: u128) -> &[u64] {
        self.registered.get(&client).map_or(&[], Vec::as_slice)
    }

    /// A prepare is whole on the platter: the history grows by it, or knows it already.
    ///
    /// # Errors
    /// When it is not what follows.
    pub fn append(&mut self, data: &[u8]) -> Verdict {
        let (header, _) = PrepareHeader::read_from_prefix(data).expect("at least a sector");
        let op = header.op.get();
        require(platter::prepare_intact(data, self.cluster), "I15", || {
            format!("the journal was given a prepare that is not intact, op {op}")
        })?;
        let head = *self.headers.last().expect("op 0 is always there");
        if op <= self.head() {
            let known = self.headers[u64_to_usize(op)];
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
        self.headers.push(header);
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
        let executed = self.executed.entry(entry.request_checksum);
        executed.or_default().push(op);
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
        if self.sessions.len() < self.session_count_max {
            return;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, known)| known.last);
        let client = *oldest.expect("a full table is not empty").0;
        self.sessions.remove(&client);
        self.seen.sessions_lost += 1;
    }

    /// A reply is the model's, but for the view that it is sent in and the replica that sends it; the
    /// request that it answers.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_reply(&self, frame: &[u8]) -> Result<RequestKey, Failure> {
        let (header, body) = ReplyHeader::read_from_prefix(frame).expect("a whole frame");
        let (client, request) = (header.client.get(), header.request.get());
        let op = header.op.get();
        let session = if request == 0 {
            op
        } else {
            let sessions = self.registered(client).iter().rev().copied();
            sessions
                .into_iter()
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
        require(due == header, "I17", || {
            let (due, header) = (due.as_bytes(), header.as_bytes());
            let differ = due.iter().zip(header).skip(16).position(|(a, b)| a != b);
            format!(
                "op {op}: the reply's header differs in byte {:?}",
                differ.map(|at| at + 16)
            )
        })?;
        Ok(key)
    }

    /// The checkpoint on a disk is the same as that of a replica that never crashed.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_checkpoint(&mut self, disk: &Disk, next: &Superblock) -> Verdict {
        let op = next.checkpoint.op.get();
        require(self.prepare(op) == Some(&next.checkpoint), "I11", || {
            format!("checkpoint {op} is not of the history")
        })?;
        self.seen.checkpoints += 1;
        match self.mirror_checkpoint(disk, next) {
            Ok(()) => Ok(()),
            Err(what) => fail("I11", format!("checkpoint {op}: {what}")),
        }
    }

    fn mirror_checkpoint(&mut self, disk: &Disk, next: &Superblock) -> Result<(), String> {
        let manifest = platter::manifest(disk, next)?;
        self.trees = Trees::of_manifest(&manifest.records);
        self.seen.merging += self.trees.merging;
        self.seen.merging_partly += self.trees.merging_partly;
        let mut sessions = Vec::new();
        for record in storage_format::manifest::blocks(&manifest.records) {
            if record.tag.table == SESSIONS_TABLE {
                let (header, block) = platter::block(disk, &next.geometry, &record.block)?;
                let size = to_usize(header.size.get());
                sessions.extend_from_slice(&block[SECTOR_SIZE..SECTOR_SIZE + size]);
            }
        }
        self.mirror.compare(next, &manifest, &sessions)?;
        self.seen.mirrored += 1;
        Ok(())
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
