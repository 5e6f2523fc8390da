//! Requests that reach a backup: it passes them on to the primary, and the answers back.
//!
//! It keeps each until its answer is there. A primary may die with what it was given, and while a view
//! changes there is none: when a view has started, all that is not answered is passed on to its primary, or
//! taken here if that is this replica. Clients ask again by themselves, but only after a while.
//!
//! What is kept is a copy, and within a limit: the network reads no more while those who handle frames hold
//! the bytes of others, and the answers that end the waiting come over the network, too.

use super::{Admission, Effect, Queued, Replica, Way};
use crate::constants::{HEADER_SIZE, NANOSECONDS};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::to_usize;
use crate::vsr::message;
use crate::wire::frame::concat;
use crate::wire::header::command;
use crate::wire::{self, CommonHeader, EvictionHeader, ReplyHeader, RequestHeader};
use bytes::Bytes;
use storage_format::Checksum;
use zerocopy::FromBytes;

/// Nanoseconds that a request is kept at most: its client has asked again since, or is gone.
const AGE_MAX: u64 = 5 * NANOSECONDS;
/// Nanoseconds for which an answer finds its way back, at most.
const ROUTE_AGE_MAX: u64 = 60 * NANOSECONDS;
/// Bytes of requests that are kept.
const BYTES_MAX: usize = 16 << 20;

/// A client that waits for an answer.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where its request came from.
    way: Way,
    /// When.
    since: u64,
    /// Number and identity of the request.
    number: u32,
    checksum: Checksum,
    /// All of it; nothing if it is not to be passed on again.
    request: Option<Bytes>,
}

impl Replica {
    /// Passes a request on to the primary, or keeps it until there is one.
    pub(super) fn relay(&mut self, way: Way, header: &[u8; HEADER_SIZE], body: &[u8]) {
        let request = concat(header, body);
        if self.follows() {
            self.forward(&request);
        }
        self.keep(way, request);
    }

    fn forward(&mut self, request: &Bytes) {
        let header = self.peer_header(command::FORWARD);
        let primary = self.primary_of(self.view);
        self.send_peer(primary, message::frame(header, request));
    }

    /// Keeps a request, whose bytes are nobody else's.
    fn keep(&mut self, way: Way, request: Bytes) {
        let (header, _) = RequestHeader::read_from_prefix(&request).expect("a whole frame");
        let (client, number) = (header.client.get(), header.request.get());
        let known = self.relays.get(&client);
        if known.is_some_and(|known| known.number > number && known.request.is_some()) {
            // A late one.
            mark(Mark::RelayOfPast);
            return;
        }
        let sessions_max = to_usize(self.geometry.session_count_max.get());
        if known.is_none() && self.relays.len() >= sessions_max {
            mark(Mark::RelaysFull);
            let oldest = self.relays.iter().min_by_key(|(_, relay)| relay.since);
            let oldest = oldest.map(|(client, _)| *client);
            oldest.and_then(|oldest| self.relays.remove(&oldest));
        }
        let kept = self
            .relays
            .values()
            .filter_map(|relay| relay.request.as_ref());
        let room = kept.map(Bytes::len).sum::<usize>() + request.len() <= BYTES_MAX;
        let relay = Relay {
            way,
            since: self.timers.now,
            number,
            checksum: header.checksum,
            request: room.then_some(request),
        };
        self.relays.insert(client, relay);
    }

    /// The requests that wait here as those of a primary that is none any more.
    pub(super) fn keep_queue(&mut self) {
        for queued in std::mem::take(&mut self.queue) {
            let Queued {
                way, header, body, ..
            } = queued;
            // A backup has its own copy.
            if let Way::Connection(_) = way {
                self.keep(way, concat(&header, &body));
            }
        }
    }

    /// Passes on what waits for an answer, once in each view.
    pub(super) fn relay_again(&mut self, admission: &impl Admission) {
        if self.relayed_in == Some(self.view) || !(self.serves() || self.follows()) {
            return;
        }
        self.relayed_in = Some(self.view);
        if self.follows() {
            let relays = self.relays.values();
            let requests = relays.filter_map(|relay| relay.request.clone());
            for request in requests.collect::<Vec<_>>() {
                mark(Mark::RelayedAgain);
                self.forward(&request);
            }
            return;
        }
        for relay in std::mem::take(&mut self.relays).into_values() {
            if let Some(request) = relay.request {
                mark(Mark::RelayTakenHere);
                let header = request.first_chunk().expect("a whole frame");
                let body = request.slice(HEADER_SIZE..);
                self.on_frame(relay.way, header, body, admission);
            }
        }
    }

    /// Gives up what is too old.
    pub(super) fn forget_relays(&mut self) {
        let timers = self.timers;
        self.relays
            .retain(|_, relay| !timers.due(relay.since + ROUTE_AGE_MAX));
        for relay in self.relays.values_mut() {
            if timers.due(relay.since + AGE_MAX) {
                mark(Mark::RelayTooOld);
                relay.request = None;
            }
        }
    }

    /// A backup passes on what a client sent.
    pub(super) fn on_forward(&mut self, backup: u8, frame: &Bytes, admission: &impl Admission) {
        let inner = frame.first_chunk::<{ HEADER_SIZE }>();
        let Some(header) = inner else {
            tracing::warn!("a request cut short is ignored");
            return;
        };
        let body = frame.slice(HEADER_SIZE..);
        let info = wire::check_header(header, self.cluster);
        let whole = info.is_ok_and(|info| {
            info.command == command::REQUEST
                && info.size == frame.len()
                && wire::check_body(&info, &body).is_ok()
        });
        if whole && self.serves() {
            self.on_frame(Way::Peer(backup), header, body, admission);
        } else if whole && self.leads() {
            mark(Mark::ForwardKept);
            // It is taken when everything before this view is executed.
            self.keep(Way::Peer(backup), Bytes::copy_from_slice(frame));
        }
    }

    /// The primary answers a client that is connected here.
    pub(super) fn on_relay(&mut self, frame: Bytes) {
        let Some(header) = frame.first_chunk::<{ HEADER_SIZE }>() else {
            tracing::warn!("an answer cut short is ignored");
            return;
        };
        let common = CommonHeader::read_from_bytes(header).expect("256 bytes");
        let (client, answered) = match common.command {
            command::REPLY => {
                let reply = ReplyHeader::read_from_bytes(header).expect("256 bytes");
                (reply.client.get(), Some(reply.request_checksum))
            }
            command::EVICTION => {
                let eviction = EvictionHeader::read_from_bytes(header).expect("256 bytes");
                (eviction.client.get(), None)
            }
            _ => return,
        };
        // One answer for each request that was passed on: what comes late is of no use any more.
        let relay = match planted(Bug::AnswerAnybody) {
            true => self.relays.values().next(),
            false => self.relays.get(&client),
        };
        let Some(relay) = relay.filter(|relay| {
            answered.is_none_or(|it| it == relay.checksum || planted(Bug::AnswerAnybody))
        }) else {
            mark(Mark::AnswerTooLate);
            return;
        };
        let to = relay.way;
        self.relays.remove(&client);
        if let Way::Connection(_) = to {
            self.effects.push_back(Effect::Send { to, frame });
        }
    }
}
