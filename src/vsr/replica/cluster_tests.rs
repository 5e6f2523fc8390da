//! Whole clusters of replicas without storage engine: messages late, lost and repeated, crashes that
//! tear what is written, partitions, disks that are lost and replaced by empty ones. The simulator does the same with all of the code; this one does
//! thousands of seeds in seconds, for the protocol alone.

use super::{Effect, Event, Op, Outcome, Prepare, Replica, Start, Status, ViewState, Way};
use crate::constants::RELEASE_LOG_MAX;
use crate::stdx::{SectorBuf, to_u64, u64_to_usize};
use crate::vsr::FatalReason;
use crate::vsr::clock::TOLERANCE;
use crate::vsr::journal::{SlotRead, recover_cluster};
use crate::vsr::lineage;
use crate::vsr::log::Body;
use crate::vsr::members::Members;
use crate::vsr::message::{self, CheckpointState};
use crate::vsr::quorum::Quorums;
use crate::vsr::release::{Releases, names_checkpoint};
use crate::vsr::sessions::{Sessions, SharedSessions};
use crate::vsr::testing::{Room, geometry, incoming};
use crate::wire::build::{ClientState, request};
use crate::wire::header::command;
use crate::wire::multi_batch::encode;
use crate::wire::{CommonHeader, Operation, PeerHeader, ReplyHeader};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use storage_format::{Checksum, PrepareHeader, Superblock};
use zerocopy::FromBytes;

/// Seeds for each number of replicas.
const SEEDS: u64 = 40;
/// The same, when disks are lost.
const SEEDS_OF_LOSS: u64 = 250;
const SLOTS: u64 = 48;
const INTERVAL: u64 = SLOTS - 24;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const EPOCH: u64 = 1_800_000_000_000_000_000;

/// A prepare in its slot; nothing if it is torn.
type Slot = Option<(PrepareHeader, Vec<u8>)>;

enum Write {
    Prepare(Prepare),
    Headers(Vec<PrepareHeader>),
    View(ViewState),
    Sync(Box<(CheckpointState, ViewState)>),
    Complete,
    Checkpoint(PrepareHeader),
    Read(Option<Prepare>),
    Execution,
}

struct Disk {
    superblock: Superblock,
    ring: Vec<PrepareHeader>,
    slots: Vec<Slot>,
}

impl Disk {
    fn new(replica: usize, replica_count: usize) -> Self {
        let mut superblock = Superblock::zeroed();
        superblock.geometry = geometry(SLOTS);
        superblock.replica = u8::try_from(replica).unwrap();
        superblock.replica_count = u8::try_from(replica_count).unwrap();
        superblock.checkpoint = PrepareHeader::root(0);
        superblock.release = RELEASE_LOG_MAX.into();
        let marker = |slot| match slot {
            0 => PrepareHeader::root(0),
            _ => PrepareHeader::empty(0, slot),
        };
        Self {
            superblock,
            ring: (0..SLOTS).map(marker).collect(),
            slots: (0..SLOTS)
                .map(|slot| Some((marker(slot), Vec::new())))
                .collect(),
        }
    }

    fn slot(op: u64) -> usize {
        u64_to_usize(op % SLOTS)
    }

    fn holds(&self, header: &PrepareHeader) -> bool {
        self.slots[Self::slot(header.op.get())]
            .as_ref()
            .is_some_and(|(held, _)| held.checksum == header.checksum)
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Prepare(prepare) => {
                let bytes = prepare.buffer[..prepare.size()].to_vec();
                let slot = Self::slot(prepare.header.op.get());
                self.slots[slot] = Some((prepare.header, bytes));
            }
            Write::Headers(headers) => {
                for header in headers {
                    self.ring[Self::slot(header.op.get())] = *header;
                }
            }
            Write::Complete => self.superblock.content_missing = 0,
            Write::Sync(sync) => {
                let (checkpoint, view) = &**sync;
                self.superblock.checkpoint = checkpoint.header;
                self.superblock.content_missing = 1;
                self.apply(&Write::View(view.clone()));
            }
            Write::View(view) => {
                let superblock = &mut self.superblock;
                if superblock.recovering == 1 {
                    superblock.recovering = 0;
                    superblock.recovered_view = view.log_view.into();
                    superblock.release = view.release.into();
                }
                superblock.view = view.view.into();
                superblock.log_view = view.log_view.into();
                superblock.commit_max = view.commit_max.into();
                superblock.view_headers.fill(PrepareHeader::zeroed());
                superblock.view_headers[..view.headers.len()].copy_from_slice(&view.headers);
            }
            Write::Checkpoint(header) => {
                let superblock = &mut self.superblock;
                superblock.checkpoint = *header;
                let known = superblock.commit_max.get().max(header.op.get());
                superblock.commit_max = known.into();
            }
            Write::Read(_) | Write::Execution => {}
        }
    }
}

