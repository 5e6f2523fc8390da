//! What replicas tell each other: frames that are made here, and taken apart.

use crate::constants::{self, TIMESTAMP_MAX};
use crate::stdx::{to_u64, to_usize};
use crate::wire::frame::concat;
use crate::wire::{Operation, PeerHeader};
use bytes::Bytes;
use storage_format::{
    BlockReference, Checksum, Geometry, PrepareHeader, PrepareKind, RequestEntry, Superblock,
    checksum,
};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Headers that tell the top of a log: more than can be uncommitted, and as many as the superblock has.
pub const VIEW_HEADERS_MAX: usize = 16;
/// Headers of one answer to a question for them.
pub const HEADERS_MAX: usize = 256;

const _: () = assert!(VIEW_HEADERS_MAX as u64 >= constants::PIPELINE_PREPARES_MAX);

/// A checkpoint as the superblock has it: what a replica needs to go on from there, the blocks left out.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CheckpointState {
    /// Prepare of the checkpoint's op.
    pub header: PrepareHeader,
    /// State of the ledger beside its tables.
    pub ledger_state: [u8; 256],
    /// First block of the checkpoint's index.
    pub index: BlockReference,
    /// Blocks that the index lists.
    pub block_count: U64,
    /// Zero.
    pub reserved: [u8; 88],
}

const _: () = assert!(size_of::<CheckpointState>() == 640);

impl CheckpointState {
    /// The checkpoint of a superblock.
    #[must_use]
    pub fn of(superblock: &Superblock) -> Self {
        Self {
            header: superblock.checkpoint,
            ledger_state: superblock.ledger_state,
            index: superblock.checkpoint_index,
            block_count: superblock.checkpoint_block_count,
            reserved: [0; 88],
        }
    }

    /// The state of every cluster at first, which is no use to anybody.
    #[must_use]
    pub fn none(cluster: u128) -> Self {
        Self {
            header: PrepareHeader::root(cluster),
            ..FromZeros::new_zeroed()
        }
    }

    /// What tells it from any other.
    #[must_use]
    pub fn identity(&self) -> Checksum {
        checksum(self.as_bytes())
    }

    /// Its op.
    #[must_use]
    pub fn op(&self) -> u64 {
        self.header.op.get()
    }
}

/// What a replica tells one whose file was lost, beside its view.
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RecoveryAnswer {
    /// The sizes of its data file, which are those of all replicas.
    pub geometry: Geometry,
    /// 1 if somebody speaks as the replica that asks, and remembers: its file is not lost.
    pub impostor: u8,
    /// Replicas of the cluster, which the quorums follow from.
    pub replica_count: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Ops and views are below these: no cluster gets there.
const OP_MAX: u64 = 1 << 62;
const VIEW_MAX: u32 = 1 << 31;

/// Whether ops and views of a message are such that one can count on from them.
#[must_use]
pub fn makes_sense(header: &PeerHeader) -> bool {
    let ops = [
        header.op,
        header.op_last,
        header.commit,
        header.checkpoint_op,
    ];
    let views = [header.view, header.log_view, header.view_next];
    ops.iter().all(|op| op.get() < OP_MAX) && views.iter().all(|view| view.get() < VIEW_MAX)
}

/// Whether a prepare is whole: of `cluster`, with entries that make up its body.
#[must_use]
pub fn is_prepare(header: &PrepareHeader, body: &[u8], cluster: u128) -> bool {
    let entries_size = to_usize(header.request_count.get()) * size_of::<RequestEntry>();
    let Some((entries, bodies)) = body.split_at_checked(entries_size) else {
        return false;
    };
    let entries = <[RequestEntry]>::ref_from_bytes(entries).expect("whole entries");
    let sizes = entries.iter().map(|entry| u64::from(entry.body_size.get()));
    let operations = entries.iter().map(|entry| entry.operation);
    is_op(header, cluster)
        && header.kind > PrepareKind::Root.code()
        && header.commit < header.op
        && header.timestamp.get() < TIMESTAMP_MAX
        && to_usize(header.size.get()) == constants::HEADER_SIZE + body.len()
        && sizes.sum::<u64>() == to_u64(bodies.len())
        && { operations }.all(|code| Operation::from_u8(code).is_some())
}

fn is_op(header: &PrepareHeader, cluster: u128) -> bool {
    header.valid(cluster) && header.op.get() < OP_MAX && header.view.get() < VIEW_MAX
}

/// A frame of `header`, all of whose fields but size and checksums are final.
#[must_use]
pub fn frame(mut header: PeerHeader, body: &[u8]) -> Bytes {
    let size = constants::HEADER_SIZE + body.len();
    assert!(size <= constants::PEER_MESSAGE_SIZE_MAX);
    header.size = u32::try_from(size).expect("it is below 2 MiB").into();
    concat(&header.sealed(body), body)
}

/// The bytes of a list of headers.
#[must_use]
pub fn headers_body(headers: &[PrepareHeader]) -> &[u8] {
    headers.as_bytes()
}

/// The headers in a body, newest first: of `cluster`, each the parent of the one before. `None` when they
/// are anything else.
#[must_use]
pub fn headers(body: &[u8], cluster: u128) -> Option<Vec<PrepareHeader>> {
    let headers = <[PrepareHeader]>::ref_from_bytes(body).ok()?;
    let whole = headers.len() <= HEADERS_MAX && headers.iter().all(|header| is_op(header, cluster));
    let chained = headers
        .windows(2)
        .all(|pair| pair[0].parent == pair[1].checksum && pair[0].op.get() == pair[1].op.get() + 1);
    (whole && chained).then(|| headers.to_vec())
}

/// The body of a start of a view: the checkpoint of the primary, and the top of the log.
#[must_use]
pub fn start_view_body(checkpoint: &CheckpointState, headers: &[PrepareHeader]) -> Vec<u8> {
    [checkpoint.as_bytes(), headers.as_bytes()].concat()
}

/// Takes it apart.
#[must_use]
pub fn start_view(body: &[u8], cluster: u128) -> Option<(CheckpointState, Vec<PrepareHeader>)> {
    let (checkpoint, rest) = CheckpointState::read_from_prefix(body).ok()?;
    let headers = headers(rest, cluster).filter(|all| !all.is_empty())?;
    let sound = is_op(&checkpoint.header, cluster) && headers.len() <= VIEW_HEADERS_MAX;
    sound.then_some((checkpoint, headers))
}
