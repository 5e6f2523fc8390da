//! What the request checks promise beyond the captured sessions, and properties of the codec for any bytes.

use super::build::{self, ClientState};
use super::header::{Evicted, RequestHeader, command};
use super::multi_batch::{BATCHES_MAX, Batches, encode, trailer_size};
use super::request::{IgnoreReason, Rejection, check, check_ping};
use super::types::{AccountFilter, ChangeEventsFilter, QueryFilter};
use super::{ClientMessage, FrameError, MultiBatchError, Operation};
use crate::constants::{BODY_SIZE_MAX, HEADER_SIZE, RELEASE, RELEASE_CLIENT_MIN, release};
use quickcheck::{TestResult, quickcheck};
use storage_format::Checksum;
use zerocopy::{FromBytes, IntoBytes};

const VIEW: u32 = 3;

type Change = fn(&mut RequestHeader);

fn state() -> ClientState {
    ClientState {
        cluster: 7,
        view: VIEW,
        release: RELEASE,
        client: 9,
        session: 2,
        request: 1,
        parent: Checksum::EMPTY,
    }
}

fn outcome(
    operation: Operation,
    body: &[u8],
    change: impl FnOnce(&mut RequestHeader),
) -> Result<Operation, Rejection> {
    let frame = build::request(&state(), operation, body);
    let mut header = RequestHeader::read_from_bytes(&frame[..HEADER_SIZE]).unwrap();
    if operation == Operation::Register {
        header.session = 0.into();
        header.request = 0.into();
        header.parent = 0.into();
    }
    change(&mut header);
    check(&header, body, VIEW)
}

fn lookup(change: impl FnOnce(&mut RequestHeader)) -> Result<Operation, Rejection> {
    outcome(Operation::LookupAccounts, &encode(16, &[&[1; 16]]), change)
}

fn body_outcome(operation: Operation, body: &[u8]) -> Result<Operation, Rejection> {
    outcome(operation, body, |_| {})
}

const INVALID_BODY: Result<Operation, Rejection> = Err(Rejection::Evict(Evicted::InvalidBody));

#[test]
fn invalid_fields_are_ignored() {
    let cases: &[(IgnoreReason, Change)] = &[
        (IgnoreReason::Reserved, |header| {
            header.checksum_padding = 1.into()
        }),
        (IgnoreReason::Reserved, |header| {
            header.checksum_body_padding = 1.into()
        }),
        (IgnoreReason::Reserved, |header| {
            header.nonce_reserved = 1.into()
        }),
        (IgnoreReason::Epoch, |header| header.epoch = 1.into()),
        (IgnoreReason::Protocol, |header| header.protocol = 1.into()),
        (IgnoreReason::Reserved, |header| {
            header.reserved_frame[11] = 1
        }),
        (IgnoreReason::Release, |header| header.release = 0.into()),
        (IgnoreReason::Replica, |header| header.replica = 1),
        (IgnoreReason::Reserved, |header| {
            header.parent_padding = 1.into()
        }),
        (IgnoreReason::Reserved, |header| {
            header.previous_request_latency_padding[0] = 1
        }),
        (IgnoreReason::Reserved, |header| header.reserved[51] = 1),
        (IgnoreReason::Client, |header| header.client = 0.into()),
        (IgnoreReason::Timestamp, |header| {
            header.timestamp = 1.into()
        }),
        (IgnoreReason::Session, |header| header.session = 0.into()),
        (IgnoreReason::Request, |header| header.request = 0.into()),
        (IgnoreReason::Operation, |header| header.operation = 0),
        (IgnoreReason::Operation, |header| header.operation = 1),
        (IgnoreReason::Operation, |header| header.operation = 3),
        (IgnoreReason::Operation, |header| header.operation = 127),
        (IgnoreReason::View, |header| header.view = (VIEW + 1).into()),
        (IgnoreReason::Command, |header| {
            header.command = command::REPLY
        }),
        (IgnoreReason::Size, |header| header.size = 256.into()),
    ];
    for (reason, change) in cases {
        assert_eq!(lookup(change), Err(Rejection::Ignore(*reason)));
    }
    assert_eq!(lookup(|_| {}), Ok(Operation::LookupAccounts));
    let latency = lookup(|header| header.previous_request_latency = u32::MAX.into());
    assert_eq!(latency, Ok(Operation::LookupAccounts));
}