struct Node {
    disk: Disk,
    replica: Option<Replica>,
    sessions: SharedSessions,
    incarnation: u64,
    pending: BTreeMap<u64, Write>,
    /// Ops to execute, one at a time.
    executions: VecDeque<Op>,
    executing: bool,
    superblock_writes: VecDeque<Write>,
    superblock_busy: bool,
    cut_off: bool,
    /// Nanoseconds that its time of day is ahead of the true one.
    skew: i64,
    /// Whether no answer to its questions for the time arrives.
    hears_no_pongs: bool,
    /// Whether its checkpoints are not what they should be.
    diverges: bool,
    /// Whether it hears from the log only what the checkpoints of others are.
    hears_no_checkpoints: bool,
    /// Those that its binary has.
    releases: Releases,
    /// What a disk held that was lost.
    forgotten: Vec<Checksum>,
    /// Whether the replica lacks some of that.
    lacks: bool,
}

#[derive(Clone)]
enum What {
    Deliver(usize, Option<usize>, Bytes),
    Done(usize, u64, u64),
    Tick(usize),
    Start(usize),
    Crash(usize),
    Lose(usize),
    Cut(usize, bool),
    Client(usize, u64),
    ToClient(usize, Bytes),
}

struct Client {
    state: ClientState,
    frame: Option<Bytes>,
    answered: u64,
    /// Timers of an older one mean nothing.
    timer: u64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        self.below(1000) < of_thousand
    }
}

struct World {
    random: Random,
    now: u64,
    queue: BTreeMap<(u64, u64), What>,
    queued: u64,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    /// The committed history: each op with its prepare.
    history: Vec<(PrepareHeader, Vec<u8>)>,
    /// Ops of answers that clients got, by client and request.
    answers: BTreeMap<(u128, u32), u64>,
    faults: bool,
    loss: u64,
    views: u32,
    syncs: u32,
    /// Replicas that found that they must not go on.
    stops: Vec<(usize, FatalReason)>,
    /// Whether disks are lost.
    loses: bool,
    losses: u32,
    /// By replica and op: the checkpoints that were made.
    checkpoints: BTreeMap<(usize, u64), Checksum>,
    /// By view and replica: log view and head of its votes.
    votes: BTreeMap<(u32, usize), (u32, u64)>,
}

fn is_pong(frame: &Bytes) -> bool {
    let header = CommonHeader::read_from_bytes(&frame[..256]).unwrap();
    header.command == command::PONG
}

/// A message about clocks, less what identifies the checkpoint of its sender.
fn without_checkpoint(frame: Bytes) -> Bytes {
    let mut header = PeerHeader::read_from_bytes(&frame[..256]).unwrap();
    if !matches!(
        header.command,
        command::PING | command::PONG | command::COMMIT
    ) {
        return frame;
    }
    header.checksum_item = Checksum::ZERO;
    message::frame(header, &frame[256..])
}

fn replay(history: &[(PrepareHeader, Vec<u8>)], op: u64) -> SharedSessions {
    let sessions = Rc::new(RefCell::new(Sessions::new(8)));
    for (header, bytes) in &history[1..=u64_to_usize(op)] {
        let op = Op::Written(prepare_of(header, bytes));
        drop(execute(&sessions, &op));
    }
    sessions
}

fn prepare_of(header: &PrepareHeader, bytes: &[u8]) -> Prepare {
    let mut buffer = SectorBuf::zeroed(bytes.len().next_multiple_of(4096));
    buffer[..bytes.len()].copy_from_slice(bytes);
    Prepare {
        header: *header,
        buffer,
    }
}

