//! Clients: their requests are checked, queued, and packed into prepares; each reply finds its way back.
//!
//! Only the primary does so; see `relay` for backups.

use super::{Admission, Effect, InFlight, Op, Prepare, Queued, Replica, Route, Sender, Way};
use crate::constants;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_usize};
use crate::vsr::log::Body;
use crate::vsr::message;
use crate::vsr::sessions::Standing;
use crate::wire::header::command;
use crate::wire::{
    self, Answered, Evicted, Operation, PingClientHeader, Rejection, ReplyHeader, RequestHeader,
    build,
};
use bytes::Bytes;
use storage_format::{PrepareHeader, PrepareKind, RequestEntry, SECTOR_SIZE, checksum};
use zerocopy::{FromBytes, IntoBytes};

/// How long others are asked for a reply, whose client asks for it again, before that is told that its
/// session is gone.
const REPLY_PATIENCE: u64 = 10 * constants::NANOSECONDS;

impl Replica {
    pub(super) fn on_ping(&mut self, way: Way, ping: &PingClientHeader) {
        match wire::check_ping(ping) {
            Ok(()) => {}
            Err(Rejection::Ignore(_)) => return,
            Err(Rejection::Evict(reason)) => {
                self.evict(way, ping.client.get(), reason);
                return;
            }
        }
        let session = ping.session.get();
        let sessions = self.sessions.borrow();
        let known = sessions.find(ping.client.get());
        let known = known.map(|known| known.record.session.get());
        drop(sessions);
        match known {
            None if session > 0 && session <= self.executed.0 && self.serves() => {
                mark(Mark::PingWithoutSession);
                self.evict(way, ping.client.get(), Evicted::NoSession);
            }
            Some(known) if session > 0 && session < known && self.serves() => {
                mark(Mark::PingOfOldSession);
                self.evict(way, ping.client.get(), Evicted::SessionTooLow);
            }
            None | Some(_) => {
                let frame = build::pong(&self.sender(), ping);
                self.send_client(way, ping.client.get(), frame);
            }
        }
    }

    fn evict(&mut self, way: Way, client: u128, reason: Evicted) {
        tracing::debug!(%client, ?reason, "eviction sent");
        let frame = build::eviction(&self.sender(), client, reason);
        self.send_client(way, client, frame);
    }

    /// Sends a frame to a client the way that it came.
    pub(super) fn send_client(&mut self, way: Way, client: u128, frame: Bytes) {
        match way {
            Way::Connection(_) => self.effects.push_back(Effect::Send { to: way, frame }),
            Way::Peer(replica) => {
                tracing::trace!(%client, replica, "an answer goes through a backup");
                let header = self.peer_header(command::RELAY);
                self.send_peer(replica, message::frame(header, &frame));
            }
        }
    }

    pub(super) fn on_request(
        &mut self,
        way: Way,
        header: RequestHeader,
        body: Bytes,
        admission: &impl Admission,
    ) {
        let client = header.client.get();
        let operation = match wire::check(&header, &body, self.view_durable.0) {
            Ok(operation) => operation,
            Err(Rejection::Ignore(reason)) => {
                tracing::debug!(%client, ?reason, "request ignored");
                return;
            }
            Err(Rejection::Evict(reason)) => {
                self.evict(way, client, reason);
                return;
            }
        };
        let size_max = to_usize(self.geometry.message_size_max.get());
        if constants::HEADER_SIZE + body.len() > size_max {
            self.evict(way, client, Evicted::InvalidBodySize);
            return;
        }
        let standing = self.sessions.borrow().standing(&header, self.executed.0);
        match standing {
            Standing::New => self.enqueue(way, header, operation, body, admission),
            Standing::Duplicate => self.reply_again(way, &header),
            Standing::NoSession => {
                mark(Mark::RequestWithoutSession);
                self.evict(way, client, Evicted::NoSession);
            }
            Standing::SessionTooLow => {
                mark(Mark::RequestOfOldSession);
                self.evict(way, client, Evicted::SessionTooLow);
            }
            Standing::ReleaseMismatch => {
                mark(Mark::RequestOfOtherRelease);
                self.evict(way, client, Evicted::SessionReleaseMismatch);
            }
            Standing::Stale => {
                mark(Mark::RequestStale);
                tracing::debug!(%client, "request of the past ignored");
            }
            Standing::SessionInFuture => {
                mark(Mark::RequestOfFuture);
                tracing::debug!(%client, "request out of order ignored");
            }
        }
    }

    fn reply_again(&mut self, way: Way, request: &RequestHeader) {
        let client = request.client.get();
        let sessions = self.sessions.borrow();
        let session = sessions.find(client);
        let session = session.expect("the request was its duplicate");
        let (reply, record) = (session.reply.clone(), session.record);
        drop(sessions);
        if record.reply.op.get() > self.commit_max && !planted(Bug::AnswerAgainAhead) {
            mark(Mark::AskedAgainAhead);
            let in_flight = self.redirect(way, request);
            assert!(
                in_flight,
                "what runs ahead of the journal is not answered yet"
            );
            return;
        }
        let Some(reply) = reply else {
            if !self.solo() && !self.gives_up_reply(client, record.reply.op.get()) {
                mark(Mark::ReplyAsked);
                // The client asks again, and finds it then.
                self.ask_reply(&record);
                return;
            }
            mark(Mark::ReplyGivenUp);
            // All that there is of it is damaged: no answer would be right, so say so.
            tracing::error!(%client, "the stored reply is damaged: the client is evicted");
            self.evict(way, client, Evicted::NoSession);
            return;
        };
        let frame = reply_in_view(&reply, self.view, self.members.own());
        self.send_client(way, client, frame);
    }

