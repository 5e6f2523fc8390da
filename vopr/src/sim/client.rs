//! A simulated client: one session, one request under way, retries of the very same frame.
//!
//! It is below the official clients: it makes raw frames, and it misbehaves in ways that the
//! protocol allows. It crashes and sends the same events again in a new session, comes back under
//! its old id, and repeats requests over new connections.

use super::draws::Draws;
use crate::generate::{Generator, Request};
use crate::random::Random;
use bytes::Bytes;
use daftari::constants;
use daftari::io::ConnectionId;
use daftari::wire::{ClientState, EvictionHeader, Operation, RegisterRequest, ReplyHeader};
use std::collections::VecDeque;
use storage_format::Checksum;
use zerocopy::{FromBytes, IntoBytes};

/// A request that waits for its reply.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The frame, which never changes.
    pub frame: Bytes,
    checksum: Checksum,
    /// Operation and body, to send them again in another session.
    content: (Operation, Vec<u8>),
    /// Times that it was sent.
    pub attempts: u32,
}

impl InFlight {
    /// The request as it was generated; none when it is to register.
    #[must_use]
    pub fn request(&self) -> Option<Request> {
        let (operation, body) = &self.content;
        (*operation != Operation::Register).then(|| Request {
            pause: 0,
            operation: operation.code(),
            body: body.clone(),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// What the next request says of its sender.
    pub state: ClientState,
    /// The connection that it uses.
    pub connection: Option<ConnectionId>,
    /// The request under way.
    pub in_flight: Option<InFlight>,
    /// What is to be sent next, before anything is generated.
    pub script: VecDeque<(Operation, Vec<u8>)>,
    /// Timers of an older generation mean nothing.
    pub generation: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Whether its id had a session before the present one.
    came_back: bool,
}

/// What a frame was to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Received {
    /// The answer to the request under way, from that op.
    Reply(u64),
    /// The session is gone, for that reason.
    Evicted(u8),
    /// Nothing.
    Ignored,
}

impl Client {
    /// A client that was never registered.
    #[must_use]
    pub fn new(cluster: u128, random: &mut Random) -> Self {
        let state = ClientState {
            cluster,
            view: 0,
            release: constants::RELEASE,
            client: random.id(),
            session: 0,
            request: 0,
            parent: Checksum::ZERO,
        };
        Self {
            state,
            connection: None,
            in_flight: None,
            script: VecDeque::new(),
            generation: 0,
            answered: 0,
            came_back: false,
        }
    }

    /// Makes the next request: to register, or `content`.
    pub fn make_request(&mut self, content: (Operation, Vec<u8>)) -> Bytes {
        assert!(self.in_flight.is_none());
        let content = if self.state.session == 0 {
            self.script.push_front(content);
            (
                Operation::Register,
                RegisterRequest::zeroed().as_bytes().to_vec(),
            )
        } else {
            content
        };
        let frame = daftari::wire::build::request(&self.state, content.0, &content.1);
        let checksum = Checksum(frame[..16].try_into().expect("16 bytes"));
        let in_flight = InFlight {
            frame: frame.clone(),
            checksum,
            content,
            attempts: 0,
        };
        self.in_flight = Some(in_flight);
        frame
    }

    /// The client dies, or is told that its session is gone; it goes on as somebody else, or once
    /// under its old id. What was under way is sent again.
    pub fn start_again(&mut self, same_id: bool, random: &mut Random) {
        if self.came_back || !same_id {
            self.state.client = random.id();
        }
        self.came_back = !self.came_back && same_id;
        self.state.session = 0;
        self.state.request = 0;
        self.state.parent = Checksum::ZERO;
        if let Some(in_flight) = self.in_flight.take()
            && in_flight.content.0 != Operation::Register
        {
            self.script.push_front(in_flight.content);
        }
    }

    /// Sets the timer anew: those of an older generation mean nothing any more.
    pub fn rearm(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// A reply came; `generator` learns from it.
    pub fn on_reply(&mut self, frame: &[u8], generator: &mut Generator) -> (ReplyHeader, Received) {
        let (header, body) = ReplyHeader::read_from_prefix(frame).expect("a whole frame");
        let asked = self.in_flight.as_ref().map(InFlight::request);
        let received = self.take_reply(&header);
        if let (Received::Reply(_), Some(Some(asked))) = (received, asked) {
            generator.learn(&asked, header.timestamp.get(), body);
        }
        (header, received)
    }

    fn take_reply(&mut self, header: &ReplyHeader) -> Received {
        self.state.view = self.state.view.max(header.view.get());
        let Some(in_flight) = &self.in_flight else {
            return Received::Ignored;
        };
        let mine = header.client.get() == self.state.client
            && header.request_checksum == in_flight.checksum;
        if !mine {
            return Received::Ignored;
        }
        if in_flight.content.0 == Operation::Register {
            self.state.session = header.op.get();
        } else {
            self.answered += 1;
        }
        self.state.request += 1;
        self.state.parent = header.context;
        self.in_flight = None;
        Received::Reply(header.op.get())
    }

    /// An eviction came.
    #[must_use]
    pub fn on_eviction(&self, frame: &[u8]) -> Received {
        let header = EvictionHeader::read_from_bytes(frame).expect("256 bytes");
        if header.client.get() == self.state.client {
            Received::Evicted(header.reason)
        } else {
            Received::Ignored
        }
    }
}
