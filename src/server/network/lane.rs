//! The lanes from the sockets of a network core to the replica core: one for clients, one for peers.
//!
//! A request keeps its bytes until it is prepared, and the answers that this waits for come from
//! peers. So frames of peers have a budget and a ring of their own, and overtake those of clients.
//!
//! What clients send and get through another replica is theirs nonetheless: [`command::FORWARD`] and
//! [`command::RELAY`] go in the lane of clients, or they would fill that of peers. A frame of
//! a peer must not wait there, since others are behind it on its connection: it is dropped when there is
//! no room, and the client asks again.
//!
//! The ring of a lane never overflows: every frame in it holds a permit of at least `CHARGE_MIN`,
//! and the ring has a place for each that there can be.

use super::budget::{Budget, CHARGE_MIN, Permit, charge};
use super::connection::Arrived;
use super::link::Link;
use crate::stdx::u64_to_usize;
use crate::wire::header::command;
use futures_util::task::AtomicWaker;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A lane before its network core runs.
#[derive(Debug)]
pub struct LaneSetup {
    /// Bytes of frames in it.
    pub memory: u64,
    /// To the core.
    pub ring: rtrb::Producer<Arrived>,
}

impl LaneSetup {
    /// A lane for `memory` bytes of frames, and the core's end of it.
    pub fn new(memory: u64) -> (Self, rtrb::Consumer<Arrived>) {
        let (ring, end) = rtrb::RingBuffer::new(u64_to_usize(memory / CHARGE_MIN));
        (Self { memory, ring }, end)
    }
}

/// One lane.
#[derive(Debug)]
pub struct Lane {
    budget: Rc<Budget>,
    ring: RefCell<rtrb::Producer<Arrived>>,
}

impl Lane {
    fn new(setup: LaneSetup, link: &Arc<Link>) -> Self {
        Self {
            budget: Budget::new(Arc::clone(link), setup.memory),
            ring: RefCell::new(setup.ring),
        }
    }

    async fn admit(&self, bytes: u64) -> Admission<'_> {
        match self.budget.acquire(bytes).await {
            Some(permit) => Admission::Granted(self, permit),
            None => Admission::Closed,
        }
    }
}

/// What becomes of a frame whose header has arrived.
#[derive(Debug)]
pub enum Admission<'a> {
    /// Its body may be read, and delivered in this lane.
    Granted(&'a Lane, Permit),
    /// Its body is to be skipped.
    Dropped,
    /// The server is shutting down.
    Closed,
}

/// All lanes of a network core.
#[derive(Debug)]
pub struct Lanes {
    clients: Lane,
    peers: Lane,
    /// Whether there are peers; if not, nobody gets their frames.
    has_peers: bool,
    /// Wakes the core for a frame.
    inbox: Arc<AtomicWaker>,
}

impl Lanes {
    /// Lanes whose bytes come back through `link`.
    pub fn new(
        clients: LaneSetup,
        peers: LaneSetup,
        link: &Arc<Link>,
        inbox: Arc<AtomicWaker>,
    ) -> Self {
        Self {
            has_peers: peers.memory > 0,
            clients: Lane::new(clients, link),
            peers: Lane::new(peers, link),
            inbox,
        }
    }

    /// Waits until there is room for a frame of this command and size, or says that it is not worth
    /// the wait.
    pub async fn admit(&self, command: u8, body_size: usize) -> Admission<'_> {
        let bytes = charge(body_size);
        if !command::is_of_peers(command) {
            return self.clients.admit(bytes).await;
        }
        if !self.has_peers {
            return Admission::Dropped;
        }
        match command {
            command::FORWARD | command::RELAY => match self.clients.budget.try_acquire(bytes) {
                Some(permit) => Admission::Granted(&self.clients, permit),
                None => Admission::Dropped,
            },
            _ => self.peers.admit(bytes).await,
        }
    }

    /// Hands a frame to the core.
    pub fn deliver(&self, lane: &Lane, arrived: Arrived) {
        lane.ring
            .borrow_mut()
            .push(arrived)
            .expect("a place for every permit");
        self.inbox.wake();
    }

    /// Whether bytes came back that somebody waits for.
    #[must_use]
    pub fn has_returns(&self) -> bool {
        self.clients.budget.has_returns() || self.peers.budget.has_returns()
    }

    /// Gives permits to those who wait.
    pub fn grant(&self) {
        self.clients.budget.grant();
        self.peers.budget.grant();
    }

    /// No frame comes through any more.
    pub fn close(&self) {
        self.clients.budget.close();
        self.peers.budget.close();
    }
}
