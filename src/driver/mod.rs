//! The loop that joins consensus, ledger and storage; generic over [`Io`].
//!
//! One task: it waits for a write, a frame, a timer or the state, hands that to the replica, and
//! carries out what the replica wants. Ops are executed one after the other, see `commit`.

mod checkpoint;
mod commit;
mod format;
mod open;
mod repair;
pub mod scrub;
mod superblock;

pub use crate::ledger::ACCOUNT_CACHE_SIZE_MIN;
pub use checkpoint::checkpoint_interval;
pub use format::{FormatOptions, format};
pub use superblock::read_superblock;

use crate::constants;
use crate::grid::Writes;
use crate::io::{Incoming, Io, Network, Storage, write_unless};
use crate::stdx::SectorBuf;
use crate::stdx::planted::Bug;
use crate::vsr::message::CheckpointState;
use crate::vsr::sessions::{Sessions, SharedSessions};
use crate::vsr::{Effect, Event, FatalReason, Prepare, Replica, ViewState, Way};
use bytes::Bytes;
use commit::{Commit, Step};
use futures_util::stream::{FuturesUnordered, StreamExt};
use repair::{BlockRepair, Repaired};
use scrub::{Durable, Listing, ScrubOptions, Scrubber, SharedDurable};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use storage_format::{Geometry, PrepareHeader, SECTOR_SIZE, Superblock};
use superblock::Keeper;
use zerocopy::IntoBytes;

/// How to run a replica.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The cluster that the file has to belong to, if known.
    pub cluster: Option<u128>,
    /// The replica that the file has to belong to, if known.
    pub replica: Option<u8>,
    /// The number of replicas that the file has to name.
    pub replica_count: usize,
    /// Bytes that the ledger may take in memory, the cache of pages left out.
    pub memory_limit: u64,
    /// Bytes of them for accounts that were used lately; below [`ACCOUNT_CACHE_SIZE_MIN`] a batch may take
    /// more.
    pub account_cache_size: u64,
    /// Bytes of the cache of pages.
    pub cache_size: u64,
    /// How to look for damage in the background; `None` leaves it.
    pub scrub: Option<ScrubOptions>,
}

/// A write or read for the replica that has completed.
enum Done {
    PrepareWritten(Prepare),
    HeadersWritten,
    ViewWritten,
    PrepareRead(Option<Prepare>),
    Block(Repaired),
    CheckpointTaken,
    ContentComplete(u64),
}

/// What goes on for ever.
type Background<'a> = Pin<Box<dyn Future<Output = Infallible> + 'a>>;
type Works<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + 'a>>>;

/// What the loop was woken by.
enum Wake {
    Done(Done),
    Incoming(Incoming),
    Timer,
    Step(Step),
    /// A block cannot be read.
    Damaged(FatalReason),
}

/// The longest that the loop sleeps when no pending transfer expires.
const TIMER_MAX: u64 = constants::NANOSECONDS;
/// How long nothing may happen before what was put off is done.
const QUIET: u64 = 1_000_000;
/// The shortest: expiry is not more precise than this.
const TIMER_MIN: u64 = 1_000_000;

/// The smallest cache of pages: an op never needs more at a time.
pub const CACHE_SIZE_MIN: u64 = if cfg!(madsim) { 640 << 10 } else { 16 << 20 };

/// Frames that are taken before the state has its turn.
const FRAMES_MAX: usize = 256;

/// Bytes of a prepare that takes longer to execute than a write takes to be submitted.
const LONG_EXECUTION: usize = 32 * 1024;

/// Bytes that the buffers of the journal, of checkpoints and of requests in flight take at most, and
/// what a cache of `cache_size` takes beside its pages.
#[must_use]
pub fn buffers_memory(geometry: &Geometry, replica_count: u8, cache_size: u64) -> u64 {
    let prepares = Replica::buffer_count(replica_count);
    let slots = prepares * u64::from(geometry.journal_slot_size.get());
    let message = u64::from(geometry.message_size_max.get());
    // Stored replies under way at a checkpoint, and the reply that is being made.
    let replies = (crate::stdx::to_u64(checkpoint::WRITES_MAX) + 2) * message;
    // The ring, and the log with two entries a slot.
    let headers = u64::from(geometry.journal_slot_count.get()) * 3 * 264;
    let grid = crate::grid::blocks::buffers_memory() + crate::grid::cache::bookkeeping(cache_size);
    slots + replies + headers + grid + scrub::memory(geometry)
}

