//! The replica: takes events, gives effects, never waits.
//!
//! Life of a request: a frame is checked and queued; when the journal is free the waiting requests
//! of all clients are packed into one prepare; when the prepare is durable the op is committed and
//! executed; the replies are sent. While an op executes or is written, further requests gather, so
//! that many small clients cost one journal write together.
//!
//! Invariants:
//! * An op is executed, and thus answered, only after its prepare is durable.
//! * One journal write is under way at a time: at a crash, at most the slot after the highest
//!   durable op is torn (rule T relies on it), and a header is never written before its prepare.
//!   Headers stay behind a few prepares while there is work, so that one write serves several.
//!   A crash may make the sector under it unreadable: were a prepare and a header written side by
//!   side, both copies of what the journal says of a slot could be lost.
//! * No op is prepared that would overwrite a slot the last durable checkpoint still needs.
//! * Timestamps strictly increase along the log, whatever the wall clock does.

use super::sessions::{SharedSessions, Standing};
use crate::constants;
use crate::io::{ConnectionId, Incoming};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::wire::header::command;
use crate::wire::{
    self, Answered, CommonHeader, Evicted, Operation, PingClientHeader, Rejection, ReplyHeader,
    RequestHeader, Sender, build,
};
use bytes::Bytes;
use std::collections::VecDeque;
use storage_format::{Geometry, PrepareHeader, PrepareKind, RequestEntry, SECTOR_SIZE, checksum};
use zerocopy::{FromBytes, IntoBytes};

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

/// What the surroundings tell the replica.
#[derive(Debug)]
pub enum Event {
    /// The network brought something.
    Incoming(Incoming),
    /// The prepare is on stable storage.
    PrepareDurable(Prepare),
    /// The redundant headers that were to be written are on stable storage.
    HeadersDurable,
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
    Checkpointed {
        /// Its op.
        op: u64,
    },
}

/// What the replica wants done.
#[derive(Debug)]
pub enum Effect {
    /// Write the prepare to its slot; `PrepareDurable` follows.
    WritePrepare(Prepare),
    /// Write redundant headers, all of one sector; `HeadersDurable` follows.
    WriteHeaders(Vec<PrepareHeader>),
    /// Execute the op; `Executed` follows.
    Execute(Prepare),
    /// Send a frame to a client.
    Send {
        /// To whom.
        connection: ConnectionId,
        /// What.
        frame: Bytes,
    },
}

/// Whether there is room for what a request would add.
pub trait Admission {
    /// `events` are those of the request, `events_waiting` those of the requests admitted before it
    /// that were not executed yet.
    fn admits(&self, events: u64, events_waiting: u64) -> bool;
}

#[derive(Debug)]
struct Queued {
    connection: ConnectionId,
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
    connection: ConnectionId,
}

