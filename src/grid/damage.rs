//! Blocks that cannot be read, and who waits for them.
//!
//! Whoever needs a damaged block waits until somebody says that it was repaired, and reads it again. Alone
//! nobody can repair it, and the driver stops the process instead.
//!
//! Invariant: a block is repaired only while the last durable checkpoint or the op at work references it.
//! So what nobody waits for is forgotten when a checkpoint is durable, and writes that are under way then
//! are waited for before blocks are free.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use storage_format::BlockReference;
use storage_format::block::BlockError;

#[derive(Debug)]
struct Wanted {
    block: BlockReference,
    error: BlockError,
    wakers: Vec<Waker>,
    /// Whether it is being written.
    writing: bool,
}

#[derive(Debug, Default)]
struct State {
    wanted: BTreeMap<u64, Wanted>,
    /// Repairs that are being written.
    writing: usize,
    /// Who waits for those.
    settling: Vec<Waker>,
}

/// See the module; all copies are one.
#[derive(Clone, Debug, Default)]
pub struct Damage(Rc<RefCell<State>>);

impl Damage {
    /// The first block that is waited for: its address, and what is wrong.
    #[must_use]
    pub fn found(&self) -> Option<(u64, BlockError)> {
        let state = self.0.borrow();
        let (address, first) = state.wanted.first_key_value()?;
        Some((*address, first.error))
    }

    /// Whether somebody waits for a block.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        let state = self.0.borrow();
        state
            .wanted
            .values()
            .any(|wanted| !wanted.wakers.is_empty())
    }

    /// All blocks that are to be repaired, but for those whose repair is under way; first those that somebody waits
    /// for.
    #[must_use]
    pub fn wanted(&self) -> Vec<BlockReference> {
        let state = self.0.borrow();
        let wanted = state.wanted.values().filter(|wanted| !wanted.writing);
        let mut wanted: Vec<&Wanted> = wanted.collect();
        wanted.sort_by_key(|wanted| wanted.wakers.is_empty());
        wanted.into_iter().map(|wanted| wanted.block).collect()
    }

    /// Whether a repair is being written: until that is done, who reads the block may find it whole although
    /// a crash would still undo that.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.0.borrow().writing > 0
    }

    /// Has a block repaired that the last durable checkpoint references.
    pub fn want(&self, block: &BlockReference, error: BlockError) {
        let mut state = self.0.borrow_mut();
        let address = block.address.get();
        let wanted = state.wanted.entry(address).or_insert_with(|| Wanted {
            block: *block,
            error,
            wakers: Vec::new(),
            writing: false,
        });
        if !wanted.writing {
            // Another may have been there before.
            wanted.block = *block;
            wanted.error = error;
        }
    }

    /// Waits until a block was repaired.
    pub async fn repaired(&self, block: BlockReference, error: BlockError) {
        let address = block.address.get();
        let mut noted = false;
        poll_fn(|context| {
            if noted && !self.0.borrow().wanted.contains_key(&address) {
                return Poll::Ready(());
            }
            noted = true;
            self.want(&block, error);
            let mut state = self.0.borrow_mut();
            let wanted = state.wanted.get_mut(&address).expect("it is wanted");
            wanted.wakers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Begins a repair, if the block is wanted; [`Self::repair_end`] has to follow.
    #[must_use]
    pub fn repair_begin(&self, block: &BlockReference) -> bool {
        let mut state = self.0.borrow_mut();
        let wanted = state.wanted.get_mut(&block.address.get());
        let Some(wanted) = wanted.filter(|it| it.block.checksum == block.checksum && !it.writing)
        else {
            return false;
        };
        wanted.writing = true;
        state.writing += 1;
        true
    }

    /// A repair came to nothing: it is to be tried again.
    pub fn repair_failed(&self, block: &BlockReference) {
        let mut state = self.0.borrow_mut();
        state.writing -= 1;
        if let Some(wanted) = state.wanted.get_mut(&block.address.get()) {
            wanted.writing = false;
        }
        if state.writing == 0 {
            state.settling.drain(..).for_each(Waker::wake);
        }
    }

    /// A block is whole again.
    pub fn repair_end(&self, block: &BlockReference) {
        let mut state = self.0.borrow_mut();
        state.writing -= 1;
        let mut wakers = Vec::new();
        if let Some(wanted) = state.wanted.remove(&block.address.get()) {
            wakers = wanted.wakers;
        }
        if state.writing == 0 {
            wakers.append(&mut state.settling);
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whoever waits is gone, and what it waited for means nothing any more.
    pub fn clear(&self) {
        self.0
            .borrow_mut()
            .wanted
            .retain(|_, wanted| wanted.writing);
    }

    /// A checkpoint is durable: what nobody waits for may not be in it. Waits for repairs under way.
    pub async fn settle(&self) {
        let kept = |wanted: &Wanted| wanted.writing || !wanted.wakers.is_empty();
        self.0.borrow_mut().wanted.retain(|_, wanted| kept(wanted));
        poll_fn(|context| {
            let mut state = self.0.borrow_mut();
            if state.writing == 0 {
                return Poll::Ready(());
            }
            state.settling.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::Damage;
    use futures_util::FutureExt;
    use std::pin::pin;
    use storage_format::BlockReference;
    use storage_format::block::BlockError;

    fn block() -> BlockReference {
        BlockReference {
            address: 7.into(),
            ..BlockReference::default()
        }
    }

    #[test]
    fn who_waits_goes_on_when_the_very_block_was_repaired() {
        let (damage, block) = (Damage::default(), block());
        let mut other = block;
        other.checksum.0[0] = 1;
        let mut first = pin!(damage.repaired(block, BlockError::Header));
        let mut second = pin!(damage.repaired(block, BlockError::Header));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        assert_eq!(damage.wanted(), [block]);
        assert!(!damage.repair_begin(&other));
        assert!(damage.repair_begin(&block));
        assert!(!damage.repair_begin(&block) && damage.wanted().is_empty());
        assert!((&mut first).now_or_never().is_none());
        let mut settled = pin!(damage.settle());
        assert!((&mut settled).now_or_never().is_none());
        damage.repair_end(&block);
        assert!(damage.found().is_none() && settled.now_or_never().is_some());
        assert!(first.now_or_never().is_some() && second.now_or_never().is_some());
    }

    #[test]
    fn what_somebody_waits_for_comes_first() {
        let (damage, block) = (Damage::default(), block());
        damage.want(&block, BlockError::Header);
        let mut later = block;
        later.address += 1;
        let mut waits = pin!(damage.repaired(later, BlockError::Header));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(damage.wanted(), [later, block]);
    }

    #[test]
    fn what_nobody_waits_for_is_forgotten_at_a_checkpoint() {
        let (damage, block) = (Damage::default(), block());
        damage.want(&block, BlockError::Header);
        assert_eq!(damage.wanted(), [block]);
        assert!(damage.settle().now_or_never().is_some());
        assert!(!damage.repair_begin(&block));
    }
}
