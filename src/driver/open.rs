//! From a data file to a replica that serves: superblock, checkpoint, journal, replay.

use super::checkpoint::Checkpointed;
use super::commit::State;
use super::journal::{HeaderRing, Journal, mend_journal, read_journal, read_prepare};
use super::scrub::{Durable, SharedDurable};
use super::superblock::Keeper;
use super::{RunOptions, superblock};
use crate::constants;
use crate::grid::{BlockStore, Damage, Grid};
use crate::io::{Io, Storage, once_more};
use crate::ledger::catalog::table;
use crate::ledger::{Ledger, LedgerOptions};
use crate::lsm::Chunk;
use crate::stdx::marks::Mark;
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::vsr::journal::{recover_cluster, recover_solo};
use crate::vsr::log::{Entry, Log};
use crate::vsr::members::Members;
use crate::vsr::replica::Start;
use crate::vsr::sessions::{SessionRecord, Sessions, SharedSessions};
use crate::vsr::{FatalReason, Op, Releases, Replica};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use storage_format::{
    BlockHeader, Checksum, Geometry, ManifestRecord, PrepareHeader, ReplySlotHeader, SECTOR_SIZE,
    Superblock, checksum,
};
use zerocopy::FromBytes;

/// Prepares that are read ahead of their execution.
const REPLAY_READS_MAX: usize = 4;

/// Opens the data file: on success every acknowledged op is executed again or part of the
/// checkpoint, and the view is a new one, durable.
pub(super) async fn open<'a, I: Io>(
    io: &'a I,
    options: &RunOptions,
) -> Result<(Box<State<'a, I>>, Replica, HeaderRing), FatalReason> {
    let (superblock, stale) = superblock::read(io.storage()).await?;
    let members = check_identity(io, &superblock, options)?;
    let geometry = superblock.geometry;
    let keeper = Keeper::new(superblock);
    let sessions = Sessions::new(geometry.session_count_max.get());
    let mut state = empty_state(
        io,
        options,
        Rc::clone(&keeper),
        Rc::new(RefCell::new(sessions)),
        (
            Rc::new(Cell::new(Durable::of(&superblock))),
            Damage::default(),
        ),
    );
    let damage = state.grid.damage();
    let journal = read_journal(io, &superblock).await;
    let (ring, start) = if superblock.is_solo() {
        let load = Box::pin(load(&mut state, options.memory_limit));
        unless_damaged(&damage, load).await??;
        open_solo(&mut state, &journal, &stale, options.releases).await?
    } else {
        open_one_of_several(&state, &journal, &stale, options.releases).await?
    };
    let sessions = Rc::clone(&state.sessions);
    let nonce = u128::from(io.realtime()) << 64 | u128::from(io.monotonic());
    let replica = Replica::new(&keeper.current(), members, start, sessions, nonce);
    Ok((state, replica, ring))
}

/// A state whose checkpoint is not loaded yet.
pub(super) fn empty_state<'a, I: Io>(
    io: &'a I,
    options: &RunOptions,
    superblock: Rc<Keeper>,
    sessions: SharedSessions,
    (durable, damage): (SharedDurable, Damage),
) -> Box<State<'a, I>> {
    let ledger = Ledger::new(LedgerOptions {
        memory_limit: options.memory_limit,
        account_cache_size: options.account_cache_size,
    });
    let current = *superblock.current();
    Box::new(State {
        io,
        geometry: current.geometry,
        superblock,
        ledger,
        grid: Grid::with_damage(io, &current, options.cache_size, damage),
        sessions,
        checkpointed: Checkpointed::default(),
        durable,
    })
}

/// Loads the checkpoint into an empty state.
pub(super) async fn load<I: Io>(
    state: &mut State<'_, I>,
    memory_limit: u64,
) -> Result<(), FatalReason> {
    load_checkpoint(state).await?;
    if !state.superblock.is_solo() {
        // What was written later is made again when the log is executed.
        load_replies(state.io, &state.geometry, &state.sessions).await;
    }
    let needed = state.ledger.memory_used();
    if needed > memory_limit {
        return Err(FatalReason::MemoryLimit {
            needed,
            limit: memory_limit,
        });
    }
    Ok(())
}

