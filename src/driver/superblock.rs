//! Reading and writing the four copies of the superblock.

use crate::io::Storage;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64};
use crate::vsr::FatalReason;
use std::cell::{Cell, Ref, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use storage_format::{Checksum, Superblock};
use zerocopy::{FromBytes, IntoBytes};

/// Reads all copies and chooses.
///
/// # Errors
/// When no quorum of copies is intact.
pub async fn read_superblock<S: Storage>(storage: &S) -> Result<Superblock, FatalReason> {
    read(storage).await.map(|(superblock, _)| superblock)
}

/// The same; also gives the copies that do not hold the chosen one.
pub(super) async fn read<S: Storage>(storage: &S) -> Result<(Superblock, Vec<usize>), FatalReason> {
    let buffer = SectorBuf::zeroed(SUPERBLOCK_COPY_COUNT * SUPERBLOCK_COPY_SIZE);
    let buffer = storage.read(0, buffer).await;
    let mut copies = [Superblock::zeroed(); SUPERBLOCK_COPY_COUNT];
    for (copy, bytes) in copies
        .iter_mut()
        .zip(buffer.chunks_exact(SUPERBLOCK_COPY_SIZE))
    {
        *copy = Superblock::read_from_bytes(bytes).expect("a copy is of that size");
    }
    for (index, copy) in copies.iter().enumerate() {
        let trusted = planted(Bug::TrustCopyIndex) && copy.valid();
        assert!(!trusted || usize::from(copy.copy.get()) == index);
    }
    let (superblock, copies_intact) =
        Superblock::choose(&copies).map_err(FatalReason::Superblock)?;
    if copies_intact < SUPERBLOCK_COPY_COUNT {
        mark(Mark::CopiesDiffer);
        tracing::warn!(copies_intact, "superblock: copies differ and are mended");
    }
    let stale = (0..SUPERBLOCK_COPY_COUNT)
        .filter(|copy| copies[*copy].checksum != superblock.checksum || !copies[*copy].valid());
    Ok((superblock, stale.collect()))
}

/// Writes the copies that do not hold `superblock`, which has its quorum elsewhere. Without this, a
/// successor could be torn over one of the last two good copies.
pub(super) async fn mend<S: Storage>(storage: &S, superblock: &Superblock, stale: &[usize]) {
    write_some(storage, superblock, stale).await;
}

/// The superblock, which checkpoints and view changes write: one at a time, and none loses what
/// another wrote.
#[derive(Debug)]
pub(super) struct Keeper {
    current: RefCell<Superblock>,
    writing: Cell<bool>,
    /// Checkpoints of other replicas that were taken.
    taken: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Keeper {
    pub(super) fn new(superblock: Superblock) -> Rc<Self> {
        Rc::new(Self {
            current: RefCell::new(superblock),
            writing: Cell::new(false),
            taken: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// The superblock as it was written last.
    pub(super) fn current(&self) -> Ref<'_, Superblock> {
        self.current.borrow()
    }

    /// Whether the file is that of the only replica, so that nobody can mend it.
    pub(super) fn is_solo(&self) -> bool {
        self.current.borrow().is_solo()
    }

    /// Whether copies are being written.
    pub(super) fn is_writing(&self) -> bool {
        self.writing.get()
    }

    /// How many checkpoints of other replicas it was made to name.
    pub(super) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Another one is about to be written.
    pub(super) fn take(&self) {
        self.taken.set(self.taken.get() + 1);
    }

    /// Writes the successor of the current superblock, one copy after the other, so that a crash leaves
    /// a quorum of the one or of the other, also if a copy has rotted.
    pub(super) async fn update<S: Storage>(
        &self,
        storage: &S,
        change: impl FnOnce(&mut Superblock),
    ) {
        poll_fn(|context| {
            if self.writing.replace(true) {
                mark(Mark::SuperblockWaits);
                self.waiting.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
        let mut next = Box::new(*self.current.borrow());
        change(&mut next);
        next.sequence = (next.sequence.get() + 1).into();
        next.parent = next.checksum;
        next.seal();
        let present = self.current().checksum;
        let order = order_of_copies(storage, present).await;
        write_some(storage, &next, &order).await;
        *self.current.borrow_mut() = *next;
        self.writing.set(false);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

/// In which order the copies are to be overwritten: first those that do not hold the present superblock,
/// since a crash may tear one that is being written, and two have to be left of the old or of the new.
async fn order_of_copies<S: Storage>(storage: &S, present: Checksum) -> Vec<usize> {
    let buffer = SectorBuf::zeroed(SUPERBLOCK_COPY_COUNT * SUPERBLOCK_COPY_SIZE);
    let buffer = storage.read(0, buffer).await;
    let holds = |copy: &usize| {
        let bytes = &buffer[copy * SUPERBLOCK_COPY_SIZE..(copy + 1) * SUPERBLOCK_COPY_SIZE];
        let copy = Superblock::ref_from_bytes(bytes).expect("a copy is of that size");
        copy.checksum == present && copy.valid()
    };
    let (mut order, intact): (Vec<usize>, Vec<usize>) =
        (0..SUPERBLOCK_COPY_COUNT).partition(|copy| !holds(copy) && !planted(Bug::CopiesInOrder));
    if !order.is_empty() {
        mark(Mark::CopyRotted);
    }
    order.extend(intact);
    order
}

/// Writes all copies of a sealed superblock.
pub(super) async fn write_copies<S: Storage>(storage: &S, superblock: &Superblock) {
    let all: [usize; SUPERBLOCK_COPY_COUNT] = std::array::from_fn(|copy| copy);
    write_some(storage, superblock, &all).await;
}

async fn write_some<S: Storage>(storage: &S, superblock: &Superblock, which: &[usize]) {
    let mut buffer = SectorBuf::zeroed(SUPERBLOCK_COPY_SIZE);
    for copy in which {
        let mut bytes = *superblock;
        bytes.copy = u16::try_from(*copy).expect("there are four").into();
        buffer.copy_from_slice(bytes.as_bytes());
        let offset = to_u64(*copy * SUPERBLOCK_COPY_SIZE);
        buffer = storage.write(offset, buffer, SUPERBLOCK_COPY_SIZE).await;
    }
}
