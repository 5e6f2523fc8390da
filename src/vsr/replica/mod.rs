//! The replica: takes events, gives effects, never waits.
//!
//! Life of a request: a frame is checked and queued; when the journal is free the waiting requests
//! of all clients are packed into one prepare, which is written here and sent to the backups; when a
//! quorum has it on stable storage the op is committed; it is executed, and the replies are sent. While an op
//! executes or is written, further requests gather, so that many small clients cost one journal write
//! together.
//!
//! Invariants:
//! * An op is answered only after a replication quorum has it on stable storage, and with several replicas
//!   executed only then. Alone, one op may be executed while its prepare is being written, see
//!   `execute`.
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
//! * A replica whose file was lost promises nothing before it has joined a view that is higher than any of
//!   its earlier life.
//! * A standby follows and promises nothing: it acknowledges, asks for and votes for no view, and what it says
//!   counts in no quorum. Nobody waits for it (`vsr::members`).
//! * An op is executed at the release of the log, and only on top of the checkpoint that its primary had.
//! * Timestamps strictly increase along the log, whatever the clocks do, and are given out only while a
//!   quorum of clocks agrees on the time of day (`vsr::clock`).

mod catch_up;
mod clocks;
mod counts;
mod dissent;
mod divergence;
mod event;
mod execute;
mod journal;
mod normal;
mod older_copy;
mod recovery;
mod relay;
mod releases;
mod repair;
mod requests;
mod sync;
mod timers;
mod view_change;

pub use event::{Admission, Effect, Event, Op, Outcome, Prepare, ViewState, Way};

use super::clock::Clock;
use super::log::Log;
use super::members::{Members, Voter};
use super::message::{self, CheckpointState};
use super::quorum::Quorums;
use super::release::Releases;
use super::sessions::SharedSessions;
use super::vote::Vote;
use crate::constants;
use crate::io::Incoming;
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize};
use crate::wire::header::command;
use crate::wire::{CommonHeader, Operation, PeerHeader, PingClientHeader, RequestHeader, Sender};
use bytes::Bytes;
use catch_up::CatchUp;
use clocks::Astray;
use dissent::Dissent;
use older_copy::{Progress, Told};
use recovery::Recovery;
use relay::Relay;
use std::collections::{BTreeMap, VecDeque};
use storage_format::{Checksum, Geometry, PrepareHeader, Superblock};
use timers::Timers;
use zerocopy::FromBytes;

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

/// An op of the primary whose replies are not out yet.
#[derive(Debug)]
struct InFlight {
    op: u64,
    /// The replicas that have it on stable storage.
    acks: u8,
    routes: Vec<Route>,
    events: u64,
    pulse: bool,
}

impl InFlight {
    fn new(op: u64) -> Self {
        Self {
            op,
            acks: 0,
            routes: Vec::new(),
            events: 0,
            pulse: false,
        }
    }
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
    /// Its journal may have lost the end of its log: it has to hear from the primary of its view first. Or
    /// its file was lost.
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
    /// That op, and what identifies the checkpoint, when it told of both.
    checkpoint: Option<(u64, Checksum)>,
    /// The most that it has told of.
    told: Told,
    /// Whether it has heard this replica tell of no more than the file has,
    heard_no_more: bool,
    /// and how often it said that it has heard more.
    heard_more: u32,
    /// A view that it asks for, and when it did.
    asked: Option<(u32, u64)>,
    /// When it was heard last, and remembered what it had promised.
    heard: Option<u64>,
    /// Whether its time of day was one that a quorum agrees on.
    synchronized: bool,
    /// The newest release that its binary has.
    release_newest: u32,
}