#[test]
fn a_register_request_has_no_session_yet() {
    let register = |change: Change| outcome(Operation::Register, &[0; 256], change);
    let ignored = |reason| Err(Rejection::Ignore(reason));
    assert_eq!(register(|_| {}), Ok(Operation::Register));
    assert_eq!(
        register(|header| header.session = 1.into()),
        ignored(IgnoreReason::Session)
    );
    assert_eq!(
        register(|header| header.request = 1.into()),
        ignored(IgnoreReason::Request)
    );
    assert_eq!(
        register(|header| header.parent = 1.into()),
        ignored(IgnoreReason::Parent)
    );
}

#[test]
fn a_register_request_asks_for_nothing() {
    let size = Err(Rejection::Evict(Evicted::InvalidBodySize));
    assert_eq!(body_outcome(Operation::Register, &[]), size);
    assert_eq!(body_outcome(Operation::Register, &[0; 255]), INVALID_BODY);
    for at in [0, 3, 4, 255] {
        let mut body = [0; 256];
        body[at] = 1;
        assert_eq!(body_outcome(Operation::Register, &body), INVALID_BODY);
    }
}

#[test]
fn releases_have_bounds() {
    let at = |value: u32| lookup(|header| header.release = value.into());
    for value in [
        RELEASE_CLIENT_MIN,
        release(0, 17, 0),
        release(0, 17, 8),
        release(0, 17, 9),
    ] {
        assert_eq!(at(value), Ok(Operation::LookupAccounts));
    }
    for value in [1, release(0, 15, 3), release(0, 16, 3)] {
        assert_eq!(at(value), Err(Rejection::Evict(Evicted::ReleaseTooLow)));
    }
    for value in [release(0, 18, 0), u32::MAX] {
        assert_eq!(at(value), Err(Rejection::Evict(Evicted::ReleaseTooHigh)));
    }
}

#[test]
fn the_release_ranks_above_the_operation_and_the_operation_above_the_body() {
    let both = lookup(|header| {
        header.release = 1.into();
        header.operation = 200;
    });
    assert_eq!(both, Err(Rejection::Evict(Evicted::ReleaseTooLow)));
    for code in [128, 148, 200, 255] {
        let unknown = outcome(Operation::LookupAccounts, &[], |header| {
            header.operation = code
        });
        assert_eq!(unknown, Err(Rejection::Evict(Evicted::InvalidOperation)));
    }
}

#[test]
fn a_request_asks_for_no_more_than_a_reply_holds() {
    let ids = vec![0; 16 * 8190];
    let most = encode(16, &[&ids[..16 * 8189]]);
    assert_eq!(
        body_outcome(Operation::LookupAccounts, &most),
        Ok(Operation::LookupAccounts)
    );
    assert_eq!(
        body_outcome(Operation::LookupAccounts, &encode(16, &[&ids])),
        INVALID_BODY
    );
    // 64 batches need a second element of 128 bytes for the trailer of the reply.
    let mut batches = vec![&ids[..0]; 63];
    batches.push(&ids[..16 * 8189]);
    assert_eq!(
        body_outcome(Operation::LookupTransfers, &encode(16, &batches)),
        INVALID_BODY
    );
    // Without trailer there is room for one more.
    let unbatched = Operation::LookupAccountsUnbatched;
    assert_eq!(body_outcome(unbatched, &ids), Ok(unbatched));
    assert_eq!(body_outcome(unbatched, &[0; 16 * 8191]), INVALID_BODY);
}

