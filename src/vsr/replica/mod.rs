//! The replica: takes events, gives effects, never waits.
//!
//! Life of a request: a frame is checked and queued; when the journal is free the waiting requests
//! of all clients are packed into one prepare, which is written here and sent to the backups; when a
//! quorum has it on stable storage the op is committed and executed; the replies are sent. While an op
//! executes or is written, further requests gather, so that many small clients cost one journal write
//! together.
//!
//! Invariants:
//! * An op is executed, and thus answered, only after a replication quorum has it on stable storage.
//! * A replica says that it has a prepare only when prepare and redundant header are durable, and while
//!   it takes part in the view that is in its superblock. (Alone, it needs no header to decide, so it
//!   commits when the prepare is durable.)
//! * One journal write is under way at a time: at a crash, at most the slot after the highest
//!   durable op is torn (rule T relies on it), and a header is never written before its prepare.
//!   Alone, headers stay behind a few prepares while there is work, so that one write serves several.
//!   A crash may make the sector under it unreadable: were a prepare and a header written side by
//!   side, both copies of what the journal says of a slot could be lost.
//! * Nothing of a new view is written to the journal, or said, before the superblock has the view.
//! * No op is prepared that would overwrite a slot the last durable checkpoint still needs, here or on
//!   a replication quorum.
//! * Timestamps strictly increase along the log, whatever the wall clock does.

mod normal;
mod repair;
mod requests;
mod sync;
mod view_change;

use super::log::{Body, Log};
use super::message::{self, CheckpointState};
use super::quorum::Quorums;
use super::sessions::SharedSessions;
use super::vote::Vote;
use crate::constants;
use crate::io::{ConnectionId, Incoming};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::wire::header::command;
use crate::wire::{CommonHeader, Operation, PeerHeader, PingClientHeader, RequestHeader, Sender};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use storage_format::{Checksum, Geometry, PrepareHeader, RequestEntry};
use zerocopy::FromBytes;

/// A message of the log: header, entries and bodies in one buffer.
#[derive(Debug)]
pub struct Prepare {
    /// Its header, also at the start of `buffer`.
    pub header: PrepareHeader,
    /// The message; as large as a journal slot.
    pub buffer: SectorBuf,
}

impl Prepare {
    /// Bytes of the message.
    #[must_use]
    pub fn size(&self) -> usize {
        to_usize(self.header.size.get())
    }

    /// The entries of the requests, with their bodies.
    pub fn requests(&self) -> impl Iterator<Item = (RequestEntry, &[u8])> {
        let count = to_usize(self.header.request_count.get());
        let entries_end = constants::HEADER_SIZE + count * size_of::<RequestEntry>();
        let mut body_at = entries_end;
        (0..count).map(move |index| {
            let at = constants::HEADER_SIZE + index * size_of::<RequestEntry>();
            let entry = RequestEntry::read_from_bytes(&self.buffer[at..at + 64])
                .expect("an entry is 64 bytes of any value");
            let body = &self.buffer[body_at..body_at + to_usize(entry.body_size.get())];
            body_at += body.len();
            (entry, body)
        })
    }
}

/// What the superblock has of the view.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ViewState {
    /// The view.
    pub view: u32,
    /// The view in which the log was installed.
    pub log_view: u32,
    /// Highest op that is known to be committed.
    pub commit_max: u64,
    /// The top of the log, newest first; at most [`super::message::VIEW_HEADERS_MAX`].
    pub headers: Vec<PrepareHeader>,
}

/// What the surroundings tell the replica.
#[derive(Debug)]
pub enum Event {
    /// The network brought something.
    Incoming(Incoming),
    /// The prepare is on stable storage.
    PrepareDurable(Prepare),
    /// The redundant headers that were to be written are on stable storage.
    HeadersDurable,
    /// The view is in the superblock.
    ViewDurable,
    /// A prepare was read from the journal; nothing if it is not intact there.
    PrepareRead(Option<Prepare>),
    /// Nothing happened for a moment: what was put off is to be done.
    Quiet,
    /// The op was executed; one reply for each entry, none for a session that is gone.
    Executed {
        /// The op.
        prepare: Prepare,
        /// Reply frames, in the view of the prepare.
        replies: Vec<Option<Bytes>>,
        /// When the next pending transfer expires.
        pulse_next: u64,
    },
    /// A checkpoint is durable.
    Checkpointed(Box<CheckpointState>),
    /// The ledger is as the checkpoint has it.
    Loaded {
        /// When the next pending transfer expires.
        pulse_next: u64,
        /// Highest timestamp that the ledger ever gave out.
        timestamp_last: u64,
    },
    /// The superblock has the checkpoint of another replica.
    Synced,
    /// It has that checkpoint already, made here.
    SyncNeedless,
    /// All blocks of that checkpoint are here.
    ContentComplete,
}