/// Opens the data file and serves clients until the network tells to shut down.
///
/// # Errors
/// When the data file cannot be used. Before it serves, nothing is written to it but journal headers
/// and a superblock of a later view.
pub async fn run<I: Io>(io: &I, options: &RunOptions) -> Result<(), FatalReason> {
    let (state, replica, headers) = open::open(io, options).await?;
    let superblock = Rc::clone(&state.superblock);
    let several = superblock.current().replica_count > 1;
    let (durable, sessions) = (Rc::clone(&state.durable), Rc::clone(&state.sessions));
    let headers = Rc::new(RefCell::new(headers));
    let geometry = state.geometry();
    let damage = state.grid.damage();
    let listing = || Listing {
        io,
        geometry,
        durable: Rc::clone(&durable),
        repair: several.then(|| damage.clone()),
    };
    let mut scrub: Background<'_> = match options.scrub {
        Some(options) => Box::pin(
            Scrubber {
                io,
                options,
                geometry,
                superblock: Rc::clone(&superblock),
                listing: listing(),
                headers: Rc::clone(&headers),
                sessions: Rc::clone(&sessions),
            }
            .run(),
        ),
        None => Box::pin(std::future::pending()),
    };
    let mut driver = Driver {
        io,
        options,
        geometry,
        replica,
        commit: if several {
            Commit::loading(state, options.memory_limit)
        } else {
            Commit::new(state)
        },
        repair: BlockRepair::new(io, Rc::clone(&superblock), damage.clone()),
        superblock,
        headers,
        durable: Rc::clone(&durable),
        sessions,
        works: FuturesUnordered::new(),
        content: FuturesUnordered::new(),
        sync: None,
    };
    if !several {
        let loaded = driver.commit.loaded();
        driver.replica.handle(loaded, &driver.commit);
    }
    loop {
        driver.carry_out();
        if driver.replica.is_shut_down() && driver.commit.is_idle() {
            // Whoever opens the file next may write the same blocks.
            while driver.works.next().await.is_some() {}
            driver.commit.finish_writes().await;
            return Ok(());
        }
        match driver.wait(&mut scrub).await {
            Wake::Done(done) => driver.on_done(done),
            Wake::Incoming(incoming) => driver.on_incoming(incoming),
            Wake::Timer => driver.replica.handle(Event::Quiet, &driver.commit),
            Wake::Step(Step::Loaded(result)) => {
                result?;
                driver.on_loaded(listing());
            }
            Wake::Step(step) => driver.on_step(step),
            Wake::Damaged(reason) => return Err(reason),
        }
    }
}

/// What the loop works on.
struct Driver<'a, I: Io> {
    io: &'a I,
    options: &'a RunOptions,
    geometry: Geometry,
    replica: Replica,
    commit: Commit<'a, I>,
    repair: BlockRepair<'a, I>,
    superblock: Rc<Keeper>,
    headers: Rc<RefCell<HeaderRing>>,
    durable: SharedDurable,
    sessions: SharedSessions,
    works: Works<'a>,
    /// The wait for blocks of a checkpoint that came from another replica; nobody waits for that.
    content: Works<'a>,
    /// A checkpoint of another replica, to go on from.
    sync: Option<Box<(CheckpointState, ViewState)>>,
}

