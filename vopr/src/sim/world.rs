//! The simulated world of a thread: everything around the replica, moved by one queue of events.
//!
//! One task takes the events in the order of their time; the replica's task runs between them. The
//! world ends with the first failure, or when all phases of the scenario are through.

use super::checker::Checker;
use super::client::{Client, Received};
use super::crash_plan::CrashPlan;
use super::describe;
use super::disk::{Disk, Survived, Zone};
use super::draws::Draws;
use super::network::{Direction, Network};
use super::options::{MS, Options};
use super::scenario::{Phase, Scenario};
use super::seen::Seen;
use super::stage::{Next, Stage};
use super::tally;
use super::verdict::{Verdict, fail};
use crate::cluster::network::Place;
use crate::generate::{Generator, Swarm};
use crate::random::Random;
use crate::seed::Setup;
use crate::seed::injection::Family;
use crate::timeline::{Mark, Status};
use bytes::Bytes;
use daftari::io::ConnectionId;
use daftari::vsr::FatalReason;
use daftari::wire::header::command;
use daftari::wire::{Evicted, Operation};
use madsim::runtime::Handle;
use madsim::task::NodeId;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::task::Waker;
use storage_format::SECTOR_SIZE;

/// The only replica.
pub const REPLICA: Option<Place> = Some(Place::Replica(0));

/// Where a frame names its command.
const COMMAND_AT: usize = std::mem::offset_of!(daftari::wire::CommonHeader, command);

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

/// Nanoseconds of simulated time.
#[must_use]
pub fn now() -> u64 {
    let elapsed = madsim::time::TimeHandle::current().elapsed();
    u64::try_from(elapsed.as_nanos()).expect("a run lasts hours at most")
}

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub enum Action {
    /// A write reaches the platter.
    Write(u64),
    /// A read is done.
    Read(u64),
    /// A frame arrives at the replica.
    ToServer(ConnectionId, Bytes),
    /// A frame arrives once more at the replica, for a client over a new connection.
    Replay(usize, Bytes),
    /// A frame arrives at a client.
    ToClient(usize, Bytes),
    /// A client's timer fires.
    Timer(usize, u64),
    /// Power fails.
    Crash,
    /// The replica starts.
    Start,
    /// The scenario looks around.
    Look,
}

/// Kinds of events in the hash.
mod kind {
    pub const WRITE_START: u8 = 1;
    pub const WRITE_DONE: u8 = 2;
    pub const READ: u8 = 3;
    pub const RECEIVE: u8 = 4;
    pub const SEND: u8 = 5;
    pub const CRASH: u8 = 6;
    pub const START: u8 = 7;
    pub const EXIT: u8 = 8;
    pub const CLIENT: u8 = 9;
}

/// Counts for the report.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Crashes.
    pub crashes: u64,
    /// Of them, before the replica served.
    pub crashes_in_recovery: u64,
    /// Checkpoints made while the journal was replayed.
    pub replay_checkpoints: u64,
    /// Prepares that a crash tore.
    pub torn_prepares: u64,
    /// Header sectors that a crash tore.
    pub torn_headers: u64,
    /// Faults put in at rest.
    pub rotten: u64,
    /// Endings that were refused as they should be.
    pub refused: u64,
    /// Replicas that stopped at a block that was damaged.
    pub rot_stopped: u64,
    /// Replicas that never met it.
    pub rot_unseen: u64,
    /// Times when the disk got slow.
    pub slow_spells: u64,
    /// Pages of blocks that were not in the cache.
    pub page_reads: u64,
    /// Of them, pages that had been there before.
    pub page_reads_again: u64,
    /// Tours of the scrubber.
    pub tours: u64,
    /// Reports of the scrubber about a block that was broken on purpose.
    pub rot_scrubbed: u64,
    /// Slots by the row of the recovery table that judged them.
    pub rows: [u64; 16],
}

