//! The loop that joins consensus, ledger and storage; generic over [`Io`].
//!
//! One task: it waits for a write, a frame, a timer or the state, hands that to the replica, and
//! carries out what the replica wants. Ops are executed one after the other, see `commit`.

mod checkpoint;
mod commit;
mod content;
mod format;
mod journal;
mod open;
mod repair;
pub mod scrub;
mod superblock;
mod sync;

pub use crate::ledger::ACCOUNT_CACHE_SIZE_MIN;
pub use format::{FormatOptions, format};
pub use superblock::read_superblock;

use crate::constants;
use crate::io::{Incoming, Io, Network};
use crate::stdx::to_u64;
use crate::vsr::message::CheckpointState;
use crate::vsr::sessions::SharedSessions;
use crate::vsr::{Effect, Event, FatalReason, Prepare, Releases, Replica, ViewState, Way};
use bytes::Bytes;
use commit::{Commit, State, Step};
use content::Known;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use journal::HeaderRing;
use repair::{BlockRepair, Repaired};
use scrub::{Listing, ScrubOptions, Scrubber, SharedDurable};
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use storage_format::{Geometry, PrepareHeader, Superblock};
use superblock::Keeper;

/// How to run a replica.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The cluster that the file has to belong to, if known.
    pub cluster: Option<u128>,
    /// The replica that the file has to belong to, if known.
    pub replica: Option<u8>,
    /// Members of the cluster: the replicas that the file names, and standbys.
    pub member_count: usize,
    /// Bytes that the ledger may take in memory, the cache of pages left out.
    pub memory_limit: u64,
    /// Bytes of them for accounts that were used lately; below [`ACCOUNT_CACHE_SIZE_MIN`] a batch may take
    /// more.
    pub account_cache_size: u64,
    /// Bytes of the cache of pages.
    pub cache_size: u64,
    /// How to look for damage in the background; `None` leaves it.
    pub scrub: Option<ScrubOptions>,
    /// The releases that the binary has.
    pub releases: Releases,
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
pub fn buffers_memory(superblock: &Superblock, cache_size: u64) -> u64 {
    let geometry = &superblock.geometry;
    let prepares = Replica::prepares_memory(superblock);
    let message = u64::from(geometry.message_size_max.get());
    // Stored replies under way at a checkpoint, and the reply that is being made.
    let replies = (to_u64(checkpoint::WRITES_MAX) + 2) * message;
    // The ring, and the log with two entries a slot.
    let headers = u64::from(geometry.journal_slot_count.get()) * 3 * 264;
    let grid = crate::grid::blocks::buffers_memory() + crate::grid::cache::bookkeeping(cache_size);
    prepares + replies + headers + grid + scrub::memory(geometry)
}

