//! The 128-bit identity of messages and blocks, and the 32-bit guard of a page.

use aegis::aegis128l::Aegis128L;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The 16-byte tag of AEGIS-128L used as an AEAD with a zero key, a zero nonce, an empty message
/// and the bytes as associated data; stored as it comes.
#[derive(
    Clone,
    Copy,
    Default,
    Eq,
    Ord,
    PartialEq,
    PartialOrd,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Checksum(pub [u8; 16]);

impl Checksum {
    /// The checksum of no bytes at all: that of a message without a body.
    pub const EMPTY: Self = Self([
        0x83, 0xcc, 0x60, 0x0d, 0xc4, 0xe3, 0xe7, 0xe6, 0x2d, 0x40, 0x55, 0x82, 0x61, 0x74, 0xf1,
        0x49,
    ]);
    /// Stands for "none" in a reference; no valid header or block has it.
    pub const ZERO: Self = Self([0; 16]);
}

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_le_bytes(self.0))
    }
}

/// The AEGIS-128L checksum of `bytes`.
///
/// ```
/// use storage_format::{Checksum, checksum};
/// assert_eq!(checksum(b""), Checksum::EMPTY);
/// assert_eq!(checksum(&[0; 16]).0[..4], [0xf7, 0x2a, 0xd4, 0x8d]);
/// ```
#[must_use]
pub fn checksum(bytes: &[u8]) -> Checksum {
    Checksum(Aegis128L::<16>::new(&[0; 16], &[0; 16]).encrypt_in_place(&mut [], bytes))
}

/// The CRC32C of one page of a block.
#[must_use]
pub fn page_crc(page: &[u8]) -> u32 {
    crc32c::crc32c(page)
}
