//! Requests that reach a backup: it passes them on to the primary, and the answers back.
//!
//! It keeps each until its answer is there. A primary may die with what it was given, and while a view
//! changes there is none: when a view has started, all that is not answered is passed on to its primary, or
//! taken here if that is this replica. Clients ask again by themselves, but only after a while.

use super::{Admission, Effect, Queued, Replica, Way};
use crate::constants::{HEADER_SIZE, NANOSECONDS};
use crate::io::ConnectionId;
use crate::stdx::to_usize;
use crate::vsr::message;
use crate::wire::header::command;
use crate::wire::{self, CommonHeader, EvictionHeader, ReplyHeader, RequestHeader};
use bytes::Bytes;
use zerocopy::{FromBytes, IntoBytes};

/// Nanoseconds that a request is kept at most: its client has asked again since, or is gone.
const AGE_MAX: u64 = 5 * NANOSECONDS;

/// A client that waits for an answer.
#[derive(Debug)]
pub(super) struct Relay {
    connection: ConnectionId,
    /// When its request came.
    since: u64,
    /// Header and body; nothing if it is too old to be passed on again.
    request: Option<(Box<[u8; HEADER_SIZE]>, Bytes)>,
}

impl Replica {
    /// Passes a request on to the primary, or keeps it until there is one.
    pub(super) fn relay(
        &mut self,
        connection: ConnectionId,
        header: &[u8; HEADER_SIZE],
        body: Bytes,
    ) {
        if self.follows() {
            self.forward(header, &body);
        }
        let request = RequestHeader::read_from_bytes(header).expect("256 bytes");
        self.keep(connection, request.client.get(), (header, body));
    }

    fn keep(
        &mut self,
        connection: ConnectionId,
        client: u128,
        (header, body): (&[u8; HEADER_SIZE], Bytes),
    ) {
        let sessions_max = to_usize(self.geometry.session_count_max.get());
        if self.relays.len() >= sessions_max && !self.relays.contains_key(&client) {
            self.relays.pop_first();
        }
        let relay = Relay {
            connection,
            since: self.timers.now,
            request: Some((Box::new(*header), body)),
        };
        self.relays.insert(client, relay);
    }

    fn forward(&mut self, header: &[u8; HEADER_SIZE], body: &[u8]) {
        let frame = [&header[..], body].concat();
        let header = self.peer_header(command::FORWARD);
        let primary = self.primary_of(self.view);
        self.send_peer(primary, message::frame(header, &frame));
    }

    /// The requests that wait here as those of a primary that is none any more.
    pub(super) fn keep_queue(&mut self) {
        for queued in std::mem::take(&mut self.queue) {
            let Queued {
                way, header, body, ..
            } = queued;
            if let Way::Connection(connection) = way {
                let bytes = header.as_bytes().try_into().expect("a header is 256 bytes");
                self.keep(connection, header.client.get(), (bytes, body));
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
            for (header, body) in requests.collect::<Vec<_>>() {
                self.forward(&header, &body);
            }
            return;
        }
        for relay in std::mem::take(&mut self.relays).into_values() {
            if let Some((header, body)) = relay.request {
                self.on_frame(Way::Connection(relay.connection), &header, body, admission);
            }
        }
    }

    /// Gives up requests that are too old.
    pub(super) fn forget_relays(&mut self) {
        for relay in self.relays.values_mut() {
            if self.timers.due(relay.since + AGE_MAX) {
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
        }
    }

    /// The primary answers a client that is connected here.
    pub(super) fn on_relay(&mut self, frame: Bytes) {
        let Some(header) = frame.first_chunk::<{ HEADER_SIZE }>() else {
            tracing::warn!("an answer cut short is ignored");
            return;
        };
        let common = CommonHeader::read_from_bytes(header).expect("256 bytes");
        let client = match common.command {
            command::REPLY => {
                let reply = ReplyHeader::read_from_bytes(header).expect("256 bytes");
                reply.client.get()
            }
            command::EVICTION => {
                let eviction = EvictionHeader::read_from_bytes(header).expect("256 bytes");
                eviction.client.get()
            }
            _ => return,
        };
        // One answer for each request that was passed on: what comes late is of no use any more.
        if let Some(relay) = self.relays.remove(&client) {
            let to = Way::Connection(relay.connection);
            self.effects.push_back(Effect::Send { to, frame });
        }
    }
}
