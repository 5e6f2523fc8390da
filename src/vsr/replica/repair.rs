//! What is missing here is asked for: prepares that the network lost, headers below the chain, bodies
//! that the journal lost.
//!
//! A prepare is asked for by its checksum, so it does not matter who answers. The next prepares of the
//! view are asked for by number, of the primary only: they are what it says that they are.
//!
//! Who is far behind executes what is committed as it comes, and does not wait for its journal where that takes
//! longer: others have the op on stable storage, and this replica acknowledges nothing by that. So it comes on
//! faster than those whose journals are written, although its own disk is no faster. Its journal gets such ops
//! when nothing else is missing.

use super::timers::REPAIR;
use super::{Prepare, Purpose, Replica, Status};
use crate::constants;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64};
use crate::vsr::log::Body;
use crate::vsr::message;
use crate::vsr::sessions::SessionRecord;
use crate::wire::header::command;
use crate::wire::{PeerHeader, ReplyHeader};
use bytes::Bytes;
use storage_format::{Checksum, PrepareHeader, SECTOR_SIZE, checksum};
use zerocopy::FromBytes;

/// Prepares that are asked for at the same time.
pub(super) const WANTED_MAX: u64 = 2 * constants::PIPELINE_PREPARES_MAX;
/// Slots of the journal that they fill at most: others have to go on meanwhile.
const WANTED_SLOTS_MAX: u64 = 4;
/// Bytes of a prepare that is executed faster than it is written.
const SMALL: u32 = if cfg!(madsim) { 2 << 10 } else { 64 << 10 };
/// Bytes of those that are executed without being written.
pub(super) const UNWRITTEN_MEMORY: u64 = WANTED_MAX * SMALL as u64;
/// Prepares that wait to be read for others.
const READS_MAX: usize = 32;

impl Replica {
    /// Asks the primary for what it prepared after the head here, up to `op`.
    pub(super) fn ask_missing(&mut self, op: u64) {
        let head = self.log.head().op.get();
        self.primary_head = self.primary_head.max(op);
        let (asked, until) = self.asked_up_to;
        let waits = head < asked && !self.timers.due(until);
        // It is here, and waits for a buffer.
        let waits = waits || self.early.contains_key(&(head + 1));
        if waits || head >= self.primary_head || head >= self.limit() {
            return;
        }
        let last = (self.primary_head).min(head + constants::PIPELINE_PREPARES_MAX);
        self.asked_up_to = (last, self.timers.now + REPAIR);
        let mut request = self.peer_header(command::REQUEST_PREPARE);
        request.op = (head + 1).into();
        request.op_last = last.into();
        let primary = self.primary_of(self.view);
        self.send_peer(primary, message::frame(request, &[]));
    }

    /// Asks for headers and bodies that the log lacks.
    pub(super) fn repair(&mut self) {
        if self.solo() || self.status != Status::Normal {
            return;
        }
        self.ask_headers();
        let timers = self.timers;
        self.wanted.retain(|_, until| !timers.due(*until));
        self.ask_prepares();
        if self.follows() {
            self.append_next();
            self.ask_missing(self.primary_head);
        }
        let (first, last) = self.repairable();
        for op in first..=last {
            // A header that was damaged, or whose op the chain has come to reach since the start.
            if let Some(entry) = self.log.entry(op)
                && entry.body == Body::Written
            {
                let header = entry.header;
                self.write_header_of(&header);
            }
        }
    }

    /// The first and the last op whose slot is theirs.
    fn repairable(&self) -> (u64, u64) {
        let last = self.log.head().op.get().min(self.limit());
        let first = self.log.tail().max(self.checkpoint.op() + 1);
        (first, last)
    }

    /// Asks for prepares that are missing, the next to be executed first, as far as there is room for them.
    fn ask_prepares(&mut self) {
        let (first, last) = self.repairable();
        let next = first.max(self.executing + 1);
        self.lacks = false;
        // What is executed already comes last.
        for op in (next..=last).chain(first..next) {
            let Some(entry) = self.log.entry(op) else {
                continue;
            };
            let under_way = self.wanted.contains_key(&op) || self.ready.contains_key(&op);
            if entry.body != Body::Missing || under_way {
                continue;
            }
            let header = entry.header;
            // New ops need buffers, too.
            let room = self.buffers_promised() < self.buffers.len().div_ceil(2);
            if self.asks_enough() || !(room || self.executes_unwritten(&header)) {
                self.lacks = true;
                return;
            }
            let replica = self.whom_to_ask();
            self.wanted.insert(op, self.timers.now + REPAIR);
            let mut request = self.peer_header(command::REQUEST_PREPARE);
            request.op = header.op;
            request.checksum_item = header.checksum;
            self.send_peer(replica, message::frame(request, &[]));
        }
    }