    /// Whether others were asked for a reply for long, and none had it: its client is not to wait for ever.
    fn gives_up_reply(&mut self, client: u128, op: u64) -> bool {
        let now = self.timers.now;
        let asked = self.replies_asked.entry(client).or_insert((op, now));
        if asked.0 != op {
            *asked = (op, now);
        }
        let since = asked.1;
        let sessions_max = to_usize(self.geometry.session_count_max.get());
        if self.replies_asked.len() > sessions_max {
            self.replies_asked.pop_first();
        }
        self.timers.due(since + REPLY_PATIENCE)
    }

    fn enqueue(
        &mut self,
        way: Way,
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
            mark(Mark::RequestQueuedTwice);
            queued.way = way;
            return;
        }
        if self.redirect(way, &header) {
            return;
        }
        if self.shutdown || !self.has_room_for_request() {
            mark(Mark::QueueFull);
            return;
        }
        let events = operation.event_count(&body);
        if operation.is_create() && !admission.admits(events, self.events_waiting) {
            mark(Mark::RefusedForRoom);
            self.evict(way, client, Evicted::NoSession);
            return;
        }
        self.events_waiting += events;
        self.queue.push_back(Queued {
            way,
            header,
            operation,
            events,
            body,
        });
    }

    /// Has the reply to a request that is in flight sent the way that it came last; whether it is in flight.
    fn redirect(&mut self, way: Way, header: &RequestHeader) -> bool {
        let (client, request) = (header.client.get(), header.request.get());
        let mut in_flight = self.pipeline.iter_mut().flat_map(|p| p.routes.iter_mut());
        // A later one may come while the op still runs: a duplicate of the first was answered.
        let Some(route) =
            in_flight.find(|route| route.client == client && route.request == request)
        else {
            return false;
        };
        mark(Mark::RequestInFlightTwice);
        route.way = way;
        true
    }

    /// Makes the next prepare, if something waits; the journal is free.
    pub(super) fn prepare_next(&mut self) {
        if self.shutdown || self.buffers.is_empty() || !self.serves() {
            if self.buffers.is_empty() && !self.queue.is_empty() {
                mark(Mark::PrimaryWithoutBuffer);
            }
            return;
        }
        let head = self.log.head().op.get();
        let op = head + 1;
        let full = head - self.commit_max >= constants::PIPELINE_PREPARES_MAX;
        if full || op > self.limit() || op > self.limit_of_quorum() {
            mark(if full {
                Mark::PipelineFull
            } else {
                Mark::PrimaryAtLimit
            });
            return;
        }
        let Some(time) = self.time_of_day() else {
            mark(Mark::PrimaryWithoutTime);
            return;
        };
        if time <= self.timestamp_last {
            mark(Mark::ClockBehindLog);
        }
        let earliest = if planted(Bug::FollowClockBack) {
            1
        } else {
            self.timestamp_last + 1
        };
        let now = time.clamp(earliest, constants::TIMESTAMP_MAX);
        let pulse_due = self.pulse_next <= now
            && !self.pipeline.iter().any(|p| p.pulse)
            && !planted(Bug::ForgetPulse);
        if pulse_due {
            mark(Mark::PulsePrepared);
            self.timestamp_last = now + constants::PULSE_EXPIRIES_MAX;
            let mut in_flight = InFlight::new(op);
            in_flight.pulse = true;
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
        let mut in_flight = InFlight::new(op);
        // Only one replica runs ahead.
        let solo = self.solo();
        let mut requests = Vec::with_capacity(if solo { count } else { 0 });
        let mut timestamp = now - 1;
        if count < self.queue.len() {
            mark(Mark::PrepareFull);
        }
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
                way: queued.way,
            });
            if solo {
                requests.push((entry, queued.body));
            }
        }
        self.timestamp_last = timestamp;
        let ahead = self.may_run_ahead(op, &requests);
        self.journal_append(PrepareKind::Requests, buffer, count, body_at, in_flight);
        if ahead {
            self.executing = op;
            let op = Op::Ahead(*self.log.head(), requests);
            self.effects.push_back(Effect::Execute(op));
        }
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
        header.release = self.release.into();
        header.checkpoint_id = self
            .base_identity(in_flight.op)
            .expect("the limit is below what builds on a later checkpoint");
        header.replica = self.members.own();
        header.parent = self.log.head().checksum;
        header.commit = self.commit_max.into();
        header.timestamp = self.timestamp_last.into();
        header.request_count = u32::try_from(request_count).expect("at most 1000").into();
        header.checksum_body = checksum(&buffer[constants::HEADER_SIZE..size]);
        header.seal();
        buffer[..constants::HEADER_SIZE].copy_from_slice(header.as_bytes());
        buffer[size..size.next_multiple_of(SECTOR_SIZE)].fill(0);
        assert!(header.timestamp.get() > self.log.head().timestamp.get());
        if self.log.head().op.get() == self.executed.0 {
            // Nothing waited until now: that nothing was committed for long means nothing.
            self.timers.progress = self.timers.now;
        }
        self.log.append(header);
        self.log.set_body(&header, Body::Writing);
        self.pipeline.push_back(in_flight);
        let prepare = Prepare { header, buffer };
        self.replicate(&prepare);
        self.to_write.push_back(prepare);
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