/// Where a replica starts from, beside its superblock.
#[derive(Debug)]
pub struct Start {
    /// The log.
    pub log: Log,
    /// Whether nothing can have been in the log beyond its head.
    pub certain: bool,
    /// The newest op that is executed.
    pub executed: PrepareHeader,
    /// The releases that the binary has.
    pub releases: Releases,
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    cluster: u128,
    members: Members,
    quorums: Quorums,
    geometry: Geometry,
    nonce: u128,
    /// Release of the log.
    release: u32,
    /// Those that the binary has.
    releases: Releases,
    status: Status,
    view: u32,
    log_view: u32,
    /// View and log view in the superblock.
    view_durable: (u32, u32),
    view_writing: Option<(u32, u32, u64)>,
    /// Logs of views that were installed, and up to which of them the superblock has their headers.
    installs: u64,
    installs_durable: u64,
    log: Log,
    /// Whether nothing can have been in the log beyond its head.
    certain: bool,
    /// The newest op that is executed, and committed.
    executed: (u64, Checksum),
    /// The newest op that was handed out to be executed.
    executing: u64,
    commit_max: u64,
    checkpoint: CheckpointState,
    checkpoint_id: Checksum,
    content_missing: bool,
    /// Whether the ledger is as the checkpoint has it, and goes on from there.
    loaded: bool,
    /// The checkpoint that is on its way to the superblock.
    syncing: Option<CheckpointState>,
    timestamp_last: u64,
    pulse_next: u64,
    sessions: SharedSessions,
    queue: VecDeque<Queued>,
    pipeline: VecDeque<InFlight>,
    events_waiting: u64,
    /// As primary: requests are taken once everything up to this op is executed.
    view_start: u64,
    /// Clients whose requests were passed on, or wait for a view to start.
    relays: BTreeMap<u128, Relay>,
    /// The view in which the requests of all of them were passed on.
    relayed_in: Option<u32>,
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
    /// What was executed ahead of the journal, until that has it.
    ahead: Option<(Op, Outcome)>,
    reads: VecDeque<(PrepareHeader, Purpose)>,
    reading: Option<(PrepareHeader, Purpose)>,
    buffers: Vec<SectorBuf>,
    peers: Vec<Peer>,
    /// Members whose files name another number of replicas.
    other_counts: Dissent,
    /// Replicas whose logs are at another release.
    other_releases: Dissent,
    votes: Vec<Option<Vote>>,
    timers: Timers,
    clock: Clock,
    /// While the time of day is none that a quorum agrees on.
    astray: Option<Astray>,
    /// The view that this replica asks for, because it misses its primary.
    asking: Option<u32>,
    /// Clients whose reply is not here: its op, and since when others are asked for it.
    replies_asked: BTreeMap<u128, (u64, u64)>,
    /// Prepares of the view that came before their turn.
    early: BTreeMap<u64, (PrepareHeader, Bytes)>,
    /// Prepares asked for by their checksum, and when to ask again.
    wanted: BTreeMap<u64, u64>,
    /// Whether more is missing than there was room to ask for.
    lacks: bool,
    /// When to ask for headers again.
    headers_asked: u64,
    /// The longest that the log of the primary is known to be.
    primary_head: u64,
    /// Up to where its next prepares are asked for, and when to ask again.
    asked_up_to: (u64, u64),
    /// The view in which trouble was told of last: once is enough.
    told: Option<u32>,
    /// What the file had, and since when this process tells of it.
    kept: (u64, Progress),
    /// While it recovers from the loss of its file.
    recovery: Option<Recovery>,
    /// Prepares of earlier views may have been acknowledged by this replica before its file was lost.
    recovered_view: u32,
    /// Until it has what the others have.
    catch_up: Option<CatchUp>,
    shutdown: bool,
    effects: VecDeque<Effect>,
}

