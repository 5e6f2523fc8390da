//! The grid over a disk: blocks are written behind, read ahead, and looked at through the cache.
//!
//! Invariants:
//! * Addresses follow from the order of the calls alone, never from when an access completes.
//! * A block that is being written is read only when that is done.
//! * What is damaged is never handed out: whoever asked waits until it was repaired, and [`Damage`] says
//!   which block it is.

use super::cache::{Missing, PageCache, PageKey};
use super::{BlockStore, Damage, FreeSet, NewBlock};
use crate::constants;
use crate::io::{Io, Storage, write_unless};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{Job, SectorBuf, Slab, Task, to_u64};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use storage_format::block::{BlockError, seal, seal_with, verify, verify_header, verify_page};
use storage_format::{
    BlockHeader, BlockReference, FORMAT_VERSION, Geometry, SECTOR_SIZE, Superblock,
};
use zerocopy::FromZeros;

/// Block writes under way at the same time.
pub const WRITES_MAX: usize = 16;
/// Page reads under way at the same time: some for the disk while those that came before are verified.
const PAGE_READS_MAX: usize = 128;

type Access<'a, T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + 'a>>>;

/// Bytes at the address of a block, and what is wrong with them.
#[derive(Debug)]
struct Read {
    buffer: SectorBuf,
    verified: Result<BlockHeader, BlockError>,
}

/// Writes under way. They outlive a grid that is given up: whoever writes the same blocks next waits for
/// them.
#[derive(Clone)]
pub struct Writes<'a>(Rc<RefCell<Access<'a, u64>>>);

impl std::fmt::Debug for Writes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writes").field(&self.len()).finish()
    }
}

impl<'a> Writes<'a> {
    fn push(&self, write: Pin<Box<dyn Future<Output = u64> + 'a>>) {
        self.0.borrow().push(write);
    }

    fn len(&self) -> usize {
        self.0.borrow().len()
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<u64>> {
        self.0.borrow_mut().poll_next_unpin(context)
    }

    async fn next(&self) -> Option<u64> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Waits for all of them.
    pub async fn finish(self) {
        while self.next().await.is_some() {}
    }
}

/// See the module.
pub struct Grid<'a, I: Io> {
    io: &'a I,
    /// Of the file: geometry and cluster.
    superblock: Superblock,
    /// The op at whose end blocks are written.
    pub op: u64,
    /// Which blocks are free.
    pub free: FreeSet,
    /// Pages in memory.
    pub cache: PageCache,
    damage: Damage,
    writes: Writes<'a>,
    /// Addresses under way.
    writing: BTreeSet<u64>,
    reads: Access<'a, (u64, Read)>,
    /// What was read ahead and not asked for yet; `None` while it is under way.
    read: BTreeMap<u64, Option<Read>>,
}

impl<I: Io> std::fmt::Debug for Grid<'_, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grid")
            .field("op", &self.op)
            .field("free", &self.free)
            .finish_non_exhaustive()
    }
}

impl<'a, I: Io> Grid<'a, I> {
    /// The grid of a data file, with every block free.
    #[must_use]
    pub fn new(io: &'a I, superblock: &Superblock, cache_size: u64) -> Self {
        Self::with_damage(io, superblock, cache_size, Damage::default())
    }

    /// The same; damage is noted there.
    #[must_use]
    pub fn with_damage(
        io: &'a I,
        superblock: &Superblock,
        cache_size: u64,
        damage: Damage,
    ) -> Self {
        Self {
            io,
            superblock: *superblock,
            op: 0,
            free: FreeSet::new(superblock.geometry.block_count_max()),
            cache: PageCache::new(cache_size),
            damage,
            writes: Writes(Rc::new(RefCell::new(FuturesUnordered::new()))),
            writing: BTreeSet::new(),
            reads: FuturesUnordered::new(),
            read: BTreeMap::new(),
        }
    }

