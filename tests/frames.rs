//! Captured sessions of the protocol against the codec: what passed between the clients and the
//! server is what our functions accept, make and refuse.
#![expect(
    clippy::unwrap_used,
    reason = "a frame that is missing or malformed fails the test"
)]

use daftari::constants::{BODY_SIZE_MAX, HEADER_SIZE};
use daftari::wire::build::{self, Answered, Sender};
use daftari::wire::frame::concat;
use daftari::wire::header::{CommonHeader, command};
use daftari::wire::multi_batch::{Batches, encode};
use daftari::wire::{
    ClientMessage, Evicted, EvictionHeader, Operation, PingClientHeader, Rejection, ReplyHeader,
    RequestHeader, check, check_ping,
};
use std::path::Path;
use storage_format::checksum;
use zerocopy::{FromBytes, IntoBytes};

/// Views in the captures are small; this one is later than all of them.
const VIEW: u32 = 64;

struct Captured {
    session: String,
    connection: u32,
    name: String,
    bytes: Vec<u8>,
}

impl Captured {
    fn body(&self) -> &[u8] {
        &self.bytes[HEADER_SIZE..]
    }

    fn is_of_client(&self) -> bool {
        self.name.contains("-client-")
    }

    fn common(&self) -> &CommonHeader {
        CommonHeader::ref_from_prefix(&self.bytes).unwrap().0
    }

    fn header<Header: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(&self) -> &Header {
        Header::ref_from_bytes(&self.bytes[..HEADER_SIZE]).unwrap_or_else(|_| panic!("256 bytes"))
    }
}

fn captured() -> Vec<Captured> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frames");
    let index = std::fs::read_to_string(folder.join("index.txt")).unwrap();
    let lines = index
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let frames: Vec<_> = lines
        .map(|line| {
            let (connection, file) = line.split_once(' ').unwrap();
            let (session, name) = file.split_once('/').unwrap();
            Captured {
                session: session.into(),
                connection: connection.parse().unwrap(),
                name: name.into(),
                bytes: std::fs::read(folder.join(file)).unwrap(),
            }
        })
        .collect();
    assert_eq!(frames.len(), 307);
    frames
}

/// Each request or ping with the answer that it got.
fn exchanges(frames: &[Captured]) -> Vec<(&Captured, Option<&Captured>)> {
    let sent = frames
        .iter()
        .enumerate()
        .filter(|(_, frame)| frame.is_of_client());
    sent.map(|(at, frame)| {
        let next = frames[at + 1..]
            .iter()
            .find(|other| other.session == frame.session && other.connection == frame.connection);
        (frame, next.filter(|other| !other.is_of_client()))
    })
    .collect()
}

fn sender(header: &CommonHeader) -> Sender {
    Sender {
        cluster: header.cluster.get(),
        view: header.view.get(),
        release: header.release.get(),
        replica: header.replica,
    }
}

#[test]
fn every_frame_can_be_trusted() {
    for frame in captured() {
        let (_, size) = ClientMessage::decode(&frame.bytes, 0).unwrap().unwrap();
        assert_eq!(size, frame.bytes.len(), "{}/{}", frame.session, frame.name);
        let mut again = *frame.common();
        again.seal();
        assert_eq!(concat(&again, frame.body()), frame.bytes);
    }
}

#[test]
fn requests_get_the_answer_that_was_captured() {
    let frames = captured();
    let (mut served, mut evicted) = (0, 0);
    for (frame, answer) in exchanges(&frames) {
        let about = format!("{}/{}", frame.session, frame.name);
        let outcome = match ClientMessage::of_frame(&frame.bytes) {
            ClientMessage::Request(header, body) => check(header, body, VIEW).map(Some),
            ClientMessage::Ping(header) => check_ping(header).map(|()| None),
            ClientMessage::Unknown(command) => panic!("{about}: command {command}"),
        };
        let reason = answer
            .filter(|answer| answer.common().command == command::EVICTION)
            .map(|answer| answer.header::<EvictionHeader>().reason);
        let by_session = [
            Evicted::NoSession,
            Evicted::SessionTooLow,
            Evicted::SessionReleaseMismatch,
        ];
        match reason {
            Some(reason) if !by_session.iter().any(|other| other.code() == reason) => {
                let Err(Rejection::Evict(ours)) = outcome else {
                    panic!("{about}: {outcome:?} instead of an eviction {reason}");
                };
                assert_eq!(ours.code(), reason, "{about}");
                evicted += 1;
            }
            Some(_) | None => {
                let operation = outcome.unwrap_or_else(|why| panic!("{about}: {why:?}"));
                if let Some(operation) = operation {
                    assert!(about.contains(operation.name()), "{about}: {operation:?}");
                }
                served += 1;
            }
        }
    }
    assert!(
        served > 100 && evicted > 30,
        "{served} served, {evicted} evicted"
    );
}