#[derive(Debug)]
struct InFlight {
    op: u64,
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

/// Where a replica starts from.
#[derive(Debug)]
pub struct ReplicaOptions {
    /// Cluster.
    pub cluster: u128,
    /// Index of the replica.
    pub replica: u8,
    /// Sizes of the data file.
    pub geometry: Geometry,
    /// The view, durable already.
    pub view: u32,
    /// The newest prepare; everything up to it is executed.
    pub head: PrepareHeader,
    /// Op of the last durable checkpoint.
    pub checkpoint_op: u64,
    /// The sessions after `head`.
    pub sessions: SharedSessions,
    /// When the next pending transfer expires.
    pub pulse_next: u64,
    /// Highest timestamp that the ledger ever gave out.
    pub timestamp_last: u64,
}

/// The replica of a cluster of one.
#[derive(Debug)]
pub struct Replica {
    cluster: u128,
    replica: u8,
    geometry: Geometry,
    view: u32,
    head: PrepareHeader,
    commit: u64,
    checkpoint_op: u64,
    timestamp_last: u64,
    pulse_next: u64,
    sessions: SharedSessions,
    queue: VecDeque<Queued>,
    pipeline: VecDeque<InFlight>,
    events_waiting: u64,
    journal: JournalWrite,
    /// Headers of durable prepares that are not in the header ring yet.
    headers_behind: VecDeque<PrepareHeader>,
    /// Whether they are to be written before anything else comes.
    quiet: bool,
    /// Prepares that are on stable storage, to be executed.
    durable: VecDeque<Prepare>,
    buffers: Vec<SectorBuf>,
    shutdown: bool,
    effects: VecDeque<Effect>,
}

impl Replica {
    /// A replica that has executed everything up to `options.head`.
    #[must_use]
    pub fn new(options: ReplicaOptions) -> Self {
        let slot_size = to_usize(options.geometry.journal_slot_size.get());
        let buffers = (0..constants::PIPELINE_PREPARES_MAX)
            .map(|_| SectorBuf::zeroed(slot_size))
            .collect();
        let head_op = options.head.op.get();
        Self {
            cluster: options.cluster,
            replica: options.replica,
            geometry: options.geometry,
            view: options.view,
            head: options.head,
            commit: head_op,
            checkpoint_op: options.checkpoint_op,
            timestamp_last: options.timestamp_last.max(options.head.timestamp.get()),
            pulse_next: options.pulse_next,
            sessions: options.sessions,
            queue: VecDeque::new(),
            pipeline: VecDeque::new(),
            events_waiting: 0,
            journal: JournalWrite::Idle,
            headers_behind: VecDeque::new(),
            quiet: false,
            durable: VecDeque::new(),
            buffers,
            shutdown: false,
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do, if any; `now` is the wall clock in nanoseconds. To be called until it
    /// gives none, after all events at hand were handled: what waits by then shares a prepare.
    pub fn poll_effect(&mut self, now: u64) -> Option<Effect> {
        if self.effects.is_empty() {
            self.journal_next(now);
        }
        // Executing comes last: meanwhile the journal is written.
        let effect = self.effects.pop_front();
        effect.or_else(|| self.durable.pop_front().map(Effect::Execute))
    }

    /// The next frame to send, if that is what comes next.
    pub fn poll_send(&mut self) -> Option<Effect> {
        match self.effects.front() {
            Some(Effect::Send { .. }) => self.effects.pop_front(),
            Some(Effect::WritePrepare(_) | Effect::WriteHeaders(_) | Effect::Execute(_)) | None => {
                None
            }
        }
    }

    /// Highest op that was executed.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// The newest prepare.
    #[must_use]
    pub fn head(&self) -> &PrepareHeader {
        &self.head
    }

    /// Whether everything that was prepared is executed and durable after a request to shut down.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        let journal_done = self.journal == JournalWrite::Idle && self.headers_behind.is_empty();
        self.shutdown && self.pipeline.is_empty() && journal_done
    }

    /// Whether another frame can be queued: when not, frames wait in the network.
    #[must_use]
    pub fn has_room(&self) -> bool {
        to_u64(self.queue.len()) < u64::from(self.geometry.session_count_max.get())
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
                self.on_frame(connection, &header, body, admission);
            }
            Event::PrepareDurable(prepare) => self.on_prepare_durable(prepare),
            Event::HeadersDurable => {
                assert_eq!(self.journal, JournalWrite::Headers);
                self.journal = JournalWrite::Idle;
            }
            Event::Quiet => self.quiet = true,
            Event::Executed {
                prepare,
                replies,
                pulse_next,
            } => {
                self.on_executed(prepare, replies, pulse_next);
            }
            Event::Checkpointed { op } => {
                assert!(op > self.checkpoint_op && op <= self.commit);
                self.checkpoint_op = op;
            }
        }
    }

    /// When the next pending transfer expires, on the wall clock.
    #[must_use]
    pub fn pulse_next(&self) -> u64 {
        self.pulse_next
    }

    fn on_frame(
        &mut self,
        connection: ConnectionId,
        header: &[u8; 256],
        body: Bytes,
        admission: &impl Admission,
    ) {
        let common = CommonHeader::read_from_bytes(header).expect("a header is 256 bytes");
        match common.command {
            command::PING_CLIENT => {
                let ping = PingClientHeader::read_from_bytes(header).expect("256 bytes");
                self.on_ping(connection, &ping);
            }
            command::REQUEST => {
                let request = RequestHeader::read_from_bytes(header).expect("256 bytes");
                self.on_request(connection, request, body, admission);
            }
            _ => tracing::debug!(command = common.command, "a frame of no use to a server"),
        }
    }