/// Opens the data file and serves clients until the network tells to shut down.
///
/// # Errors
/// When the data file cannot be used. Before it serves, nothing is written to it but journal headers
/// and a superblock of a later view.
pub async fn run<I: Io>(io: &I, options: &RunOptions) -> Result<(), FatalReason> {
    let (state, replica, headers) = open::open(io, options).await?;
    let mut driver = Driver::new(io, options, (state, replica, headers));
    let mut scrub = driver.scrub();
    loop {
        driver.carry_out()?;
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
            Wake::Step(step) => driver.on_step(step)?,
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
    /// Prepares that the scrubber found damaged.
    damaged: Rc<RefCell<Vec<PrepareHeader>>>,
    works: Works<'a>,
    /// The wait for blocks of a checkpoint that came from another replica; nobody waits for that.
    content: Works<'a>,
    /// Blocks that are known to be here.
    known: Rc<Known>,
    /// A checkpoint of another replica, to go on from.
    sync: Option<Box<(CheckpointState, ViewState)>>,
}

impl<'a, I: Io> Driver<'a, I> {
    fn new(
        io: &'a I,
        options: &'a RunOptions,
        (state, replica, headers): (Box<State<'a, I>>, Replica, HeaderRing),
    ) -> Self {
        let superblock = Rc::clone(&state.superblock);
        let (durable, sessions) = (Rc::clone(&state.durable), Rc::clone(&state.sessions));
        let (geometry, damage) = (state.geometry, state.grid.damage());
        let (alone, members) = (superblock.is_solo(), replica.members());
        let commit = match alone {
            true => Commit::new(state),
            false => Commit::loading(state, options.memory_limit),
        };
        let mut this = Self {
            io,
            options,
            geometry,
            replica,
            commit,
            repair: BlockRepair::new(io, (Rc::clone(&superblock), members), damage),
            superblock,
            headers: Rc::new(RefCell::new(headers)),
            durable,
            sessions,
            damaged: Rc::default(),
            works: FuturesUnordered::new(),
            content: FuturesUnordered::new(),
            known: Rc::default(),
            sync: None,
        };
        if alone {
            this.on_loaded();
        }
        this
    }

    /// Looks for damage, for ever.
    fn scrub(&self) -> Background<'a> {
        let Some(options) = self.options.scrub else {
            return Box::pin(std::future::pending());
        };
        let scrubber = Scrubber {
            options,
            superblock: Rc::clone(&self.superblock),
            listing: self.listing(),
            headers: Rc::clone(&self.headers),
            sessions: Rc::clone(&self.sessions),
            damaged: Rc::clone(&self.damaged),
        };
        Box::pin(scrubber.run())
    }

    fn listing(&self) -> Listing<'a, I> {
        let repairable = !self.superblock.is_solo();
        Listing {
            io: self.io,
            geometry: self.geometry,
            durable: Rc::clone(&self.durable),
            repair: repairable.then(|| self.commit.damage.clone()),
        }
    }

    fn observe(&mut self) {
        self.replica
            .observe(self.io.monotonic(), self.io.realtime());
    }

    /// Does what the replica wants.
    fn carry_out(&mut self) -> Result<(), FatalReason> {
        self.observe();
        for header in std::mem::take(&mut *self.damaged.borrow_mut()) {
            let damaged = Event::PrepareDamaged(Box::new(header));
            self.replica.handle(damaged, &self.commit);
        }
        if !self.commit.damage.is_awaited() {
            self.replica.misses_nothing();
        }
        self.replica.tick();
        self.repair.tick(self.io.monotonic());
        let io = self.io;
        while let Some(effect) = self.replica.poll_effect() {
            match effect {
                Effect::WritePrepare(prepare) => {
                    self.headers.borrow_mut().unsettle(prepare.header.op.get());
                    let write = journal::write_prepare(io, &self.geometry, prepare);
                    let write = write.map(Done::PrepareWritten);
                    self.works.push(Box::pin(write));
                }
                Effect::WriteHeaders(newer) => {
                    let write = self.headers.borrow_mut().write(io, &newer);
                    self.works
                        .push(Box::pin(write.map(|()| Done::HeadersWritten)));
                }
                Effect::WriteView(view) => {
                    let write = sync::write_view(io, Rc::clone(&self.superblock), view);
                    self.works.push(Box::pin(write));
                }
                Effect::Sync(sync) => self.sync = Some(sync),
                Effect::ReadPrepare(header) => {
                    let geometry = self.geometry;
                    self.works.push(Box::pin(async move {
                        let read = journal::read_prepare(io, &geometry, &header);
                        Done::PrepareRead(read.await)
                    }));
                }
                Effect::Send { to, frame } => send(io, to, frame),
                Effect::Execute(op) => self.commit.push(op),
                Effect::Stop(reason) => return Err(reason),
            }
        }
        self.begin_sync();
        Ok(())
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

    fn on_incoming(&mut self, incoming: Incoming) {
        let mut next = Some(incoming);
        for _ in 0..FRAMES_MAX {
            let Some(incoming) = next.take() else { break };
            // An answer to what this brings has to be of a time after it.
            self.observe();
            match incoming {
                Incoming::Frame { header, body, .. } if self.repair.is_concerned(&header) => {
                    if let Some(work) = self.repair.on_frame(&header, &body) {
                        self.works.push(Box::pin(work.map(Done::Block)));
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

    /// The state has come to rest. An op was executed: it is answered, if the journal has it, and what it
    /// left to do begins. Or that is done.
    fn on_step(&mut self, step: Step) -> Result<(), FatalReason> {
        match step {
            Step::Executed(op, outcome) => {
                let header = *op.header();
                let executed = Event::Executed(op, outcome);
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
            Step::Loaded(result) => {
                result?;
                self.on_loaded();
            }
        }
        Ok(())
    }

    /// Waits for what comes next. Journal and clients come before the state, which may be busy for
    /// long; it lets go now and then. After clients it has its turn, however many frames they send.
    async fn wait(&mut self, scrub: &mut Background<'_>) -> Wake {
        let (io, replica) = (self.io, &self.replica);
        let until_pulse = replica.until_pulse().unwrap_or(TIMER_MAX);
        let until_tick = replica.until_tick().unwrap_or(TIMER_MAX);
        let sleep_max = if replica.puts_off() { QUIET } else { TIMER_MAX };
        let sleep = until_pulse.min(until_tick).clamp(TIMER_MIN, sleep_max);
        let mut timer = pin!(io.sleep(sleep));
        let mut receive = pin!(io.network().receive());
        let room = replica.has_room();
        let alone = self.superblock.is_solo();
        let (works, content, commit) = (&mut self.works, &mut self.content, &mut self.commit);
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(Some(done)) = works.poll_next_unpin(cx) {
                return Poll::Ready(Wake::Done(done));
            }
            let first = std::mem::take(&mut commit.first);
            if first && let Poll::Ready(step) = commit.poll(cx) {
                return Poll::Ready(Wake::Step(step));
            }
            // Without room, frames stay in the network, which stops reading from the sockets.
            if room && let Poll::Ready(incoming) = receive.as_mut().poll(cx) {
                return Poll::Ready(Wake::Incoming(incoming));
            }
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wake::Timer);
            }
            // Not twice: when it lets go, what the journal was given goes to the device.
            if !first && let Poll::Ready(step) = commit.poll(cx) {
                return Poll::Ready(Wake::Step(step));
            }
            if alone && let Some((address, error)) = commit.damage.found() {
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

fn send<I: Io>(io: &I, to: Way, frame: Bytes) {
    match to {
        Way::Connection(connection) => io.network().send(connection, frame),
        Way::Peer(replica) => io.network().send_peer(replica, frame),
    }
}
