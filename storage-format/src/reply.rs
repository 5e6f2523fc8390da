//! The client-replies zone: the last reply of every session as of the last checkpoint.

use crate::{Checksum, checksum};
use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header of a reply slot (64 bytes, alone in the first sector); the reply message follows in the
/// next sector.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ReplySlotHeader {
    /// Of bytes 16 to 63.
    pub checksum: Checksum,
    /// Of the whole reply message.
    pub checksum_message: Checksum,
    /// The client that the reply is for.
    pub client: U128,
    /// Op that made the reply.
    pub op: U64,
    /// Bytes of the reply message.
    pub size: U32,
    /// Zero.
    pub reserved: U32,
}

const _: () = assert!(size_of::<ReplySlotHeader>() == 64);

impl ReplySlotHeader {
    /// The header of `message`.
    #[must_use]
    pub fn new(client: u128, op: u64, message: &[u8]) -> Self {
        let mut header = Self {
            checksum: Checksum::ZERO,
            checksum_message: checksum(message),
            client: client.into(),
            op: op.into(),
            size: u32::try_from(message.len())
                .expect("a message is at most 1 MiB")
                .into(),
            reserved: 0.into(),
        };
        header.checksum = checksum(&header.as_bytes()[16..]);
        header
    }

    /// Whether the header itself is intact.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.checksum == checksum(&self.as_bytes()[16..]) && self.reserved.get() == 0
    }
}