    fn on_ping(&mut self, connection: ConnectionId, ping: &PingClientHeader) {
        match wire::check_ping(ping) {
            Ok(()) => {}
            Err(Rejection::Ignore(_)) => return,
            Err(Rejection::Evict(reason)) => {
                self.evict(connection, ping.client.get(), reason);
                return;
            }
        }
        let session = ping.session.get();
        let sessions = self.sessions.borrow();
        let known = sessions.find(ping.client.get());
        let known = known.map(|known| known.record.session.get());
        drop(sessions);
        match known {
            None if session > 0 && session <= self.commit => {
                self.evict(connection, ping.client.get(), Evicted::NoSession);
            }
            Some(known) if session > 0 && session < known => {
                self.evict(connection, ping.client.get(), Evicted::SessionTooLow);
            }
            None | Some(_) => {
                let frame = build::pong(&self.sender(), ping);
                self.effects.push_back(Effect::Send { connection, frame });
            }
        }
    }

    fn sender(&self) -> Sender {
        Sender {
            cluster: self.cluster,
            view: self.view,
            release: constants::RELEASE,
            replica: self.replica,
        }
    }

    fn evict(&mut self, connection: ConnectionId, client: u128, reason: Evicted) {
        tracing::debug!(%client, ?reason, "eviction sent");
        let frame = build::eviction(&self.sender(), client, reason);
        self.effects.push_back(Effect::Send { connection, frame });
    }

    fn on_request(
        &mut self,
        connection: ConnectionId,
        header: RequestHeader,
        body: Bytes,
        admission: &impl Admission,
    ) {
        let client = header.client.get();
        let operation = match wire::check(&header, &body, self.view) {
            Ok(operation) => operation,
            Err(Rejection::Ignore(reason)) => {
                tracing::debug!(%client, ?reason, "request ignored");
                return;
            }
            Err(Rejection::Evict(reason)) => {
                self.evict(connection, client, reason);
                return;
            }
        };
        let size_max = to_usize(self.geometry.message_size_max.get());
        if constants::HEADER_SIZE + body.len() > size_max {
            self.evict(connection, client, Evicted::InvalidBodySize);
            return;
        }
        let standing = self.sessions.borrow().standing(&header, self.commit);
        match standing {
            Standing::New => self.enqueue(connection, header, operation, body, admission),
            Standing::Duplicate => self.reply_again(connection, client),
            Standing::NoSession => self.evict(connection, client, Evicted::NoSession),
            Standing::SessionTooLow => self.evict(connection, client, Evicted::SessionTooLow),
            Standing::ReleaseMismatch => {
                self.evict(connection, client, Evicted::SessionReleaseMismatch);
            }
            Standing::Stale | Standing::SessionInFuture => {
                tracing::debug!(%client, "request out of order ignored");
            }
        }
    }

    fn reply_again(&mut self, connection: ConnectionId, client: u128) {
        let sessions = self.sessions.borrow();
        let session = sessions.find(client);
        let session = session.expect("the request was its duplicate");
        let reply = session.reply.clone();
        drop(sessions);
        let Some(reply) = reply else {
            // Its slot in the data file is damaged: no answer would be right, so say so.
            tracing::error!(%client, "the stored reply is damaged: the client is evicted");
            self.evict(connection, client, Evicted::NoSession);
            return;
        };
        let frame = reply_in_view(&reply, self.view, self.replica);
        self.effects.push_back(Effect::Send { connection, frame });
    }

    fn enqueue(
        &mut self,
        connection: ConnectionId,
        header: RequestHeader,
        operation: Operation,
        body: Bytes,
        admission: &impl Admission,
    ) {
        let client = header.client.get();
        if let Some(queued) = self
            .queue
            .iter_mut()
            .find(|q| q.header.client.get() == client)
        {
            queued.connection = connection;
            return;
        }
        let in_flight = self.pipeline.iter_mut().flat_map(|p| p.routes.iter_mut());
        for route in in_flight {
            // A later one may come while the op still runs: a duplicate of the first was answered.
            if route.client == client && route.request == header.request.get() {
                route.connection = connection;
                return;
            }
        }
        if self.shutdown || !self.has_room() {
            return;
        }
        let events = operation.event_count(&body);
        if operation.is_create() && !admission.admits(events, self.events_waiting) {
            self.evict(connection, client, Evicted::NoSession);
            return;
        }
        self.events_waiting += events;
        self.queue.push_back(Queued {
            connection,
            header,
            operation,
            events,
            body,
        });
    }

