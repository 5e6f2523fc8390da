//! The replica alone: events in, lists of effects out.

use super::{Admission, Effect, Event, Op, Outcome, Prepare, Replica, Start, Way};
use crate::constants;
use crate::io::Incoming;
use crate::vsr::Releases;
use crate::vsr::log::{Entry, Log};
use crate::vsr::members::Members;
use crate::vsr::message::CheckpointState;
use crate::vsr::sessions::{Sessions, SharedSessions};
use crate::vsr::testing::incoming;
use crate::wire::build::{ClientState, ping, request};
use crate::wire::{Evicted, EvictionHeader, Operation, ReplyHeader};
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use storage_format::{Checksum, Geometry, PrepareHeader, PrepareKind, Superblock};
use zerocopy::FromBytes;

const NOW: u64 = 1_800_000_000_000_000_000;

struct Room(bool);

fn checkpoint(header: &PrepareHeader) -> CheckpointState {
    let mut superblock = Superblock::zeroed();
    superblock.checkpoint = *header;
    CheckpointState::of(&superblock)
}

impl Admission for Room {
    fn admits(&self, _events: u64, _events_waiting: u64) -> bool {
        self.0
    }
}

/// A replica whose surroundings are this test: it writes and executes when told.
struct Fixture {
    replica: Replica,
    sessions: SharedSessions,
    room: Room,
    prepares: Vec<Prepare>,
    writes_headers: bool,
    executing: Vec<Op>,
    sent: Vec<(u64, Bytes)>,
}

impl Fixture {
    fn new(sessions_max: u32) -> Self {
        let geometry = Geometry {
            message_size_max: (1 << 20).into(),
            journal_slot_count: 64.into(),
            journal_slot_size: ((1 << 20) + (64 << 10)).into(),
            session_count_max: sessions_max.into(),
            block_size: (256 << 10).into(),
            reserved: 0.into(),
            file_size_max: (1 << 40).into(),
        };
        let sessions = Rc::new(RefCell::new(Sessions::new(sessions_max)));
        let root = PrepareHeader::root(0);
        let mut superblock = Superblock::zeroed();
        superblock.geometry = geometry;
        superblock.replica_count = 1;
        superblock.view = 1.into();
        superblock.log_view = 1.into();
        superblock.checkpoint = root;
        superblock.release = constants::RELEASE_LOG_MAX.into();
        let start = Start {
            log: Log::new(&vec![Entry::durable(&root); 64], &root),
            certain: true,
            executed: root,
            releases: Releases::OF_BINARY,
        };
        let mut replica = Replica::new(
            &superblock,
            Members::new(&superblock, 0),
            start,
            Rc::clone(&sessions),
            1,
        );
        let loaded = Event::Loaded {
            pulse_next: u64::MAX,
            timestamp_last: 0,
        };
        replica.handle(loaded, &Room(true));
        Self {
            replica,
            sessions,
            room: Room(true),
            prepares: Vec::new(),
            writes_headers: false,
            executing: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Takes all effects; gives their names in order.
    fn effects(&mut self, now: u64) -> String {
        let mut names = Vec::new();
        self.replica.observe(now, now);
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::WritePrepare(prepare) => {
                    names.push(format!(
                        "prepare {}x{}",
                        prepare.header.op, prepare.header.request_count
                    ));
                    self.prepares.push(prepare);
                }
                Effect::WriteHeaders(headers) => {
                    let ops: Vec<String> = headers.iter().map(|h| h.op.to_string()).collect();
                    names.push(format!("headers {}", ops.join("+")));
                    self.writes_headers = true;
                }
                Effect::Execute(op) => {
                    let ahead = match op {
                        Op::Written(_) => "",
                        Op::Ahead(..) => " ahead",
                    };
                    names.push(format!("execute {}{ahead}", op.header().op));
                    self.executing.push(op);
                }
                Effect::Send { to, frame } => {
                    let Way::Connection(connection) = to else {
                        panic!("there is no other replica");
                    };
                    names.push(format!("send {}", connection.0));
                    self.sent.push((connection.0, frame));
                }
                Effect::WriteView(_)
                | Effect::ReadPrepare(_)
                | Effect::Sync(_)
                | Effect::Stop(_) => {
                    panic!("alone it does none of these")
                }
            }
        }
        names.join(", ")
    }

    fn frame(&mut self, connection: u64, frame: &Bytes) {
        self.replica.handle(incoming(connection, frame), &self.room);
    }

    fn prepare_durable(&mut self) {
        let prepare = self.prepares.remove(0);
        self.replica
            .handle(Event::PrepareDurable(prepare), &self.room);
    }

