//! Executing ops: the ledger, the sessions and the replies.
//!
//! One op at a time. The state is at rest, or at work in a future that gives it back: executing an
//! op may wait for pages of blocks, finishing it waits for writes and merges. Meanwhile the replica
//! goes on.

use super::checkpoint::{Checkpointed, blocks_of};
use super::scrub::SharedDurable;
use super::superblock::Keeper;
use crate::constants;
use crate::grid::{Damage, Grid, Writes};
use crate::io::{Io, Storage};
use crate::ledger::Ledger;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::{to_usize, yield_once};
use crate::vsr::sessions::{SharedSessions, Standing};
use crate::vsr::{Admission, Event, FatalReason, Op, Outcome, Replica};
use crate::wire::{Operation, build};
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use storage_format::{Geometry, PrepareHeader, PrepareKind, RequestEntry};
use zerocopy::IntoBytes;

/// All that executing an op changes.
pub(super) struct State<'a, I: Io> {
    pub(super) io: &'a I,
    pub(super) geometry: Geometry,
    pub(super) superblock: Rc<Keeper>,
    pub(super) ledger: Ledger,
    pub(super) grid: Grid<'a, I>,
    pub(super) sessions: SharedSessions,
    pub(super) checkpointed: Checkpointed,
    pub(super) durable: SharedDurable,
}

impl<I: Io> std::fmt::Debug for State<'_, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("superblock", &self.superblock)
            .finish_non_exhaustive()
    }
}

impl<I: Io> State<'_, I> {
    /// Executes `op`; [`Self::finish`] has to follow. An entry whose session was evicted before its turn
    /// has no reply, and no effect either.
    pub(super) async fn execute(&mut self, op: &Op) -> Outcome {
        let header = op.header();
        self.grid.op = header.op.get();
        let mut replies = Vec::new();
        match header.kind() {
            PrepareKind::Empty | PrepareKind::Root => unreachable!("never prepared"),
            PrepareKind::Pulse => {
                let timestamp = header.timestamp.get();
                self.ledger.pulse(&mut self.grid, timestamp).await;
            }
            PrepareKind::Requests => {
                for (index, (entry, body)) in op.requests().enumerate() {
                    let index = u32::try_from(index).expect("at most 1000 entries");
                    replies.push(self.execute_entry(header, index, &entry, body).await);
                }
            }
        }
        Outcome {
            replies,
            pulse_next: self.ledger.pulse_next(),
        }
    }

    async fn execute_entry(
        &mut self,
        prepare: &PrepareHeader,
        index: u32,
        entry: &RequestEntry,
        body: &[u8],
    ) -> Option<Bytes> {
        if self.sessions.borrow().standing_entry(entry) != Standing::New {
            mark(Mark::EntryVoid);
            return None;
        }
        let operation =
            Operation::from_u8(entry.operation).expect("the primary checked the operation");
        let mut frame = vec![0; constants::HEADER_SIZE];
        if operation == Operation::Register {
            frame.extend_from_slice(build::register_result().as_bytes());
        } else {
            let request = crate::ledger::Request {
                operation,
                timestamp: entry.timestamp.get(),
                body,
            };
            self.ledger
                .execute(&mut self.grid, &request, &mut frame)
                .await;
        }
        let (reply, frame) = Replica::reply(prepare, entry, operation, frame);
        let mut sessions = self.sessions.borrow_mut();
        let stored = sessions.store_reply(&reply, index, frame.clone());
        assert!(stored, "the session was there just now");
        Some(frame)
    }

    /// What an op leaves to do once it is executed: indexes, merges, blocks that have become
    /// full, and a checkpoint if one is due. Tells whether it made one.
    pub(super) async fn finish(&mut self, header: &PrepareHeader) -> bool {
        self.ledger.finish(&mut self.grid).await;
        self.grid.start().await;
        let due = self.checkpoint_due(header);
        if due {
            self.checkpoint(header).await;
        }
        due
    }

    fn room(&self) -> Room {
        let memory_used = self.ledger.memory_used();
        Room {
            memory: self.ledger.room(memory_used),
            blocks_needed: self.blocks_needed(),
            memory_used,
        }
    }
}

/// How many events more there is room for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    memory: u64,
    memory_used: u64,
    /// Blocks that what there is already needs.
    blocks_needed: u64,
}

/// What keeps blocks from being written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Full {
    /// The size that the file was made for.
    File,
    /// The disk.
    Disk,
}

/// Where the file ends, and how far it is certain that it can be written.
struct Extent<'a, I: Io> {
    io: &'a I,
    geometry: Geometry,
}

impl<I: Io> Extent<'_, I> {
    /// Makes sure that so many blocks can be written; they have the lowest addresses.
    fn reserve(&self, blocks: u64) -> Result<(), Full> {
        let geometry = &self.geometry;
        let most = geometry.block_count_max();
        let limit = geometry.block_offset(most + 1);
        if blocks > most {
            // What is left of the file is kept for what there is already.
            let _certain = self.io.storage().reserve(limit, limit);
            return Err(Full::File);
        }
        let size = geometry.block_offset(blocks + 1);
        if self.io.storage().reserve(size, limit) < size {
            return Err(Full::Disk);
        }
        Ok(())
    }
}

/// What a piece of work came to.
#[expect(
    clippy::large_enum_variant,
    reason = "one is alive, and it is moved once"
)]
pub(super) enum Step {
    /// The op was executed.
    Executed(Op, Outcome),
    /// All that an op left to do is done; whether it made a checkpoint.
    Finished(bool),
    /// The checkpoint is in memory.
    Loaded(Result<(), FatalReason>),
}