fn execute(sessions: &SharedSessions, op: &Op) -> Vec<Option<Bytes>> {
    let mut replies = Vec::new();
    for (index, (entry, _)) in (0..).zip(op.requests()) {
        let new = sessions.borrow().standing_entry(&entry) == crate::vsr::sessions::Standing::New;
        if !new {
            replies.push(None);
            continue;
        }
        let operation = Operation::from_u8(entry.operation).unwrap();
        let (reply, frame) = Replica::reply(op.header(), &entry, operation, vec![0; 256]);
        let stored = sessions
            .borrow_mut()
            .store_reply(&reply, index, frame.clone());
        replies.push(stored.then_some(frame));
    }
    replies
}

impl World {
    fn new(seed: u64, replicas: usize) -> Self {
        let node = |index| Node {
            disk: Disk::new(index, replicas),
            replica: None,
            sessions: Rc::new(RefCell::new(Sessions::new(8))),
            incarnation: 0,
            pending: BTreeMap::new(),
            executions: VecDeque::new(),
            executing: false,
            superblock_writes: VecDeque::new(),
            superblock_busy: false,
            cut_off: false,
            skew: 0,
            hears_no_pongs: false,
            diverges: false,
            hears_no_checkpoints: false,
            releases: Releases::OF_BINARY,
            forgotten: Vec::new(),
            lacks: false,
        };
        let client = |index: u128| Client {
            state: ClientState {
                cluster: 0,
                view: 0,
                release: crate::constants::RELEASE,
                client: 100 + index,
                session: 0,
                request: 0,
                parent: Checksum::ZERO,
            },
            frame: None,
            answered: 0,
            timer: 0,
        };
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            random.below(2);
        }
        let loss = [0, 5, 50, 200][u64_to_usize(random.below(4))];
        let mut this = Self {
            random,
            now: MS,
            queue: BTreeMap::new(),
            queued: 0,
            nodes: (0..replicas).map(node).collect(),
            clients: (0..4).map(client).collect(),
            history: vec![(PrepareHeader::root(0), Vec::new())],
            answers: BTreeMap::new(),
            faults: true,
            loss,
            views: 0,
            syncs: 0,
            stops: Vec::new(),
            loses: false,
            losses: 0,
            checkpoints: BTreeMap::new(),
            votes: BTreeMap::new(),
        };
        for index in 0..replicas {
            this.at(0, What::Start(index));
        }
        for index in 0..this.clients.len() {
            this.at(10 * MS, What::Client(index, 0));
        }
        this
    }

    fn at(&mut self, delay: u64, what: What) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), what);
    }

    fn start(&mut self, index: usize) {
        if self.nodes[index].replica.is_some() {
            return;
        }
        let node = &mut self.nodes[index];
        let superblock = node.disk.superblock;
        let classify = |slot: usize, header: &PrepareHeader| {
            SlotRead::classify(header, 0, to_u64(slot), SLOTS)
        };
        let ring = node.disk.ring.iter().enumerate();
        let headers: Vec<_> = ring.map(|(slot, header)| classify(slot, header)).collect();
        let slots = node.disk.slots.iter().enumerate();
        let prepares: Vec<_> = slots
            .map(|(slot, held)| match held {
                Some((header, _)) => classify(slot, header),
                None => SlotRead::Bad,
            })
            .collect();
        let recovered = recover_cluster(&headers, &prepares, &superblock).unwrap();
        for (slot, decision) in recovered.decisions.iter().enumerate() {
            if let (crate::vsr::journal::Decision::Fix, SlotRead::Valid(header)) =
                (decision, &prepares[slot])
            {
                node.disk.ring[slot] = *header;
            }
        }
        let sessions = replay(&self.history, superblock.checkpoint.op.get());
        node.sessions = Rc::clone(&sessions);
        node.incarnation += 1;
        let start = Start {
            log: recovered.log,
            certain: recovered.certain,
            executed: superblock.checkpoint,
            releases: node.releases,
        };
        let nonce = u128::from(self.now) << 8 | u128::try_from(index).unwrap();
        node.replica = Some(Replica::new(
            &superblock,
            Members::new(&superblock, 0),
            start,
            sessions,
            nonce,
        ));
        self.loaded(index);
        self.pump(index);
        self.at(MS, What::Tick(index));
    }

    fn loaded(&mut self, index: usize) {
        let loaded = Event::Loaded {
            pulse_next: u64::MAX,
            timestamp_last: 0,
        };
        let replica = self.nodes[index].replica.as_mut();
        replica.unwrap().handle(loaded, &Room);
        let node = &mut self.nodes[index];
        if node.disk.superblock.content_missing == 1 {
            node.superblock_writes.push_back(Write::Complete);
            self.next_superblock(index);
        }
    }

    /// Power fails: a write under way is done, not begun, or torn.
    fn crash(&mut self, index: usize) {
        let random = &mut self.random;
        let node = &mut self.nodes[index];
        for write in std::mem::take(&mut node.pending).into_values() {
            match (random.below(3), &write) {
                (0, _) => node.disk.apply(&write),
                (1, Write::Prepare(prepare)) => {
                    node.disk.slots[Disk::slot(prepare.header.op.get())] = None;
                }
                _ => {}
            }
        }
        node.replica = None;
        node.incarnation += 1;
        node.executions.clear();
        node.executing = false;
        node.superblock_writes.clear();
        node.superblock_busy = false;
    }

    /// Whether a replica has all that a disk held which it lost.
    fn is_restored(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let Some(replica) = &node.replica else {
            return false;
        };
        let superblock = &node.disk.superblock;
        let head = replica.head().op.get();
        let held = |op| {
            let entry = replica.log.entry(op);
            entry.is_some_and(|entry| entry.body == Body::Durable)
        };
        superblock.recovering == 0
            && superblock.content_missing == 0
            && replica.status == Status::Normal
            && head + 1 >= to_u64(self.history.len())
            && (superblock.checkpoint.op.get() + 1..=head).all(held)
    }

    /// A disk is lost, unless as many are that all copies of an op could be among them.
    fn lose(&mut self, index: usize) {
        for other in 0..self.nodes.len() {
            self.nodes[other].lacks &= !self.is_restored(other);
        }
        let count = self.nodes.len();
        let quorums = Quorums::new(u8::try_from(count).unwrap());
        let others = self.nodes.iter().enumerate();
        let others = others.filter(|(other, node)| *other != index && node.lacks);
        if others.count() + 1 >= usize::from(quorums.replication) {
            return;
        }
        self.crash(index);
        let node = &mut self.nodes[index];
        let held = node.disk.slots.iter().flatten();
        node.forgotten
            .extend(held.map(|(header, _)| header.checksum));
        node.disk = Disk::new(index, count);
        node.disk.superblock.recovering = 1;
        node.lacks = true;
        self.losses += 1;
    }

    fn begin(&mut self, index: usize, delay: u64, write: Write) {
        self.queued += 1;
        let id = self.queued;
        self.nodes[index].pending.insert(id, write);
        let incarnation = self.nodes[index].incarnation;
        self.at(delay, What::Done(index, incarnation, id));
    }

    fn next_superblock(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.superblock_busy
            && let Some(write) = node.superblock_writes.pop_front()
        {
            node.superblock_busy = true;
            let delay = MS + self.random.below(3 * MS);
            self.begin(index, delay, write);
        }
    }

    fn next_execution(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.executing && !node.executions.is_empty() {
            node.executing = true;
            let delay = self.random.below(MS / 2);
            self.begin(index, delay, Write::Execution);
        }
    }

    /// What is at work is given up, and the superblock gets another checkpoint.
    fn begin_sync(&mut self, index: usize, sync: Box<(CheckpointState, ViewState)>) {
        let node = &mut self.nodes[index];
        let given_up = |write: &Write| matches!(write, Write::Execution | Write::Checkpoint(_));
        node.pending.retain(|_, write| !given_up(write));
        node.superblock_writes.retain(|write| !given_up(write));
        node.executions.clear();
        node.executing = true;
        node.superblock_busy = node
            .pending
            .values()
            .any(|write| matches!(write, Write::View(_) | Write::Sync(_) | Write::Complete));
        node.superblock_writes.push_back(Write::Sync(sync));
        self.syncs += 1;
        self.next_superblock(index);
    }

    /// A replica that runs, with its clocks.
    fn observed(&mut self, index: usize) -> Option<&mut Replica> {
        let now = self.now;
        let node = &mut self.nodes[index];
        let replica = node.replica.as_mut()?;
        let realtime = (EPOCH + now).checked_add_signed(node.skew).unwrap();
        replica.observe(now, realtime);
        Some(replica)
    }

    /// Carries out what a replica wants.
    fn pump(&mut self, index: usize) {
        loop {
            let Some(replica) = self.observed(index) else {
                return;
            };
            replica.tick();
            let Some(effect) = replica.poll_effect() else {
                return;
            };
            let delay = MS / 10 + self.random.below(MS);
            match effect {
                Effect::WritePrepare(prepare) => self.begin(index, delay, Write::Prepare(prepare)),
                Effect::WriteHeaders(headers) => self.begin(index, delay, Write::Headers(headers)),
                Effect::WriteView(view) => {
                    self.nodes[index]
                        .superblock_writes
                        .push_back(Write::View(view));
                    self.next_superblock(index);
                }
                Effect::Sync(sync) => self.begin_sync(index, sync),
                Effect::Stop(reason) => {
                    if matches!(reason, FatalReason::ReplicaRuns { .. }) {
                        // Frames of its earlier life are late.
                        self.crash(index);
                        self.at(100 * MS, What::Start(index));
                        return;
                    }
                    self.stops.push((index, reason));
                    self.nodes[index].replica = None;
                    // What is under way comes to nothing.
                    self.nodes[index].incarnation += 1;
                    return;
                }
                Effect::ReadPrepare(header) => {
                    let disk = &self.nodes[index].disk;
                    let found = disk.slots[Disk::slot(header.op.get())].as_ref();
                    let found = found.filter(|(held, _)| held.checksum == header.checksum);
                    let read = found.map(|(header, bytes)| prepare_of(header, bytes));
                    self.begin(index, delay, Write::Read(read));
                }
                Effect::Execute(op) => {
                    let Op::Written(prepare) = &op else {
                        panic!("only a single replica runs ahead of its journal");
                    };
                    self.check_executable(index, &prepare.header);
                    self.on_execute(prepare);
                    self.nodes[index].executions.push_back(op);
                    self.next_execution(index);
                }
                Effect::Send {
                    to: Way::Connection(connection),
                    frame,
                } => {
                    let client = u64_to_usize(connection.0);
                    self.send(What::ToClient(client, frame));
                }
                Effect::Send {
                    to: Way::Peer(replica),
                    frame,
                } => {
                    self.check_sent(index, &frame);
                    let to = usize::from(replica);
                    if !self.nodes[index].cut_off && !self.nodes[to].cut_off {
                        self.send(What::Deliver(to, None, frame));
                    }
                }
            }
        }
    }

    /// A frame is late, lost, or comes twice.
    fn send(&mut self, what: What) {
        let copy = what.clone();
        if !(self.faults && self.random.chance(self.loss)) {
            let delay = MS / 10 + self.random.below(2 * MS);
            self.at(delay, what);
        }
        if self.faults && self.random.chance(self.loss / 2) {
            let delay = self.random.below(300 * MS);
            self.at(delay, copy);
        }
    }

    /// No frame is ahead of the superblock, and what is acknowledged is there.
    fn check_sent(&mut self, index: usize, frame: &Bytes) {
        let header = CommonHeader::read_from_bytes(&frame[..256]).unwrap();
        let disk = &self.nodes[index].disk;
        if disk.superblock.recovering == 1 {
            assert_eq!(header.command, command::RECOVER, "it remembers nothing");
            return;
        }
        assert!(header.view <= disk.superblock.view, "I06");
        if header.command == command::DO_VIEW_CHANGE {
            let vote = PeerHeader::read_from_bytes(&frame[..256]).unwrap();
            let vote = (vote.log_view.get(), vote.op.get());
            let known = self.votes.entry((header.view.get(), index)).or_insert(vote);
            assert_eq!(*known, vote, "I07: also in another life");
        }
        if header.command == command::PREPARE_OK {
            let ok = PeerHeader::read_from_bytes(&frame[..256]).unwrap();
            let slot = Disk::slot(ok.op.get());
            assert_eq!(disk.ring[slot].checksum, ok.checksum_item, "I04");
            let held = disk.slots[slot].as_ref().map(|(held, _)| held.checksum);
            assert_eq!(held, Some(ok.checksum_item), "I04");
            assert_eq!(ok.view, disk.superblock.view, "I04");
            assert_eq!(ok.view, disk.superblock.log_view, "I04");
        }
    }

    /// A primary's timestamps are those of a quorum of clocks (I24).
    fn check_timestamp(&self, prepare: &Prepare) {
        let time = prepare.header.timestamp.get();
        let distance = (EPOCH + self.now).abs_diff(time);
        assert!(distance <= 2 * TOLERANCE + 1000 * MS, "I24: {distance}");
    }

    /// An op is executed at the release of the log, and on top of the checkpoint that it names.
    fn check_executable(&self, index: usize, header: &PrepareHeader) {
        let node = &self.nodes[index];
        assert_eq!(header.release, node.disk.superblock.release, "I25");
        assert_eq!(node.releases.check(header.release.get()), Ok(()), "I25");
        let base = lineage::base_of(header.op.get(), &geometry(SLOTS));
        let named = header.checkpoint_id;
        assert!(base > 0 || named == Checksum::ZERO, "K06");
        if let (true, Some(own)) = (
            names_checkpoint(header.release.get()),
            self.checkpoints.get(&(index, base)),
        ) {
            assert_eq!(named, *own, "K06");
        }
    }

    /// The history is one list, and what is executed is on a quorum of disks.
    fn on_execute(&mut self, prepare: &Prepare) {
        let op = u64_to_usize(prepare.header.op.get());
        if let Some((known, _)) = self.history.get(op) {
            assert_eq!(known.checksum, prepare.header.checksum, "I01: op {op}");
            return;
        }
        assert_eq!(op, self.history.len(), "I10");
        let (last, _) = self.history.last().unwrap();
        assert_eq!(prepare.header.parent, last.checksum, "I02");
        assert!(prepare.header.timestamp > last.timestamp, "I02");
        self.check_timestamp(prepare);
        let holders = self.nodes.iter().filter(|node| {
            let forgotten = &node.forgotten;
            node.disk.holds(&prepare.header) || forgotten.contains(&prepare.header.checksum)
        });
        let quorums = Quorums::new(u8::try_from(self.nodes.len()).unwrap());
        assert!(holders.count() >= usize::from(quorums.replication), "I03");
        let bytes = prepare.buffer[..prepare.size()].to_vec();
        self.history.push((prepare.header, bytes));
    }

    fn on_done(&mut self, index: usize, id: u64) {
        let Some(write) = self.nodes[index].pending.remove(&id) else {
            return;
        };
        let node = &mut self.nodes[index];
        node.disk.apply(&write);
        let replica = node.replica.as_mut().unwrap();
        match write {
            Write::Prepare(prepare) => replica.handle(Event::PrepareDurable(prepare), &Room),
            Write::Headers(_) => replica.handle(Event::HeadersDurable, &Room),
            Write::View(view) => {
                self.views = self.views.max(view.log_view);
                node.superblock_busy = false;
                replica.handle(Event::ViewDurable, &Room);
                self.next_superblock(index);
            }
            Write::Sync(sync) => {
                let (checkpoint, view) = *sync;
                self.views = self.views.max(view.log_view);
                let sessions = replay(&self.history, checkpoint.op());
                std::mem::swap(
                    &mut *node.sessions.borrow_mut(),
                    &mut *sessions.borrow_mut(),
                );
                node.superblock_busy = false;
                node.executing = false;
                replica.handle(Event::Synced, &Room);
                self.loaded(index);
                self.next_superblock(index);
            }
            Write::Complete => {
                node.superblock_busy = false;
                if node.disk.superblock.content_missing == 0 {
                    replica.handle(Event::ContentComplete, &Room);
                }
                self.next_superblock(index);
            }
            Write::Read(prepare) => replica.handle(Event::PrepareRead(prepare), &Room),
            Write::Execution => {
                let op = node.executions.pop_front().unwrap();
                let header = *op.header();
                let outcome = Outcome {
                    replies: execute(&node.sessions, &op),
                    pulse_next: u64::MAX,
                };
                replica.handle(Event::Executed(op, outcome), &Room);
                let last = node.disk.superblock.checkpoint.op.get();
                if header.op.get() >= last + INTERVAL {
                    node.superblock_writes.push_back(Write::Checkpoint(header));
                    self.next_superblock(index);
                } else {
                    node.executing = false;
                    self.next_execution(index);
                }
            }
            Write::Checkpoint(header) => {
                node.superblock_busy = false;
                node.executing = false;
                let mut checkpoint = CheckpointState::of(&node.disk.superblock);
                checkpoint.ledger_state[0] ^= u8::from(node.diverges);
                self.checkpoints
                    .insert((index, checkpoint.op()), checkpoint.identity());
                assert_eq!(checkpoint.header, header);
                replica.handle(Event::Checkpointed(Box::new(checkpoint)), &Room);
                self.next_superblock(index);
                self.next_execution(index);
            }
        }
        self.pump(index);
    }

    fn on_client(&mut self, index: usize, timer: u64) {
        if self.clients[index].timer != timer {
            return;
        }
        let client = &mut self.clients[index];
        let state = &client.state;
        let frame = client.frame.get_or_insert_with(|| {
            let zeros = vec![0; 256];
            match state.session {
                0 => request(state, Operation::Register, &zeros),
                _ => request(state, Operation::LookupAccounts, &encode(16, &[&[]])),
            }
        });
        let frame = frame.clone();
        let to = u64_to_usize(self.random.below(to_u64(self.nodes.len())));
        self.send(What::Deliver(to, Some(index), frame));
        let delay = 100 * MS + self.random.below(400 * MS);
        self.at(delay, What::Client(index, timer));
    }

    fn on_client_frame(&mut self, index: usize, frame: &Bytes) {
        let client = &mut self.clients[index];
        let header = CommonHeader::read_from_bytes(&frame[..256]).unwrap();
        assert_ne!(header.command, command::EVICTION, "nobody is evicted");
        let reply = ReplyHeader::read_from_bytes(&frame[..256]).unwrap();
        let key = (reply.client.get(), reply.request.get());
        let known = *self.answers.entry(key).or_insert(reply.op.get());
        assert_eq!(known, reply.op.get(), "I17");
        assert!(u64_to_usize(reply.op.get()) < self.history.len(), "I03");
        if reply.request.get() != client.state.request || client.frame.is_none() {
            return;
        }
        if client.state.session == 0 {
            client.state.session = reply.op.get();
        }
        client.state.request += 1;
        client.state.parent = reply.context;
        client.frame = None;
        client.answered += 1;
        client.timer += 1;
        let timer = client.timer;
        self.at(MS, What::Client(index, timer));
    }

    fn turn(&mut self) {
        let ((time, _), what) = self.queue.pop_first().unwrap();
        self.now = self.now.max(time);
        match what {
            What::Deliver(to, client, frame) => {
                if self.nodes[to].hears_no_pongs && is_pong(&frame) {
                    return;
                }
                let frame = if self.nodes[to].hears_no_checkpoints {
                    without_checkpoint(frame)
                } else {
                    frame
                };
                let Some(replica) = self.observed(to) else {
                    return;
                };
                let connection = client.map_or(u64::MAX, to_u64);
                replica.handle(incoming(connection, &frame), &Room);
                self.pump(to);
            }
            What::Done(index, incarnation, id) => {
                if self.nodes[index].incarnation == incarnation {
                    self.on_done(index, id);
                }
            }
            What::Tick(index) => {
                if self.nodes[index].replica.is_some() {
                    self.pump(index);
                    self.at(5 * MS, What::Tick(index));
                }
            }
            What::Start(index) => self.start(index),
            What::Crash(index) => {
                if self.faults && self.nodes[index].replica.is_some() {
                    self.crash(index);
                    let delay = self.random.below(800 * MS);
                    self.at(delay, What::Start(index));
                }
            }
            What::Lose(index) => {
                if self.faults {
                    self.lose(index);
                    let delay = self.random.below(800 * MS);
                    self.at(delay, What::Start(index));
                }
            }
            What::Cut(index, off) => {
                self.nodes[index].cut_off = off && self.faults;
                if off {
                    let delay = self.random.below(2000 * MS);
                    self.at(delay, What::Cut(index, false));
                }
            }
            What::Client(index, timer) => self.on_client(index, timer),
            What::ToClient(index, frame) => self.on_client_frame(index, &frame),
        }
    }

    fn run(&mut self, faults_until: u64) {
        while self.now < faults_until {
            if self.random.chance(2) {
                let index = u64_to_usize(self.random.below(to_u64(self.nodes.len())));
                match self.random.below(if self.loses { 9 } else { 7 }) {
                    0..3 => self.at(0, What::Crash(index)),
                    3..6 => self.at(0, What::Cut(index, true)),
                    6 => (0..self.nodes.len()).for_each(|index| self.at(0, What::Crash(index))),
                    _ => self.at(0, What::Lose(index)),
                }
            }
            self.turn();
        }
        self.faults = false;
        for node in &mut self.nodes {
            node.cut_off = false;
        }
        for index in 0..self.nodes.len() {
            self.at(0, What::Start(index));
        }
        let answered: Vec<u64> = self.clients.iter().map(|client| client.answered).collect();
        let end = self.now + 60_000 * MS;
        while self.now < end {
            self.turn();
            let served = self.clients.iter().zip(&answered);
            let served = served
                .into_iter()
                .all(|(now, then)| now.answered > then + 3);
            let executed = |node: &Node| node.replica.as_ref().map_or(0, Replica::commit);
            let least = self.nodes.iter().map(executed).min().unwrap();
            if served && least + 2 >= to_u64(self.history.len() - 1) {
                return;
            }
        }
        let state: Vec<_> = self
            .nodes
            .iter()
            .map(|node| {
                let replica = node.replica.as_ref().unwrap();
                format!(
                    "{:?} {:?} view {}/{} head {} tail {} executed {} commit {} checkpoint {}",
                    replica.status,
                    replica.recovery,
                    replica.view,
                    replica.log_view,
                    replica.head().op,
                    replica.log.tail(),
                    replica.commit(),
                    replica.commit_max,
                    replica.checkpoint.op(),
                )
            })
            .collect();
        panic!("no progress without faults: {state:#?}");
    }
}