impl<'a, I: Io> Driver<'a, I> {
    /// Does what the replica wants.
    fn carry_out(&mut self) {
        self.replica.tick(self.io.monotonic());
        self.repair.tick(self.io.monotonic());
        let io = self.io;
        while let Some(effect) = self.replica.poll_effect(io.realtime()) {
            match effect {
                Effect::WritePrepare(prepare) => {
                    self.headers.borrow_mut().unsettle(prepare.header.op.get());
                    let write = write_prepare(io, &self.geometry, prepare);
                    self.works.push(Box::pin(write));
                }
                Effect::WriteHeaders(newer) => {
                    let write = self.headers.borrow_mut().write(io, &newer);
                    self.works.push(Box::pin(write));
                }
                Effect::WriteView(view) => {
                    let write = write_view(io, Rc::clone(&self.superblock), view);
                    self.works.push(Box::pin(write));
                }
                Effect::Sync(sync) => self.sync = Some(sync),
                Effect::ReadPrepare(header) => {
                    self.works
                        .push(Box::pin(read_prepare(io, self.geometry, header)));
                }
                Effect::Send { to, frame } => send(io, to, frame),
                Effect::Execute(prepare) => self.commit.push(prepare),
            }
        }
        self.begin_sync();
    }

    /// Gives the state up for a checkpoint of another replica; not while it may be writing the superblock
    /// or replies.
    fn begin_sync(&mut self) {
        let still = self.commit.rests() || self.commit.damage.is_awaited();
        if !still || self.superblock.is_writing() {
            return;
        }
        let Some(sync) = self.sync.take() else { return };
        let own = self.superblock.current().checkpoint.op.get();
        if own >= sync.0.op() {
            self.replica.handle(Event::SyncNeedless, &self.commit);
        } else {
            let writes = self.commit.abandon();
            let keeper = Rc::clone(&self.superblock);
            let take = take_checkpoint(self.io, keeper, writes, sync);
            self.works.push(Box::pin(take));
        }
    }

    fn on_done(&mut self, done: Done) {
        let event = match done {
            Done::PrepareWritten(prepare) => Event::PrepareDurable(prepare),
            Done::HeadersWritten => Event::HeadersDurable,
            Done::ViewWritten => Event::ViewDurable,
            Done::PrepareRead(prepare) => Event::PrepareRead(prepare),
            Done::CheckpointTaken => {
                self.load();
                Event::Synced
            }
            Done::ContentComplete(op) => {
                // Unless another checkpoint was taken meanwhile.
                if self.superblock.current().content_missing == 1 || self.sync.is_some() {
                    return;
                }
                tracing::info!(op, "all blocks of the checkpoint are here");
                Event::ContentComplete
            }
            Done::Block(done) => return self.repair.on_done(done),
        };
        self.replica.handle(event, &self.commit);
    }

    /// Has the checkpoint in the superblock loaded into an empty state.
    fn load(&mut self) {
        self.durable.set(Durable::of(&self.superblock.current()));
        // What was wanted of the checkpoint before.
        self.commit.damage.clear();
        let empty = Sessions::new(self.geometry.session_count_max.get());
        *self.sessions.borrow_mut() = empty;
        let state = open::empty_state(
            self.io,
            self.options,
            Rc::clone(&self.superblock),
            Rc::clone(&self.sessions),
            (Rc::clone(&self.durable), self.commit.damage.clone()),
        );
        self.commit = Commit::loading(state, self.options.memory_limit);
    }

    /// The ledger is as the checkpoint has it; blocks that no one has asked for yet may be missing.
    fn on_loaded(&mut self, listing: Listing<'a, I>) {
        let loaded = self.commit.loaded();
        self.replica.handle(loaded, &self.commit);
        self.commit.next();
        if self.superblock.current().content_missing == 1 {
            let keeper = Rc::clone(&self.superblock);
            self.content
                .push(Box::pin(complete_content(listing, keeper)));
        }
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let mut next = Some(incoming);
        for _ in 0..FRAMES_MAX {
            let Some(incoming) = next.take() else { break };
            match incoming {
                Incoming::Frame { header, body, .. } if self.repair.is_concerned(&header) => {
                    if let Some(work) = self.repair.on_frame(&header, &body) {
                        self.works.push(Box::pin(async { Done::Block(work.await) }));
                    }
                }
                Incoming::Frame { .. } | Incoming::Shutdown => {
                    self.replica.handle(Event::Incoming(incoming), &self.commit);
                }
            }
            if self.replica.has_room() {
                next = self.io.network().try_receive();
            }
        }
        self.commit.first = true;
    }