/// What the replica wants done.
#[derive(Debug)]
pub enum Effect {
    /// Write the prepare to its slot; `PrepareDurable` follows.
    WritePrepare(Prepare),
    /// Write redundant headers, all of one sector; `HeadersDurable` follows.
    WriteHeaders(Vec<PrepareHeader>),
    /// Write the view to the superblock; `ViewDurable` follows.
    WriteView(ViewState),
    /// Give the ledger up, and write a checkpoint of another replica to the superblock, with the view;
    /// `Synced` follows, then `Loaded`, then
    /// `ContentComplete`; or `SyncNeedless`.
    Sync(Box<(CheckpointState, ViewState)>),
    /// Read the prepare from the journal; `PrepareRead` follows.
    ReadPrepare(PrepareHeader),
    /// Execute the op; `Executed` follows.
    Execute(Prepare),
    /// Send a frame.
    Send {
        /// To whom.
        to: Way,
        /// What.
        frame: Bytes,
    },
}

/// How somebody is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// A client, over its connection.
    Connection(ConnectionId),
    /// Another replica, or a client through it.
    Peer(u8),
}

/// Whether there is room for what a request would add.
pub trait Admission {
    /// `events` are those of the request, `events_waiting` those of the requests admitted before it
    /// that were not executed yet.
    fn admits(&self, events: u64, events_waiting: u64) -> bool;
}

#[derive(Debug)]
struct Queued {
    way: Way,
    header: RequestHeader,
    operation: Operation,
    events: u64,
    body: Bytes,
}

#[derive(Debug)]
struct Route {
    client: u128,
    /// Its number.
    request: u32,
    way: Way,
}

/// An op that the primary has not executed yet.
#[derive(Debug)]
struct InFlight {
    op: u64,
    /// One bit for each replica that has it on stable storage.
    acks: u8,
    routes: Vec<Route>,
    events: u64,
    pulse: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum JournalWrite {
    Idle,
    Prepare,
    Headers,
}

/// What a replica does in its view.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    /// It takes part: as primary, or as a backup.
    Normal,
    /// It waits for the view to start, or for the next one.
    ViewChange,
    /// Its journal may have lost the end of its log: it has to hear from the primary of its view first.
    Recovering,
}

/// What a prepare is read for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Purpose {
    Execute,
    Peer(u8),
}

/// What another replica said last.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// Op of its checkpoint.
    checkpoint_op: u64,
    /// A view that it asks for, and when it did.
    asked: Option<(u32, u64)>,
}

