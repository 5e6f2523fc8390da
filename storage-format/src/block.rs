//! Grid blocks: a header page with the identity and one CRC32C a page, then the data pages.

use crate::{Checksum, SECTOR_SIZE, checksum, checksum::page_crc};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a block holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum BlockKind {
    /// Records of a table, in the order of their position.
    Records = 1,
    /// Records of the manifest: part of a checkpoint's chain.
    Manifest = 2,
    /// Entries of a run of a tree, in the order of their ranks.
    Run = 3,
}

impl BlockKind {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Header of a grid block (256 bytes); the array of page checksums follows it in the same page.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct BlockHeader {
    /// Of the rest of the header page, page checksums included: the identity of the block.
    pub checksum: Checksum,
    /// AEGIS-128L of the first `size` data bytes.
    pub checksum_data: Checksum,
    /// Cluster that the block belongs to.
    pub cluster: U128,
    /// Where the block is; a copy at another address is a misdirected write.
    pub address: U64,
    /// Op at whose end the block was written.
    pub op: U64,
    /// Position of the block in its table or index chain, from 0.
    pub position: U64,
    /// Data bytes in use.
    pub size: U32,
    /// Bytes of a record.
    pub record_size: U32,
    /// Layout version.
    pub version: U16,
    /// A [`BlockKind`].
    pub kind: u8,
    /// Number of the table (records), 0 (index).
    pub table: u8,
    /// Zero.
    pub reserved_frame: [u8; 4],
    /// Index blocks: the next block of the chain, or all zero.
    pub next: BlockReference,
    /// Zero.
    pub reserved: [u8; 136],
}

const _: () = assert!(size_of::<BlockHeader>() == 256);

/// A block by address and identity (32 bytes).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    PartialEq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct BlockReference {
    /// Identity.
    pub checksum: Checksum,
    /// Address; 0 means none.
    pub address: U64,
    /// Number of the table that the block belongs to; 0 for an index block.
    pub table: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

const _: () = assert!(size_of::<BlockReference>() == 32);

/// Where the page index begins in the header page: the rank of the first record of each data page, as
/// a `u128`. Whoever makes the block says what a rank is.
pub const PAGE_INDEX_OFFSET: usize = 512;

/// Data bytes of a block of `block_size` bytes.
#[must_use]
pub const fn data_size_max(block_size: usize) -> usize {
    assert!(block_size.is_multiple_of(SECTOR_SIZE));
    let pages = block_size / SECTOR_SIZE - 1;
    assert!(
        256 + 4 * pages <= PAGE_INDEX_OFFSET && PAGE_INDEX_OFFSET + 16 * pages <= SECTOR_SIZE,
        "page checksums and page index fit the header page"
    );
    pages * SECTOR_SIZE
}

/// Why a block was rejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockError {
    /// The header page does not have the identity asked for.
    Header,
    /// A data page does not have its checksum (pages count from 1).
    Page(usize),
    /// The data as a whole does not have its checksum.
    Data,
}

impl std::fmt::Display for BlockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => write!(f, "the header page is damaged or of another block"),
            Self::Page(page) => write!(f, "page {page} is damaged"),
            Self::Data => write!(f, "the data is damaged"),
        }
    }
}

/// The checksums of a block's data: most of the work of [`seal`], and possible before the block has its address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataSums {
    whole: Checksum,
    /// By data page.
    pages: Vec<U32>,
}

impl DataSums {
    /// Those of the first `size` bytes of `data`. What follows them in their last page has to be zero.
    #[must_use]
    pub fn of(data: &[u8], size: usize) -> Self {
        let pages = data[..size.next_multiple_of(SECTOR_SIZE)].chunks_exact(SECTOR_SIZE);
        Self {
            whole: checksum(&data[..size]),
            pages: pages.map(|page| U32::new(page_crc(page))).collect(),
        }
    }
}