    /// Takes and asks for more, if there was no room for all of it before.
    pub(super) fn repair_more(&mut self) {
        if self.status != Status::Normal {
            return;
        }
        if self.lacks {
            self.ask_prepares();
        }
        if self.follows() {
            self.append_next();
        }
    }

    /// The headers of what is asked for.
    fn asked(&self) -> impl Iterator<Item = &PrepareHeader> {
        self.wanted.keys().filter_map(|op| self.log.header(*op))
    }

    fn asks_enough(&self) -> bool {
        let sizes = self.asked().map(|header| u64::from(header.size.get()));
        let slot_size = u64::from(self.geometry.journal_slot_size.get());
        let many = to_u64(self.wanted.len()) >= WANTED_MAX;
        many || sizes.sum::<u64>() > (WANTED_SLOTS_MAX - 1) * slot_size
    }

    /// Buffers that are needed by what is asked for.
    pub(super) fn buffers_promised(&self) -> usize {
        let written = self.asked().filter(|it| !self.executes_unwritten(it));
        written.count()
    }

    /// Whether an op is to be executed without being written: it is committed, its turn comes soon, many more are
    /// committed, and writing it would take longer.
    fn executes_unwritten(&self, header: &PrepareHeader) -> bool {
        let op = header.op.get();
        let far = self.commit_max > self.executed.0 + WANTED_MAX;
        let soon = op > self.executing && op <= self.executed.0 + WANTED_MAX;
        let runs = self.loaded && self.syncing.is_none();
        runs && far && soon && header.size.get() <= SMALL
    }

    /// A prepare came that was missing.
    pub(super) fn on_missing(&mut self, header: &PrepareHeader, body: &[u8]) {
        let op = header.op.get();
        let asked = self.wanted.remove(&op).is_some();
        if self.executes_unwritten(header) {
            mark(Mark::ExecutedUnwritten);
            let size = constants::HEADER_SIZE + body.len();
            let buffer = SectorBuf::zeroed(size.next_multiple_of(SECTOR_SIZE));
            let prepare = Prepare::new(header, body, buffer);
            if let Some(other) = self.ready.insert(op, prepare) {
                self.recycle(other.buffer);
            }
        } else if !self.take(header, body) {
            self.lacks |= asked;
            return;
        }
        mark(Mark::PrepareRepaired);
        self.lacks |= asked;
        self.repair_more();
    }

    /// Has the redundant header of a prepare written, if it is not on its way.
    fn write_header_of(&mut self, header: &PrepareHeader) {
        let mut under_way = self.headers_behind.iter().chain(&self.headers_writing);
        if !under_way.any(|other| other.checksum == header.checksum) {
            mark(Mark::HeaderMended);
            self.headers_behind.push_back(*header);
        }
    }

    /// Asks for headers until the chain reaches what is executed.
    fn ask_headers(&mut self) {
        let tail = self.log.tail();
        if tail <= self.executed.0 + 1 || !self.timers.due(self.headers_asked) {
            return;
        }
        mark(Mark::HeadersAsked);
        self.headers_asked = self.timers.now + REPAIR;
        let mut request = self.peer_header(command::REQUEST_HEADERS);
        request.op = (tail - 1).into();
        request.checksum_item = self.log.below_tail();
        let replica = self.whom_to_ask();
        self.send_peer(replica, message::frame(request, &[]));
    }

    /// Half of the time the primary, which has it most likely; else anybody. While the primary is missed, it is
    /// asked now and then, and somebody else otherwise.
    pub(super) fn whom_to_ask(&mut self) -> u8 {
        let primary = self.primary_of(self.view);
        let missed = self.misses_primary();
        let nth = if missed { 8 } else { 2 };
        let chosen = self.timers.draw(self.members.own()).is_multiple_of(nth);
        if !self.is_primary() && (chosen || planted(Bug::AskPrimaryOnly)) {
            return primary;
        }
        let drawn = self.timers.draw(self.members.own());
        let mut other = self.members.other_replica(drawn);
        if missed && other == Some(primary) {
            other = self.members.other_replica(drawn.wrapping_add(1));
        }
        other.expect("a single replica asks nobody")
    }