/// Where a replica starts from.
#[derive(Debug)]
pub struct ReplicaOptions {
    /// Cluster.
    pub cluster: u128,
    /// Index of the replica.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Sizes of the data file.
    pub geometry: Geometry,
    /// The view, durable already.
    pub view: u32,
    /// The view in which the log was installed.
    pub log_view: u32,
    /// The log.
    pub log: Log,
    /// Whether nothing can have been in the log beyond its head.
    pub certain: bool,
    /// The newest op that is executed.
    pub executed: PrepareHeader,
    /// Highest op that is known to be committed.
    pub commit_max: u64,
    /// The last durable checkpoint.
    pub checkpoint: CheckpointState,
    /// Whether blocks of it may be missing.
    pub content_missing: bool,
    /// The sessions after `executed`.
    pub sessions: SharedSessions,
    /// Differs from that of any other process that ran this replica.
    pub nonce: u128,
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    cluster: u128,
    replica: u8,
    replica_count: u8,
    quorums: Quorums,
    geometry: Geometry,
    nonce: u128,
    status: Status,
    view: u32,
    log_view: u32,
    /// View and log view in the superblock.
    view_durable: (u32, u32),
    view_writing: Option<(u32, u32)>,
    log: Log,
    /// Whether nothing can have been in the log beyond its head.
    certain: bool,
    /// The newest op that is executed.
    executed: (u64, Checksum),
    /// The newest op that was handed out to be executed.
    executing: u64,
    commit_max: u64,
    checkpoint: CheckpointState,
    content_missing: bool,
    /// Whether the ledger is as the checkpoint has it, and goes on from there.
    loaded: bool,
    /// The checkpoint that is on its way to the superblock.
    syncing: Option<CheckpointState>,
    /// View and log view that go there with it.
    view_synced: (u32, u32),
    timestamp_last: u64,
    pulse_next: u64,
    sessions: SharedSessions,
    queue: VecDeque<Queued>,
    pipeline: VecDeque<InFlight>,
    events_waiting: u64,
    /// As primary: requests are taken once everything up to this op is executed.
    view_start: u64,
    /// Clients whose requests were passed on, and where their answers go.
    relays: BTreeMap<u128, ConnectionId>,
    journal: JournalWrite,
    /// Prepares to be written, in order.
    to_write: VecDeque<Prepare>,
    /// Headers of durable prepares that are not in the header ring yet.
    headers_behind: VecDeque<PrepareHeader>,
    /// Those being written.
    headers_writing: Vec<PrepareHeader>,
    /// Whether headers are to be written before anything else comes.
    quiet: bool,
    /// Prepares that are on stable storage, to be executed.
    ready: BTreeMap<u64, Prepare>,
    reads: VecDeque<(PrepareHeader, Purpose)>,
    reading: Option<(PrepareHeader, Purpose)>,
    buffers: Vec<SectorBuf>,
    peers: Vec<Peer>,
    votes: Vec<Option<Vote>>,
    timers: Timers,
    /// The view that this replica asks for, because it misses its primary.
    asking: Option<u32>,
    /// Prepares of the view that came before their turn.
    early: BTreeMap<u64, (PrepareHeader, Bytes)>,
    /// Prepares asked for by their checksum, and when to ask again.
    wanted: BTreeMap<u64, u64>,
    /// When to ask for headers again.
    headers_asked: u64,
    /// The longest that the log of the primary is known to be.
    primary_head: u64,
    /// Up to where its next prepares are asked for, and when to ask again.
    asked_up_to: (u64, u64),
    /// The view in which trouble was told of last: once is enough.
    told: Option<u32>,
    shutdown: bool,
    effects: VecDeque<Effect>,
}

/// When to do what, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
struct Timers {
    now: u64,
    /// To say that the primary is there.
    heartbeat: u64,
    /// When patience with the primary, or with the view change, ends.
    patience: u64,
    /// To say again what may have been lost.
    resend: u64,
    /// To look for what is missing.
    repair: u64,
    /// A start of a view is not asked for again before that.
    start_view: u64,
    /// When something was committed last.
    progress: u64,
    /// Draws of jitter so far.
    draws: u64,
}

const MS: u64 = 1_000_000;
/// How often the primary says that it is there.
const HEARTBEAT: u64 = 100 * MS;
/// How long a backup waits for its primary, and a replica for a view to start; up to half as much again.
const PATIENCE: u64 = 600 * MS;
/// How often what may have been lost is said again.
const RESEND: u64 = 100 * MS;
/// How often a replica looks for what it misses, and asks again.
const REPAIR: u64 = 50 * MS;
/// How long a question for a new view counts.
const ASKED: u64 = 500 * MS;

