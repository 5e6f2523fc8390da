//! What the server checks of a request or ping before it looks at sessions.
//!
//! The order is that of the protocol: fields that no client sends otherwise and views of the future
//! are ignored; then releases, size, operation and body each earn an eviction with its own reason.

use super::header::{CommonHeader, Evicted, PingClientHeader, RequestHeader, command};
use super::multi_batch::{Batches, body_size};
use super::operation::Operation;
use super::types::{AccountFilter, ChangeEventsFilter, QueryFilter, RegisterRequest};
use crate::constants::{BODY_SIZE_MAX, HEADER_SIZE, RELEASE_CLIENT_MAX, RELEASE_CLIENT_MIN};
use crate::stdx::{to_u64, to_usize};
use zerocopy::FromBytes;

/// Why a message gets no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IgnoreReason {
    /// Not the command that the caller took it for.
    #[error("command")]
    Command,
    /// The size is not that of header and body.
    #[error("size")]
    Size,
    /// Padding or a reserved field is not zero.
    #[error("a reserved field is not zero")]
    Reserved,
    /// `epoch` is not zero.
    #[error("epoch is not zero")]
    Epoch,
    /// `protocol` is not zero.
    #[error("protocol is not zero")]
    Protocol,
    /// `replica` is not zero.
    #[error("replica is not zero")]
    Replica,
    /// `release` is zero.
    #[error("release is zero")]
    Release,
    /// `client` is zero.
    #[error("client is zero")]
    Client,
    /// `timestamp` is not zero.
    #[error("timestamp is not zero")]
    Timestamp,
    /// A register request has a session, or another request has none.
    #[error("session")]
    Session,
    /// A register request has a number, or another request has none.
    #[error("request")]
    Request,
    /// A register request has a parent.
    #[error("parent")]
    Parent,
    /// An operation that only the server itself uses.
    #[error("operation")]
    Operation,
    /// The client knows a later view than the server.
    #[error("view of the future")]
    View,
}

/// What becomes of a message that is not served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rejection {
    /// No answer; the connection stays open.
    Ignore(IgnoreReason),
    /// The client is told why.
    Evict(Evicted),
}

/// Checks a request, and says what it asks for. `view` is the server's.
///
/// After `Ok`, [`Operation::batches`] cuts the body without failing, and the reply fits a message.
pub fn check(header: &RequestHeader, body: &[u8], view: u32) -> Result<Operation, Rejection> {
    check_fields(header, body).map_err(Rejection::Ignore)?;
    if header.view.get() > view {
        return Err(Rejection::Ignore(IgnoreReason::View));
    }
    check_release(header.release.get()).map_err(Rejection::Evict)?;
    check_content(header.operation, body).map_err(Rejection::Evict)
}

/// Checks a ping; its session is the caller's matter.
pub fn check_ping(header: &PingClientHeader) -> Result<(), Rejection> {
    let common: &CommonHeader = zerocopy::transmute_ref!(header);
    check_common(common, command::PING_CLIENT, 0).map_err(Rejection::Ignore)?;
    if header.client.get() == 0 {
        return Err(Rejection::Ignore(IgnoreReason::Client));
    }
    if header.reserved != [0; 96] {
        return Err(Rejection::Ignore(IgnoreReason::Reserved));
    }
    check_release(header.release.get()).map_err(Rejection::Evict)
}

/// What all messages of clients have in common.
fn check_common(header: &CommonHeader, command: u8, body_size: usize) -> Result<(), IgnoreReason> {
    let padding = header.checksum_padding.get() | header.checksum_body_padding.get();
    let rules = [
        (header.command == command, IgnoreReason::Command),
        (
            to_usize(header.size.get()) == HEADER_SIZE + body_size,
            IgnoreReason::Size,
        ),
        (
            padding | header.nonce_reserved.get() == 0,
            IgnoreReason::Reserved,
        ),
        (header.reserved_frame == [0; 12], IgnoreReason::Reserved),
        (header.epoch.get() == 0, IgnoreReason::Epoch),
        (header.protocol.get() == 0, IgnoreReason::Protocol),
        (header.replica == 0, IgnoreReason::Replica),
        (header.release.get() != 0, IgnoreReason::Release),
    ];
    first_broken(&rules)
}