#[test]
fn replies_are_built_as_they_were_captured() {
    let mut resent = 0;
    for frame in captured()
        .iter()
        .filter(|frame| frame.common().command == command::REPLY)
    {
        let header: &ReplyHeader = frame.header();
        let answered = Answered {
            request_checksum: header.request_checksum,
            client: header.client.get(),
            request: header.request.get(),
            release: header.release.get(),
            op: header.op.get(),
            timestamp: header.timestamp.get(),
            operation: Operation::from_u8(header.operation).unwrap(),
        };
        let now = sender(frame.common());
        let matches = |view: u32| {
            let first = ReplyHeader::new(&Sender { view, ..now }, &answered, frame.body());
            first.with_view(now.view, now.replica) == *header
        };
        let view = (1..=now.view).rev().find(|view| matches(*view));
        let view = view.unwrap_or_else(|| panic!("{}/{}", frame.session, frame.name));
        resent += usize::from(view != now.view);
    }
    assert!(
        resent > 0,
        "the session `restart` has a reply that was sent again in a later view"
    );
}

#[test]
fn pongs_and_evictions_are_built_as_they_were_captured() {
    let frames = captured();
    let (mut pongs, mut evictions) = (0, 0);
    for (frame, answer) in exchanges(&frames) {
        let Some(answer) = answer else { continue };
        let by = sender(answer.common());
        match answer.common().command {
            command::PONG_CLIENT => {
                assert_eq!(
                    build::pong(&by, frame.header::<PingClientHeader>()),
                    answer.bytes
                );
                pongs += 1;
            }
            command::EVICTION => {
                let header: &EvictionHeader = answer.header();
                let reason = evicted(header.reason);
                assert_eq!(
                    build::eviction(&by, header.client.get(), reason),
                    answer.bytes
                );
                evictions += 1;
            }
            _ => {}
        }
    }
    assert!(
        pongs >= 6 && evictions >= 30,
        "{pongs} pongs, {evictions} evictions"
    );
}

fn evicted(code: u8) -> Evicted {
    let all = [
        Evicted::NoSession,
        Evicted::ReleaseTooLow,
        Evicted::ReleaseTooHigh,
        Evicted::InvalidOperation,
        Evicted::InvalidBody,
        Evicted::InvalidBodySize,
        Evicted::SessionTooLow,
        Evicted::SessionReleaseMismatch,
    ];
    *all.iter().find(|reason| reason.code() == code).unwrap()
}

#[test]
fn requests_are_built_as_they_were_captured() {
    let mut equal = 0;
    for frame in captured()
        .iter()
        .filter(|frame| frame.common().command == command::REQUEST)
    {
        let header: &RequestHeader = frame.header();
        let Some(operation) = Operation::from_u8(header.operation) else {
            continue;
        };
        let state = build::ClientState {
            cluster: header.cluster.get(),
            view: header.view.get(),
            release: header.release.get(),
            client: header.client.get(),
            session: header.session.get(),
            request: header.request.get(),
            parent: storage_format::Checksum(header.parent.get().to_le_bytes()),
        };
        if header.previous_request_latency.get() == 0 {
            assert_eq!(build::request(&state, operation, frame.body()), frame.bytes);
            equal += 1;
        }
    }
    assert!(equal > 80, "{equal} requests");
}

#[test]
fn bodies_come_back_as_they_were_captured() {
    let mut count = 0;
    for frame in captured() {
        let is_reply = frame.common().command == command::REPLY;
        let operation = match frame.common().command {
            command::REPLY => frame.header::<ReplyHeader>().operation,
            command::REQUEST => frame.header::<RequestHeader>().operation,
            _ => continue,
        };
        let Some(operation) = Operation::from_u8(operation) else {
            continue;
        };
        if !operation.is_multi_batch() {
            continue;
        }
        let size = if is_reply {
            operation.result_size()
        } else {
            operation.event_size()
        };
        match Batches::decode(size, frame.body()) {
            Ok(batches) => {
                let parts: Vec<&[u8]> = batches.collect();
                assert_eq!(encode(size, &parts), frame.body());
                count += 1;
            }
            Err(_) => assert_eq!(frame.session, "eviction-invalid-body"),
        }
    }
    assert!(count > 100, "{count} bodies");
}

#[test]
fn the_register_reply_has_the_captured_body() {
    let frames = captured();
    let reply = frames
        .iter()
        .find(|frame| frame.name.contains("server-reply-register"))
        .unwrap();
    assert_eq!(build::register_result().as_bytes(), reply.body());
    assert_eq!(checksum(reply.body()), reply.common().checksum_body);
    assert_eq!(BODY_SIZE_MAX, 1_048_320);
}
