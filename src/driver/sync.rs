//! Views and checkpoints of other replicas: into the superblock, and what follows from that.

use super::commit::Commit;
use super::content;
use super::scrub::Durable;
use super::superblock::Keeper;
use super::{Done, Driver, open};
use crate::io::Io;
use crate::stdx::marks::{Mark, mark};
use crate::vsr::message::CheckpointState;
use crate::vsr::sessions::Sessions;
use crate::vsr::{Event, ViewState};
use std::rc::Rc;
use storage_format::{PrepareHeader, Superblock};

impl<I: Io> Driver<'_, I> {
    /// Gives the state up for a checkpoint of another replica; not while it may be writing the superblock
    /// or replies, nor while a block of the old checkpoint is being repaired: the new state may have another
    /// one there.
    pub(super) fn begin_sync(&mut self) {
        if self.sync.is_none() {
            return;
        }
        self.repair.pause(true);
        let still = self.commit.rests() || self.commit.damage.is_awaited();
        if !still || self.superblock.is_writing() || self.commit.damage.is_writing() {
            mark(Mark::SyncWaits);
            return;
        }
        let sync = self.sync.take().expect("it was there just now");
        let own = self.superblock.current().checkpoint.op.get();
        if own >= sync.0.op() {
            self.repair.pause(false);
            self.replica.handle(Event::SyncNeedless, &self.commit);
            if self.superblock.current().content_missing == 0 {
                // That may have come about while the sync was to begin.
                self.replica.handle(Event::ContentComplete, &self.commit);
            }
        } else {
            let damaged = self.commit.damage.wanted();
            let writes = self.commit.abandon();
            let keeper = Rc::clone(&self.superblock);
            let (listing, known) = (self.listing(), Rc::clone(&self.known));
            let take = async move {
                keeper.take();
                // They may be of blocks that the checkpoint has, too.
                writes.finish().await;
                known.keep(&listing, &keeper, &damaged).await;
                take_checkpoint(listing.io, &keeper, sync).await
            };
            self.works.push(Box::pin(take));
        }
    }

    /// Has the checkpoint in the superblock loaded into an empty state.
    pub(super) fn load(&mut self) {
        self.durable.set(Durable::of(&self.superblock.current()));
        // What was wanted of the checkpoint before.
        self.commit.damage.clear();
        self.repair.pause(false);
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
    pub(super) fn on_loaded(&mut self) {
        let loaded = self.commit.loaded();
        self.replica.handle(loaded, &self.commit);
        self.commit.next();
        if self.superblock.current().content_missing == 1 {
            let (superblock, known) = (Rc::clone(&self.superblock), Rc::clone(&self.known));
            let content = content::complete(self.listing(), superblock, known);
            self.content.push(Box::pin(content));
        }
    }
}

/// Makes the superblock name a view.
pub(super) async fn write_view<I: Io>(io: &I, superblock: Rc<Keeper>, view: ViewState) -> Done {
    let change = |next: &mut Superblock| set_view(next, &view);
    superblock.update(io.storage(), change).await;
    Done::ViewWritten
}

/// Has a checkpoint of another replica named by the superblock, with the view in which that is; the blocks
/// come later.
async fn take_checkpoint<I: Io>(
    io: &I,
    superblock: &Keeper,
    sync: Box<(CheckpointState, ViewState)>,
) -> Done {
    let (checkpoint, view) = *sync;
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

fn set_view(next: &mut Superblock, view: &ViewState) {
    if next.recovering == 1 {
        // It is the first view that this replica takes part in since its file was lost.
        next.recovering = 0;
        next.recovered_view = view.log_view.into();
    }
    // It is another one only if this file had nothing of a log yet.
    next.release = view.release.into();
    next.view = view.view.into();
    next.log_view = view.log_view.into();
    next.commit_max = next.commit_max.get().max(view.commit_max).into();
    next.view_headers.fill(PrepareHeader::zeroed());
    next.view_headers[..view.headers.len()].copy_from_slice(&view.headers);
}