impl Replica {
    /// A replica as its data file left it. `sessions` are those after the newest op that is executed;
    /// `nonce` differs from that of any other process that ran this replica.
    #[must_use]
    pub fn new(
        superblock: &Superblock,
        members: Members,
        start: Start,
        sessions: SharedSessions,
        nonce: u128,
    ) -> Self {
        let geometry = superblock.geometry;
        let replica_count = usize::from(superblock.replica_count);
        let (view, log_view) = (superblock.view.get(), superblock.log_view.get());
        let slot_size = to_usize(geometry.journal_slot_size.get());
        let buffers = (0..Self::buffer_count(superblock.is_solo()))
            .map(|_| SectorBuf::zeroed(slot_size))
            .collect();
        let primary = members.primary_of(view) == members.own();
        let recovers = superblock.recovering == 1 && !planted(Bug::RecoverAtOnce);
        let recovery = recovers.then(Recovery::default);
        let status = match start.certain {
            // A standby has acknowledged nothing, so it does not matter what its journal lost.
            _ if members.is_solo() || members.is_standby() => Status::Normal,
            _ if recovers => Status::Recovering,
            // A primary may have sent prepares that it lost: the next view has to start.
            _ if primary || log_view < view => Status::ViewChange,
            true => Status::Normal,
            false => Status::Recovering,
        };
        let quorums = Quorums::new(superblock.replica_count);
        let (log, executed) = (start.log, start.executed);
        let head_timestamp = log.head().timestamp.get();
        Self {
            cluster: superblock.cluster.get(),
            members,
            quorums,
            geometry,
            nonce,
            release: superblock.release.get(),
            releases: start.releases,
            status,
            view,
            log_view,
            view_durable: (view, log_view),
            view_writing: None,
            installs: 0,
            installs_durable: 0,
            log,
            certain: start.certain,
            executed: (executed.op.get(), executed.checksum),
            executing: executed.op.get(),
            commit_max: superblock.commit_max.max(executed.op).get(),
            checkpoint: CheckpointState::of(superblock),
            checkpoint_id: CheckpointState::of(superblock).identity(),
            content_missing: superblock.content_missing == 1,
            loaded: false,
            syncing: None,
            timestamp_last: head_timestamp,
            pulse_next: u64::MAX,
            sessions,
            queue: VecDeque::new(),
            pipeline: VecDeque::new(),
            events_waiting: 0,
            view_start: 0,
            relays: BTreeMap::new(),
            relayed_in: None,
            journal: JournalWrite::Idle,
            to_write: VecDeque::new(),
            headers_behind: VecDeque::new(),
            headers_writing: Vec::new(),
            quiet: false,
            ready: BTreeMap::new(),
            ahead: None,
            reads: VecDeque::new(),
            reading: None,
            buffers,
            peers: vec![Peer::default(); replica_count],
            other_counts: Dissent::default(),
            other_releases: Dissent::default(),
            votes: vec![None; replica_count],
            timers: Timers::default(),
            clock: Clock::new(quorums.replication),
            astray: None,
            asking: None,
            replies_asked: BTreeMap::new(),
            early: BTreeMap::new(),
            wanted: BTreeMap::new(),
            lacks: false,
            headers_asked: 0,
            primary_head: 0,
            asked_up_to: (0, 0),
            told: None,
            kept: (0, (0, 0)),
            recovery,
            recovered_view: superblock.recovered_view.get(),
            catch_up: Some(CatchUp::since_start()),
            shutdown: false,
            effects: VecDeque::new(),
        }
    }

    /// Who belongs to the cluster.
    #[must_use]
    pub fn members(&self) -> Members {
        self.members
    }

    /// Buffers for prepares: those in flight, and but for a single replica as many that are committed and
    /// wait to be executed.
    fn buffer_count(solo: bool) -> u64 {
        match solo {
            true => constants::PIPELINE_PREPARES_MAX,
            false => 2 * constants::PIPELINE_PREPARES_MAX,
        }
    }

    /// Bytes that prepares take at most: those buffers, and what is executed as it comes from others.
    #[must_use]
    pub fn prepares_memory(superblock: &Superblock) -> u64 {
        let solo = superblock.is_solo();
        let slot_size = u64::from(superblock.geometry.journal_slot_size.get());
        let unwritten = if solo { 0 } else { repair::UNWRITTEN_MEMORY };
        Self::buffer_count(solo) * slot_size + unwritten
    }

