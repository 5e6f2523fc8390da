//! What the engine needs of blocks, and nothing of how they are kept.
//!
//! There are no errors here: a read of a damaged block does not complete before the block is
//! repaired, and with one replica the process stops meanwhile, with a reason that names the block.

use crate::stdx::{Job, SectorBuf};
use storage_format::BlockReference;
use storage_format::block::{BlockKind, DataSums};

/// A block to be written. Its data is in `buffer` from the second sector on, the page index at
/// `storage_format::block::PAGE_INDEX_OFFSET`; the store fills in the rest of the header page.
#[derive(Debug)]
pub struct NewBlock {
    /// What it holds.
    pub kind: BlockKind,
    /// Number of its table or tree.
    pub table: u8,
    /// Bytes of a record.
    pub record_size: u32,
    /// Position in its table, run or chain, from 0.
    pub position: u64,
    /// Data bytes in use.
    pub size: usize,
    /// The next block of a chain, or all zero.
    pub next: BlockReference,
    /// As large as a block.
    pub buffer: SectorBuf,
    /// The checksums of the data, if they are known; what follows the data in its last page is zero then.
    pub sums: Option<DataSums>,
}

/// Pages of blocks that are in memory.
pub trait Pages {
    /// Page `page` of a block, 4096 bytes: 0 is the header page, data pages count from 1. `None` if
    /// it is not in memory: it is noted as missing then, and whoever asked has to give up, have
    /// the missing pages loaded, and begin again.
    fn page(&self, block: &BlockReference, page: usize) -> Option<&[u8]>;
}

/// Blocks, copy on write.
pub trait BlockStore {
    /// Waits while too many writes are under way.
    async fn room(&mut self);

    /// A buffer of the size of a block, for [`Self::write`]; its header page is zeroed, the rest holds any bytes.
    /// Waits as [`Self::room`] does.
    async fn buffer(&mut self) -> SectorBuf;

    /// Takes the next free address and begins to write the block there. It can be read at once.
    fn write(&mut self, block: NewBlock) -> BlockReference;

    /// The same; its pages are going to be asked for, and stay in memory for a while.
    fn write_through(&mut self, block: NewBlock) -> BlockReference {
        self.write(block)
    }

    /// Runs a job, at once or later on another core.
    fn spawn(&mut self, job: Job) {
        job();
    }

    /// The block is of no use any more. Its address is used again only after a checkpoint that does not
    /// reference it is durable.
    fn release(&mut self, block: &BlockReference);

    /// Begins to read a block that [`Self::read`] will ask for soon.
    fn read_ahead(&mut self, block: &BlockReference);

    /// The whole block, verified.
    async fn read(&mut self, block: &BlockReference) -> SectorBuf;
}