/// Seals the block in `block`, whose data is in place from the second sector on, and the page index (or
/// zeros) from [`PAGE_INDEX_OFFSET`] on. Gives its reference. `header.size` says how much data there is; what follows it in the last page is
/// cleared. Returns the bytes to write: header page and used data pages.
pub fn seal(block: &mut [u8], header: BlockHeader) -> (BlockReference, usize) {
    let (size, written) = sizes(&header);
    block[SECTOR_SIZE + size..written].fill(0);
    let sums = DataSums::of(&block[SECTOR_SIZE..], size);
    seal_with(block, header, &sums)
}

/// Bytes of data, and bytes to write.
fn sizes(header: &BlockHeader) -> (usize, usize) {
    let size = usize::try_from(header.size.get()).expect("u32 fits usize");
    (size, SECTOR_SIZE + size.next_multiple_of(SECTOR_SIZE))
}

/// The same when the checksums of the data are known.
pub fn seal_with(
    block: &mut [u8],
    mut header: BlockHeader,
    sums: &DataSums,
) -> (BlockReference, usize) {
    let (_, written) = sizes(&header);
    assert!(written <= block.len());
    assert_eq!(
        written,
        (1 + sums.pages.len()) * SECTOR_SIZE,
        "of this data"
    );
    header.checksum = Checksum::ZERO;
    header.checksum_data = sums.whole;
    let page = &mut block[..SECTOR_SIZE];
    page[..PAGE_INDEX_OFFSET].fill(0);
    page[..256].copy_from_slice(header.as_bytes());
    page[256..256 + 4 * sums.pages.len()].copy_from_slice(sums.pages.as_bytes());
    let identity = checksum(&page[16..]);
    page[..16].copy_from_slice(&identity.0);
    let reference = BlockReference {
        checksum: identity,
        address: header.address,
        table: header.table,
        reserved: [0; 7],
    };
    (reference, written)
}

/// Verifies a header page alone against the identity and the address that led to it.
///
/// # Errors
/// When it is damaged, or that of another block.
pub fn verify_header(page: &[u8], identity: &[u8; 16], address: u64) -> Result<(), BlockError> {
    let (header, _) = BlockHeader::read_from_prefix(page).map_err(|_| BlockError::Header)?;
    let found = checksum(&page[16..SECTOR_SIZE]);
    let same = found.0 == *identity && header.checksum == found && header.address.get() == address;
    if same {
        Ok(())
    } else {
        Err(BlockError::Header)
    }
}

/// Verifies data page `number` (from 1) of the block whose header page was verified.
///
/// # Errors
/// When the page is damaged.
pub fn verify_page(header_page: &[u8], number: usize, page: &[u8]) -> Result<(), BlockError> {
    let at = 256 + 4 * (number - 1);
    if header_page[at..at + 4] == *U32::new(page_crc(page)).as_bytes() {
        Ok(())
    } else {
        Err(BlockError::Page(number))
    }
}

/// Verifies the block in `block` against the reference that led to it.
///
/// # Errors
/// Says which part does not match; the block must not be used then.
pub fn verify(block: &[u8], reference: &BlockReference) -> Result<BlockHeader, BlockError> {
    let (page, data) = block.split_at(SECTOR_SIZE);
    let (header, _) = BlockHeader::read_from_prefix(page).map_err(|_| BlockError::Header)?;
    let identity = checksum(&page[16..]);
    let size = usize::try_from(header.size.get()).map_err(|_| BlockError::Header)?;
    if identity != reference.checksum
        || header.checksum != identity
        || header.address != reference.address
        || header.table != reference.table
        || size > data.len()
    {
        return Err(BlockError::Header);
    }
    let used = size.next_multiple_of(SECTOR_SIZE);
    for (index, bytes) in data[..used].chunks_exact(SECTOR_SIZE).enumerate() {
        verify_page(page, index + 1, bytes)?;
    }
    if checksum(&data[..size]) != header.checksum_data {
        return Err(BlockError::Data);
    }
    Ok(header)
}