    /// An op was executed: it is answered, and what it left to do begins. Or that is done.
    fn on_step(&mut self, step: Step) {
        match step {
            Step::Executed {
                prepare,
                replies,
                pulse_next,
            } => {
                let header = prepare.header;
                let executed = Event::Executed {
                    prepare,
                    replies,
                    pulse_next,
                };
                self.replica.handle(executed, &self.commit);
                while let Some((to, frame)) = self.replica.poll_send() {
                    send(self.io, to, frame);
                }
                self.commit.finish(header);
            }
            Step::Finished(checkpoint) => {
                if checkpoint {
                    let checkpoint = CheckpointState::of(&self.superblock.current());
                    let event = Event::Checkpointed(Box::new(checkpoint));
                    self.replica.handle(event, &self.commit);
                }
                self.commit.next();
            }
            Step::Loaded(_) => unreachable!("the loop takes it"),
        }
    }

    /// Waits for what comes next. Journal and clients come before the state, which may be busy for
    /// long; it lets go now and then. After clients it has its turn, however many frames they send.
    async fn wait(&mut self, scrub: &mut Background<'_>) -> Wake {
        let (io, replica) = (self.io, &self.replica);
        let until_pulse = replica.pulse_next().saturating_sub(io.realtime());
        let until_tick = replica.until_tick().unwrap_or(TIMER_MAX);
        let sleep_max = if replica.puts_off() { QUIET } else { TIMER_MAX };
        let sleep = until_pulse.min(until_tick).clamp(TIMER_MIN, sleep_max);
        let mut timer = pin!(io.sleep(sleep));
        let mut receive = pin!(io.network().receive());
        let room = replica.has_room();
        let several = self.superblock.current().replica_count > 1;
        let (works, content, commit) = (&mut self.works, &mut self.content, &mut self.commit);
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(Some(done)) = works.poll_next_unpin(cx) {
                return Poll::Ready(Wake::Done(done));
            }
            if std::mem::take(&mut commit.first)
                && let Poll::Ready(step) = commit.poll(cx)
            {
                return Poll::Ready(Wake::Step(step));
            }
            // Without room, frames stay in the network, which stops reading from the sockets.
            if room && let Poll::Ready(incoming) = receive.as_mut().poll(cx) {
                return Poll::Ready(Wake::Incoming(incoming));
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wake::Timer);
            }
            if let Poll::Ready(step) = commit.poll(cx) {
                return Poll::Ready(Wake::Step(step));
            }
            if !several && let Some((address, error)) = commit.damage.found() {
                return Poll::Ready(Wake::Damaged(FatalReason::Block { address, error }));
            }
            if let Poll::Ready(Some(done)) = content.poll_next_unpin(cx) {
                return Poll::Ready(Wake::Done(done));
            }
            // Last, when nothing else is to be done. It never ends.
            scrub.as_mut().poll(cx).map(|never| match never {})
        })
        .await
    }
}

/// Has a checkpoint of another replica named by the superblock, with the view in which that is; the blocks
/// come later.
async fn take_checkpoint<I: Io>(
    io: &I,
    superblock: Rc<Keeper>,
    writes: Writes<'_>,
    sync: Box<(CheckpointState, ViewState)>,
) -> Done {
    let (checkpoint, view) = *sync;
    superblock.take();
    // They may be of blocks that the checkpoint has, too.
    writes.finish().await;
    let change = |next: &mut Superblock| {
        next.checkpoint = checkpoint.header;
        next.checkpoint_index = checkpoint.index;
        next.checkpoint_block_count = checkpoint.block_count;
        next.ledger_state = checkpoint.ledger_state;
        next.content_missing = 1;
        set_view(next, &view);
    };
    superblock.update(io.storage(), change).await;
    Done::CheckpointTaken
}