/// Alone: all that the journal has beyond the checkpoint is committed, and is executed again; the view is
/// a new one.
async fn open_solo<I: Io>(
    state: &mut State<'_, I>,
    journal: &Journal,
    stale: &[usize],
    releases: Releases,
) -> Result<(HeaderRing, Start), FatalReason> {
    let io = state.io;
    let superblock = *state.superblock.current();
    let recovered = recover_solo(&journal.headers, &journal.prepares, &superblock.checkpoint)?;
    let ring = mend_journal(io, &superblock, journal, &recovered.decisions).await;
    if !planted(Bug::LeaveStaleCopies) {
        superblock::mend(io.storage(), &superblock, stale).await;
    }
    let view = superblock.view.get() + 1;
    let next = |next: &mut Superblock| {
        next.view = view.into();
        next.log_view = view.into();
        next.commit_max = recovered.head.op;
    };
    state.superblock.update(io.storage(), next).await;
    tracing::info!(
        checkpoint = superblock.checkpoint.op.get(),
        head = recovered.head.op.get(),
        view,
        "journal recovered"
    );
    let damage = state.grid.damage();
    unless_damaged(&damage, Box::pin(replay(state, &recovered.log))).await??;
    load_replies(io, &superblock.geometry, &state.sessions).await;
    for session in state.sessions.borrow().iter() {
        if session.reply.is_none() {
            let client = session.record.reply.client.get();
            tracing::error!(%client, "a stored reply is damaged: its client is evicted if it asks \
                                     for it again");
        }
    }
    let slots: Vec<Entry> = ring.headers.iter().map(Entry::durable).collect();
    let start = Start {
        log: Log::new(&slots, &recovered.head),
        certain: true,
        executed: recovered.head,
        releases,
    };
    Ok((ring, start))
}

/// With others, or as a standby: what the journal has beyond the checkpoint is executed again when it is
/// known to be committed. Replies that the checkpoint did not write are made again by that.
async fn open_one_of_several<I: Io>(
    state: &State<'_, I>,
    journal: &Journal,
    stale: &[usize],
    releases: Releases,
) -> Result<(HeaderRing, Start), FatalReason> {
    let io = state.io;
    let superblock = *state.superblock.current();
    let recovered = recover_cluster(&journal.headers, &journal.prepares, &superblock)?;
    let ring = mend_journal(io, &superblock, journal, &recovered.decisions).await;
    if !planted(Bug::LeaveStaleCopies) {
        superblock::mend(io.storage(), &superblock, stale).await;
    }
    tracing::info!(
        checkpoint = superblock.checkpoint.op.get(),
        head = recovered.log.head().op.get(),
        view = superblock.view.get(),
        certain = recovered.certain,
        "journal recovered"
    );
    let start = Start {
        log: recovered.log,
        certain: recovered.certain,
        executed: superblock.checkpoint,
        releases,
    };
    Ok((ring, start))
}

/// Executes what the journal holds beyond the checkpoint; the next prepares are read meanwhile.
async fn replay<I: Io>(state: &mut State<'_, I>, log: &[PrepareHeader]) -> Result<(), FatalReason> {
    let (io, geometry) = (state.io, state.geometry);
    let reads = log.iter().map(|header| async move {
        let op = header.op.get();
        let read = read_prepare(io, &geometry, header).await;
        read.ok_or(FatalReason::JournalGap { op })
    });
    let mut reads = stream::iter(reads).buffered(REPLAY_READS_MAX);
    while let Some(prepare) = reads.next().await {
        let op = Op::Written(prepare?);
        drop(state.execute(&op).await);
        let _checkpoint: bool = state.finish(op.header()).await;
    }
    Ok(())
}

/// Waits for `work`, unless it needs a block that cannot be read.
async fn unless_damaged<T>(
    damage: &Damage,
    mut work: Pin<Box<dyn Future<Output = T> + '_>>,
) -> Result<T, FatalReason> {
    std::future::poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => match damage.found() {
            Some((address, error)) => Poll::Ready(Err(FatalReason::Block { address, error })),
            None => Poll::Pending,
        },
    })
    .await
}

/// Whether the file is the one that is asked for, and who belongs to its cluster.
fn check_identity<I: Io>(
    io: &I,
    superblock: &Superblock,
    options: &RunOptions,
) -> Result<Members, FatalReason> {
    if !planted(Bug::OpenAnyRelease) {
        options.releases.check(superblock.release.get())?;
    }
    let found = superblock.cluster.get();
    if let Some(expected) = options.cluster
        && expected != found
    {
        return Err(FatalReason::Cluster { expected, found });
    }
    if let Some(expected) = options.replica
        && expected != superblock.replica
    {
        return Err(FatalReason::Replica {
            expected,
            found: superblock.replica,
        });
    }
    let members = Members::of_count(superblock, options.member_count)?;
    let (expected, found) = (superblock.geometry.grid_offset(), io.storage().size());
    if found < expected {
        return Err(FatalReason::Size { expected, found });
    }
    if to_usize(superblock.geometry.block_size.get()) != constants::BLOCK_SIZE {
        let what = format!("blocks of {} bytes", superblock.geometry.block_size.get());
        return Err(FatalReason::Checkpoint { what });
    }
    if to_usize(superblock.geometry.message_size_max.get()) != constants::MESSAGE_SIZE_MAX {
        let size = superblock.geometry.message_size_max.get();
        let what = format!("messages of {size} bytes");
        return Err(FatalReason::Checkpoint { what });
    }
    Ok(members)
}