    fn headers_durable(&mut self) {
        assert!(std::mem::take(&mut self.writes_headers));
        self.replica.handle(Event::HeadersDurable, &self.room);
    }

    fn quiet(&mut self) -> String {
        self.replica.handle(Event::Quiet, &self.room);
        self.effects(NOW)
    }

    /// Executes as the driver does; every reply body is empty.
    fn execute(&mut self) {
        let op = self.executing.remove(0);
        let mut replies = Vec::new();
        for (index, (entry, _)) in op.requests().enumerate() {
            let operation = Operation::from_u8(entry.operation).unwrap();
            let (reply, frame) = Replica::reply(op.header(), &entry, operation, vec![0; 256]);
            let index = u32::try_from(index).unwrap();
            let stored = self
                .sessions
                .borrow_mut()
                .store_reply(&reply, index, frame.clone());
            replies.push(stored.then_some(frame));
        }
        let outcome = Outcome {
            replies,
            pulse_next: u64::MAX,
        };
        let executed = Event::Executed(op, outcome);
        self.replica.handle(executed, &self.room);
    }

    /// Everything that is waiting, to the end.
    fn settle(&mut self) {
        loop {
            let _ = self.effects(NOW);
            if !self.prepares.is_empty() {
                self.prepare_durable();
            } else if self.writes_headers {
                self.headers_durable();
            } else if !self.executing.is_empty() {
                self.execute();
            } else {
                return;
            }
        }
    }

    fn register(&mut self, client: u128) -> ClientState {
        let mut state = newcomer(client);
        self.frame(1, &register(&state));
        self.settle();
        let reply = self.last_reply();
        state.session = reply.commit.get();
        state.request = 1;
        state.parent = reply.context;
        state
    }

    fn last_reply(&self) -> ReplyHeader {
        let (_, frame) = self.sent.last().unwrap();
        ReplyHeader::read_from_bytes(&frame[..256]).unwrap()
    }

    fn last_eviction(&self) -> u8 {
        let (_, frame) = self.sent.last().unwrap();
        let header = EvictionHeader::read_from_bytes(&frame[..256]).unwrap();
        assert_eq!(header.command, crate::wire::header::command::EVICTION);
        header.reason
    }
}

/// A client without a session.
fn newcomer(client: u128) -> ClientState {
    ClientState {
        cluster: 0,
        view: 1,
        release: constants::RELEASE,
        client,
        session: 0,
        request: 0,
        parent: Checksum::ZERO,
    }
}

fn register(state: &ClientState) -> Bytes {
    request(state, Operation::Register, &[0; 256])
}

/// A lookup of no accounts at all.
fn lookup(state: &ClientState) -> Bytes {
    let body = crate::wire::multi_batch::encode(16, &[&[]]);
    request(state, Operation::LookupAccounts, &body)
}

/// A create of one account.
fn create(state: &ClientState) -> Bytes {
    let body = crate::wire::multi_batch::encode(128, &[&[0; 128]]);
    request(state, Operation::CreateAccounts, &body)
}

#[test]
fn an_op_is_executed_while_its_prepare_is_written_and_answered_when_that_is_durable() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    fixture.frame(3, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
    fixture.execute();
    assert_eq!(fixture.effects(NOW), "");
    assert_eq!(fixture.replica.commit(), 1);
    fixture.frame(4, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "", "its reply is there, but not due");
    fixture.prepare_durable();
    assert_eq!(fixture.replica.commit(), 2);
    assert_eq!(fixture.effects(NOW), "send 4");
}

#[test]
fn an_op_that_runs_longer_than_the_journal_writes_is_answered_when_it_is_done() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    fixture.frame(3, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
    fixture.prepare_durable();
    assert_eq!(fixture.effects(NOW), "");
    fixture.execute();
    assert_eq!(fixture.effects(NOW), "send 3");
}

/// Whose session a register request evicts is told so at once, and a checkpoint is for ever.
#[test]
fn a_register_request_and_the_op_of_a_checkpoint_wait_for_the_journal() {
    let mut fixture = Fixture::new(8);
    let mut client = fixture.register(7);
    let due = crate::vsr::lineage::checkpoint_interval(&fixture.replica.geometry);
    for op in 2..=due {
        fixture.frame(3, &lookup(&client));
        let wanted = match op {
            op if op < due => format!("execute {op} ahead, prepare {op}x1"),
            op => format!("prepare {op}x1"),
        };
        let effects = fixture.effects(NOW);
        assert!(effects.starts_with(&wanted), "{effects}");
        fixture.settle();
        client.request += 1;
        client.parent = fixture.last_reply().context;
    }
    let mut fixture = Fixture::new(8);
    fixture.frame(3, &register(&newcomer(8)));
    assert_eq!(fixture.effects(NOW), "prepare 1x1");
}