    /// What the clocks say, in nanoseconds: the monotonic one, and the time of day. To be called before
    /// events are handled.
    pub fn observe(&mut self, now: u64, realtime: u64) {
        let first = self.timers.now == 0;
        (self.timers.now, self.timers.realtime) = (now, realtime);
        self.clock.observe(now, realtime);
        if first {
            (self.timers.progress, self.timers.heard) = (now, now);
            self.timers.content = now;
            self.begin_telling();
            self.be_patient();
        }
    }

    /// The state waits for no block that is missing. To be called before [`Replica::tick`].
    pub fn misses_nothing(&mut self) {
        self.timers.content = self.timers.now;
    }

    /// The next thing to do, if any. To be called until it gives none, after all events at hand were
    /// handled: what waits by then shares a prepare.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.write_view();
            self.journal_next();
            self.read_next();
        }
        // Executing comes last, or takes its time to begin: meanwhile the journal is written.
        let effect = self.effects.pop_front();
        effect.or_else(|| self.execute_next())
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

    /// Highest op that was executed, and is committed.
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

    /// Whether this is the only replica: it asks nobody.
    fn solo(&self) -> bool {
        self.members.is_solo()
    }

    fn primary_of(&self, view: u32) -> u8 {
        self.members.primary_of(view)
    }

    fn is_primary(&self) -> bool {
        self.primary_of(self.view) == self.members.own()
    }

    /// Whether requests are taken here: as primary of a view whose past is executed.
    fn serves(&self) -> bool {
        let executed = self.executed.0 >= self.view_start || planted(Bug::ServeBeforeExecuting);
        self.leads() && self.loaded && executed
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
            Event::PrepareDamaged(header) => self.on_prepare_damaged(&header),
            Event::Quiet => self.quiet = true,
            Event::Executed(op, outcome) => self.on_executed(op, outcome),
            Event::Checkpointed(checkpoint) => {
                let op = checkpoint.op();
                assert!(op > self.checkpoint.op() && op <= self.executed.0);
                self.set_checkpoint(*checkpoint);
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
        self.relay_again(admission);
    }

    fn set_checkpoint(&mut self, checkpoint: CheckpointState) {
        self.checkpoint = checkpoint;
        self.checkpoint_id = checkpoint.identity();
    }

    /// Nanoseconds until the next pending transfer expires; none for who does not see to it.
    #[must_use]
    pub fn until_pulse(&self) -> Option<u64> {
        let time = self.time_of_day().filter(|_| self.serves())?;
        Some(self.pulse_next.saturating_sub(time))
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
            (command::REQUEST, Way::Connection(_)) => self.relay(way, header, &body),
            (code, Way::Connection(_)) if command::is_of_peers(code) && self.is_peer(&common) => {
                if self.is_of_log(&common) {
                    self.on_peer_frame(&common, header, body, admission);
                }
            }
            _ => tracing::debug!(command = common.command, "a frame of no use"),
        }
    }

    /// Whether the sender is another member that is heard here.
    fn is_peer(&self, common: &CommonHeader) -> bool {
        self.members.hears(common.replica)
            && (common.replica != self.members.own() || common.command == command::PREPARE)
    }

    fn on_peer_frame(
        &mut self,
        common: &CommonHeader,
        header: &[u8; 256],
        body: Bytes,
        admission: &impl Admission,
    ) {
        if self.is_recovering()
            && !matches!(common.command, command::START_VIEW | command::RECOVERY)
        {
            return;
        }
        let sender = self.members.voter(common.replica);
        if common.command == command::PREPARE && sender.is_some() {
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
        if !self.is_of_count(&peer) {
            return;
        }
        match sender {
            Some(_) if self.members.is_standby() && !is_for_standbys(peer.command) => {
                tracing::warn!(command = peer.command, "a standby is not to be asked");
            }
            Some(sender) => self.on_message(sender, &peer, body, admission),
            None => self.on_question_of_standby(&peer, &body, admission),
        }
    }

    /// Another replica says something.
    fn on_message(
        &mut self,
        from: Voter,
        peer: &PeerHeader,
        body: Bytes,
        admission: &impl Admission,
    ) {
        let newest = self.releases.newest;
        if planted(Bug::HearOwnReleaseOnly) && peer.release_newest != newest {
            return;
        }
        if !self.remembers(from, peer) {
            if peer.command == command::PING {
                // By the answer it hears what it has forgotten.
                self.tell_time(peer);
            }
            return;
        }
        let known = &mut self.peers[from.at()];
        known.checkpoint_op = peer.checkpoint_op.get();
        if peer.command != command::RECOVER {
            known.heard = Some(self.timers.now);
            known.synchronized = peer.synchronized == 1;
        }
        self.hear_releases(from, peer);
        match peer.command {
            command::RECOVER => self.on_recover(from, peer),
            command::RECOVERY => self.on_recovery(from, peer, &body),
            command::PREPARE_OK => self.on_prepare_ok(from, peer),
            command::COMMIT => self.on_commit(from, peer),
            command::PING => self.on_ping_of_replica(from, peer),
            command::PONG => self.on_pong(from, peer),
            command::START_VIEW_CHANGE => self.on_start_view_change(from, peer),
            command::DO_VIEW_CHANGE => self.on_do_view_change(from, peer, &body),
            command::START_VIEW => self.on_start_view(peer, &body),
            command::REQUEST_START_VIEW => self.on_request_start_view(peer),
            command::REQUEST_HEADERS => self.on_request_headers(peer),
            command::REQUEST_PREPARE => self.on_request_prepare(peer),
            command::HEADERS => self.on_headers(&body),
            command::REQUEST_REPLY => self.on_request_reply(peer),
            command::STORED_REPLY => self.on_stored_reply(body),
            command::FORWARD => self.on_forward(peer.replica, &body, admission),
            command::RELAY => self.on_relay(body),
            other => tracing::debug!(command = other, "an unknown message of a replica"),
        }
    }

    /// A standby says something: it may ask, and pass on what clients ask. Nothing is remembered of it.
    fn on_question_of_standby(
        &mut self,
        peer: &PeerHeader,
        body: &Bytes,
        admission: &impl Admission,
    ) {
        match peer.command {
            command::PING => self.tell_time(peer),
            command::REQUEST_START_VIEW => self.on_request_start_view(peer),
            command::REQUEST_HEADERS => self.on_request_headers(peer),
            command::REQUEST_PREPARE => self.on_request_prepare(peer),
            command::FORWARD => self.on_forward(peer.replica, body, admission),
            // It takes itself for a replica, and hears by the answer that its file is wrong.
            command::RECOVER => self.answer_recovery(peer, false),
            other => {
                let standby = peer.replica;
                tracing::warn!(standby, command = other, "a standby has no say: ignored");
            }
        }
    }

    fn sender(&self) -> Sender {
        Sender {
            cluster: self.cluster,
            // Clients hear of views that have a log only: they ask for nothing in an earlier one any more,
            // and a quorum may still be in that.
            view: match planted(Bug::TellUnstartedView) {
                true => self.view_durable.0,
                false => self.view_durable.1,
            },
            release: constants::RELEASE,
            replica: self.members.own(),
        }
    }
}

/// Whether a standby takes such messages: they tell it of the log, and ask nothing of it.
fn is_for_standbys(code: u8) -> bool {
    matches!(
        code,
        command::COMMIT | command::PONG | command::START_VIEW | command::HEADERS | command::RELAY
    ) || (code == command::PING && planted(Bug::StandbyTellsTime))
}

#[cfg(test)]
mod agreement_tests;
#[cfg(test)]
mod behind_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod patience_tests;
#[cfg(test)]
mod standby_tests;
#[cfg(test)]
mod tests;
