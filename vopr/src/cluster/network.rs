//! The network of a cluster: whole frames that are late, lost, replayed or overtaken, and links that are
//! cut in one direction or both.

use crate::random::Random;
use crate::sim::draws::Draws;
use bytes::Bytes;
use daftari::io::{ConnectionId, Incoming};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::Waker;

/// What goes wrong on a link, and how often.
#[derive(Clone, Copy, Debug)]
pub struct LinkFaults {
    /// The shortest way of a frame, in nanoseconds.
    pub delay_min: u64,
    /// What comes on top of it on average.
    pub delay_mean: u64,
    /// Frames lost, of 1000.
    pub lost: u64,
    /// Frames that come once more later, of 1000.
    pub replayed: u64,
    /// Whether frames of a link come in the order in which they were sent.
    pub ordered: bool,
}

/// An end of a link.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// A replica, or a standby.
    Replica(u8),
    /// A client.
    Client(usize),
}

/// What waits for a replica.
#[derive(Debug, Default)]
struct Inbox {
    frames: VecDeque<Incoming>,
    waker: Option<Waker>,
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    inboxes: Vec<Inbox>,
    /// Connections of clients, by client and replica; none is used twice.
    connections: BTreeMap<(usize, u8), ConnectionId>,
    next: u64,
    /// When the last frame of each link arrives, and how much slower than others it is.
    links: BTreeMap<(Place, Place), (u64, u64)>,
    /// When the frames arrive that are on their way over each link.
    under_way: BTreeMap<(Place, Place), Vec<u64>>,
    /// Links that are cut, from where to where.
    cuts: BTreeSet<(Place, Place)>,
}

impl Network {
    /// A network that works.
    #[must_use]
    pub fn new(members: u8) -> Self {
        Self {
            inboxes: (0..members).map(|_| Inbox::default()).collect(),
            connections: BTreeMap::new(),
            // Smaller numbers name replicas.
            next: 1 << 8,
            links: BTreeMap::new(),
            under_way: BTreeMap::new(),
            cuts: BTreeSet::new(),
        }
    }

    /// Draws how long a frame takes over a link, and whether it is lost.
    pub fn draw(
        &mut self,
        link: (Place, Place),
        faults: &LinkFaults,
        random: &mut Random,
    ) -> (u64, bool) {
        let slower = random.between(1, 3);
        let (_, slower) = self.links.entry(link).or_insert((0, slower));
        let delay = faults.delay_min + random.exponential(faults.delay_mean) * *slower;
        (delay, random.chance(faults.lost))
    }

    /// A frame goes over a link, to arrive `at` some time or after those before it; `None` when the link is cut.
    pub fn pass(&mut self, link: (Place, Place), mut at: u64, ordered: bool) -> Option<u64> {
        if self.cuts.contains(&link) {
            return None;
        }
        let (last, _) = self.links.entry(link).or_default();
        if ordered {
            at = at.max(*last + 1);
        }
        *last = at;
        Some(at)
    }

    /// A frame is on its way over a link of which that has to be known.
    pub fn note_under_way(&mut self, link: (Place, Place), at: u64) {
        self.under_way.entry(link).or_default().push(at);
    }

    /// Frames that were noted, and are on their way over a link.
    pub fn under_way(&mut self, link: (Place, Place), now: u64) -> usize {
        let frames = self.under_way.entry(link).or_default();
        frames.retain(|at| *at > now);
        frames.len()
    }

    /// The connection of a client to a replica; a new one if there is none.
    pub fn connect(&mut self, client: usize, replica: u8) -> ConnectionId {
        let next = &mut self.next;
        let connection = self.connections.entry((client, replica));
        *connection.or_insert_with(|| {
            *next += 1;
            ConnectionId(*next)
        })
    }

    /// A connection that only one frame comes over.
    pub fn connect_once(&mut self) -> ConnectionId {
        self.next += 1;
        ConnectionId(self.next)
    }

    /// The client at the other end of a connection of `replica`, while it is open.
    #[must_use]
    pub fn client(&self, replica: u8, connection: ConnectionId) -> Option<usize> {
        let mut open = self.connections.iter();
        let found = open.find(|((_, other), open)| *other == replica && **open == connection)?;
        Some(found.0.0)
    }

    /// Whether a connection of a client to a replica is open.
    #[must_use]
    pub fn is_open(&self, client: usize, replica: u8, connection: ConnectionId) -> bool {
        self.connections.get(&(client, replica)) == Some(&connection)
    }

    /// Ends the connection of a client to a replica.
    pub fn disconnect(&mut self, client: usize, replica: u8) {
        self.connections.remove(&(client, replica));
    }

    /// A replica is gone, and all that waited for it.
    pub fn crash(&mut self, replica: u8) {
        self.connections.retain(|(_, other), _| *other != replica);
        self.inboxes[usize::from(replica)] = Inbox::default();
    }

    /// A frame arrives at a replica.
    pub fn arrive(&mut self, replica: u8, connection: ConnectionId, frame: &Bytes) {
        let header = frame[..256].try_into().expect("a frame has a header");
        let inbox = &mut self.inboxes[usize::from(replica)];
        inbox.frames.push_back(Incoming::Frame {
            connection,
            header: Box::new(header),
            body: frame.slice(256..),
        });
        if let Some(waker) = inbox.waker.take() {
            waker.wake();
        }
    }

    /// What waits for a replica; `waker` is told when something comes.
    pub fn receive(&mut self, replica: u8, waker: &Waker) -> Option<Incoming> {
        let inbox = &mut self.inboxes[usize::from(replica)];
        let incoming = inbox.frames.pop_front();
        if incoming.is_none() {
            inbox.waker = Some(waker.clone());
        }
        incoming
    }

    /// What waits for a replica.
    pub fn try_receive(&mut self, replica: u8) -> Option<Incoming> {
        self.inboxes[usize::from(replica)].frames.pop_front()
    }

    /// Cuts a link.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    /// A link works again.
    pub fn join(&mut self, from: Place, to: Place) {
        self.cuts.remove(&(from, to));
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Whether anything is cut that leads to or from a replica.
    #[must_use]
    pub fn is_cut(&self, replica: u8) -> bool {
        let place = Place::Replica(replica);
        let mut cuts = self.cuts.iter();
        cuts.any(|(from, to)| *from == place || *to == place)
    }
}
