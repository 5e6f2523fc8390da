//! What replicas tell each other: frames that are made here, and taken apart.

use crate::constants;
use crate::wire::PeerHeader;
use crate::wire::frame::concat;
use bytes::Bytes;
use storage_format::PrepareHeader;
use zerocopy::{FromBytes, IntoBytes};

/// Headers that tell the top of a log: more than can be uncommitted, and as many as the superblock has.
pub const VIEW_HEADERS_MAX: usize = 16;
/// Headers of one answer to a question for them.
pub const HEADERS_MAX: usize = 256;

const _: () = assert!(VIEW_HEADERS_MAX as u64 >= constants::PIPELINE_PREPARES_MAX);

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
    let whole = headers.iter().all(|header| header.valid(cluster));
    let chained = headers
        .windows(2)
        .all(|pair| pair[0].parent == pair[1].checksum && pair[0].op.get() == pair[1].op.get() + 1);
    (whole && chained).then(|| headers.to_vec())
}