/// The fields of a request, each by itself and as far as they depend on each other.
fn check_fields(header: &RequestHeader, body: &[u8]) -> Result<(), IgnoreReason> {
    let common: &CommonHeader = zerocopy::transmute_ref!(header);
    check_common(common, command::REQUEST, body.len())?;
    let register = header.operation == Operation::Register.code();
    let reserved = header.parent_padding.get() == 0
        && header.previous_request_latency_padding == [0; 3]
        && header.reserved == [0; 52];
    let internal = header.operation < Operation::Pulse.code() && !register;
    let rules = [
        (reserved, IgnoreReason::Reserved),
        (header.client.get() != 0, IgnoreReason::Client),
        (header.timestamp.get() == 0, IgnoreReason::Timestamp),
        (!internal, IgnoreReason::Operation),
        (
            (header.session.get() == 0) == register,
            IgnoreReason::Session,
        ),
        (
            (header.request.get() == 0) == register,
            IgnoreReason::Request,
        ),
        (!register || header.parent.get() == 0, IgnoreReason::Parent),
    ];
    first_broken(&rules)
}

fn first_broken(rules: &[(bool, IgnoreReason)]) -> Result<(), IgnoreReason> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, reason)) => Err(*reason),
        None => Ok(()),
    }
}

fn check_release(release: u32) -> Result<(), Evicted> {
    if release < RELEASE_CLIENT_MIN {
        Err(Evicted::ReleaseTooLow)
    } else if release > RELEASE_CLIENT_MAX {
        Err(Evicted::ReleaseTooHigh)
    } else {
        Ok(())
    }
}

fn check_content(code: u8, body: &[u8]) -> Result<Operation, Evicted> {
    if body.len() > BODY_SIZE_MAX {
        return Err(Evicted::InvalidBodySize);
    }
    let operation = match Operation::from_u8(code) {
        None | Some(Operation::Pulse) => return Err(Evicted::InvalidOperation),
        Some(operation) => operation,
    };
    if operation == Operation::Register {
        check_register(body)?;
    } else if !body_valid(operation, body) {
        return Err(Evicted::InvalidBody);
    }
    Ok(operation)
}

/// The server decides about everything that a register request could ask for.
fn check_register(body: &[u8]) -> Result<(), Evicted> {
    if body.is_empty() {
        return Err(Evicted::InvalidBodySize);
    }
    match RegisterRequest::ref_from_bytes(body) {
        Ok(request) if *request == RegisterRequest::zeroed() => Ok(()),
        Ok(_) | Err(_) => Err(Evicted::InvalidBody),
    }
}

/// Whether the body is cut well, and its results fit a reply whatever the ledger holds.
fn body_valid(operation: Operation, body: &[u8]) -> bool {
    let batches = if operation.is_multi_batch() {
        match Batches::decode(operation.event_size(), body) {
            Ok(batches) => batches,
            Err(_) => return false,
        }
    } else if body.len().is_multiple_of(operation.event_size()) {
        Batches::whole(body)
    } else {
        return false;
    };
    let batch_count = batches.len();
    let mut results = 0;
    if operation.is_query() {
        for filter in batches {
            if filter.len() != operation.event_size() {
                return false;
            }
            results += u64::from(operation.limit_capped(filter_limit(operation, filter)));
        }
    } else {
        results = to_u64(batches.payload().len() / operation.event_size());
    }
    let size = if operation.is_multi_batch() {
        body_size(operation.result_size(), results, batch_count)
    } else {
        results * to_u64(operation.result_size())
    };
    size <= to_u64(BODY_SIZE_MAX)
}

/// The limit in the only filter of a batch.
fn filter_limit(operation: Operation, filter: &[u8]) -> u32 {
    let whole = "the batch has the size of the filter";
    let limit = if operation == Operation::GetChangeEvents {
        ChangeEventsFilter::ref_from_bytes(filter)
            .expect(whole)
            .limit
    } else if operation.event_size() == size_of::<QueryFilter>() {
        QueryFilter::ref_from_bytes(filter).expect(whole).limit
    } else {
        AccountFilter::ref_from_bytes(filter).expect(whole).limit
    };
    limit.get()
}