#[test]
fn what_waited_for_a_register_request_runs_ahead() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    fixture.frame(3, &register(&newcomer(8)));
    assert_eq!(fixture.effects(NOW), "prepare 2x1");
    fixture.frame(3, &lookup(&client));
    fixture.prepare_durable();
    assert_eq!(
        fixture.effects(NOW),
        "execute 2, execute 3 ahead, prepare 3x1"
    );
}

/// A long execution does not keep the journal waiting.
#[test]
fn the_next_prepare_goes_before_an_execution_that_is_due_and_takes_all_that_gathered() {
    let mut fixture = Fixture::new(8);
    let clients: Vec<ClientState> = (1..=4).map(|client| fixture.register(client)).collect();
    fixture.frame(1, &lookup(&clients[0]));
    assert_eq!(fixture.effects(NOW), "execute 5 ahead, prepare 5x1");
    fixture.frame(2, &lookup(&clients[1]));
    fixture.frame(3, &lookup(&clients[2]));
    assert_eq!(fixture.effects(NOW), "");
    fixture.prepare_durable();
    fixture.frame(4, &lookup(&clients[3]));
    assert_eq!(fixture.effects(NOW), "execute 6 ahead, prepare 6x3");
}

#[test]
fn headers_are_written_when_it_is_quiet() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(1);
    assert_eq!(fixture.quiet(), "headers 1");
    fixture.headers_durable();
    assert_eq!(fixture.quiet(), "");
    fixture.frame(1, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
    assert_eq!(fixture.quiet(), "", "one write at a time");
    fixture.prepare_durable();
    assert_eq!(fixture.effects(NOW), "");
    assert_eq!(fixture.quiet(), "headers 2");
}

#[test]
fn headers_are_written_before_too_many_are_behind() {
    let mut fixture = Fixture::new(8);
    for client in 1..constants::HEADERS_BEHIND_MAX {
        let _ = fixture.register(u128::try_from(client).unwrap());
    }
    let last = constants::HEADERS_BEHIND_MAX;
    let clients = [100, 101].map(|client| fixture.register(client));
    let written = fixture.replica.headers_behind.len();
    assert_eq!(written, 1, "{last} were written together");
    fixture.frame(1, &lookup(&clients[0]));
    let op = last + 2;
    let wanted = format!("execute {op} ahead, prepare {op}x1");
    assert_eq!(fixture.effects(NOW), wanted, "and no headers");
}

/// A sector holds 16 headers.
#[test]
fn headers_of_two_sectors_are_two_writes() {
    let mut fixture = Fixture::new(64);
    for client in 1..=15 {
        let _ = fixture.register(client);
        let _ = fixture.quiet();
        fixture.settle();
    }
    let _ = (fixture.register(16), fixture.register(17));
    fixture.replica.headers_behind.clear();
    let mut header = *fixture.replica.head();
    for op in [15_u64, 16, 17] {
        header.op = op.into();
        fixture.replica.headers_behind.push_back(header);
    }
    assert_eq!(fixture.quiet(), "headers 15");
    fixture.headers_durable();
    assert_eq!(fixture.effects(NOW), "headers 16+17");
}

#[test]
fn the_last_request_again_gets_the_same_reply_and_is_not_prepared() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    let frame = create(&client);
    fixture.frame(3, &frame);
    fixture.settle();
    let first = fixture.sent.last().unwrap().1.clone();
    fixture.frame(4, &frame);
    assert_eq!(fixture.effects(NOW), "send 4");
    assert_eq!(fixture.sent.last().unwrap().1, first);
}

#[test]
fn a_request_in_flight_that_comes_again_is_answered_once_and_on_the_new_connection() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    let frame = create(&client);
    fixture.frame(3, &frame);
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
    fixture.frame(4, &frame);
    fixture.prepare_durable();
    fixture.execute();
    assert_eq!(fixture.effects(NOW), "send 4");
}

/// The first request of an op is done, and another one of the op waits for the disk.
#[test]
fn a_request_that_follows_one_whose_op_still_runs_is_taken() {
    let mut fixture = Fixture::new(8);
    let mut client = fixture.register(7);
    let frame = lookup(&client);
    fixture.frame(3, &frame);
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
    fixture.prepare_durable();
    let (entry, _) = fixture.executing[0].requests().next().unwrap();
    let header = *fixture.executing[0].header();
    let operation = Operation::LookupAccounts;
    let (reply, bytes) = Replica::reply(&header, &entry, operation, vec![0; 256]);
    let stored = fixture.sessions.borrow_mut().store_reply(&reply, 0, bytes);
    assert!(stored);
    fixture.frame(3, &frame);
    assert_eq!(fixture.effects(NOW), "send 3");
    client.request = 2;
    client.parent = reply.context;
    fixture.frame(3, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "execute 3 ahead, prepare 3x1");
}