#[test]
fn limits_are_capped_before_they_are_added_up() {
    let query = |limit: u32| QueryFilter {
        limit: limit.into(),
        ..QueryFilter::zeroed()
    };
    let (all, one) = (query(u32::MAX), query(1));
    let body = encode(64, &[all.as_bytes()]);
    assert_eq!(
        body_outcome(Operation::QueryAccounts, &body),
        Ok(Operation::QueryAccounts)
    );
    let body = encode(64, &[all.as_bytes(), one.as_bytes()]);
    assert_eq!(body_outcome(Operation::QueryAccounts, &body), INVALID_BODY);
    let half = AccountFilter {
        limit: 4094.into(),
        ..AccountFilter::zeroed()
    };
    let body = encode(128, &[half.as_bytes(), half.as_bytes()]);
    let balances = Operation::GetAccountBalances;
    assert_eq!(body_outcome(balances, &body), Ok(balances));
    let events = ChangeEventsFilter {
        limit: u32::MAX.into(),
        ..ChangeEventsFilter::zeroed()
    };
    let changes = Operation::GetChangeEvents;
    assert_eq!(body_outcome(changes, events.as_bytes()), Ok(changes));
}

#[test]
fn the_largest_create_fits_to_the_last_byte() {
    let body = encode(128, &[&[0; 128 * 8189]]);
    assert_eq!(body.len(), BODY_SIZE_MAX);
    assert_eq!(
        body_outcome(Operation::CreateTransfers, &body),
        Ok(Operation::CreateTransfers)
    );
    assert_eq!(Operation::CreateTransfers.event_count(&body), 8189);
}

#[test]
fn trailers_are_refused_for_the_right_reason() {
    let size = |body: &[u8]| Batches::decode(16, body).map(|batches| batches.len());
    assert_eq!(size(&[]), Err(MultiBatchError::TrailerMissing { size: 0 }));
    assert_eq!(
        size(&[0; 16]),
        Err(MultiBatchError::BatchCount { count: 0 })
    );
    assert_eq!(
        size(&[0xff; 16]),
        Err(MultiBatchError::BatchCount { count: 0xffff })
    );
    assert_eq!(
        size(&[1, 0]),
        Err(MultiBatchError::TrailerCut {
            expected: 16,
            actual: 2
        })
    );
    let mut body = encode(16, &[&[5; 32], &[], &[6; 16]]);
    assert_eq!(size(&body), Ok(3));
    assert_eq!(
        body[48..],
        [
            255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 2, 0, 3, 0
        ]
    );
    body[48] = 0;
    assert_eq!(size(&body), Err(MultiBatchError::Padding));
    body[48] = 255;
    body[60] = 3;
    assert_eq!(
        size(&body),
        Err(MultiBatchError::Payload {
            expected: 64,
            actual: 48
        })
    );
    let many = encode(8, &vec![&[][..]; BATCHES_MAX]);
    assert_eq!(many.len(), trailer_size(8, BATCHES_MAX));
    assert_eq!(Batches::decode(8, &many).unwrap().len(), BATCHES_MAX);
}

#[test]
fn pings_are_checked_like_requests() {
    let frame = build::ping(&state(), 5);
    let Ok(Some((ClientMessage::Ping(header), HEADER_SIZE))) = ClientMessage::decode(&frame, 7)
    else {
        panic!("a ping");
    };
    assert_eq!(check_ping(header), Ok(()));
    let mut changed = *header;
    changed.client = 0.into();
    assert_eq!(
        check_ping(&changed),
        Err(Rejection::Ignore(IgnoreReason::Client))
    );
    changed = *header;
    changed.reserved[95] = 1;
    assert_eq!(
        check_ping(&changed),
        Err(Rejection::Ignore(IgnoreReason::Reserved))
    );
    changed = *header;
    changed.release = u32::MAX.into();
    assert_eq!(
        check_ping(&changed),
        Err(Rejection::Evict(Evicted::ReleaseTooHigh))
    );
}