    /// Where damage is noted.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage.clone()
    }

    /// The writes under way.
    #[must_use]
    pub fn writes(&self) -> Writes<'a> {
        self.writes.clone()
    }

    fn offset(&self, address: u64) -> u64 {
        self.superblock.geometry.block_offset(address)
    }

    /// Starts what was queued and takes what is done, without waiting.
    pub fn poll(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some(address)) = self.writes.poll_next(context) {
            self.write_done(address);
        }
        while let Poll::Ready(Some((address, read))) = self.reads.poll_next_unpin(context) {
            self.read_done(address, read);
        }
    }

    /// Starts what was queued.
    pub async fn start(&mut self) {
        std::future::poll_fn(|context| {
            self.poll(context);
            Poll::Ready(())
        })
        .await;
    }

    fn write_done(&mut self, address: u64) {
        let _ = self.writing.remove(&address);
    }

    fn read_done(&mut self, address: u64, read: Read) {
        // A block that was released meanwhile is of no use any more.
        if let Some(slot) = self.read.get_mut(&address) {
            *slot = Some(read);
        }
    }

    /// Waits for all writes.
    pub async fn finish_writes(&mut self) {
        while let Some(address) = self.writes.next().await {
            self.write_done(address);
        }
    }

    async fn finish_write_of(&mut self, address: u64) {
        while self.writing.contains(&address) && !planted(Bug::ReadBeforeWritten) {
            mark(Mark::ReadAwaitsWrite);
            let done = self.writes.next().await;
            self.write_done(done.expect("it is under way"));
        }
    }

    fn begin_write(
        &mut self,
        block: NewBlock,
        keep: impl FnOnce(&mut PageCache, u64, &[u8]),
    ) -> BlockReference {
        let address = self.free.allocate();
        let header = BlockHeader {
            cluster: self.superblock.cluster,
            address: address.into(),
            op: self.op.into(),
            position: block.position.into(),
            size: u32::try_from(block.size)
                .expect("a block is at most 1 MiB")
                .into(),
            record_size: block.record_size.into(),
            version: FORMAT_VERSION.into(),
            kind: block.kind.code(),
            table: block.table,
            next: block.next,
            ..BlockHeader::new_zeroed()
        };
        let mut buffer = block.buffer;
        let (reference, size) = match block.sums {
            Some(sums) => seal_with(&mut buffer, header, &sums),
            None => seal(&mut buffer, header),
        };
        keep(&mut self.cache, address, &buffer);
        let (io, offset) = (self.io, self.offset(address));
        let new = self.writing.insert(address);
        assert!(new, "a block is written once at a time");
        self.writes.push(Box::pin(async move {
            let bug = Bug::CheckpointBeforeBlocks;
            drop(write_unless(bug, io, offset, buffer, size).await);
            address
        }));
        reference
    }

    /// Whether a page is what its block says; header pages come first.
    fn verify(&self, page: &Missing, buffer: &SectorBuf) -> Result<(), BlockError> {
        if page.page == 0 {
            return verify_header(buffer, &page.checksum, page.address);
        }
        let header = self.cache.peek(PageKey::new(page.address, 0));
        verify_page(header.expect("it was put in before"), page.page, buffer)
    }

    /// Loads the pages that were missing.
    pub async fn load_missing(&mut self) {
        let missing = self.cache.take_missing();
        for page in &missing {
            self.finish_write_of(page.address).await;
        }
        // Header pages before others, whose checksums they hold.
        let mut headers: Vec<Missing> = missing.iter().map(Missing::header).collect();
        headers.dedup();
        headers.retain(|header| !self.cache.touch(header.key));
        self.load(headers.into_iter()).await;
        self.load(missing.into_iter().filter(|page| page.page > 0))
            .await;
    }

    /// Loads header pages, or pages whose header pages are in the cache.
    async fn load(&mut self, pages: impl Iterator<Item = Missing>) {
        // Buffers of pages that were put in, for those that are read after them.
        let spare = RefCell::new(Vec::new());
        let (io, geometry) = (self.io, self.superblock.geometry);
        let read = |page: Missing| {
            let buffer = spare.borrow_mut().pop();
            let buffer = buffer.unwrap_or_else(|| SectorBuf::zeroed(SECTOR_SIZE));
            async move { (page, read_page(io, &geometry, &page, buffer).await) }
        };
        let reads = futures_util::stream::iter(pages.map(read));
        let mut reads = reads.buffer_unordered(PAGE_READS_MAX);
        while let Some((page, buffer)) = reads.next().await {
            let buffer = self.put_in(&page, buffer).await;
            spare.borrow_mut().push(buffer);
        }
    }

    /// Puts a page that was read into the cache, once it is what its block says; gives the buffer back.
    async fn put_in(&mut self, page: &Missing, mut buffer: SectorBuf) -> SectorBuf {
        let mut twice = false;
        while let Err(error) = self.verify(page, &buffer)
            && !planted(Bug::TrustPages)
        {
            if std::mem::replace(&mut twice, true) {
                mark(Mark::PageDamaged);
                self.damage.repaired(page.block(), error).await;
            } else {
                mark(Mark::PageReadAgain);
            }
            buffer = read_page(self.io, &self.superblock.geometry, page, buffer).await;
        }
        self.cache.insert(page.key, &buffer, true);
        buffer
    }
}

