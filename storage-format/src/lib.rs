//! On-disk layouts of a daftari data file: plain little-endian records without padding.
//!
//! `SPEC.md` draws every layout with its offsets; the files in `golden/` pin the bytes. Nothing here
//! does I/O, and nothing here decides: a layout can be encoded, decoded and verified, no more.
#![forbid(unsafe_code)]

pub mod block;
pub mod checksum;
pub mod geometry;
pub mod manifest;
pub mod prepare;
pub mod reply;
pub mod superblock;

pub use block::{BlockHeader, BlockKind, BlockReference};
pub use checksum::{Checksum, checksum};
pub use geometry::Geometry;
pub use manifest::{
    BarRecord, MANIFEST_RECORD_SIZE, ManifestEntry, ManifestKind, ManifestRecord, ManifestTag,
    MergeRecord, RunRecord,
};
pub use prepare::{PrepareHeader, PrepareKind, RequestEntry};
pub use reply::ReplySlotHeader;
pub use superblock::{Superblock, SuperblockError};

/// Bytes of a sector: the unit of alignment and of atomicity that the format relies upon.
pub const SECTOR_SIZE: usize = 4096;

/// Version of every layout in this crate. A file of another version is refused.
pub const FORMAT_VERSION: u16 = 3;