    pub(super) fn on_request_headers(&mut self, request: &PeerHeader) {
        let mut headers: Vec<PrepareHeader> = Vec::new();
        let mut wanted = request.checksum_item;
        let lowest = request
            .op
            .get()
            .saturating_sub(to_u64(message::HEADERS_MAX));
        for op in (lowest + 1..=request.op.get()).rev() {
            let Some(header) = self.log.header(op).filter(|it| it.checksum == wanted) else {
                mark(Mark::HeadersNotKnown);
                break;
            };
            headers.push(*header);
            wanted = header.parent;
        }
        if !headers.is_empty() {
            let header = self.peer_header(command::HEADERS);
            let frame = message::frame(header, message::headers_body(&headers));
            self.send_peer(request.replica, frame);
        }
    }

    pub(super) fn on_headers(&mut self, body: &[u8]) {
        let Some(headers) = message::headers(body, self.cluster) else {
            tracing::warn!("headers that make no sense are ignored");
            return;
        };
        if self.status != Status::Normal {
            return;
        }
        let mut taken = false;
        for header in &headers {
            taken |= self.log.extend(header);
        }
        if taken {
            mark(Mark::HeadersTaken);
            self.headers_asked = 0;
            self.repair();
        }
    }

    pub(super) fn on_request_prepare(&mut self, request: &PeerHeader) {
        let op = request.op.get();
        if request.checksum_item != Checksum::ZERO {
            if let Some(header) = self.log.held(op, request.checksum_item) {
                self.offer(header, request.replica);
            } else {
                mark(Mark::PrepareNotHeld);
            }
        } else if self.leads() && request.view.get() == self.view {
            let last = request
                .op_last
                .get()
                .min(op + constants::PIPELINE_PREPARES_MAX);
            for op in op..=last.min(self.log.head().op.get()) {
                if let Some(entry) = self.log.entry(op) {
                    let header = entry.header;
                    self.offer(header, request.replica);
                }
            }
        }
    }

    /// Sends a prepare, from memory or from the journal.
    fn offer(&mut self, header: PrepareHeader, replica: u8) {
        let op = header.op.get();
        let ready = self.ready.get(&op);
        if let Some(prepare) = ready.filter(|it| it.header.checksum == header.checksum) {
            mark(Mark::OfferedFromMemory);
            let frame = prepare.frame();
            self.send_peer(replica, frame);
            return;
        }
        let read = (header, Purpose::Peer(replica));
        if self.log.is_written(&header)
            && self.reads.len() < READS_MAX
            && !self.reads.contains(&read)
            && self.reading != Some(read)
        {
            mark(Mark::OfferedFromJournal);
            self.reads.push_back(read);
        }
    }

    /// Asks everybody for a reply that is not here.
    pub(super) fn ask_reply(&mut self, record: &SessionRecord) {
        let mut request = self.peer_header(command::REQUEST_REPLY);
        request.nonce = record.reply.client;
        request.op = record.reply.op;
        self.broadcast(&message::frame(request, &[]));
    }

    pub(super) fn on_request_reply(&mut self, request: &PeerHeader) {
        let sessions = self.sessions.borrow();
        let session = sessions.find(request.nonce.get());
        let session = session.filter(|session| session.record.reply.op == request.op);
        let Some(reply) = session.and_then(|session| session.reply.clone()) else {
            mark(Mark::ReplyNotHeld);
            return;
        };
        drop(sessions);
        let header = self.peer_header(command::STORED_REPLY);
        self.send_peer(request.replica, message::frame(header, &reply));
    }

    /// A reply came; it is kept if it is the one that the session had last, to the byte.
    pub(super) fn on_stored_reply(&mut self, frame: Bytes) {
        let Ok((reply, body)) = ReplyHeader::read_from_prefix(&frame) else {
            return;
        };
        let client = reply.client.get();
        let mut sessions = self.sessions.borrow_mut();
        let missing = sessions
            .find(client)
            .is_some_and(|session| session.reply.is_none() && session.record.reply == reply);
        if missing && checksum(body) == reply.checksum_body {
            mark(Mark::ReplyRepaired);
            sessions.restore_reply(client, frame, false);
        }
    }
}