async fn read_page<I: Io>(
    io: &I,
    geometry: &Geometry,
    page: &Missing,
    buffer: SectorBuf,
) -> SectorBuf {
    let offset = geometry.block_offset(page.address) + to_u64(page.page * SECTOR_SIZE);
    io.storage().read(offset, buffer).await
}

impl<I: Io> BlockStore for Grid<'_, I> {
    async fn room(&mut self) {
        self.start().await;
        while self.writes.len() >= WRITES_MAX {
            mark(Mark::WritesFull);
            if let Some(address) = self.writes.next().await {
                self.write_done(address);
            }
        }
    }

    async fn buffer(&mut self) -> SectorBuf {
        self.room().await;
        let mut buffer = SectorBuf::from(Slab::take());
        buffer[..SECTOR_SIZE].fill(0);
        buffer
    }

    fn write(&mut self, block: NewBlock) -> BlockReference {
        self.begin_write(block, |cache, address, _| {
            if !planted(Bug::KeepStalePages) {
                cache.forget(address);
            }
        })
    }

    fn write_through(&mut self, block: NewBlock) -> BlockReference {
        let used = block.size.next_multiple_of(SECTOR_SIZE);
        self.begin_write(block, |cache, address, bytes| {
            cache.forget(address);
            for page in 0..=used / SECTOR_SIZE {
                let at = page * SECTOR_SIZE;
                cache.insert(
                    PageKey::new(address, page),
                    &bytes[at..at + SECTOR_SIZE],
                    false,
                );
            }
        })
    }

    fn release(&mut self, block: &BlockReference) {
        let address = block.address.get();
        let read = self.read.remove(&address);
        assert!(
            read.is_none(),
            "what was read ahead is taken before its block is released"
        );
        self.free.release(address);
    }

    fn read_ahead(&mut self, block: &BlockReference) {
        let address = block.address.get();
        if self.writing.contains(&address) || self.read.contains_key(&address) {
            return;
        }
        let (io, offset, block) = (self.io, self.offset(address), *block);
        let buffer = Slab::take().into();
        let _: Option<Option<Read>> = self.read.insert(address, None);
        self.reads.push(Box::pin(async move {
            let buffer = io.storage().read(offset, buffer).await;
            let verify = move || Read {
                verified: verify(&buffer, &block),
                buffer,
            };
            (address, Task::new(|job| io.spawn(job), verify).join().await)
        }));
    }

    async fn read(&mut self, block: &BlockReference) -> SectorBuf {
        let mut twice = false;
        loop {
            let Read { buffer, verified } = self.read_once(block).await;
            match verified {
                Err(_) if planted(Bug::TrustBlocks) => return buffer,
                Ok(_) => return buffer,
                Err(error) => {
                    drop(buffer);
                    if std::mem::replace(&mut twice, true) {
                        mark(Mark::BlockDamaged);
                        self.damage.repaired(*block, error).await;
                    } else {
                        mark(Mark::BlockReadAgain);
                    }
                }
            }
        }
    }

    fn spawn(&mut self, job: Job) {
        self.io.spawn(job);
    }
}

impl<I: Io> Grid<'_, I> {
    /// The bytes at the address of a block, whatever they are.
    async fn read_once(&mut self, block: &BlockReference) -> Read {
        let address = block.address.get();
        self.finish_write_of(address).await;
        self.read_ahead(block);
        let read = loop {
            match self.read.get_mut(&address) {
                Some(Some(_)) => break self.read.remove(&address).flatten(),
                Some(None) => {}
                None => unreachable!("it was asked for just now"),
            }
            if let Some((address, read)) = self.reads.next().await {
                self.read_done(address, read);
            }
        };
        read.expect("the loop ends with it")
    }
}

/// Bytes that the buffers of the grid take at most, the cache left out.
#[must_use]
pub fn buffers_memory() -> u64 {
    to_u64((WRITES_MAX + 256) * constants::BLOCK_SIZE) + to_u64(PAGE_READS_MAX * SECTOR_SIZE)
}

const _: () = assert!(constants::BLOCK_SIZE / SECTOR_SIZE <= super::cache::BLOCK_PAGES_MAX);