#[test]
fn frames_of_another_cluster_or_size_cannot_be_trusted() {
    let frame = build::ping(&state(), 5);
    let other = ClientMessage::decode(&frame, 8).unwrap_err();
    assert_eq!(
        other,
        FrameError::Cluster {
            expected: 8,
            actual: 7
        }
    );
    for size in [0, 255, 1 << 20 | 1, u32::MAX] {
        let mut header = RequestHeader::read_from_bytes(&frame).unwrap();
        header.size = size.into();
        header.seal();
        let error = ClientMessage::decode(header.as_bytes(), 7).unwrap_err();
        assert_eq!(
            error,
            FrameError::Size {
                size_max: 1 << 20,
                actual: size
            }
        );
    }
}

/// Decodes and checks whatever the bytes are; says whether they were a request that is served.
fn receive(bytes: &[u8]) -> bool {
    match ClientMessage::decode(bytes, 7) {
        Ok(Some((ClientMessage::Request(header, body), size))) => {
            assert!(size <= bytes.len());
            let Ok(operation) = check(header, body, VIEW) else {
                return false;
            };
            let events: usize = operation.batches(body).map(<[u8]>::len).sum();
            assert!(events <= body.len());
            assert!(operation.event_count(body) <= 8190);
            true
        }
        Ok(Some((ClientMessage::Ping(header), _))) => check_ping(header).is_ok(),
        Ok(Some((ClientMessage::Unknown(_), _)) | None) | Err(_) => false,
    }
}

quickcheck! {
    fn any_bytes_are_a_message_or_a_rejection(bytes: Vec<u8>) -> bool {
        !receive(&bytes)
    }

    fn any_body_is_served_or_refused(code: u8, body: Vec<u8>) -> bool {
        // Headers that can be trusted, so that the bodies are reached.
        let mut frame = build::request(&state(), Operation::CreateAccounts, &body).to_vec();
        let (header, _) = RequestHeader::mut_from_prefix(&mut frame).unwrap();
        header.operation = 128 | code;
        header.seal();
        let served = receive(&frame);
        !served || Operation::from_u8(128 | code).is_some()
    }

    fn a_changed_byte_is_noticed(at: usize, bits: u8) -> TestResult {
        let mut frame = build::request(&state(), Operation::LookupAccounts, &encode(16, &[&[1; 16]]))
            .to_vec();
        assert!(receive(&frame));
        if bits == 0 {
            return TestResult::discard();
        }
        let at = at % frame.len();
        frame[at] ^= bits;
        TestResult::from_bool(ClientMessage::decode(&frame, 7).is_err())
    }

    fn a_sealed_change_never_panics(at: usize, value: u8, body: Vec<u8>) -> bool {
        let mut frame = build::request(&state(), Operation::LookupAccounts, &body).to_vec();
        frame[16 + at % 240] = value;
        let (header, _) = RequestHeader::mut_from_prefix(&mut frame).unwrap();
        header.seal();
        let _served: bool = receive(&frame);
        ClientMessage::decode(&frame[..200], 7).unwrap().is_none()
    }

    fn batches_come_back(counts: Vec<u8>, element_size: u8) -> TestResult {
        let element_size = usize::from(element_size);
        if counts.is_empty() || element_size < 2 {
            return TestResult::discard();
        }
        let elements: Vec<Vec<u8>> =
            counts.iter().map(|count| vec![*count; usize::from(*count) * element_size]).collect();
        let batches: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
        let body = encode(element_size, &batches);
        let decoded: Vec<&[u8]> = Batches::decode(element_size, &body).unwrap().collect();
        TestResult::from_bool(decoded == batches)
    }

    fn a_body_that_decodes_encodes_to_itself(body: Vec<u8>, tail: u8, size: u8) -> bool {
        let size = [2, 4, 8, 16, 64, 128][usize::from(size) % 6];
        let mut body = body;
        body.extend_from_slice(&[tail % 4, 0]);
        match Batches::decode(size, &body) {
            Ok(batches) => encode(size, &batches.collect::<Vec<_>>()) == body,
            Err(_) => true,
        }
    }
}
