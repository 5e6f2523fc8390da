//! Messages that daftari sends: replies, pongs, evictions, and the requests of its own client.

use super::frame::concat;
use super::header::{
    Evicted, EvictionHeader, PingClientHeader, PongClientHeader, ReplyHeader, RequestHeader,
    command,
};
use super::operation::Operation;
use super::types::RegisterResult;
use crate::constants::{BODY_SIZE_MAX, HEADER_SIZE};
use bytes::Bytes;
use storage_format::{Checksum, checksum};

/// What every message of a server says of its sender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sender {
    /// Its cluster.
    pub cluster: u128,
    /// The view that it is in.
    pub view: u32,
    /// Its release.
    pub release: u32,
    /// Its place in the cluster.
    pub replica: u8,
}

/// What a reply says of the request that it answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    /// `checksum` of the request.
    pub request_checksum: Checksum,
    /// The client.
    pub client: u128,
    /// Number of the request.
    pub request: u32,
    /// Release of the request: the reply repeats it.
    pub release: u32,
    /// Op that executed the request.
    pub op: u64,
    /// Timestamp of the request.
    pub timestamp: u64,
    /// Its operation.
    pub operation: Operation,
}

macro_rules! common_fields {
    ($header:ident, $sender:expr, $command:expr) => {
        $header.cluster = $sender.cluster.into();
        $header.view = $sender.view.into();
        $header.release = $sender.release.into();
        $header.replica = $sender.replica;
        $header.command = $command;
    };
}

impl ReplyHeader {
    /// The header of a reply that is sent for the first time, in `sender.view`.
    ///
    /// `context` is the checksum that the header has while `context` is zero. The next request of
    /// the client names it as its parent.
    #[must_use]
    pub fn new(sender: &Sender, answered: &Answered, body: &[u8]) -> Self {
        let mut header = Self::zeroed();
        common_fields!(header, sender, command::REPLY);
        header.release = answered.release.into();
        header.size = frame_size(body).into();
        header.request_checksum = answered.request_checksum;
        header.client = answered.client.into();
        header.op = answered.op.into();
        header.commit = answered.op.into();
        header.timestamp = answered.timestamp.into();
        header.request = answered.request.into();
        header.operation = answered.operation.code();
        header.checksum_body = checksum(body);
        header.seal();
        header.context = header.checksum;
        header.seal();
        header
    }

    /// The header of the same reply, sent again in a later view by `replica`. The context stays,
    /// or the client's next request would not be recognized.
    #[must_use]
    pub fn with_view(mut self, view: u32, replica: u8) -> Self {
        self.view = view.into();
        self.replica = replica;
        self.seal();
        self
    }
}

/// The body of the reply to a register request.
#[must_use]
pub fn register_result() -> RegisterResult {
    let mut result = RegisterResult::zeroed();
    let limit = u32::try_from(BODY_SIZE_MAX).expect("a message is at most 1 MiB");
    result.batch_size_limit = limit.into();
    result
}

/// An eviction.
#[must_use]
pub fn eviction(sender: &Sender, client: u128, reason: Evicted) -> Bytes {
    let mut header = EvictionHeader::zeroed();
    common_fields!(header, sender, command::EVICTION);
    header.size = frame_size(&[]).into();
    header.client = client.into();
    header.reason = reason.code();
    concat(&header.sealed(&[]), &[])
}

/// The answer to `ping`.
#[must_use]
pub fn pong(sender: &Sender, ping: &PingClientHeader) -> Bytes {
    let mut header = PongClientHeader::zeroed();
    common_fields!(header, sender, command::PONG_CLIENT);
    header.size = frame_size(&[]).into();
    header.ping_timestamp_monotonic = ping.ping_timestamp_monotonic;
    concat(&header.sealed(&[]), &[])
}

/// Where a client stands in its session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientState {
    /// The cluster that it talks to.
    pub cluster: u128,
    /// The latest view that it has seen.
    pub view: u32,
    /// Its release.
    pub release: u32,
    /// Itself.
    pub client: u128,
    /// Its session; 0 before it has one.
    pub session: u64,
    /// Number of the next request; 0 for a register request.
    pub request: u32,
    /// `context` of the last reply.
    pub parent: Checksum,
}

/// A client's request.
#[must_use]
pub fn request(state: &ClientState, operation: Operation, body: &[u8]) -> Bytes {
    let mut header = RequestHeader::zeroed();
    header.command = command::REQUEST;
    header.size = frame_size(body).into();
    header.cluster = state.cluster.into();
    header.view = state.view.into();
    header.release = state.release.into();
    header.parent = u128::from_le_bytes(state.parent.0).into();
    header.client = state.client.into();
    header.session = state.session.into();
    header.request = state.request.into();
    header.operation = operation.code();
    concat(&header.sealed(body), body)
}

/// A client's ping.
#[must_use]
pub fn ping(state: &ClientState, ping_timestamp_monotonic: u64) -> Bytes {
    let mut header = PingClientHeader::zeroed();
    header.command = command::PING_CLIENT;
    header.size = frame_size(&[]).into();
    header.cluster = state.cluster.into();
    header.view = state.view.into();
    header.release = state.release.into();
    header.client = state.client.into();
    header.session = state.session.into();
    header.ping_timestamp_monotonic = ping_timestamp_monotonic.into();
    concat(&header.sealed(&[]), &[])
}

fn frame_size(body: &[u8]) -> u32 {
    assert!(body.len() <= BODY_SIZE_MAX);
    u32::try_from(HEADER_SIZE + body.len()).expect("a message is at most 1 MiB")
}