/// Waits for the blocks of a checkpoint that came from another replica.
async fn complete_content<I: Io>(listing: Listing<'_, I>, superblock: Rc<Keeper>) -> Done {
    let op = superblock.current().checkpoint.op.get();
    let taken = superblock.taken();
    listing.complete().await;
    let change = |next: &mut Superblock| {
        // Another may have been taken meanwhile, whose blocks are not here yet.
        if superblock.taken() == taken {
            next.content_missing = 0;
        }
    };
    superblock.update(listing.io.storage(), change).await;
    Done::ContentComplete(op)
}

fn set_view(next: &mut Superblock, view: &ViewState) {
    next.view = view.view.into();
    next.log_view = view.log_view.into();
    next.commit_max = next.commit_max.get().max(view.commit_max).into();
    next.view_headers.fill(PrepareHeader::zeroed());
    next.view_headers[..view.headers.len()].copy_from_slice(&view.headers);
}

fn send<I: Io>(io: &I, to: Way, frame: Bytes) {
    match to {
        Way::Connection(connection) => io.network().send(connection, frame),
        Way::Peer(replica) => io.network().send_peer(replica, frame),
    }
}

fn write_prepare<'a, I: Io>(
    io: &'a I,
    geometry: &Geometry,
    prepare: Prepare,
) -> impl Future<Output = Done> + use<'a, I> {
    let offset = Replica::prepare_offset(geometry, prepare.header.op.get());
    let size = prepare.size().next_multiple_of(SECTOR_SIZE);
    async move {
        let bug = Bug::AcknowledgeBeforeWrite;
        let buffer = write_unless(bug, io, offset, prepare.buffer, size).await;
        Done::PrepareWritten(Prepare {
            header: prepare.header,
            buffer,
        })
    }
}

/// Makes the superblock name a view.
async fn write_view<I: Io>(io: &I, superblock: Rc<Keeper>, view: ViewState) -> Done {
    let change = |next: &mut Superblock| set_view(next, &view);
    superblock.update(io.storage(), change).await;
    Done::ViewWritten
}

async fn read_prepare<I: Io>(io: &I, geometry: Geometry, header: PrepareHeader) -> Done {
    let buffer = open::read_body(io, &geometry, &header).await;
    Done::PrepareRead(buffer.map(|buffer| Prepare { header, buffer }))
}

/// The redundant header ring, as it is in the data file.
#[derive(Debug)]
struct HeaderRing {
    offset: u64,
    headers: Vec<PrepareHeader>,
    /// Slots whose prepare was written since their header was, or was not sound at the start.
    unsettled: BTreeSet<usize>,
}

impl HeaderRing {
    /// The slot of `op` gets another prepare; its header follows.
    fn unsettle(&mut self, op: u64) {
        let slot = crate::stdx::u64_to_usize(op % crate::stdx::to_u64(self.headers.len()));
        self.unsettled.insert(slot);
    }

    /// Writes the sector that holds the slots of all of `newer`.
    fn write<'a, I: Io>(
        &mut self,
        io: &'a I,
        newer: &[PrepareHeader],
    ) -> impl Future<Output = Done> + use<'a, I> {
        let slot_count = crate::stdx::to_u64(self.headers.len());
        let mut slot = 0;
        for header in newer {
            slot = crate::stdx::u64_to_usize(header.op.get() % slot_count);
            self.headers[slot] = *header;
            self.unsettled.remove(&slot);
        }
        let (offset, buffer) = self.sector(slot);
        async move {
            drop(io.storage().write(offset, buffer, SECTOR_SIZE).await);
            Done::HeadersWritten
        }
    }

    fn sector(&self, slot: usize) -> (u64, SectorBuf) {
        let per_sector = storage_format::geometry::HEADERS_PER_SECTOR;
        let first = slot - slot % per_sector;
        let mut buffer = SectorBuf::zeroed(SECTOR_SIZE);
        let headers = &self.headers[first..first + per_sector];
        buffer.copy_from_slice(headers.as_bytes());
        (
            self.offset + crate::stdx::to_u64(first * constants::HEADER_SIZE),
            buffer,
        )
    }
}