type Work<'a, I> = Pin<Box<dyn Future<Output = (Box<State<'a, I>>, Step)> + 'a>>;

/// The state, and what it is at.
pub(super) struct Commit<'a, I: Io> {
    rest: Option<Box<State<'a, I>>>,
    work: Option<Work<'a, I>>,
    /// Ops to execute.
    queue: VecDeque<Op>,
    room: Room,
    extent: Extent<'a, I>,
    pub(super) damage: Damage,
    writes: Writes<'a>,
    /// Whether it is the state's turn, before what else there is.
    pub(super) first: bool,
}

impl<'a, I: Io> Commit<'a, I> {
    pub(super) fn new(state: Box<State<'a, I>>) -> Self {
        let extent = Extent {
            io: state.io,
            geometry: state.geometry,
        };
        let room = state.room();
        if extent.reserve(room.blocks_needed) == Err(Full::Disk) {
            tracing::error!("the disk is full: requests that create will be refused");
        }
        Self {
            room,
            extent,
            damage: state.grid.damage(),
            writes: state.grid.writes(),
            first: false,
            rest: Some(state),
            work: None,
            queue: VecDeque::new(),
        }
    }

    /// The same for a state whose checkpoint is to be loaded first.
    pub(super) fn loading(state: Box<State<'a, I>>, memory_limit: u64) -> Self {
        let mut this = Self::new(state);
        let mut state = this.rest.take().expect("it is new");
        this.work = Some(Box::pin(async move {
            let loaded = super::open::load(&mut state, memory_limit).await;
            (state, Step::Loaded(loaded))
        }));
        this
    }

    /// Gives up what it is at, and all that is left to do. Gives the writes that are under way.
    pub(super) fn abandon(&mut self) -> Writes<'a> {
        self.work = None;
        self.rest = None;
        self.queue.clear();
        self.damage.clear();
        self.writes.clone()
    }

    /// Whether the state is at rest.
    pub(super) fn rests(&self) -> bool {
        self.rest.is_some()
    }

    /// What the replica has to know of a state that is as its checkpoint has it.
    pub(super) fn loaded(&self) -> Event {
        let state = self.rest.as_ref().expect("it is at rest");
        Event::Loaded {
            pulse_next: state.ledger.pulse_next(),
            timestamp_last: state.ledger.timestamp_last(),
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.work.is_none() && self.queue.is_empty()
    }

    /// Waits for blocks that are being written; nothing else is left to do.
    pub(super) async fn finish_writes(&mut self) {
        self.writes.clone().finish().await;
    }

    /// Has an op executed after those before it.
    pub(super) fn push(&mut self, op: Op) {
        self.queue.push_back(op);
        self.next();
    }

    /// Begins the next op, if the state is at rest.
    pub(super) fn next(&mut self) {
        if self.work.is_some() {
            return;
        }
        if self.rest.is_none() {
            // It was given up, and another is on its way.
            return;
        }
        let Some(op) = self.queue.pop_front() else {
            return;
        };
        let mut state = self.rest.take().expect("it is at rest");
        self.work = Some(Box::pin(async move {
            let long = to_usize(op.header().size.get()) >= super::LONG_EXECUTION;
            if long || matches!(op, Op::Ahead(..)) {
                // The journal's next write reaches the device first.
                yield_once().await;
            }
            let outcome = state.execute(&op).await;
            (state, Step::Executed(op, outcome))
        }));
    }

    /// Begins what the op left to do; its replies are on their way, or wait for the journal.
    pub(super) fn finish(&mut self, header: PrepareHeader) {
        let mut state = self.rest.take().expect("it executed the op just now");
        self.work = Some(Box::pin(async move {
            let checkpoint = state.finish(&header).await;
            (state, Step::Finished(checkpoint))
        }));
    }

    /// Works, if there is work.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        let Some(work) = self.work.as_mut() else {
            // Blocks are written while nothing else is to do.
            if let Some(state) = &mut self.rest {
                state.grid.poll(context);
            }
            return Poll::Pending;
        };
        let Poll::Ready((state, step)) = work.as_mut().poll(context) else {
            return Poll::Pending;
        };
        self.work = None;
        self.room = state.room();
        // Ahead of its use, so that whoever asks for more finds it.
        let _full = self.extent.reserve(self.room.blocks_needed);
        self.rest = Some(state);
        Poll::Ready(step)
    }
}

impl<I: Io> Admission for Commit<'_, I> {
    fn admits(&self, events: u64, events_waiting: u64) -> bool {
        let events = events + events_waiting;
        if events > self.room.memory {
            tracing::error!(
                used = self.room.memory_used,
                "the memory limit is reached: requests that create are refused, queries are \
                 served; start with a greater --limit-memory"
            );
            return false;
        }
        let blocks = self.room.blocks_needed.saturating_add(blocks_of(events));
        match self.extent.reserve(blocks) {
            Ok(()) => true,
            Err(Full::File) => {
                tracing::error!(
                    "the data file has reached its size limit: requests that create are refused, \
                     queries are served; format a file with a greater --limit-storage"
                );
                false
            }
            Err(Full::Disk) => {
                tracing::error!(
                    "the disk is full: requests that create are refused, queries are served; make \
                     room on the filesystem of the data file, and the server goes on by itself"
                );
                false
            }
        }
    }
}