    fn on_prepare_durable(&mut self, prepare: Prepare) {
        assert_eq!(self.journal, JournalWrite::Prepare);
        self.journal = JournalWrite::Idle;
        self.headers_behind.push_back(prepare.header);
        self.quiet = self.shutdown;
        self.durable.push_back(prepare);
    }

    fn on_executed(&mut self, prepare: Prepare, replies: Vec<Option<Bytes>>, pulse_next: u64) {
        let in_flight = self
            .pipeline
            .pop_front()
            .expect("an executed op was in flight");
        assert_eq!(in_flight.op, prepare.header.op.get());
        assert_eq!(in_flight.op, self.commit + 1);
        assert_eq!(in_flight.routes.len(), replies.len());
        self.commit = in_flight.op;
        self.pulse_next = pulse_next;
        self.events_waiting -= in_flight.events;
        self.buffers.push(prepare.buffer);
        for (route, reply) in in_flight.routes.into_iter().zip(replies) {
            if let Some(frame) = reply {
                self.effects.push_back(Effect::Send {
                    connection: route.connection,
                    frame,
                });
            }
        }
    }

    /// Whether headers wait for a quiet moment to be written.
    #[must_use]
    pub fn puts_off(&self) -> bool {
        self.journal == JournalWrite::Idle && !self.headers_behind.is_empty()
    }

    /// Begins the next journal write, if the journal is free: a prepare if something waits, headers
    /// if too many are behind or there is time.
    fn journal_next(&mut self, now: u64) {
        if self.journal != JournalWrite::Idle {
            return;
        }
        let behind = self.headers_behind.len();
        if behind < constants::HEADERS_BEHIND_MAX {
            self.prepare_next(now);
        }
        let write = self.quiet || behind == constants::HEADERS_BEHIND_MAX;
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
        let headers = self.headers_behind.drain(..count).collect();
        self.journal = JournalWrite::Headers;
        self.effects.push_back(Effect::WriteHeaders(headers));
    }

    /// Makes the next prepare, if something waits; the journal is free.
    fn prepare_next(&mut self, now: u64) {
        let op = self.head.op.get() + 1;
        let limit = self.checkpoint_op + u64::from(self.geometry.journal_slot_count.get());
        if self.shutdown || self.buffers.is_empty() || op > limit {
            return;
        }
        let earliest = if planted(Bug::FollowClockBack) {
            1
        } else {
            self.timestamp_last + 1
        };
        let now = now.clamp(earliest, constants::TIMESTAMP_MAX);
        let pulse_due = self.pulse_next <= now
            && !self.pipeline.iter().any(|p| p.pulse)
            && !planted(Bug::ForgetPulse);
        if pulse_due {
            self.timestamp_last = now + constants::PULSE_EXPIRIES_MAX;
            let in_flight = InFlight {
                op,
                routes: Vec::new(),
                events: 0,
                pulse: true,
            };
            let buffer = self.buffers.pop().expect("it is not empty");
            self.journal_append(
                PrepareKind::Pulse,
                buffer,
                0,
                constants::HEADER_SIZE,
                in_flight,
            );
        } else if !self.queue.is_empty() {
            self.prepare_requests(op, now);
        }
    }

