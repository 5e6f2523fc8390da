//! The manifest: what a checkpoint consists of, as a stream of records in a chain of blocks.

use crate::BlockReference;
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a record of the manifest says. Numbers are never used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum ManifestKind {
    /// A block of a table, in the order of the table; `count` records.
    TableBlock = 1,
    /// A run begins; the blocks that follow are its. A [`RunRecord`].
    Run = 2,
    /// A block of a run of a tree.
    RunBlock = 3,
    /// A merge begins; the blocks that follow are its output so far. A [`MergeRecord`].
    Merge = 4,
    /// A block that a merge wrote.
    MergeBlock = 5,
    /// The end of a bar whose entries are in memory. A [`BarRecord`].
    Bar = 6,
    /// Units since the last bar and the last beat. A [`BarRecord`].
    Clock = 7,
    /// A tree begins. A [`BarRecord`].
    Tree = 8,
}

impl ManifestKind {
    /// The kind with that number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::TableBlock),
            2 => Some(Self::Run),
            3 => Some(Self::RunBlock),
            4 => Some(Self::Merge),
            5 => Some(Self::MergeBlock),
            6 => Some(Self::Bar),
            7 => Some(Self::Clock),
            8 => Some(Self::Tree),
            _ => None,
        }
    }
}

/// What every record ends with (8 bytes).
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
pub struct ManifestTag {
    /// A [`ManifestKind`].
    pub kind: u8,
    /// Number of the table or tree.
    pub table: u8,
    /// Tier of a run; of a merge, that of its inputs.
    pub tier: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// A block (64 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ManifestRecord {
    /// The block.
    pub block: BlockReference,
    /// Rank of its first record or entry.
    pub first: U128,
    /// Records in it; 0 for a block of a run, whose entries follow from the run.
    pub count: U64,
    /// What it is.
    pub tag: ManifestTag,
}

/// A run of a tree (64 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RunRecord {
    /// Highest rank.
    pub last: U128,
    /// Entries.
    pub entries: U64,
    /// Lowest position.
    pub position_min: U64,
    /// Highest position.
    pub position_max: U64,
    /// Blocks that follow.
    pub blocks: U32,
    /// Zero.
    pub reserved: [u8; 12],
    /// What it is.
    pub tag: ManifestTag,
}

/// A merge on its way (64 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct MergeRecord {
    /// Entries taken from each input when the last output block was complete, 48 bits each.
    pub taken: [[u8; 6]; 8],
    /// Entries merged in all.
    pub done: U64,
    /// What it is.
    pub tag: ManifestTag,
}

/// The end of a bar, or where the clock stands (64 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct BarRecord {
    /// Records of the tables of accounts, transfers and failed ids at its end; for the clock, units
    /// since the last bar, units since the last beat, and bars in all; for a tree, bars that it has
    /// in memory.
    pub values: [U64; 3],
    /// Zero.
    pub reserved: [u8; 32],
    /// What it is.
    pub tag: ManifestTag,
}

/// Bytes of every record.
pub const MANIFEST_RECORD_SIZE: usize = 64;

const _: () = assert!(size_of::<ManifestRecord>() == MANIFEST_RECORD_SIZE);
const _: () = assert!(size_of::<RunRecord>() == MANIFEST_RECORD_SIZE);
const _: () = assert!(size_of::<MergeRecord>() == MANIFEST_RECORD_SIZE);
const _: () = assert!(size_of::<BarRecord>() == MANIFEST_RECORD_SIZE);

/// A record of the manifest as what it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ManifestEntry {
    /// A block: of a table, of a run, or of what a merge wrote.
    Block(ManifestKind, ManifestRecord),
    /// A run begins.
    Run(RunRecord),
    /// A merge begins.
    Merge(MergeRecord),
    /// The end of a bar, the clock, or a tree.
    Bar(ManifestKind, BarRecord),
    /// Of a kind that there is not.
    Unknown(ManifestTag),
}

impl ManifestEntry {
    /// Reads a record.
    #[must_use]
    pub fn read(bytes: &[u8; MANIFEST_RECORD_SIZE]) -> Self {
        let tag = ManifestTag::read_from_suffix(bytes).expect("a record ends with its tag");
        match ManifestKind::from_code(tag.1.kind) {
            Some(
                kind @ (ManifestKind::TableBlock
                | ManifestKind::RunBlock
                | ManifestKind::MergeBlock),
            ) => Self::Block(kind, zerocopy::transmute!(*bytes)),
            Some(ManifestKind::Run) => Self::Run(zerocopy::transmute!(*bytes)),
            Some(ManifestKind::Merge) => Self::Merge(zerocopy::transmute!(*bytes)),
            Some(kind @ (ManifestKind::Bar | ManifestKind::Clock | ManifestKind::Tree)) => {
                Self::Bar(kind, zerocopy::transmute!(*bytes))
            }
            None => Self::Unknown(tag.1),
        }
    }

    /// What it ends with.
    #[must_use]
    pub fn tag(&self) -> ManifestTag {
        match self {
            Self::Block(_, record) => record.tag,
            Self::Run(record) => record.tag,
            Self::Merge(record) => record.tag,
            Self::Bar(_, record) => record.tag,
            Self::Unknown(tag) => *tag,
        }
    }
}

impl MergeRecord {
    /// Entries taken from each input.
    #[must_use]
    pub fn taken(&self) -> [u64; 8] {
        self.taken
            .map(|[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

/// The records in a part of the manifest.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = ManifestEntry> {
    let records = bytes.chunks_exact(MANIFEST_RECORD_SIZE);
    records.map(|record| ManifestEntry::read(record.first_chunk().expect("the size of a record")))
}

/// The blocks that a part of the manifest names.
pub fn blocks(bytes: &[u8]) -> impl Iterator<Item = ManifestRecord> {
    bytes
        .chunks_exact(MANIFEST_RECORD_SIZE)
        .map(|record| ManifestRecord::read_from_bytes(record).expect("the size of a record"))
        .filter(|record| {
            let kind = ManifestKind::from_code(record.tag.kind);
            matches!(
                kind,
                Some(ManifestKind::TableBlock | ManifestKind::RunBlock | ManifestKind::MergeBlock)
            )
        })
}
