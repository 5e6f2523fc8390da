//! The network between the clients and the replica: whole frames that are late, lost or replayed.
//!
//! Frames of one connection stay in order; a replayed one comes over a connection of its own. A
//! crash of the replica ends all connections.

use super::draws::Draws;
use crate::random::Random;
use bytes::Bytes;
use daftari::io::{ConnectionId, Incoming};
use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

/// What goes wrong, and how often.
#[derive(Clone, Copy, Debug)]
pub struct NetworkFaults {
    /// The shortest way of a frame, in nanoseconds.
    pub delay_min: u64,
    /// What comes on top of it on average.
    pub delay_mean: u64,
    /// Frames lost, of 1000.
    pub lost: u64,
    /// Frames that come once more later, of 1000.
    pub replayed: u64,
}

/// Connections and the frames that wait for the replica.
#[derive(Debug)]
pub struct Network {
    /// What goes wrong.
    pub faults: NetworkFaults,
    /// The client of each open connection, and when its last frame arrives on either side.
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
    inbox: VecDeque<Incoming>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    client: usize,
    arrival: [u64; 2],
}

/// The way of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From a client.
    ToServer,
    /// From the replica.
    ToClient,
}

impl Network {
    /// A network without connections.
    #[must_use]
    pub fn new(faults: NetworkFaults) -> Self {
        Self {
            faults,
            connections: BTreeMap::new(),
            next: 1,
            inbox: VecDeque::new(),
            waker: None,
        }
    }

    /// A new connection of a client.
    pub fn connect(&mut self, client: usize) -> ConnectionId {
        let connection = ConnectionId(self.next);
        self.next += 1;
        self.connections.insert(
            connection,
            Connection {
                client,
                arrival: [0; 2],
            },
        );
        connection
    }

    /// The client at the other end, while the connection is open.
    #[must_use]
    pub fn client(&self, connection: ConnectionId) -> Option<usize> {
        self.connections.get(&connection).map(|found| found.client)
    }

    /// Draws how long a frame takes, and whether it is lost.
    pub fn draw(&self, random: &mut Random) -> (u64, bool) {
        let faults = self.faults;
        let delay = faults.delay_min + random.exponential(faults.delay_mean);
        (delay, random.chance(faults.lost))
    }

    /// A frame goes over a connection, to arrive `at` some time or after those before it; when that is, if the
    /// connection is open.
    pub fn pass(&mut self, connection: ConnectionId, direction: Direction, at: u64) -> Option<u64> {
        let found = self.connections.get_mut(&connection)?;
        let arrival = match direction {
            Direction::ToServer => &mut found.arrival[0],
            Direction::ToClient => &mut found.arrival[1],
        };
        *arrival = at.max(*arrival + 1);
        Some(*arrival)
    }

    /// A frame arrives at the replica.
    pub fn arrive(&mut self, connection: ConnectionId, frame: &Bytes) {
        if !self.connections.contains_key(&connection) {
            return;
        }
        let header = frame[..256].try_into().expect("a frame has a header");
        self.put(Incoming::Frame {
            connection,
            header: Box::new(header),
            body: frame.slice(256..),
        });
    }

    /// Hands something to the replica.
    pub fn put(&mut self, incoming: Incoming) {
        self.inbox.push_back(incoming);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What waits for the replica; `waker` is told when something comes.
    pub fn receive(&mut self, waker: &Waker) -> Option<Incoming> {
        let incoming = self.inbox.pop_front();
        if incoming.is_none() {
            self.waker = Some(waker.clone());
        }
        incoming
    }

    /// What waits for the replica.
    pub fn try_receive(&mut self) -> Option<Incoming> {
        self.inbox.pop_front()
    }

    /// The replica is gone, and all connections with it.
    pub fn crash(&mut self) {
        self.connections.clear();
        self.inbox.clear();
        self.waker = None;
    }

    /// Ends a connection.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }
}
