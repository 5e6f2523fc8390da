//! The simulated cluster of a thread: everything around the replicas, moved by one queue of events.
//!
//! One task takes the events in the order of their time; the replicas' tasks run between them. The
//! world ends with the first failure, or when all phases are through.

use super::checker::Checker;
use super::clocks::Clocks;
use super::directed::Directed;
use super::network::{Network, Place};
use super::options::Options;
use super::phases::Phases;
use super::processes::Process;
use crate::generate::{Generator, Swarm};
use crate::random::Random;
use crate::seed::Setup;
use crate::sim::client::Client;
use crate::sim::disk::Disk;
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use crate::sim::stage::{Next, Stage};
use crate::sim::verdict::Verdict;
use crate::sim::world::now;
use crate::timeline::Mark;
use bytes::Bytes;
use daftari::io::ConnectionId;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::task::Waker;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Works on the world of this thread.
///
/// # Panics
/// When there is none.
pub fn with<T>(work: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(|world| work(world.as_mut().expect("a seed is running")))
}

/// Makes a world that of this thread, and gives the former.
pub fn replace(world: Option<World>) -> Option<World> {
    WORLD.replace(world)
}

/// Something that happens at a moment. The first number names a replica, or a standby.
#[derive(Clone, Debug)]
pub enum Action {
    /// A write reaches the platter.
    Write(u8, u64),
    /// A read is done.
    Read(u8, u64),
    /// A frame of another replica arrives.
    FromPeer(u8, u8, Bytes),
    /// A frame of a client arrives over a connection.
    FromClient(u8, usize, ConnectionId, Bytes),
    /// A frame of a client arrives once more, over a connection that is used for nothing else.
    Replay(u8, Bytes),
    /// A frame arrives at a client.
    ToClient(usize, Bytes),
    /// A client's timer fires.
    Timer(usize, u64),
    /// Power fails.
    Crash(u8),
    /// The replica starts.
    Start(u8),
    /// A replica stands still for a while.
    Pause,
    /// It goes on, if it is the same process.
    Resume(u8, u64),
    /// Something at rest rots.
    Rot,
    /// The clock of a replica is set.
    StepClock,
    /// The network falls apart.
    Partition,
    /// The network is whole again.
    Heal,
    /// Phases and limits are looked after.
    Look,
    /// Something happened that a script may wait for.
    Nothing,
}

/// Kinds of events in the hash.
pub mod kind {
    /// A write is given to a disk.
    pub const WRITE_START: u8 = 1;
    /// It is on the platter.
    pub const WRITE_DONE: u8 = 2;
    /// A read is done.
    pub const READ: u8 = 3;
    /// A frame arrives at a replica.
    pub const RECEIVE: u8 = 4;
    /// A replica sends a frame.
    pub const SEND: u8 = 5;
    /// A replica crashes.
    pub const CRASH: u8 = 6;
    /// A replica starts.
    pub const START: u8 = 7;
    /// A replica's process ends by itself.
    pub const EXIT: u8 = 8;
    /// A frame arrives at a client.
    pub const CLIENT: u8 = 9;
    /// A replica stands still or goes on, or the network changes.
    pub const WEATHER: u8 = 10;
}

/// Independent streams of random numbers.
#[derive(Debug)]
pub struct Streams {
    /// Of jobs for other cores.
    pub job: Random,
    /// Of the disks.
    pub disk: Random,
    /// Of the network.
    pub network: Random,
    /// Of the clients.
    pub client: Random,
    /// Of crashes, pauses and damage.
    pub fault: Random,
    /// Of partitions.
    pub partition: Random,
    /// Of clocks.
    pub clock: Random,
    /// Of damage at rest.
    pub rot: Random,
    /// Of binaries.
    pub release: Random,
    /// Of reads that give something else.
    pub misread: Random,
    /// Of writes that go astray.
    pub astray: Random,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// What the seed is like.
    pub options: Options,
    /// The cluster that all files belong to.
    pub cluster: u128,
    /// The disk of each member.
    pub disks: Vec<Disk>,
    /// By member, where slots and blocks begin of which a read has given something else.
    pub misread: BTreeSet<(u8, u64)>,
    /// The process of each member.
    pub processes: Vec<Process>,
    /// The network.
    pub network: Network,
    /// The checker.
    pub checker: Checker,
    /// The clients; the last one reads back in the end.
    pub clients: Vec<Client>,
    /// What the clients send.
    pub generator: Generator,
    /// Where the run stands.
    pub phases: Phases,
    /// What it is played on.
    pub stage: Stage<Action>,
    /// Draws of all parts.
    pub random: Streams,
    /// What a script does, if there is one.
    pub directed: Option<Directed>,
}

