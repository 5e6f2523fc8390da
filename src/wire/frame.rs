//! Frames: where a message ends, and whether its bytes can be trusted.
//!
//! What fails here ends the connection: after it, nothing says where the next message begins.

use super::header::{CommonHeader, PingClientHeader, RequestHeader, command};
use crate::constants::{HEADER_SIZE, MESSAGE_SIZE_MAX, PEER_MESSAGE_SIZE_MAX};
use crate::stdx::to_usize;
use storage_format::{Checksum, checksum};
use zerocopy::{FromBytes, IntoBytes};

/// What the receiver has to know of a header before the body is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FrameInfo {
    /// Bytes of header and body.
    pub size: usize,
    /// See [`command`]; may be none of those.
    pub command: u8,
    /// What the body has to have.
    pub checksum_body: Checksum,
}

/// Why the bytes of a connection cannot be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The header is not what was sent.
    #[error("header checksum: expected {expected}, got {actual}")]
    HeaderChecksum {
        /// Of the bytes that arrived.
        expected: Checksum,
        /// In the header.
        actual: Checksum,
    },
    /// The message is for another cluster.
    #[error("cluster: expected {expected:032x}, got {actual:032x}")]
    Cluster {
        /// The server's.
        expected: u128,
        /// The sender's.
        actual: u128,
    },
    /// No message has this size.
    #[error("size: expected 256 to {size_max}, got {actual}")]
    Size {
        /// The longest message.
        size_max: usize,
        /// In the header.
        actual: u32,
    },
    /// The body is not what was sent.
    #[error("body checksum: expected {expected}, got {actual}")]
    BodyChecksum {
        /// Of the bytes that arrived.
        expected: Checksum,
        /// In the header.
        actual: Checksum,
    },
}

/// Checks the header of a message between a client and the server, or between replicas.
pub fn check_header(bytes: &[u8; HEADER_SIZE], cluster: u128) -> Result<FrameInfo, FrameError> {
    let header: &CommonHeader = zerocopy::transmute_ref!(bytes);
    let size_max = if command::is_of_peers(header.command) {
        PEER_MESSAGE_SIZE_MAX
    } else {
        MESSAGE_SIZE_MAX
    };
    let expected = checksum(&bytes[16..]);
    if header.checksum != expected {
        return Err(FrameError::HeaderChecksum {
            expected,
            actual: header.checksum,
        });
    }
    if header.cluster.get() != cluster {
        return Err(FrameError::Cluster {
            expected: cluster,
            actual: header.cluster.get(),
        });
    }
    let size = to_usize(header.size.get());
    if size < HEADER_SIZE || size > size_max {
        return Err(FrameError::Size {
            size_max,
            actual: header.size.get(),
        });
    }
    Ok(FrameInfo {
        size,
        command: header.command,
        checksum_body: header.checksum_body,
    })
}

/// Checks the body that followed the header.
pub fn check_body(info: &FrameInfo, body: &[u8]) -> Result<(), FrameError> {
    assert!(
        info.size == HEADER_SIZE + body.len(),
        "the caller cut the frame by its size"
    );
    let expected = if body.is_empty() {
        Checksum::EMPTY
    } else {
        checksum(body)
    };
    if info.checksum_body == expected {
        Ok(())
    } else {
        Err(FrameError::BodyChecksum {
            expected,
            actual: info.checksum_body,
        })
    }
}

/// What a client can send.
#[derive(Clone, Copy, Debug)]
pub enum ClientMessage<'a> {
    /// A request and its body.
    Request(&'a RequestHeader, &'a [u8]),
    /// A ping.
    Ping(&'a PingClientHeader),
    /// A command that no client sends; ignored.
    Unknown(u8),
}

impl<'a> ClientMessage<'a> {
    /// The message in a frame that [`check_header`] and [`check_body`] passed.
    #[must_use]
    pub fn of_frame(frame: &'a [u8]) -> Self {
        let (header, body) =
            CommonHeader::ref_from_prefix(frame).expect("a frame begins with a header");
        match header.command {
            command::REQUEST => Self::Request(zerocopy::transmute_ref!(header), body),
            command::PING_CLIENT => Self::Ping(zerocopy::transmute_ref!(header)),
            other => Self::Unknown(other),
        }
    }

    /// The first message in `bytes`, with its header and body checksums checked, and its size.
    ///
    /// `Ok(None)` says that more bytes have to come first.
    pub fn decode(bytes: &'a [u8], cluster: u128) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(header) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let info = check_header(header, cluster)?;
        let Some(frame) = bytes.get(..info.size) else {
            return Ok(None);
        };
        check_body(&info, &frame[HEADER_SIZE..])?;
        Ok(Some((Self::of_frame(frame), info.size)))
    }
}

/// A header and its body as one run of bytes.
#[must_use]
pub fn concat<Header: IntoBytes + zerocopy::Immutable>(
    header: &Header,
    body: &[u8],
) -> bytes::Bytes {
    let mut frame = Vec::with_capacity(size_of::<Header>() + body.len());
    frame.extend_from_slice(header.as_bytes());
    frame.extend_from_slice(body);
    frame.into()
}
