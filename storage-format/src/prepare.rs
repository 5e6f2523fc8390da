//! The journal: prepare headers, the request entries of a prepare, and the markers of empty slots.
//!
//! A prepare is a header of 256 bytes, `request_count` entries of 64 bytes, and the bodies of those
//! requests one after the other. One prepare carries the requests of many clients (group commit).

use crate::{Checksum, checksum};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of every message header.
pub const HEADER_SIZE: usize = 256;

/// What a journal slot holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum PrepareKind {
    /// Nothing: the slot was formatted or truncated. `op` is the slot.
    Empty = 1,
    /// Op 0, written by format: the start of the hash chain.
    Root = 2,
    /// Requests of clients.
    Requests = 3,
    /// Expiry of pending transfers, prepared by the primary; no entries.
    Pulse = 4,
}

impl PrepareKind {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of that number, if there is one.
    #[must_use]
    pub fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Empty),
            2 => Some(Self::Root),
            3 => Some(Self::Requests),
            4 => Some(Self::Pulse),
            _ => None,
        }
    }
}

/// The command number of a prepare, in the frame shared with client messages.
pub const COMMAND_PREPARE: u8 = 6;

/// Header of a prepare (256 bytes); also the element of the redundant header ring.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PrepareHeader {
    /// Of bytes 16 to 255: the identity of the prepare.
    pub checksum: Checksum,
    /// Zero.
    pub checksum_padding: U128,
    /// Of the entries and bodies.
    pub checksum_body: Checksum,
    /// Zero.
    pub checksum_body_padding: U128,
    /// Zero.
    pub nonce_reserved: U128,
    /// Cluster that the prepare belongs to.
    pub cluster: U128,
    /// Bytes of header, entries and bodies.
    pub size: U32,
    /// Zero.
    pub epoch: U32,
    /// View in which the prepare was made.
    pub view: U32,
    /// Release that executes it: that of the log.
    pub release: U32,
    /// Zero.
    pub protocol: U16,
    /// [`COMMAND_PREPARE`].
    pub command: u8,
    /// The primary that made it.
    pub replica: u8,
    /// Zero.
    pub reserved_frame: [u8; 12],
    /// Checksum of the prepare of op - 1.
    pub parent: Checksum,
    /// Zero.
    pub parent_padding: U128,
    /// Position in the log.
    pub op: U64,
    /// Highest op that the primary knew to be committed.
    pub commit: U64,
    /// Time of the last event in it, in nanoseconds since 1970; increases along the log.
    pub timestamp: U64,
    /// Entries that follow the header.
    pub request_count: U32,
    /// A [`PrepareKind`].
    pub kind: u8,
    /// Zero.
    pub reserved_kind: [u8; 3],
    /// Identity of the checkpoint that the op builds on; zero before the first, and at releases that do
    /// not name it.
    pub checkpoint_id: Checksum,
    /// Zero.
    pub reserved: [u8; 48],
}

const _: () = assert!(size_of::<PrepareHeader>() == HEADER_SIZE);

impl PrepareHeader {
    /// A header with every field zero.
    #[must_use]
    pub fn zeroed() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }

    /// The marker of an empty slot.
    #[must_use]
    pub fn empty(cluster: u128, slot: u64) -> Self {
        Self::without_body(cluster, slot, PrepareKind::Empty)
    }

    /// Op 0 of every cluster.
    #[must_use]
    pub fn root(cluster: u128) -> Self {
        Self::without_body(cluster, 0, PrepareKind::Root)
    }

    fn without_body(cluster: u128, op: u64, kind: PrepareKind) -> Self {
        let mut header = Self::zeroed();
        header.cluster = cluster.into();
        header.size = 256.into();
        header.command = COMMAND_PREPARE;
        header.op = op.into();
        header.kind = kind.code();
        header.checksum_body = Checksum::EMPTY;
        header.seal();
        header
    }

    /// What `checksum` has to be.
    #[must_use]
    pub fn checksum_expected(&self) -> Checksum {
        checksum(&self.as_bytes()[16..])
    }

    /// Sets `checksum`; every other field is final.
    pub fn seal(&mut self) {
        self.checksum = self.checksum_expected();
    }

    /// Whether the header is what a prepare of `cluster` can look like.
    #[must_use]
    pub fn valid(&self, cluster: u128) -> bool {
        let zeros = self.checksum_padding.get() | self.checksum_body_padding.get();
        let more = self.nonce_reserved.get() | self.parent_padding.get();
        self.checksum == self.checksum_expected()
            && zeros | more == 0
            && self.epoch.get() == 0
            && self.protocol.get() == 0
            && self.reserved_frame == [0; 12]
            && self.reserved_kind == [0; 3]
            && self.reserved == [0; 48]
            && self.cluster.get() == cluster
            && self.command == COMMAND_PREPARE
            && PrepareKind::from_u8(self.kind).is_some()
            && u64::from(self.size.get()) >= 256 + 64 * u64::from(self.request_count.get())
    }

    /// The kind; the header was found valid before.
    #[must_use]
    pub fn kind(&self) -> PrepareKind {
        PrepareKind::from_u8(self.kind).expect("the header was found valid")
    }
}

/// One client request inside a prepare (64 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RequestEntry {
    /// Checksum of the request's header, repeated in the reply.
    pub request_checksum: Checksum,
    /// The client that sent it.
    pub client: U128,
    /// Its session; 0 for a register request.
    pub session: U64,
    /// Timestamp of the last event of the request.
    pub timestamp: U64,
    /// Request number within the session.
    pub request: U32,
    /// Release of the client.
    pub release: U32,
    /// Bytes of the request's body.
    pub body_size: U32,
    /// Operation.
    pub operation: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<RequestEntry>() == 64);
