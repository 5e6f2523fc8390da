//! The loop that joins consensus, ledger and storage, poll by poll.

use bytes::Bytes;
use daftari::client::{Client, Event, Options, Output, PreparedRequest};
use daftari::constants::{HEADER_SIZE, NANOSECONDS};
use daftari::driver::{ACCOUNT_CACHE_SIZE_MIN, CACHE_SIZE_MIN};
use daftari::driver::{FormatOptions, RunOptions, format, run};
use daftari::io::memory::MemoryStorage;
use daftari::io::{ConnectionId, Incoming, Io, Network, Storage};
use daftari::stdx::{SectorBuf, run_to_end};
use daftari::vsr::Releases;
use daftari::wire::{Account, Operation};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use storage_format::Geometry;
use zerocopy::IntoBytes;

/// Bytes of a prepare that takes long to execute, at least.
const LONG: usize = 64 * 1024;

/// What the loop did in which poll.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Did {
    /// Began to write a prepare that takes long to execute.
    Write(u64),
    /// Looked for room: before a request is taken, and when an op was executed.
    Reserve(u64),
}

/// A disk that does nothing before the loop lets go, as a ring does.
#[derive(Default)]
struct Disk {
    memory: MemoryStorage,
    polls: Cell<u64>,
    did: RefCell<Vec<Did>>,
}

impl Storage for Disk {
    fn size(&self) -> u64 {
        self.memory.size()
    }

    fn reserve(&self, size: u64, limit: u64) -> u64 {
        self.did.borrow_mut().push(Did::Reserve(self.polls.get()));
        self.memory.reserve(size, limit)
    }

    fn read(&self, offset: u64, buffer: SectorBuf) -> impl Future<Output = SectorBuf> {
        self.memory.read(offset, buffer)
    }

    async fn write(&self, offset: u64, buffer: SectorBuf, size: usize) -> SectorBuf {
        let begun = self.polls.get();
        if size >= LONG {
            self.did.borrow_mut().push(Did::Write(begun));
        }
        poll_fn(|context| {
            if self.polls.get() > begun {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        self.memory.write(offset, buffer, size).await
    }
}

#[derive(Default)]
struct Frames {
    incoming: RefCell<VecDeque<Bytes>>,
    sent: RefCell<VecDeque<Bytes>>,
}

impl Network for Frames {
    fn receive(&self) -> impl Future<Output = Incoming> {
        poll_fn(|_| self.try_receive().map_or(Poll::Pending, Poll::Ready))
    }

    fn try_receive(&self) -> Option<Incoming> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        Some(Incoming::Frame {
            connection: ConnectionId(1),
            header: Box::new(*frame.first_chunk().expect("a frame has a header")),
            body: frame.slice(HEADER_SIZE..),
        })
    }

    fn send(&self, _connection: ConnectionId, frame: Bytes) {
        self.sent.borrow_mut().push_back(frame);
    }

    fn send_peer(&self, _replica: u8, _frame: Bytes) {
        unreachable!("it is alone")
    }
}

#[derive(Default)]
struct TestIo {
    disk: Disk,
    frames: Frames,
}

impl Io for TestIo {
    type Storage = Disk;
    type Network = Frames;

    fn storage(&self) -> &Disk {
        &self.disk
    }

    fn network(&self) -> &Frames {
        &self.frames
    }

    fn monotonic(&self) -> u64 {
        NANOSECONDS
    }

    fn realtime(&self) -> u64 {
        1_700_000_000 * NANOSECONDS
    }

    fn sleep(&self, _nanoseconds: u64) -> impl Future<Output = ()> {
        pending()
    }
}

#[test]
fn the_journal_is_writing_a_long_op_before_that_executes() {
    let io = TestIo::default();
    let geometry = Geometry {
        message_size_max: (1 << 20).into(),
        journal_slot_count: 64.into(),
        journal_slot_size: ((1 << 20) + (64 << 10)).into(),
        session_count_max: 8.into(),
        block_size: (256 << 10).into(),
        reserved: 0.into(),
        file_size_max: (1 << 40).into(),
    };
    let made = FormatOptions {
        cluster: 0,
        replica: 0,
        replica_count: 1,
        geometry,
        recovering: false,
        release: Releases::OF_BINARY.newest,
    };
    run_to_end(format(&io.disk.memory, &made)).unwrap();
    let options = RunOptions {
        cluster: None,
        replica: None,
        member_count: 1,
        memory_limit: 4 << 30,
        account_cache_size: ACCOUNT_CACHE_SIZE_MIN,
        cache_size: CACHE_SIZE_MIN,
        scrub: None,
        releases: Releases::OF_BINARY,
    };
    let mut server = pin!(run(&io, &options));
    let mut client = Client::new(Options::new(0, 42), 0);
    client.handle(0, Event::Connected);
    let mut until_output = |client: &mut Client| {
        for _ in 0..1000 {
            io.frames.incoming.borrow_mut().extend(client.poll_send());
            io.disk.polls.set(io.disk.polls.get() + 1);
            let polled = server
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending(), "it serves");
            for frame in io.frames.sent.borrow_mut().drain(..) {
                client.handle(0, Event::Frame(frame));
            }
            if let Some(output) = client.poll_output() {
                return output;
            }
        }
        panic!("there is no answer");
    };
    let registered = until_output(&mut client);
    assert!(
        matches!(registered, Output::Registered { .. }),
        "{registered:?}"
    );
    io.disk.did.borrow_mut().clear();
    let accounts: Vec<Account> = (1..=1000_u128)
        .map(|id| Account {
            id: id.into(),
            ledger: 1.into(),
            code: 1.into(),
            ..Account::zeroed()
        })
        .collect();
    let request = PreparedRequest::batch(Operation::CreateAccounts, accounts.as_bytes());
    client.submit(0, request).unwrap();
    let reply = until_output(&mut client);
    assert!(matches!(reply, Output::Reply { .. }), "{reply:?}");
    let did = io.disk.did.borrow();
    let mut did = did.iter().skip_while(|did| matches!(did, Did::Reserve(_)));
    let Some(Did::Write(written)) = did.next() else {
        panic!("the op was written: {did:?}");
    };
    let Some(Did::Reserve(executed)) = did.next() else {
        panic!("the op was executed: {did:?}");
    };
    assert!(executed > written, "{executed}, {written}");
}
