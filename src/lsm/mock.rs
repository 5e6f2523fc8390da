//! Blocks in memory, for the tests of what is written against the traits of the grid.
//!
//! It asserts what a real store relies on: nobody releases a block twice, or reads one that was released.

use crate::constants::BLOCK_SIZE;
use crate::grid::store::{BlockStore, NewBlock, Pages};
use crate::stdx::{Job, SectorBuf};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use storage_format::block::{seal, seal_with, verify};
use storage_format::{BlockHeader, BlockReference, SECTOR_SIZE};
use zerocopy::FromZeros;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Mock {
    /// By address.
    pub(super) blocks: BTreeMap<u64, (BlockReference, Rc<Vec<u8>>)>,
    released: BTreeSet<u64>,
    /// Pages that are in memory; all are if this is `None`.
    pages: RefCell<Option<BTreeSet<(u64, usize)>>>,
    missing: RefCell<BTreeSet<(u64, usize)>>,
    /// Whether jobs run on threads of their own.
    pub(super) threads: bool,
}

impl Mock {
    /// A checkpoint is durable: what was released is free.
    pub(super) fn checkpoint(&mut self) {
        for address in std::mem::take(&mut self.released) {
            let _ = self.blocks.remove(&address).expect("it was there");
        }
    }

    /// Addresses of blocks that are not released.
    pub(super) fn held(&self) -> Vec<u64> {
        let addresses = self.blocks.keys().copied();
        addresses
            .filter(|address| !self.released.contains(address))
            .collect()
    }

    /// From now on pages are missing until they are loaded.
    pub(super) fn forget_pages(&self) {
        *self.pages.borrow_mut() = Some(BTreeSet::new());
        self.missing.borrow_mut().clear();
    }

    /// Loads what was missing; gives how many pages that were.
    pub(super) fn load_missing(&self) -> usize {
        let missing = self.missing.take();
        let count = missing.len();
        let mut pages = self.pages.borrow_mut();
        pages.get_or_insert_default().extend(missing);
        count
    }

    fn bytes(&self, block: &BlockReference) -> &Rc<Vec<u8>> {
        let address = block.address.get();
        assert!(!self.released.contains(&address), "{address} was released");
        let (reference, bytes) = self.blocks.get(&address).expect("the block is there");
        assert_eq!(reference, block);
        bytes
    }
}

impl Pages for Mock {
    fn page(&self, block: &BlockReference, page: usize) -> Option<&[u8]> {
        let key = (block.address.get(), page);
        if let Some(pages) = &*self.pages.borrow()
            && !pages.contains(&key)
        {
            let _ = self.missing.borrow_mut().insert(key);
            return None;
        }
        Some(&self.bytes(block)[page * SECTOR_SIZE..][..SECTOR_SIZE])
    }
}

impl BlockStore for Mock {
    async fn room(&mut self) {}

    async fn buffer(&mut self) -> SectorBuf {
        let mut buffer = SectorBuf::zeroed(BLOCK_SIZE);
        buffer[SECTOR_SIZE..].fill(0xEE);
        buffer
    }

    fn write(&mut self, mut block: NewBlock) -> BlockReference {
        let address = (1..).find(|address| !self.blocks.contains_key(address));
        let address = address.expect("there is no end to addresses");
        let header = BlockHeader {
            address: address.into(),
            position: block.position.into(),
            size: u32::try_from(block.size).unwrap().into(),
            record_size: block.record_size.into(),
            kind: block.kind.code(),
            table: block.table,
            next: block.next,
            ..BlockHeader::new_zeroed()
        };
        let (reference, written) = match &block.sums {
            Some(sums) => seal_with(&mut block.buffer, header, sums),
            None => seal(&mut block.buffer, header),
        };
        let bytes = Rc::new(block.buffer[..written].to_vec());
        let _ = self.blocks.insert(address, (reference, bytes));
        reference
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "jobs run on threads of their own in production as well"
    )]
    fn spawn(&mut self, job: Job) {
        if self.threads {
            drop(std::thread::spawn(job));
        } else {
            job();
        }
    }

    fn release(&mut self, block: &BlockReference) {
        let _ = self.bytes(block);
        assert!(self.released.insert(block.address.get()));
    }

    fn read_ahead(&mut self, block: &BlockReference) {
        let _ = self.bytes(block);
    }

    async fn read(&mut self, block: &BlockReference) -> SectorBuf {
        let bytes = self.bytes(block);
        let mut buffer = SectorBuf::zeroed(BLOCK_SIZE);
        buffer[..bytes.len()].copy_from_slice(bytes);
        let _ = verify(&buffer, block).expect("the block is as it was written");
        buffer
    }
}

/// Pseudorandom numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ value >> 31
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
