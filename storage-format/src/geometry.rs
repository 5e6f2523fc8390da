//! The sizes chosen when a data file is formatted, and the zones that follow from them.

use crate::SECTOR_SIZE;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Sizes that a data file is formatted with; they never change afterwards (32 bytes).
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
pub struct Geometry {
    /// Bytes of the largest client message, header included; a multiple of the sector.
    pub message_size_max: U32,
    /// Slots of the journal: a multiple of [`HEADERS_PER_SECTOR`].
    pub journal_slot_count: U32,
    /// Bytes of a slot of the prepare ring; a multiple of the sector.
    pub journal_slot_size: U32,
    /// Client sessions, and slots of the client-replies zone.
    pub session_count_max: U32,
    /// Bytes of a grid block, header page included; a multiple of the sector.
    pub block_size: U32,
    /// Zero.
    pub reserved: U32,
    /// Bytes that the whole file may grow to.
    pub file_size_max: U64,
}

const _: () = assert!(size_of::<Geometry>() == 32);

/// Prepare headers in one sector of the journal header ring.
pub const HEADERS_PER_SECTOR: usize = SECTOR_SIZE / 256;
/// Copies of the superblock.
pub const SUPERBLOCK_COPY_COUNT: usize = 4;
/// Bytes of one superblock copy.
pub const SUPERBLOCK_COPY_SIZE: usize = 2 * SECTOR_SIZE;

const SECTOR: u64 = 4096;

impl Geometry {
    /// Whether the sizes are consistent: what `format` may write and `open` may believe.
    #[must_use]
    pub fn valid(&self) -> bool {
        let aligned = |size: U32| size.get() > 0 && u64::from(size.get()).is_multiple_of(SECTOR);
        aligned(self.message_size_max)
            && aligned(self.journal_slot_size)
            && aligned(self.block_size)
            && self.block_size.get() >= 2 * 4096
            && self.block_size.get() <= 1 << 20
            && self.journal_slot_size.get() > self.message_size_max.get()
            && self.journal_slot_count.get() > 0
            && self.journal_slot_count.get().is_multiple_of(16)
            && self.session_count_max.get() > 0
            && self.session_count_max.get() <= 1 << 16
            && self.reserved.get() == 0
            && self.grid_offset() < self.file_size_max.get()
    }

    /// Offset of the journal header ring.
    #[must_use]
    pub fn headers_offset(&self) -> u64 {
        4 * 2 * SECTOR
    }

    /// Offset of the journal prepare ring.
    #[must_use]
    pub fn prepares_offset(&self) -> u64 {
        self.headers_offset() + u64::from(self.journal_slot_count.get()) * 256
    }

    /// Offset of the client-replies zone.
    #[must_use]
    pub fn replies_offset(&self) -> u64 {
        self.prepares_offset()
            + u64::from(self.journal_slot_count.get()) * u64::from(self.journal_slot_size.get())
    }

    /// Bytes of one slot of the client-replies zone: a header sector and the largest reply.
    #[must_use]
    pub fn reply_slot_size(&self) -> u64 {
        SECTOR + u64::from(self.message_size_max.get())
    }

    /// Offset of the grid.
    #[must_use]
    pub fn grid_offset(&self) -> u64 {
        self.replies_offset() + u64::from(self.session_count_max.get()) * self.reply_slot_size()
    }

    /// Offset of a slot of the clients' replies.
    #[must_use]
    pub fn reply_offset(&self, slot: u64) -> u64 {
        self.replies_offset() + slot * self.reply_slot_size()
    }

    /// Offset of the block at `address`, which counts from 1.
    #[must_use]
    pub fn block_offset(&self, address: u64) -> u64 {
        assert!(address >= 1, "block addresses count from 1; 0 means none");
        self.grid_offset() + (address - 1) * u64::from(self.block_size.get())
    }

    /// Blocks that fit below `file_size_max`.
    #[must_use]
    pub fn block_count_max(&self) -> u64 {
        (self.file_size_max.get() - self.grid_offset()) / u64::from(self.block_size.get())
    }
}