#[test]
fn timestamps_increase_although_the_clock_steps_back() {
    let mut fixture = Fixture::new(8);
    let mut client = fixture.register(7);
    fixture.frame(1, &create(&client));
    fixture.settle();
    let first = fixture.last_reply();
    client.request += 1;
    client.parent = first.context;
    fixture.frame(1, &create(&client));
    assert_eq!(
        fixture.effects(NOW - 1_000_000_000),
        "execute 3 ahead, prepare 3x1"
    );
    let second = fixture.prepares[0].header.timestamp.get();
    assert!(second > first.timestamp.get());
}

#[test]
fn the_session_whose_last_request_is_the_oldest_makes_room() {
    let mut fixture = Fixture::new(2);
    let first = fixture.register(1);
    let second = fixture.register(2);
    fixture.frame(1, &lookup(&first));
    fixture.settle();
    let _third = fixture.register(3);
    fixture.frame(2, &lookup(&second));
    let _ = fixture.effects(NOW);
    assert_eq!(fixture.last_eviction(), Evicted::NoSession.code());
    fixture.frame(2, &ping(&second, 5));
    let _ = fixture.effects(NOW);
    assert_eq!(fixture.last_eviction(), Evicted::NoSession.code());
}

/// The session is there when the request is prepared, and gone at its turn.
#[test]
fn a_request_whose_session_is_evicted_before_its_turn_has_no_effect() {
    use crate::vsr::sessions::Standing;
    let mut fixture = Fixture::new(1);
    let first = fixture.register(1);
    fixture.frame(1, &lookup(&first));
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
    let (entry, _) = fixture.prepares[0].requests().next().unwrap();
    assert_eq!(
        fixture.sessions.borrow().standing_entry(&entry),
        Standing::New
    );
    let mut other = ReplyHeader::zeroed();
    other.client = 9.into();
    assert!(
        fixture
            .sessions
            .borrow_mut()
            .store_reply(&other, 0, Bytes::new())
    );
    assert_eq!(
        fixture.sessions.borrow().standing_entry(&entry),
        Standing::NoSession
    );
}

#[test]
fn what_has_no_room_is_refused_and_lookups_are_served() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    fixture.room = Room(false);
    fixture.frame(1, &create(&client));
    assert_eq!(fixture.effects(NOW), "send 1");
    assert_eq!(fixture.last_eviction(), Evicted::NoSession.code());
    fixture.frame(1, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "execute 2 ahead, prepare 2x1");
}

#[test]
fn the_journal_is_not_overrun_while_a_checkpoint_is_awaited() {
    let mut fixture = Fixture::new(8);
    let mut client = fixture.register(7);
    for _ in 2..=63 {
        fixture.frame(1, &lookup(&client));
        fixture.settle();
        client.parent = fixture.last_reply().context;
        client.request += 1;
    }
    assert_eq!(fixture.replica.commit(), 63);
    fixture.frame(1, &lookup(&client));
    assert_eq!(fixture.effects(NOW), "");
    let mut header = PrepareHeader::root(0);
    header.op = 40.into();
    let made = checkpoint(&header);
    let checkpointed = Event::Checkpointed(Box::new(made));
    fixture.replica.handle(checkpointed, &fixture.room);
    assert_eq!(fixture.effects(NOW), "execute 64 ahead, prepare 64x1");
    let named = fixture.prepares[0].header.checkpoint_id;
    assert_eq!(named, made.identity());
}

#[test]
fn a_pulse_comes_before_the_requests_that_wait() {
    let mut fixture = Fixture::new(8);
    let client = fixture.register(7);
    fixture.replica.pulse_next = NOW;
    fixture.frame(1, &lookup(&client));
    assert_eq!(fixture.effects(NOW + 1), "prepare 2x0");
    assert_eq!(fixture.prepares[0].header.kind(), PrepareKind::Pulse);
}

#[test]
fn after_a_request_to_shut_down_nothing_is_prepared_and_what_was_is_finished() {
    let mut fixture = Fixture::new(8);
    let (first, second) = (fixture.register(1), fixture.register(2));
    fixture.frame(1, &lookup(&first));
    assert_eq!(fixture.effects(NOW), "execute 3 ahead, prepare 3x1");
    fixture.frame(2, &lookup(&second));
    fixture
        .replica
        .handle(Event::Incoming(Incoming::Shutdown), &fixture.room);
    assert!(!fixture.replica.is_shut_down());
    fixture.settle();
    assert_eq!(fixture.replica.commit(), 3);
    assert!(fixture.replica.is_shut_down());
}