/// Reads the manifest, and restores what it names.
async fn load_checkpoint<I: Io>(state: &mut State<'_, I>) -> Result<(), FatalReason> {
    let superblock = *state.superblock.current();
    if superblock.checkpoint.op.get() == 0 {
        return Ok(());
    }
    let mut manifest = Vec::new();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 {
        state
            .grid
            .free
            .restore(next.address.get())
            .map_err(confused)?;
        let block = state.grid.read(&next).await;
        let (header, _) = BlockHeader::read_from_prefix(&block).expect("a block has a header");
        manifest.extend_from_slice(&block[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())]);
        state.checkpointed.manifest.push(next);
        next = header.next;
    }
    let mut count = 0;
    for record in storage_format::manifest::blocks(&manifest) {
        let address = record.block.address.get();
        state.grid.free.restore(address).map_err(confused)?;
        count += 1;
        if record.tag.table == table::SESSIONS {
            load_sessions(state, &record).await?;
        }
    }
    if count != superblock.checkpoint_block_count.get() {
        return Err(confused(
            "the manifest does not list as many blocks as the superblock says",
        ));
    }
    let restored = state
        .ledger
        .restore(&superblock.ledger_state, &manifest, &mut state.grid)
        .await;
    restored.map_err(|error| confused(&error.to_string()))
}

fn confused(what: &str) -> FatalReason {
    FatalReason::Checkpoint { what: what.into() }
}

async fn load_sessions<I: Io>(
    state: &mut State<'_, I>,
    record: &ManifestRecord,
) -> Result<(), FatalReason> {
    let block = state.grid.read(&record.block).await;
    let count = u64_to_usize(record.count.get());
    if count > Chunk::<SessionRecord>::CAPACITY {
        return Err(confused("a block of sessions has too many"));
    }
    for at in 0..count {
        let session = *Chunk::<SessionRecord>::record(&block, at);
        let restored = state.sessions.borrow_mut().restore(session);
        restored.map_err(confused)?;
    }
    state.checkpointed.sessions.push(record.block);
    Ok(())
}

/// Loads the stored replies of sessions that have none in memory.
async fn load_replies<I: Io>(io: &I, geometry: &Geometry, sessions: &SharedSessions) {
    let missing: Vec<SessionRecord> = sessions
        .borrow()
        .iter()
        .filter(|session| session.reply.is_none())
        .map(|session| session.record)
        .collect();
    for record in missing {
        let client = record.reply.client.get();
        match read_reply(io, geometry, &record).await {
            Some(frame) => sessions.borrow_mut().restore_reply(client, frame, true),
            None => tracing::debug!(%client, "a stored reply is not there"),
        }
    }
}

/// A stored reply, if it is whole. What makes no sense is read again.
pub(super) async fn read_reply<I: Io>(
    io: &I,
    geometry: &Geometry,
    record: &SessionRecord,
) -> Option<Bytes> {
    let read = async || read_reply_once(io, geometry, record).await;
    once_more(Mark::ReplyReadAgain, read).await
}

async fn read_reply_once<I: Io>(
    io: &I,
    geometry: &Geometry,
    record: &SessionRecord,
) -> Option<Bytes> {
    let offset = geometry.reply_offset(record.slot.get().into());
    let first = io
        .storage()
        .read(offset, SectorBuf::zeroed(SECTOR_SIZE))
        .await;
    let (header, _) = ReplySlotHeader::read_from_prefix(&first).ok()?;
    let of_session = header.client == record.reply.client && header.op == record.reply.op;
    if !header.valid() || !of_session || header.size > geometry.message_size_max {
        return None;
    }
    let size = to_usize(header.size.get());
    let buffer = SectorBuf::zeroed(size.next_multiple_of(SECTOR_SIZE).max(SECTOR_SIZE));
    let buffer = io
        .storage()
        .read(offset + to_u64(SECTOR_SIZE), buffer)
        .await;
    let frame = &buffer[..size];
    let checksum: Checksum = checksum(frame);
    (checksum == header.checksum_message).then(|| Bytes::copy_from_slice(frame))
}