impl Replica {
    /// A replica as its journal left it.
    #[must_use]
    pub fn new(options: ReplicaOptions) -> Self {
        let slot_size = to_usize(options.geometry.journal_slot_size.get());
        let buffers = (0..Self::buffer_count(options.replica_count))
            .map(|_| SectorBuf::zeroed(slot_size))
            .collect();
        let solo = options.replica_count == 1;
        let primary = u64::from(options.view) % u64::from(options.replica_count);
        let takes_part = options.log_view == options.view && primary != u64::from(options.replica);
        let status = match options.certain {
            _ if solo => Status::Normal,
            true if takes_part => Status::Normal,
            false if takes_part => Status::Recovering,
            // A primary may have sent prepares that it lost: the next view has to start.
            true | false => Status::ViewChange,
        };
        let (log, executed) = (options.log, options.executed);
        let behind = (log.tail()..=log.head().op.get()).filter_map(|op| log.entry(op));
        let behind = behind.filter(|entry| entry.body == Body::Written);
        let headers_behind = behind.map(|entry| entry.header).collect();
        let head_timestamp = log.head().timestamp.get();
        Self {
            cluster: options.cluster,
            replica: options.replica,
            replica_count: options.replica_count,
            quorums: Quorums::new(options.replica_count),
            geometry: options.geometry,
            nonce: options.nonce,
            status,
            view: options.view,
            log_view: options.log_view,
            view_durable: (options.view, options.log_view),
            view_writing: None,
            log,
            certain: options.certain,
            executed: (executed.op.get(), executed.checksum),
            executing: executed.op.get(),
            commit_max: options.commit_max.max(executed.op.get()),
            checkpoint: options.checkpoint,
            content_missing: options.content_missing,
            loaded: false,
            syncing: None,
            view_synced: (0, 0),
            timestamp_last: head_timestamp,
            pulse_next: u64::MAX,
            sessions: options.sessions,
            queue: VecDeque::new(),
            pipeline: VecDeque::new(),
            events_waiting: 0,
            view_start: 0,
            relays: BTreeMap::new(),
            journal: JournalWrite::Idle,
            to_write: VecDeque::new(),
            headers_behind,
            headers_writing: Vec::new(),
            quiet: false,
            ready: BTreeMap::new(),
            reads: VecDeque::new(),
            reading: None,
            buffers,
            peers: vec![Peer::default(); usize::from(options.replica_count)],
            votes: vec![None; usize::from(options.replica_count)],
            timers: Timers::default(),
            asking: None,
            early: BTreeMap::new(),
            wanted: BTreeMap::new(),
            headers_asked: 0,
            primary_head: 0,
            asked_up_to: (0, 0),
            told: None,
            shutdown: false,
            effects: VecDeque::new(),
        }
    }

    /// Buffers for prepares: those in flight, and with several replicas as many that are committed and
    /// wait to be executed.
    #[must_use]
    pub fn buffer_count(replica_count: u8) -> u64 {
        match replica_count {
            1 => constants::PIPELINE_PREPARES_MAX,
            _ => 2 * constants::PIPELINE_PREPARES_MAX,
        }
    }

    /// The next thing to do, if any; `now` is the wall clock in nanoseconds. To be called until it
    /// gives none, after all events at hand were handled: what waits by then shares a prepare.
    pub fn poll_effect(&mut self, now: u64) -> Option<Effect> {
        if self.effects.is_empty() {
            self.write_view();
            self.journal_next(now);
            self.read_next();
        }
        // Executing comes last: meanwhile the journal is written.
        let effect = self.effects.pop_front();
        effect.or_else(|| self.execute_next().map(Effect::Execute))
    }

    /// The next frame to send, if that is what comes next.
    pub fn poll_send(&mut self) -> Option<(Way, Bytes)> {
        let next = self.effects.pop_front()?;
        if let Effect::Send { to, frame } = next {
            return Some((to, frame));
        }
        self.effects.push_front(next);
        None
    }

