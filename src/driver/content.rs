//! The blocks of a checkpoint that came from another replica: those that are missing here are asked for, until
//! all are here.
//!
//! Most of them were here before. A block is *known* if it was read and found whole, or is of a checkpoint that was
//! whole here, as long as checkpoints that are durable here reference it: until then nothing else is written in
//! its place. What is known is not read again when this replica goes on from yet another checkpoint, so that it
//! comes to an end although others are made faster than all blocks could be read. A known block may rot like any other
//! block of a checkpoint: whoever needs it, or the scrubber, finds that.

use super::Done;
use super::scrub::{Listing, Walked};
use super::superblock::Keeper;
use crate::constants;
use crate::grid::Damage;
use crate::io::Io;
use crate::stdx::SectorBuf;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use storage_format::block::BlockError;
use storage_format::{BlockReference, Checksum, Superblock};

/// Nanoseconds between two looks at a checkpoint whose blocks are on their way.
const PAUSE: u64 = 50_000_000;
/// Damaged blocks that are looked up in the manifest at the same time.
const LOOKED_UP_MAX: usize = 16;

/// Blocks that are known: address and identity.
#[derive(Debug, Default)]
pub(super) struct Known(RefCell<BTreeMap<u64, Checksum>>);

impl Known {
    fn has(&self, block: &BlockReference) -> bool {
        self.0.borrow().get(&block.address.get()) == Some(&block.checksum)
    }

    fn add(&self, block: &BlockReference) {
        let _ = (self.0.borrow_mut()).insert(block.address.get(), block.checksum);
    }

    fn forget(&self, block: &BlockReference) {
        let _ = self.0.borrow_mut().remove(&block.address.get());
    }

    /// The checkpoint that is durable here is about to be given up for another: what it does not reference is
    /// not known any more, nor what was found damaged.
    pub(super) async fn keep<I: Io>(
        &self,
        listing: &Listing<'_, I>,
        superblock: &Keeper,
        damaged: &[BlockReference],
    ) {
        let whole = superblock.current().content_missing == 0 || planted(Bug::TrustMissing);
        let mut kept = BTreeMap::new();
        let mut last = 0;
        let walked = listing.walk(|block| {
            last = block.address.get();
            if (whole || self.has(block)) && !damaged.contains(block) {
                let _ = kept.insert(block.address.get(), block.checksum);
            }
        });
        if walked.await != Walked::Whole {
            // It is of the manifest, and cannot be read.
            let _ = kept.remove(&last);
        }
        *self.0.borrow_mut() = kept;
    }
}

/// Waits for the blocks of the checkpoint that was just taken from another replica.
pub(super) fn complete<'a, I: Io>(
    listing: Listing<'a, I>,
    superblock: Rc<Keeper>,
    known: Rc<Known>,
) -> impl Future<Output = Done> + use<'a, I> {
    // Not when it is polled first: another may have been taken by then, and the blocks of the old one are
    // what it would find complete.
    let op = superblock.current().checkpoint.op.get();
    let taken = superblock.taken();
    async move {
        let is_current = || superblock.taken() == taken;
        if are_here(&listing, &known, is_current).await {
            let change = |next: &mut Superblock| {
                // Another may have been taken meanwhile, whose blocks are not here yet.
                if is_current() {
                    next.content_missing = 0;
                }
            };
            superblock.update(listing.io.storage(), change).await;
            if is_current() {
                // All are.
                known.0.borrow_mut().clear();
            }
        }
        Done::ContentComplete(op)
    }
}

/// Waits until all blocks of the newest checkpoint are here and whole, or until that means nothing any more.
async fn are_here<I: Io>(
    listing: &Listing<'_, I>,
    known: &Known,
    is_current: impl Fn() -> bool,
) -> bool {
    loop {
        let mut blocks = Vec::new();
        let walked = listing.walk(|block| blocks.push(*block)).await;
        let mut missing = walked != Walked::Whole;
        if let (true, Some(last)) = (missing, blocks.last()) {
            // It is of the manifest, and has rotted since it was found whole.
            known.forget(last);
        }
        let mut damaged = Vec::new();
        let mut buffer = SectorBuf::zeroed(constants::BLOCK_SIZE);
        for block in &blocks {
            if !is_current() {
                mark(Mark::ContentGivenUp);
                return false;
            }
            if known.has(block) {
                continue;
            }
            let (back, read) = listing.read(block, buffer).await;
            buffer = back;
            match read {
                Ok(_) if is_current() => known.add(block),
                Ok(_) => {}
                Err(error) => damaged.push((*block, error)),
            }
            if damaged.len() == LOOKED_UP_MAX {
                missing |= are_missing(listing, &mut damaged).await;
            }
        }
        missing |= are_missing(listing, &mut damaged).await;
        let being_written = listing.repair.as_ref().is_some_and(Damage::is_writing);
        if !missing && !being_written {
            return is_current();
        }
        // What is wanted by now comes meanwhile.
        listing.io.sleep(PAUSE).await;
    }
}

/// Has damaged blocks repaired, if the newest checkpoint references them; whether it may.
async fn are_missing<I: Io>(
    listing: &Listing<'_, I>,
    damaged: &mut Vec<(BlockReference, BlockError)>,
) -> bool {
    if damaged.is_empty() {
        return false;
    }
    let damaged = std::mem::take(damaged);
    let blocks: Vec<BlockReference> = damaged.iter().map(|(block, _)| *block).collect();
    let (referenced, all) = listing.referenced(&blocks).await;
    for (block, error) in damaged {
        if let Some(damage) = &listing.repair
            && referenced.contains(&block)
        {
            damage.want(&block, error);
        }
    }
    !referenced.is_empty() || !all
}