/// The workload: several clients that fill trees, with some of everything.
fn swarm(seed: u64) -> Swarm {
    let mut swarm = Swarm::new(&mut Random::stream(seed, 0));
    for percent in [&mut swarm.invalid_percent, &mut swarm.pause_percent] {
        *percent = (*percent).min(5);
    }
    swarm
}

/// The workload of a script: nothing happens but what clients ask for, when they are told to.
fn plain_swarm(seed: u64) -> Swarm {
    let mut swarm = swarm(seed);
    swarm.pause_percent = 0;
    // No transfer expires by chance.
    for percent in [
        &mut swarm.timeout_percent,
        &mut swarm.invalid_percent,
        &mut swarm.resend_percent,
    ] {
        *percent = 0;
    }
    swarm
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(setup: &Setup, options: Options) -> Self {
        let seed = setup.seed;
        let cluster = Random::stream(seed, 200).id();
        let mut random = Streams {
            disk: Random::stream(seed, 202),
            job: Random::stream(seed, 220),
            network: Random::stream(seed, 203),
            client: Random::stream(seed, 204),
            fault: Random::stream(seed, 205),
            partition: Random::stream(seed, 206),
            clock: Random::stream(seed, 208),
            rot: Random::stream(seed, 209),
            release: Random::stream(seed, 212),
            misread: Random::stream(seed, 216),
            astray: Random::stream(seed, 218),
        };
        let clocks = |replica| Clocks::new(&options.clocks, &mut random.clock, replica);
        let clocks: Vec<Clocks> = (0..options.members()).map(clocks).collect();
        let client = |_| Client::new(cluster, &mut random.client);
        let clients = (0..=options.clients).map(client).collect();
        let disk = |loses_headers: &bool| {
            let mut disk = Disk::new(options.geometry, options.tear_inside_sectors);
            // A prepare that was lost with its header would look like one that never was: two faults of a slot.
            disk.loses_headers = *loses_headers && !options.astray.any();
            disk
        };
        let mut checker = Checker::new(cluster, &options, setup.bug);
        checker.counts.wild = u64::from(options.wild);
        let process = |clocks| Process::new(clocks, options.releases.log);
        Self {
            cluster,
            disks: options.uncertain.iter().map(disk).collect(),
            misread: BTreeSet::new(),
            processes: clocks.into_iter().map(process).collect(),
            network: Network::new(options.members()),
            checker,
            clients,
            generator: Generator::with_swarm(seed, swarm(seed)),
            phases: Phases::new(),
            stage: Stage::new(Action::Look, setup),
            random,
            options,
            directed: None,
        }
    }

    /// Has a script say what happens.
    pub fn direct(&mut self, seed: u64) {
        self.directed = Some(Directed::default());
        self.generator = Generator::with_swarm(seed, plain_swarm(seed));
    }

    /// A replica's clocks.
    #[must_use]
    pub fn clocks(&self, replica: u8) -> &Clocks {
        &self.processes[usize::from(replica)].clocks
    }

    /// All replicas and standbys.
    pub fn members(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.options.members()
    }

    /// All replicas.
    pub fn replicas(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.options.replicas
    }

    /// Puts an event into the queue.
    pub fn at(&mut self, time: u64, action: Action) {
        self.stage.at(time, action);
    }

    /// Notes a verdict; the first failure ends the run.
    pub fn judge(&mut self, verdict: Verdict) {
        self.stage.judge(verdict);
    }

    /// Prints something that stands out, and keeps it for a timeline, if asked to.
    pub fn tell(&mut self, place: Option<Place>, mark: Mark, text: impl FnOnce() -> String) {
        self.stage.tell(place, mark, text);
    }

    /// A script does something.
    pub fn step(&mut self, text: impl FnOnce() -> String) {
        self.tell(None, Mark::Step, || format!("script: {}", text()));
    }

    /// Prints an event, if asked to.
    pub fn trace(&self, text: impl FnOnce() -> String) {
        self.stage.trace(text);
    }

    /// Adds an event to the hash; `who` is a replica or a client.
    pub fn note(&mut self, kind: u8, who: impl Into<usize>, bytes: &[u8]) {
        let place = daftari::stdx::to_u64(who.into()) << 56;
        self.stage.hash.add(now() ^ place, kind, bytes);
    }

    /// Takes the next event, if one is due; when there will be one if not.
    pub fn turn(&mut self, waker: &Waker) -> Next<()> {
        match self.stage.next(waker) {
            Next::Now(action) => {
                self.act(action);
                Next::Now(())
            }
            Next::At(time) => Next::At(time),
            Next::Over => Next::Over,
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Write(replica, id) => self.on_write_done(replica, id),
            Action::Read(replica, id) => self.on_read_done(replica, id),
            Action::FromPeer(replica, from, frame) => {
                self.arrive(replica, ConnectionId(u64::from(from)), &frame);
            }
            Action::FromClient(replica, client, connection, frame) => {
                if self.network.is_open(client, replica, connection) {
                    self.arrive(replica, connection, &frame);
                }
            }
            Action::Replay(replica, frame) => {
                let connection = self.network.connect_once();
                self.arrive(replica, connection, &frame);
            }
            Action::ToClient(client, frame) => self.on_client_receive(client, &frame),
            Action::Timer(client, generation) => self.on_timer(client, generation),
            Action::Crash(replica) => self.crash(replica),
            Action::Start(replica) => self.start(replica),
            Action::Pause => super::faults::pause(self),
            Action::Resume(replica, incarnation) => self.resume(replica, incarnation),
            Action::Rot => super::rot::at_rest(self),
            Action::StepClock => super::clocks::step(self),
            Action::Partition => super::faults::partition(self),
            Action::Heal => super::faults::heal(self),
            Action::Nothing => {}
            Action::Look => {
                super::phases::look(self);
                self.at(now() + 20 * MS, Action::Look);
            }
        }
    }

    fn arrive(&mut self, replica: u8, connection: ConnectionId, frame: &Bytes) {
        if self.processes[usize::from(replica)].is_running() {
            self.note(kind::RECEIVE, replica, frame);
            self.checker.on_arrive(replica, connection, frame);
            self.network.arrive(replica, connection, frame);
        }
    }

    // What replicas send.

    /// A replica sends a frame to a client.
    pub fn on_send(&mut self, replica: u8, connection: ConnectionId, frame: Bytes) {
        self.note(kind::SEND, replica, &frame);
        let client = self.network.client(replica, connection);
        self.trace(|| {
            let to = client.map_or("nobody".into(), |client| format!("client {client}"));
            format!("{replica} -> {to}: {}", crate::sim::describe::frame(&frame))
        });
        let route = (replica, connection);
        let verdict = self.checker.on_send(&self.disks, route, &frame);
        self.judge(verdict);
        let Some(client) = client else {
            return;
        };
        let link = (Place::Replica(replica), Place::Client(client));
        let faults = self.phases.links(&self.options.links);
        if let Some(at) = self.transmit(link, &faults, &frame) {
            self.at(at, Action::ToClient(client, frame));
        }
    }

    /// A replica sends a frame to another one.
    pub fn on_send_peer(&mut self, from: u8, to: u8, frame: Bytes) {
        self.note(kind::SEND, from, &frame);
        self.trace(|| format!("{from} -> {to}: {}", crate::sim::describe::frame(&frame)));
        let verdict = self.checker.on_send_peer(&self.disks, (from, to), &frame);
        self.judge(verdict);
        let link = (Place::Replica(from), Place::Replica(to));
        let faults = self.phases.links(&self.options.peers);
        if let Some(later) = self.replays(link, &faults, &frame) {
            self.at(later, Action::FromPeer(to, from, frame.clone()));
        }
        if let Some(at) = self.transmit(link, &faults, &frame) {
            self.at(at, Action::FromPeer(to, from, frame));
        }
    }
}