    /// Highest op that was executed.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.executed.0
    }

    /// The newest prepare.
    #[must_use]
    pub fn head(&self) -> &PrepareHeader {
        self.log.head()
    }

    /// Whether everything that was prepared is executed and durable after a request to shut down. With
    /// several replicas, whether nothing is under way: the others go on.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        let journal_done = self.journal == JournalWrite::Idle;
        if !self.solo() {
            return self.shutdown && journal_done && self.view_writing.is_none();
        }
        let journal_done = journal_done && self.headers_behind.is_empty();
        self.shutdown && self.pipeline.is_empty() && journal_done
    }

    /// Whether another frame can be queued: when not, frames wait in the network.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // Others' frames come the same way, and what waits here may need them.
        !self.solo() || self.has_room_for_request()
    }

    fn has_room_for_request(&self) -> bool {
        to_u64(self.queue.len()) < u64::from(self.geometry.session_count_max.get())
    }

    fn solo(&self) -> bool {
        self.replica_count == 1
    }

    fn primary_of(&self, view: u32) -> u8 {
        let index = view % u32::from(self.replica_count);
        u8::try_from(index).expect("there are at most six replicas")
    }

    fn is_primary(&self) -> bool {
        self.primary_of(self.view) == self.replica
    }

    /// Whether requests are taken here: as primary of a view whose past is executed.
    fn serves(&self) -> bool {
        let executed = self.executed.0 >= self.view_start || planted(Bug::ServeBeforeExecuting);
        let executed = self.loaded && executed;
        self.leads() && executed
    }

    /// Takes what happened.
    pub fn handle(&mut self, event: Event, admission: &impl Admission) {
        match event {
            Event::Incoming(Incoming::Shutdown) => {
                self.shutdown = true;
                self.quiet = true;
                self.queue.clear();
            }
            Event::Incoming(Incoming::Frame {
                connection,
                header,
                body,
            }) => {
                self.on_frame(Way::Connection(connection), &header, body, admission);
            }
            Event::PrepareDurable(prepare) => self.on_prepare_durable(prepare),
            Event::HeadersDurable => self.on_headers_durable(),
            Event::ViewDurable => self.on_view_durable(),
            Event::PrepareRead(prepare) => self.on_prepare_read(prepare),
            Event::Quiet => self.quiet = true,
            Event::Executed {
                prepare,
                replies,
                pulse_next,
            } => {
                self.on_executed(prepare, replies, pulse_next);
            }
            Event::Checkpointed(checkpoint) => {
                let op = checkpoint.op();
                assert!(op > self.checkpoint.op() && op <= self.executed.0);
                self.checkpoint = *checkpoint;
            }
            Event::Loaded {
                pulse_next,
                timestamp_last,
            } => {
                self.loaded = true;
                self.pulse_next = pulse_next;
                self.timestamp_last = self.timestamp_last.max(timestamp_last);
                self.timers.progress = self.timers.now;
            }
            Event::Synced => self.on_synced(),
            Event::SyncNeedless => self.on_sync_needless(),
            Event::ContentComplete => self.content_missing = false,
        }
    }

    /// When the next pending transfer expires, on the wall clock; never for who does not see to it.
    #[must_use]
    pub fn pulse_next(&self) -> u64 {
        if self.serves() {
            self.pulse_next
        } else {
            u64::MAX
        }
    }

    fn on_frame(&mut self, way: Way, header: &[u8; 256], body: Bytes, admission: &impl Admission) {
        let common = CommonHeader::read_from_bytes(header).expect("a header is 256 bytes");
        match (common.command, way) {
            (command::PING_CLIENT, _) => {
                let ping = PingClientHeader::read_from_bytes(header).expect("256 bytes");
                self.on_ping(way, &ping);
            }
            (command::REQUEST, _) if self.serves() => {
                let request = RequestHeader::read_from_bytes(header).expect("256 bytes");
                self.on_request(way, request, body, admission);
            }
            (command::REQUEST, Way::Connection(connection)) => {
                self.forward(connection, header, &body);
            }
            (code, Way::Connection(_)) if command::is_of_peers(code) && self.is_peer(&common) => {
                self.on_peer_frame(&common, header, body, admission);
            }
            _ => tracing::debug!(command = common.command, "a frame of no use"),
        }
    }

    /// Whether the sender is another replica, of the same release.
    fn is_peer(&self, common: &CommonHeader) -> bool {
        common.replica < self.replica_count
            && (common.replica != self.replica || common.command == command::PREPARE)
            && common.release.get() == constants::RELEASE
    }

    fn on_peer_frame(
        &mut self,
        common: &CommonHeader,
        header: &[u8; 256],
        body: Bytes,
        admission: &impl Admission,
    ) {
        if common.command == command::PREPARE {
            let prepare = PrepareHeader::read_from_bytes(header).expect("256 bytes");
            return self.on_prepare(&prepare, body);
        }
        let peer = PeerHeader::read_from_bytes(header).expect("256 bytes");
        if !message::makes_sense(&peer) {
            tracing::warn!(
                command = peer.command,
                "a message that makes no sense is ignored"
            );
            return;
        }
        let index = usize::from(common.replica);
        self.peers[index].checkpoint_op = peer.checkpoint_op.get();
        match common.command {
            command::PREPARE_OK => self.on_prepare_ok(&peer),
            command::COMMIT => self.on_commit(&peer),
            command::PONG => {}
            command::START_VIEW_CHANGE => self.on_start_view_change(&peer),
            command::DO_VIEW_CHANGE => self.on_do_view_change(&peer, &body),
            command::START_VIEW => self.on_start_view(&peer, &body),
            command::REQUEST_START_VIEW => self.on_request_start_view(&peer),
            command::REQUEST_HEADERS => self.on_request_headers(&peer),
            command::REQUEST_PREPARE => self.on_request_prepare(&peer),
            command::HEADERS => self.on_headers(&body),
            command::REQUEST_REPLY => self.on_request_reply(&peer),
            command::STORED_REPLY => self.on_stored_reply(body),
            command::FORWARD => self.on_forward(peer.replica, &body, admission),
            command::RELAY => self.on_relay(body),
            other => tracing::debug!(command = other, "an unknown message of a replica"),
        }
    }

    fn sender(&self) -> Sender {
        Sender {
            cluster: self.cluster,
            // Nobody hears of a view before the superblock has it.
            view: self.view_durable.0,
            release: constants::RELEASE,
            replica: self.replica,
        }
    }

    // The journal.

    /// Whether headers wait for a quiet moment to be written.
    #[must_use]
    pub fn puts_off(&self) -> bool {
        self.solo() && self.journal == JournalWrite::Idle && !self.headers_behind.is_empty()
    }

    /// Begins the next journal write, if the journal is free: a prepare if something waits, headers
    /// if too many are behind or there is time.
    fn journal_next(&mut self, now: u64) {
        // What belongs to a view is written when the superblock has the view.
        if self.journal != JournalWrite::Idle || !self.view_is_durable() {
            return;
        }
        let behind = self.headers_behind.len();
        if behind < constants::HEADERS_BEHIND_MAX {
            if self.to_write.is_empty() {
                self.prepare_next(now);
            }
            if let Some(prepare) = self.to_write.pop_front() {
                // A header that waits for the prepare before it in the slot means nothing any more.
                let slots = u64::from(self.geometry.journal_slot_count.get());
                let slot = prepare.header.op.get() % slots;
                self.headers_behind
                    .retain(|header| header.op.get() % slots != slot);
                self.journal = JournalWrite::Prepare;
                self.effects.push_back(Effect::WritePrepare(prepare));
            }
        }
        let write = !self.solo() || self.quiet || behind == constants::HEADERS_BEHIND_MAX;
        if self.journal == JournalWrite::Idle && write && behind > 0 {
            self.write_headers();
        }
    }

    /// Writes the oldest header that is behind, and those in the same sector.
    fn write_headers(&mut self) {
        let per_sector = to_u64(storage_format::geometry::HEADERS_PER_SECTOR);
        let slots = u64::from(self.geometry.journal_slot_count.get());
        let sector = |header: &PrepareHeader| header.op.get() % slots / per_sector;
        let first = sector(&self.headers_behind[0]);
        let count = self
            .headers_behind
            .iter()
            .take_while(|header| sector(header) == first)
            .count();
        self.headers_writing = self.headers_behind.drain(..count).collect();
        self.journal = JournalWrite::Headers;
        let headers = self.headers_writing.clone();
        self.effects.push_back(Effect::WriteHeaders(headers));
    }

    fn on_prepare_durable(&mut self, prepare: Prepare) {
        assert_eq!(self.journal, JournalWrite::Prepare);
        self.journal = JournalWrite::Idle;
        self.headers_behind.push_back(prepare.header);
        self.quiet = self.shutdown;
        let op = prepare.header.op.get();
        let current = self.log.set_body(&prepare.header, Body::Written);
        if self.solo() {
            self.commit_max = op;
        } else if planted(Bug::AcknowledgeWithoutHeader) {
            self.acknowledge(&prepare.header);
        }
        let room = to_u64(self.ready.len()) < constants::PIPELINE_PREPARES_MAX;
        if current && op > self.executing && (self.solo() || room) {
            if let Some(other) = self.ready.insert(op, prepare) {
                self.recycle(other.buffer);
            }
        } else {
            // It is read again when its turn comes.
            self.buffers.push(prepare.buffer);
        }
        self.repair();
    }

    fn on_headers_durable(&mut self) {
        assert_eq!(self.journal, JournalWrite::Headers);
        self.journal = JournalWrite::Idle;
        for header in std::mem::take(&mut self.headers_writing) {
            // A view change may have taken it out of the log meanwhile,
            // or the prepare was found damaged.
            let entry = self.log.entry(header.op.get());
            let written = entry.is_some_and(|entry| entry.body == Body::Written);
            if written && self.log.set_body(&header, Body::Durable) && !self.solo() {
                self.acknowledge(&header);
            }
        }
    }

    /// Highest op that may be prepared or accepted: its slot is not needed any more.
    fn limit(&self) -> u64 {
        let slots = u64::from(self.geometry.journal_slot_count.get());
        // The header of the checkpoint's op stays.
        self.checkpoint.op() + slots - u64::from(!self.solo())
    }

    /// Reads from the journal what is to be executed or sent.
    fn read_next(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let next = self.executing + 1;
        let wanted = self.may_execute(next) && !self.ready.contains_key(&next);
        let execute = wanted
            .then(|| self.log.entry(next))
            .flatten()
            .filter(|entry| matches!(entry.body, Body::Written | Body::Durable))
            .map(|entry| (entry.header, Purpose::Execute));
        self.reading = execute.or_else(|| self.reads.pop_front());
        if let Some((header, _)) = self.reading {
            self.effects.push_back(Effect::ReadPrepare(header));
        }
    }

    fn on_prepare_read(&mut self, prepare: Option<Prepare>) {
        let (header, purpose) = self.reading.take().expect("one was being read");
        let Some(prepare) = prepare else {
            // Another prepare may have been written there meanwhile; if not, it is damaged.
            if self.log.is_written(&header) {
                tracing::error!(
                    op = header.op.get(),
                    "a prepare is damaged: asking the others"
                );
                self.log.set_body(&header, Body::Lost);
                self.repair();
            }
            return;
        };
        match purpose {
            Purpose::Execute => {
                let op = header.op.get();
                if self.log.is_written(&header)
                    && op > self.executing
                    && let Some(other) = self.ready.insert(op, prepare)
                {
                    self.recycle(other.buffer);
                }
            }
            Purpose::Peer(replica) => self.send_prepare(replica, &prepare),
        }
    }

    /// Whether an op may be handed out: it is committed, and those before it do not pile up.
    fn may_execute(&self, op: u64) -> bool {
        let few = op <= self.executed.0 + constants::PIPELINE_PREPARES_MAX;
        op <= self.commit_max && self.loaded && few
    }

    /// The next op to execute: committed, here, and the successor of the last.
    fn execute_next(&mut self) -> Option<Prepare> {
        let next = self.executing + 1;
        if !self.may_execute(next) {
            return None;
        }
        let header = self.log.entry(next)?.header;
        let prepare = self.ready.remove(&next)?;
        if prepare.header.checksum != header.checksum {
            // A view change has put another op in its place.
            self.recycle(prepare.buffer);
            return None;
        }
        if self.executing == self.executed.0 {
            assert_eq!(
                header.parent, self.executed.1,
                "op {next} does not follow what was executed"
            );
        }
        self.executing = next;
        Some(prepare)
    }

    fn on_executed(&mut self, prepare: Prepare, replies: Vec<Option<Bytes>>, pulse_next: u64) {
        let op = prepare.header.op.get();
        assert_eq!(op, self.executed.0 + 1);
        self.executed = (op, prepare.header.checksum);
        self.timers.progress = self.timers.now;
        self.pulse_next = pulse_next;
        self.timestamp_last = self.timestamp_last.max(prepare.header.timestamp.get());
        self.recycle(prepare.buffer);
        if self.pipeline.front().is_none_or(|first| first.op != op) {
            // Somebody else was the primary.
            return;
        }
        let in_flight = self.pipeline.pop_front().expect("it was there just now");
        self.events_waiting -= in_flight.events;
        for (route, reply) in in_flight.routes.into_iter().zip(replies) {
            if let Some(frame) = reply {
                self.send_client(route.way, route.client, frame);
            }
        }
    }

    /// Keeps a buffer for the next prepare.
    fn recycle(&mut self, buffer: SectorBuf) {
        // Those that were read are as long as they have to be.
        if buffer.len() == to_usize(self.geometry.journal_slot_size.get()) {
            self.buffers.push(buffer);
        }
    }

    /// Offset of the slot of `op` in the prepare ring.
    #[must_use]
    pub fn prepare_offset(geometry: &Geometry, op: u64) -> u64 {
        let slot = op % u64::from(geometry.journal_slot_count.get());
        geometry.prepares_offset() + slot * u64::from(geometry.journal_slot_size.get())
    }

    /// Slot of `op`.
    #[must_use]
    pub fn slot(geometry: &Geometry, op: u64) -> usize {
        u64_to_usize(op % u64::from(geometry.journal_slot_count.get()))
    }
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;