/// What happened in some seeds.
#[derive(Debug, Default)]
struct Sums {
    ops: usize,
    views: u32,
    syncs: u32,
    losses: u32,
}

fn run(replicas: usize, seeds: std::ops::Range<u64>, loses: bool) -> Sums {
    let mut sums = Sums::default();
    for seed in seeds {
        let mut world = World::new(seed, replicas);
        world.loses = loses;
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run(5000 * MS);
        }));
        assert!(done.is_ok(), "seed {seed} with {replicas} replicas");
        sums.ops += world.history.len();
        sums.views += world.views;
        sums.syncs += world.syncs;
        sums.losses += world.losses;
    }
    sums
}

#[test]
fn clusters_agree_whatever_happens() {
    for replicas in 2..=6 {
        let sums = run(replicas, 0..SEEDS, false);
        assert!(sums.ops > 1000 && sums.views > 40, "{sums:?}");
    }
}

#[test]
fn clusters_lose_nothing_when_disks_are_lost() {
    for replicas in 3..=6 {
        let sums = run(replicas, 0..SEEDS_OF_LOSS, true);
        assert!(
            sums.ops > 1000 && sums.losses > 20 && sums.syncs > 10,
            "{sums:?}"
        );
    }
}

/// A cluster without other faults.
fn calm(skews: &[i64]) -> World {
    let mut world = World::new(7, skews.len());
    (world.loss, world.faults) = (0, false);
    for (node, skew) in world.nodes.iter_mut().zip(skews) {
        node.skew = *skew;
    }
    world
}

impl World {
    fn pass(&mut self, time: u64) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// Ops that are committed while time passes.
    fn committed_in(&mut self, time: u64) -> usize {
        let before = self.history.len();
        self.pass(time);
        self.history.len() - before
    }

    fn view(&self) -> u32 {
        let views = self.nodes.iter().map(|node| node.disk.superblock.view);
        views.max().unwrap().get()
    }
}

mod clocks;
mod divergence;
mod releases;