impl Counts {
    fn fields(&mut self) -> [(&'static str, &mut u64); 14] {
        [
            ("crashes", &mut self.crashes),
            ("in recovery", &mut self.crashes_in_recovery),
            ("checkpoints in replay", &mut self.replay_checkpoints),
            ("torn prepares", &mut self.torn_prepares),
            ("torn headers", &mut self.torn_headers),
            ("rotten", &mut self.rotten),
            ("refused", &mut self.refused),
            ("stopped at rot", &mut self.rot_stopped),
            ("rot not met", &mut self.rot_unseen),
            ("slow spells", &mut self.slow_spells),
            ("page reads", &mut self.page_reads),
            ("of them again", &mut self.page_reads_again),
            ("scrub tours", &mut self.tours),
            ("rot scrubbed", &mut self.rot_scrubbed),
        ]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (sum, value) in self.rows.iter_mut().zip(other.rows) {
            *sum += value;
        }
        tally::add(self.fields(), other.fields());
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut copy = *self;
        tally::write(f, copy.fields())?;
        write!(f, ", rows")?;
        for (row, count) in self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            write!(f, " {row}:{count}")?;
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// What the seed is like.
    pub options: Options,
    /// The disk.
    pub disk: Disk,
    /// The network.
    pub network: Network,
    /// The checker.
    pub checker: Checker,
    /// The clients; the last one reads back in the end.
    pub clients: Vec<Client>,
    /// What the clients send.
    pub generator: Generator,
    /// Where the run stands.
    pub scenario: Scenario,
    /// What it is played on.
    pub stage: Stage<Action>,
    /// Counts for the report.
    pub counts: Counts,
    /// The node that the replica runs on.
    pub node: Option<NodeId>,
    /// Whether the replica's process is there.
    pub running: bool,
    /// Whether it wrote a prepare or sent a frame since it started.
    pub served: bool,
    /// Draws of the disk, the network, the clients, and the faults.
    pub random: Streams,
    /// When the next crash comes.
    pub plan: CrashPlan,
    /// Nanoseconds from simulated time to the replica's wall clock.
    pub clock: u64,
    /// Until when accesses to a zone, or all, are slow.
    slow: (u64, Option<Zone>),
    /// When the last access is done that began while it was slow.
    pub slow_done: u64,
    /// Pages that the process at work has read.
    pages: BTreeSet<u64>,
}

/// Independent streams of random numbers.
#[derive(Debug)]
pub struct Streams {
    /// Of jobs for other cores.
    pub job: Random,
    /// Of the disk.
    pub disk: Random,
    /// Of the network.
    pub network: Random,
    /// Of the clients.
    pub client: Random,
    /// Of crashes and damage.
    pub fault: Random,
}

/// The workload: mostly one that fills trees.
fn swarm(seed: u64, options: &Options) -> Swarm {
    let mut random = Random::stream(seed, 106);
    let mut swarm = Swarm::new(&mut Random::stream(seed, 0));
    if options.long || random.chance(750) {
        swarm.batch_max = swarm.batch_max.max(12);
        let [_, transfers, ..] = &mut swarm.operations;
        *transfers = (*transfers).max(60);
        for percent in [
            &mut swarm.invalid_percent,
            &mut swarm.resend_percent,
            &mut swarm.extreme_percent,
            &mut swarm.chain_percent,
            &mut swarm.limit_percent,
            &mut swarm.imported_percent,
        ] {
            *percent = (*percent).min(5);
        }
        swarm.closed_percent = swarm.closed_percent.min(1);
        swarm.closing_percent = 0;
    }
    if options.long {
        swarm.batch_max = 30;
        swarm.operations[1] = 150;
        swarm.pause_percent = swarm.pause_percent.min(1);
    }
    swarm
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(setup: &Setup, options: Options) -> Self {
        let seed = setup.seed;
        let cluster = Random::stream(seed, 100).id();
        let mut random = Streams {
            disk: Random::stream(seed, 102),
            job: Random::stream(seed, 109),
            network: Random::stream(seed, 103),
            client: Random::stream(seed, 104),
            fault: Random::stream(seed, 105),
        };
        let client = |_| Client::new(cluster, &mut random.client);
        let clients: Vec<Client> = (0..=options.clients).map(client).collect();
        let mut disk = Disk::new(options.geometry, options.tear_inside_sectors);
        if let Some((blocks, refusals)) = options.disk_room {
            disk.set_room(options.geometry.block_offset(blocks + 1), refusals);
        }
        Self {
            disk,
            network: Network::new(options.network),
            checker: {
                let mut checker = Checker::new(cluster, options.geometry, setup.bug);
                checker.cramped = options.cramped;
                checker
            },
            generator: Generator::with_swarm(seed, swarm(seed, &options)),
            scenario: Scenario::new(),
            stage: Stage::new(Action::Look, setup),
            counts: Counts::default(),
            node: None,
            running: false,
            served: false,
            plan: CrashPlan::Never,
            clock: 1_790_000_000_000 * MS,
            slow: (0, None),
            slow_done: 0,
            pages: BTreeSet::new(),
            options,
            clients,
            random,
        }
    }

    /// The replica's wall clock.
    #[must_use]
    pub fn realtime(&self) -> u64 {
        self.clock + now()
    }

    /// Puts an event into the queue.
    pub fn at(&mut self, time: u64, action: Action) {
        self.stage.at(time, action);
    }

    /// Notes a verdict; the first failure ends the run.
    pub fn judge(&mut self, verdict: Verdict) {
        self.stage.judge(verdict);
    }

    /// Prints an event, if asked to.
    pub fn trace(&self, text: impl FnOnce() -> String) {
        self.stage.trace(text);
    }

    fn note(&mut self, kind: u8, bytes: &[u8]) {
        self.stage.hash.add(now(), kind, bytes);
    }

    /// Takes the events that are due; the time of the next one, or `None` when the run is over.
    pub fn turn(&mut self, waker: &Waker) -> Option<u64> {
        loop {
            match self.stage.next(waker) {
                Next::Now(action) => self.act(action),
                Next::At(time) => return Some(time),
                Next::Over => return None,
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Write(id) => self.on_write_done(id),
            Action::Read(id) => {
                if !self.crash_after_access() {
                    self.disk.finish(id);
                }
            }
            Action::ToServer(connection, frame) => {
                if self.running {
                    self.note(kind::RECEIVE, &frame);
                    self.network.arrive(connection, &frame);
                }
            }
            Action::Replay(client, frame) => {
                if self.running {
                    self.note(kind::RECEIVE, &frame);
                    let connection = self.network.connect(client);
                    self.network.arrive(connection, &frame);
                }
            }
            Action::ToClient(client, frame) => self.on_client_receive(client, &frame),
            Action::Timer(client, generation) => self.on_timer(client, generation),
            Action::Crash => self.crash(),
            Action::Start => self.start(),
            Action::Look => {
                super::scenario::look(self);
                let next = now() + 20 * MS;
                self.at(next, Action::Look);
            }
        }
    }

    // The disk.

    /// The replica writes.
    pub fn start_write(&mut self, offset: u64, data: &[u8]) -> u64 {
        self.note(kind::WRITE_START, data);
        let zone = self.disk.zone(offset);
        self.trace(|| format!("write {zone:?} {offset} {}", data.len()));
        if self.scenario.phase != Phase::Format {
            let verdict = self.checker.on_write_start(&self.disk, offset, data);
            self.judge(verdict);
            if zone == Zone::Superblock && offset == 0 && !self.served {
                self.counts.replay_checkpoints +=
                    u64::from(super::platter::is_newer(&self.disk, data));
            }
            if zone == Zone::Prepares {
                self.served = true;
                super::scenario::before_prepare(self, offset, data);
            }
        }
        let id = match self.disk.start_write(offset, data) {
            Ok(id) => id,
            Err(what) => {
                self.judge(fail("I13", what));
                return u64::MAX;
            }
        };
        let at = now() + self.disk_delay(zone, self.options.speed.write);
        self.at(at, Action::Write(id));
        if self.plan.on_write(zone) && super::faults::strikes(self) {
            self.at(now(), Action::Crash);
        }
        id
    }

    /// The replica reads.
    pub fn start_read(&mut self, offset: u64, size: usize) -> u64 {
        let id = self.disk.start_read();
        let zone = self.disk.zone(offset);
        let at = now() + self.disk_delay(zone, self.options.speed.read);
        self.at(at, Action::Read(id));
        if zone == Zone::Grid && size == SECTOR_SIZE {
            self.counts.page_reads += 1;
            self.counts.page_reads_again += u64::from(!self.pages.insert(offset));
        }
        id
    }

    /// The replica takes what it read.
    pub fn finish_read(&mut self, offset: u64, buffer: &mut [u8]) {
        self.disk.get(offset, buffer);
        self.note(kind::READ, buffer);
    }

    fn disk_delay(&mut self, zone: Zone, (min, mean): (u64, u64)) -> u64 {
        let speed = self.options.speed;
        let random = &mut Random::new(self.random.disk.any());
        if random.chance(speed.stalls) {
            let longer = random.exponential(200 * MS);
            let what = || format!("{zone:?} takes {} ms", longer / MS);
            if self.stage.inject(Family::DiskStall, REPLICA, what) {
                return min + longer;
            }
        }
        let mut delay = min + random.exponential(mean);
        if zone == Zone::Grid {
            delay *= speed.grid_factor;
        }
        let spells = self.scenario.phase == Phase::Run && speed.spells > 0;
        if spells && random.below(10_000) < speed.spells {
            let slow_zone = random.pick(&[None, Some(Zone::Grid), Some(Zone::Prepares)]);
            let length = random.exponential(2_000 * MS);
            let what = || format!("{slow_zone:?} is slow for {} ms", length / MS);
            if self.stage.inject(Family::DiskSpell, REPLICA, what) {
                self.slow = (now() + length, slow_zone);
                self.counts.slow_spells += 1;
            }
        }
        let (until, slow_zone) = self.slow;
        if now() < until && slow_zone.is_none_or(|slow| slow == zone) {
            delay *= speed.spell_factor;
            self.slow_done = self.slow_done.max(now() + delay);
        }
        delay
    }

    fn on_write_done(&mut self, id: u64) {
        let Some(write) = self.disk.complete_write(id) else {
            return;
        };
        self.note(kind::WRITE_DONE, &write.offset.to_le_bytes());
        if self.scenario.phase != Phase::Format {
            let verdict = self.checker.on_write_done(&self.disk, &write);
            self.judge(verdict);
        }
        if !self.crash_after_access() {
            self.disk.finish(id);
        }
    }

    fn crash_after_access(&mut self) -> bool {
        let crashes = self.plan.on_access() && super::faults::strikes(self);
        if crashes {
            self.crash();
        }
        crashes
    }

    // The replica.

    /// The replica starts.
    pub fn start(&mut self) {
        if self.running {
            return;
        }
        self.running = true;
        self.served = false;
        self.observe(Status::Starting);
        self.note(kind::START, &[]);
        self.stage.tell(REPLICA, Mark::Start, || "start".into());
        self.pages.clear();
        self.checker.on_start();
        super::faults::note_rows(self);
        super::faults::plan_crash(self, true);
        let node = self.node.expect("the node was made before");
        Handle::current().restart(node);
    }

    /// The replica's process ended by itself.
    pub fn on_exit(&mut self, result: Result<(), FatalReason>) {
        self.note(kind::EXIT, format!("{result:?}").as_bytes());
        self.stage
            .tell(REPLICA, Mark::Stop, || format!("exit {result:?}"));
        self.observe(Status::Down);
        self.running = false;
        self.network.crash();
        super::scenario::on_exit(self, result);
    }

    fn crash(&mut self) {
        self.plan = CrashPlan::Never;
        if !self.running {
            return;
        }
        self.note(kind::CRASH, &[]);
        self.counts.crashes += 1;
        self.counts.crashes_in_recovery += u64::from(!self.served);
        self.running = false;
        self.observe(Status::Down);
        let node = self.node.expect("the node was made before");
        Handle::current().kill(node);
        self.network.crash();
        let own = &mut Random::new(self.random.fault.any());
        let under_way = self.disk.writes().count();
        let what = || format!("{under_way} writes are torn or lost");
        if under_way > 0 && !self.stage.inject(Family::Tear, REPLICA, what) {
            self.disk.at_crash = Some(Survived::Whole);
        }
        let writes = self.disk.crash(own);
        self.stage.tell(REPLICA, Mark::Stop, || {
            let list = writes
                .iter()
                .map(|(w, s)| format!("{:?} {} {s:?}", w.zone, w.offset));
            format!("crash {}", list.collect::<Vec<_>>().join(", "))
        });
        super::faults::after_crash(self, &writes, own);
        let delay = own.exponential(500 * MS);
        self.at(now() + delay, Action::Start);
    }

    // The network and the clients.

    /// The replica sends a frame.
    pub fn on_server_send(&mut self, connection: ConnectionId, frame: Bytes) {
        self.served = true;
        self.observe(Status::Primary);
        self.note(kind::SEND, &frame);
        let verdict = self.checker.on_send(&self.disk, &frame);
        self.judge(verdict);
        super::scenario::on_served(self);
        let Some(client) = self.network.client(connection) else {
            return;
        };
        let way = (Direction::ToClient, client);
        if let Some(at) = self.transmit(connection, way, &frame) {
            self.at(at, Action::ToClient(client, frame));
        }
    }

    /// A client sends a frame, again or for the first time.
    pub fn send(&mut self, client: usize, frame: Bytes) {
        self.trace(|| format!("client {client} sends {}", describe::frame(&frame)));
        let connection = match self.clients[client].connection {
            Some(connection) if self.network.client(connection).is_some() => connection,
            Some(_) | None => {
                let connection = self.network.connect(client);
                self.clients[client].connection = Some(connection);
                connection
            }
        };
        if let Some(later) = self.replays(client, &frame) {
            self.at(later, Action::Replay(client, frame.clone()));
        }
        let way = (Direction::ToServer, client);
        if let Some(at) = self.transmit(connection, way, &frame) {
            self.at(at, Action::ToServer(connection, frame));
        }
    }

    fn on_client_receive(&mut self, index: usize, frame: &Bytes) {
        self.note(kind::CLIENT, frame);
        self.trace(|| format!("client {index} gets {}", describe::frame(frame)));
        let client = &mut self.clients[index];
        let received = match frame[COMMAND_AT] {
            command::REPLY => client.on_reply(frame, &mut self.generator).1,
            command::EVICTION => client.on_eviction(frame),
            _ => Received::Ignored,
        };
        match received {
            Received::Reply(op) => {
                self.checker.history.on_reply_received(op);
                let pause = self.pause();
                self.arm(index, pause);
            }
            Received::Evicted(reason) => {
                // Under its old id a client may register only when that has no session any more.
                // It may still have one that is of no use to it: its last reply is damaged, or the
                // disk was full.
                let client = self.clients[index].state.client;
                let gone = reason == Evicted::NoSession.code()
                    && !self.checker.is_reply_damaged(client)
                    && !self.options.cramped
                    && !self.checker.was_refused(client);
                let same_id = self.random.client.chance(200) && gone;
                let client = &mut self.clients[index];
                client.start_again(same_id, &mut self.random.client);
                let creates = |(operation, _): &mut (Operation, _)| operation.is_create();
                if self.options.cramped {
                    // It would be refused for ever.
                    let _refused = client.script.pop_front_if(creates);
                }
                self.arm(index, MS);
            }
            Received::Ignored => {}
        }
    }

    fn pause(&mut self) -> u64 {
        let random = &mut self.random.client;
        if self.scenario.phase == Phase::Run && random.chance(self.options.idle) {
            random.between(100, 4000) * MS
        } else {
            random.exponential(3 * MS)
        }
    }

    /// Sets a client's timer; an older one means nothing from now on.
    pub fn arm(&mut self, index: usize, delay: u64) {
        let generation = self.clients[index].rearm();
        self.at(now() + delay, Action::Timer(index, generation));
    }

    fn on_timer(&mut self, index: usize, generation: u64) {
        if self.clients[index].generation != generation {
            return;
        }
        if self.clients[index].in_flight.is_some() {
            self.retry(index);
            return;
        }
        let Some(content) = self.clients[index].script.pop_front() else {
            if let Some((pause, content)) = super::scenario::next_request(self, index) {
                self.clients[index].script.push_front(content);
                self.arm(index, pause);
            }
            return;
        };
        super::garbage::maybe_send(self, index);
        let frame = self.clients[index].make_request(content);
        self.checker.history.on_request_made(&frame);
        self.send(index, frame);
        self.arm(index, 300 * MS);
    }

    fn retry(&mut self, index: usize) {
        let random = &mut self.random.client;
        let crashes = if self.scenario.phase == Phase::Run {
            self.options.client_crashes
        } else {
            0
        };
        if random.chance(crashes) {
            let own = &mut Random::new(random.any());
            let place = Some(Place::Client(index));
            let what = || format!("client {index} dies");
            if self.stage.inject(Family::ClientCrash, place, what) {
                self.clients[index].start_again(false, own);
                self.arm(index, 10 * MS);
                return;
            }
        }
        let random = &mut self.random.client;
        let client = &mut self.clients[index];
        let in_flight = client.in_flight.as_mut().expect("the caller looked");
        in_flight.attempts += 1;
        let frame = in_flight.frame.clone();
        let backoff = (200 * MS) << in_flight.attempts.min(4);
        if random.chance(300)
            && let Some(connection) = client.connection.take()
        {
            self.network.disconnect(connection);
        }
        let jitter = random.below(backoff);
        self.send(index, frame);
        self.arm(index, backoff + jitter);
    }

    /// What the checker and the world saw.
    #[must_use]
    pub fn summary(&self) -> (Seen, Counts) {
        (self.checker.history.seen_in_all(), self.counts)
    }

    /// The auditor: the client that reads back.
    #[must_use]
    pub fn auditor(&self) -> usize {
        self.clients.len() - 1
    }

    /// Requests answered to all clients together.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.clients.iter().map(|client| client.answered).sum()
    }

    /// Slots of the journal.
    #[must_use]
    pub fn slots(&self) -> u64 {
        u64::from(self.options.geometry.journal_slot_count.get())
    }
}
