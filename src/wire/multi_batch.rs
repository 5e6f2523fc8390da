//! Bodies that hold several batches: elements, padding, and a trailer that says where to cut.
//!
//! The trailer ends with the number of batches, and has before it one count of elements per batch,
//! the last batch first (so the count of the first batch is next to the number of batches). Bytes
//! of 0xFF before the counts round it up to a multiple of the element size. All numbers are u16.

use crate::stdx::to_u64;
use std::iter::FusedIterator;

/// Batches of a body at most.
pub const BATCHES_MAX: usize = 0xFFFE;

/// Fills the trailer up.
const PADDING: u8 = 0xFF;

/// Why a body cannot be cut into batches.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MultiBatchError {
    /// The number of batches itself is missing.
    #[error("a body of {size} bytes has no trailer")]
    TrailerMissing {
        /// Bytes of the body.
        size: usize,
    },
    /// 0 and 65535 stand for nothing.
    #[error("{count} batches")]
    BatchCount {
        /// Batches that the trailer names.
        count: u16,
    },
    /// The trailer is longer than the body.
    #[error("a trailer of {expected} bytes in a body of {actual}")]
    TrailerCut {
        /// Bytes of the trailer.
        expected: usize,
        /// Bytes of the body.
        actual: usize,
    },
    /// The padding of the trailer is not 0xFF.
    #[error("the trailer is not padded with 0xFF")]
    Padding,
    /// The counts do not add up to the elements.
    #[error("batches of {expected} bytes in a payload of {actual}")]
    Payload {
        /// Bytes that the counts add up to.
        expected: u64,
        /// Bytes before the trailer.
        actual: usize,
    },
}

/// The batches of a body, first to last; borrows the body and allocates nothing.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    /// The elements of all batches.
    payload: &'a [u8],
    /// Those of the batches that are still to come.
    rest: &'a [u8],
    /// The counts of those batches, the next one last; empty after the last batch.
    counts: &'a [u8],
    element_size: usize,
    /// A body without trailer is still to come, as one batch.
    whole: bool,
}

impl<'a> Batches<'a> {
    /// Cuts a body with a trailer.
    pub fn decode(element_size: usize, body: &'a [u8]) -> Result<Self, MultiBatchError> {
        assert!(element_size > 0);
        let size = body.len();
        let Some((_, last)) = body.split_last_chunk::<2>() else {
            return Err(MultiBatchError::TrailerMissing { size });
        };
        let count = u16::from_le_bytes(*last);
        if count == 0 || usize::from(count) > BATCHES_MAX {
            return Err(MultiBatchError::BatchCount { count });
        }
        let expected = trailer_size(element_size, usize::from(count));
        if size < expected {
            return Err(MultiBatchError::TrailerCut {
                expected,
                actual: size,
            });
        }
        let (payload, trailer) = body.split_at(size - expected);
        let (padding, counts) = trailer.split_at(expected - 2 * (usize::from(count) + 1));
        if padding.iter().any(|byte| *byte != PADDING) {
            return Err(MultiBatchError::Padding);
        }
        let counts = &counts[..2 * usize::from(count)];
        let elements: u64 = counts
            .chunks_exact(2)
            .map(|item| u64::from(u16::from_le_bytes([item[0], item[1]])))
            .sum();
        let expected = elements * to_u64(element_size);
        if expected != to_u64(payload.len()) {
            return Err(MultiBatchError::Payload {
                expected,
                actual: payload.len(),
            });
        }
        Ok(Self {
            payload,
            rest: payload,
            counts,
            element_size,
            whole: false,
        })
    }

    /// A body without trailer: one batch.
    #[must_use]
    pub fn whole(body: &'a [u8]) -> Self {
        Self {
            payload: body,
            rest: body,
            counts: &[],
            element_size: 1,
            whole: true,
        }
    }

    /// The elements of all batches, one after the other.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if std::mem::take(&mut self.whole) {
            return Some(std::mem::take(&mut self.rest));
        }
        let (counts, count) = self.counts.split_last_chunk::<2>()?;
        self.counts = counts;
        let size = usize::from(u16::from_le_bytes(*count)) * self.element_size;
        let (batch, rest) = self.rest.split_at(size);
        self.rest = rest;
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.whole) + self.counts.len() / 2;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batches<'_> {}
impl FusedIterator for Batches<'_> {}

/// Bytes of the trailer of so many batches.
#[must_use]
pub const fn trailer_size(element_size: usize, batch_count: usize) -> usize {
    (2 * (batch_count + 1)).next_multiple_of(element_size)
}

/// Bytes of a body with so many elements in so many batches.
#[must_use]
pub const fn body_size(element_size: usize, element_count: u64, batch_count: usize) -> u64 {
    element_count * to_u64(element_size) + to_u64(trailer_size(element_size, batch_count))
}

/// Makes the body of a multi-batch reply: the caller appends results to `out`, says where each batch
/// ends, and finishes with the trailer. Used again for the next reply, it allocates nothing.
#[derive(Debug, Default)]
pub struct ReplyEncoder {
    element_size: usize,
    /// Where the current batch begins in the output.
    batch_start: usize,
    /// Elements of each batch that ended.
    counts: Vec<u16>,
}

impl ReplyEncoder {
    /// An encoder that has room for `batches` before it allocates.
    #[must_use]
    pub fn with_capacity(batches: usize) -> Self {
        Self {
            element_size: 0,
            batch_start: 0,
            counts: Vec::with_capacity(batches),
        }
    }

    /// Begins a body at the end of `out`.
    pub fn begin(&mut self, element_size: usize, out: &[u8]) {
        assert!(element_size > 0);
        self.element_size = element_size;
        self.batch_start = out.len();
        self.counts.clear();
    }

    /// The results appended to `out` since the last call are a batch.
    pub fn batch_end(&mut self, out: &[u8]) {
        let size = out.len() - self.batch_start;
        assert!(
            size.is_multiple_of(self.element_size),
            "a batch holds whole elements"
        );
        assert!(
            self.counts.len() < BATCHES_MAX,
            "a request has at most as many batches"
        );
        let count = size / self.element_size;
        self.counts
            .push(u16::try_from(count).expect("a message holds fewer elements"));
        self.batch_start = out.len();
    }

    /// Appends the trailer.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        assert!(!self.counts.is_empty(), "a body has at least one batch");
        assert!(out.len() == self.batch_start, "the last batch has ended");
        let used = 2 * (self.counts.len() + 1);
        let end = out.len() + trailer_size(self.element_size, self.counts.len());
        out.resize(end - used, PADDING);
        for count in self.counts.iter().rev() {
            out.extend_from_slice(&count.to_le_bytes());
        }
        let batch_count = u16::try_from(self.counts.len()).expect("at most BATCHES_MAX");
        out.extend_from_slice(&batch_count.to_le_bytes());
        assert!(out.len() == end);
    }
}

/// The body that holds `batches`, for requests and tests.
#[must_use]
pub fn encode(element_size: usize, batches: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = ReplyEncoder::with_capacity(batches.len());
    encoder.begin(element_size, &out);
    for batch in batches {
        out.extend_from_slice(batch);
        encoder.batch_end(&out);
    }
    encoder.finish(&mut out);
    out
}
