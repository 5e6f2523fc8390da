//! The superblock: four copies of what a replica must know before it can read anything else.

use crate::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use crate::{BlockReference, Checksum, FORMAT_VERSION, Geometry, PrepareHeader, checksum};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first bytes of a copy, so that a foreign file is told from a damaged one.
pub const MAGIC: [u8; 8] = *b"daftari\n";

/// Copies that must agree at open: with fewer, the file is refused.
pub const OPEN_QUORUM: usize = 2;

/// One copy of the superblock (8192 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Superblock {
    /// Of bytes 32 to 8191. `copy` is outside, so that all copies have the same.
    pub checksum: Checksum,
    /// Which copy this is; told from the place where it was read, and only a hint.
    pub copy: U16,
    /// Zero.
    pub reserved_copy: [u8; 14],
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`FORMAT_VERSION`].
    pub version: U16,
    /// Zero.
    pub reserved_version: [u8; 2],
    /// Release that the file is at: that of its log.
    pub release: U32,
    /// Cluster that the file belongs to.
    pub cluster: U128,
    /// Grows by 1 with each write.
    pub sequence: U64,
    /// Index of the member that the file belongs to: below `replica_count` a replica, else a standby.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Zero.
    pub reserved_replica: [u8; 6],
    /// `checksum` of the superblock before this one.
    pub parent: Checksum,
    /// Sizes of the file.
    pub geometry: Geometry,
    /// Current view.
    pub view: U32,
    /// View in which the log was installed last.
    pub log_view: U32,
    /// Highest op known to be committed.
    pub commit_max: U64,
    /// First block of the checkpoint's index; none in a fresh file.
    pub checkpoint_index: BlockReference,
    /// Blocks that the index lists, those of the index itself left out.
    pub checkpoint_block_count: U64,
    /// 1 while blocks of the checkpoint may be missing, which came from another replica.
    pub content_missing: u8,
    /// 1 while the replica recovers from the loss of its file: it remembers nothing that it promised.
    pub recovering: u8,
    /// Zero.
    pub reserved_checkpoint: [u8; 2],
    /// Prepares of earlier views may have been acknowledged before the file was lost; 0 if none was.
    pub recovered_view: U32,
    /// State of the ledger beside its tables; the ledger knows the layout.
    pub ledger_state: [u8; 256],
    /// Zero.
    pub reserved: [u8; 3392],
    /// Prepare of the checkpoint's op: op 0 in a fresh file.
    pub checkpoint: PrepareHeader,
    /// Newest headers of the log at `log_view`, newest first, then zeros.
    pub view_headers: [PrepareHeader; 16],
}

const _: () = assert!(size_of::<Superblock>() == SUPERBLOCK_COPY_SIZE);

/// Why the copies do not make a superblock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SuperblockError {
    /// No copy begins with the magic: not a data file.
    Foreign,
    /// Copies of another layout version.
    Version {
        /// The version found.
        found: u16,
    },
    /// Fewer than [`OPEN_QUORUM`] copies of one superblock are intact.
    NoQuorum {
        /// Copies whose checksum is right.
        valid: usize,
    },
    /// Two different superblocks with one sequence number.
    Fork {
        /// That number.
        sequence: u64,
    },
}

impl Superblock {
    /// A superblock with every field zero but the magic and the version.
    #[must_use]
    pub fn zeroed() -> Self {
        let mut zeroed: Self = zerocopy::FromZeros::new_zeroed();
        zeroed.magic = MAGIC;
        zeroed.version = FORMAT_VERSION.into();
        zeroed
    }

    /// What `checksum` has to be.
    #[must_use]
    pub fn checksum_expected(&self) -> Checksum {
        checksum(&self.as_bytes()[32..])
    }

    /// Sets `checksum`; every other field but `copy` is final.
    pub fn seal(&mut self) {
        self.checksum = self.checksum_expected();
    }

    /// Whether the file is that of a standby, which follows the replicas and does not vote.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.replica >= self.replica_count
    }

    /// Whether the file is that of the only replica: nobody else decides anything.
    #[must_use]
    pub fn is_solo(&self) -> bool {
        self.replica_count == 1 && !self.is_standby()
    }

    /// Whether this copy is intact and its geometry usable.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.checksum == self.checksum_expected()
            && self.magic == MAGIC
            && self.version.get() == FORMAT_VERSION
            && self.geometry.valid()
    }

    /// Chooses the superblock among the copies read: the newest that a quorum of copies holds.
    ///
    /// A crash while a newer one was being written leaves at least [`OPEN_QUORUM`] copies of the
    /// older or of the newer, since copies are written one after the other.
    ///
    /// # Errors
    /// When no superblock has a quorum of copies, or two claim one sequence number.
    pub fn choose(
        copies: &[Self; SUPERBLOCK_COPY_COUNT],
    ) -> Result<(Self, usize), SuperblockError> {
        let valid: Vec<&Self> = copies.iter().filter(|copy| copy.valid()).collect();
        if valid.is_empty() {
            let ours = copies.iter().find(|copy| copy.magic == MAGIC);
            return Err(match ours {
                None => SuperblockError::Foreign,
                Some(copy) if copy.version.get() != FORMAT_VERSION => SuperblockError::Version {
                    found: copy.version.get(),
                },
                Some(_) => SuperblockError::NoQuorum { valid: 0 },
            });
        }
        for a in &valid {
            for b in &valid {
                if a.sequence == b.sequence && a.checksum != b.checksum {
                    return Err(SuperblockError::Fork {
                        sequence: a.sequence.get(),
                    });
                }
            }
        }
        let mut best: Option<(&Self, usize)> = None;
        for a in &valid {
            let count = valid.iter().filter(|b| b.checksum == a.checksum).count();
            let newer = best.is_none_or(|(b, _)| a.sequence.get() > b.sequence.get());
            if count >= OPEN_QUORUM && newer {
                best = Some((a, count));
            }
        }
        match best {
            Some((superblock, count)) => Ok((*superblock, count)),
            None => Err(SuperblockError::NoQuorum { valid: valid.len() }),
        }
    }
}