    /// Packs as many waiting requests as fit into one prepare.
    fn prepare_requests(&mut self, op: u64, now: u64) {
        let bodies_max = to_usize(self.geometry.message_size_max.get()) - constants::HEADER_SIZE;
        let mut bodies = 0;
        let fitting = self
            .queue
            .iter()
            .take(constants::PREPARE_REQUESTS_MAX)
            .take_while(|queued| {
                bodies += queued.body.len();
                bodies <= bodies_max
            });
        let count = fitting.count();
        assert!(count > 0, "a request alone always fits");
        let mut buffer = self.buffers.pop().expect("the caller found one");
        let mut entry_at = constants::HEADER_SIZE;
        let mut body_at = entry_at + count * size_of::<RequestEntry>();
        let mut in_flight = InFlight {
            op,
            routes: Vec::new(),
            events: 0,
            pulse: false,
        };
        let mut timestamp = now - 1;
        for queued in self.queue.drain(..count) {
            timestamp = timestamp + 1 + queued.events;
            let entry = RequestEntry {
                request_checksum: queued.header.checksum,
                client: queued.header.client,
                session: queued.header.session,
                timestamp: timestamp.into(),
                request: queued.header.request,
                release: queued.header.release,
                body_size: u32::try_from(queued.body.len())
                    .expect("at most 1 MiB")
                    .into(),
                operation: queued.operation.code(),
                reserved: [0; 3],
            };
            buffer[entry_at..entry_at + 64].copy_from_slice(entry.as_bytes());
            buffer[body_at..body_at + queued.body.len()].copy_from_slice(&queued.body);
            entry_at += 64;
            body_at += queued.body.len();
            in_flight.events += queued.events;
            in_flight.routes.push(Route {
                client: queued.header.client.get(),
                request: queued.header.request.get(),
                connection: queued.connection,
            });
        }
        self.timestamp_last = timestamp;
        self.journal_append(PrepareKind::Requests, buffer, count, body_at, in_flight);
    }

    fn journal_append(
        &mut self,
        kind: PrepareKind,
        mut buffer: SectorBuf,
        request_count: usize,
        size: usize,
        in_flight: InFlight,
    ) {
        let mut header = PrepareHeader::empty(self.cluster, in_flight.op);
        header.kind = kind.code();
        header.size = u32::try_from(size).expect("a prepare fits its slot").into();
        header.view = self.view.into();
        header.release = constants::RELEASE.into();
        header.replica = self.replica;
        header.parent = self.head.checksum;
        header.commit = self.commit.into();
        header.timestamp = self.timestamp_last.into();
        header.request_count = u32::try_from(request_count).expect("at most 1000").into();
        header.checksum_body = checksum(&buffer[constants::HEADER_SIZE..size]);
        header.seal();
        buffer[..constants::HEADER_SIZE].copy_from_slice(header.as_bytes());
        buffer[size..size.next_multiple_of(SECTOR_SIZE)].fill(0);
        assert!(header.timestamp.get() > self.head.timestamp.get());
        self.head = header;
        self.journal = JournalWrite::Prepare;
        self.pipeline.push_back(in_flight);
        self.effects
            .push_back(Effect::WritePrepare(Prepare { header, buffer }));
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

    /// The reply to `entry` of `prepare`; `frame` holds its body behind 256 bytes for the header.
    ///
    /// The header is in the prepare's view, so that it is the same whenever the op is executed.
    #[must_use]
    pub fn reply(
        prepare: &PrepareHeader,
        entry: &RequestEntry,
        operation: Operation,
        mut frame: Vec<u8>,
    ) -> (ReplyHeader, Bytes) {
        let sender = Sender {
            cluster: prepare.cluster.get(),
            view: prepare.view.get(),
            release: entry.release.get(),
            replica: prepare.replica,
        };
        let answered = Answered {
            request_checksum: entry.request_checksum,
            client: entry.client.get(),
            request: entry.request.get(),
            release: entry.release.get(),
            op: prepare.op.get(),
            timestamp: entry.timestamp.get(),
            operation,
        };
        let header = ReplyHeader::new(&sender, &answered, &frame[constants::HEADER_SIZE..]);
        frame[..constants::HEADER_SIZE].copy_from_slice(header.as_bytes());
        (header, Bytes::from(frame))
    }
}

/// A stored reply as it is sent in `view`.
fn reply_in_view(reply: &Bytes, view: u32, replica: u8) -> Bytes {
    let (header, body) = ReplyHeader::read_from_prefix(reply).expect("a reply has a header");
    if header.view.get() == view {
        return reply.clone();
    }
    wire::frame::concat(&header.with_view(view, replica), body)
}

#[cfg(test)]
mod tests;
