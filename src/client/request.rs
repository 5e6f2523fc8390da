//! Requests as far as they can be made before the session's state is known: the body in its place
//! in the frame, and its checksum, which is the expensive part of a frame.

use crate::constants::{BODY_SIZE_MAX, HEADER_SIZE};
use crate::wire::build::ClientState;
use crate::wire::header::command;
use crate::wire::{Operation, RequestHeader, multi_batch};
use bytes::Bytes;
use storage_format::{Checksum, checksum};
use zerocopy::IntoBytes;

/// A request that only lacks its header.
///
/// ```
/// use daftari::client::PreparedRequest;
/// use daftari::wire::Operation;
/// let ids = [7_u128.to_le_bytes(), 8_u128.to_le_bytes()].concat();
/// let request = PreparedRequest::batch(Operation::LookupAccounts, &ids);
/// assert_eq!(request.body().len(), 2 * 16 + 16); // two ids and the trailer
/// ```
#[derive(Clone, Debug)]
pub struct PreparedRequest {
    operation: Operation,
    /// The body, after room for the header.
    frame: Vec<u8>,
    checksum_body: Checksum,
}

impl PreparedRequest {
    /// A request with this body, trailer included where the operation has one.
    ///
    /// ```
    /// use daftari::client::PreparedRequest;
    /// use daftari::wire::Operation;
    /// let request = PreparedRequest::raw(Operation::GetChangeEvents, &[0; 64]);
    /// assert_eq!(request.operation(), Operation::GetChangeEvents);
    /// ```
    #[must_use]
    pub fn raw(operation: Operation, body: &[u8]) -> Self {
        let mut frame = Vec::with_capacity(HEADER_SIZE + body.len());
        frame.resize(HEADER_SIZE, 0);
        frame.extend_from_slice(body);
        Self::of_frame(operation, frame)
    }

    /// A request with one batch of `events`, whose trailer is added if the operation has one.
    ///
    /// ```
    /// use daftari::client::PreparedRequest;
    /// use daftari::wire::Operation;
    /// let request = PreparedRequest::batch(Operation::CreateAccounts, &[0; 128]);
    /// assert_eq!(request.body()[254..], [1, 0]); // one batch
    /// ```
    #[must_use]
    pub fn batch(operation: Operation, events: &[u8]) -> Self {
        let element = operation.event_size();
        assert!(
            events.len().is_multiple_of(element),
            "a batch is whole events"
        );
        let trailer = if operation.is_multi_batch() {
            element
        } else {
            0
        };
        let mut frame = Vec::with_capacity(HEADER_SIZE + events.len() + trailer);
        frame.resize(HEADER_SIZE, 0);
        frame.extend_from_slice(events);
        if operation.is_multi_batch() {
            let mut encoder = multi_batch::ReplyEncoder::with_capacity(1);
            encoder.begin(element, &frame[..HEADER_SIZE]);
            encoder.batch_end(&frame);
            encoder.finish(&mut frame);
        }
        Self::of_frame(operation, frame)
    }

    fn of_frame(operation: Operation, frame: Vec<u8>) -> Self {
        let body = &frame[HEADER_SIZE..];
        assert!(
            body.len() <= BODY_SIZE_MAX,
            "a body of {} bytes is too long",
            body.len()
        );
        let checksum_body = checksum(body);
        Self {
            operation,
            frame,
            checksum_body,
        }
    }

    /// What it asks for.
    ///
    /// ```
    /// # use daftari::{client::PreparedRequest, wire::Operation};
    /// let request = PreparedRequest::batch(Operation::LookupTransfers, &[1; 16]);
    /// assert_eq!(request.operation(), Operation::LookupTransfers);
    /// ```
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The body as it is sent.
    ///
    /// ```
    /// # use daftari::{client::PreparedRequest, wire::Operation};
    /// let request = PreparedRequest::raw(Operation::GetChangeEvents, &[9; 64]);
    /// assert_eq!(request.body(), [9; 64]);
    /// ```
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.frame[HEADER_SIZE..]
    }

    /// The frame, and the checksum by which the reply will name it.
    pub(super) fn finish(mut self, state: &ClientState) -> (Bytes, Checksum) {
        let mut header = RequestHeader::zeroed();
        header.command = command::REQUEST;
        header.size = u32::try_from(self.frame.len())
            .expect("a message is at most 1 MiB")
            .into();
        header.cluster = state.cluster.into();
        header.view = state.view.into();
        header.release = state.release.into();
        header.parent = u128::from_le_bytes(state.parent.0).into();
        header.client = state.client.into();
        header.session = state.session.into();
        header.request = state.request.into();
        header.operation = self.operation.code();
        header.checksum_body = self.checksum_body;
        header.seal();
        self.frame[..HEADER_SIZE].copy_from_slice(header.as_bytes());
        (self.frame.into(), header.checksum)
    }
}
