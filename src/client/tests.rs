//! The session against a server of a few lines that signs real frames.

use super::{Client, Event, Failure, Options, Output, PreparedRequest, SubmitError};
use crate::wire::build::{self, Answered, Sender};
use crate::wire::{ClientMessage, Evicted, Operation, ReplyHeader, RequestHeader, frame::concat};
use bytes::Bytes;
use storage_format::Checksum;
use zerocopy::IntoBytes;

const SERVER: Sender = Sender {
    cluster: 5,
    view: 3,
    release: 0x1109,
    replica: 0,
};

fn options() -> Options {
    Options {
        retry_min: 100,
        retry_max: 300,
        ping_interval: 10_000,
        ..Options::new(5, 42)
    }
}

fn sent(client: &mut Client) -> (RequestHeader, Bytes) {
    let frame = client.poll_send().expect("something is sent");
    match ClientMessage::decode(&frame, 5).expect("it is a frame") {
        Some((ClientMessage::Request(header, _), size)) => {
            assert_eq!(size, frame.len());
            (*header, frame.clone())
        }
        other => panic!("not a request: {other:?}"),
    }
}

fn reply_header(request: &RequestHeader, op: u64, body: &[u8]) -> ReplyHeader {
    let answered = Answered {
        request_checksum: request.checksum,
        client: request.client.get(),
        request: request.request.get(),
        release: request.release.get(),
        op,
        timestamp: 1000 + op,
        operation: Operation::from_u8(request.operation).unwrap(),
    };
    ReplyHeader::new(&SERVER, &answered, body)
}

fn reply(request: &RequestHeader, op: u64, body: &[u8]) -> Event {
    Event::Frame(concat(&reply_header(request, op, body), body))
}

fn registered() -> (Client, Checksum) {
    let mut client = Client::new(options(), 0);
    client.handle(1, Event::Connected);
    let (request, _) = sent(&mut client);
    assert_eq!((request.session.get(), request.request.get()), (0, 0));
    let body = build::register_result();
    let context = reply_header(&request, 7, body.as_bytes()).context;
    client.handle(2, reply(&request, 7, body.as_bytes()));
    let output = Output::Registered {
        session: 7,
        batch_size_limit: 1_048_320,
    };
    assert_eq!(client.poll_output(), Some(output));
    (client, context)
}

fn lookup() -> PreparedRequest {
    PreparedRequest::batch(Operation::LookupAccounts, &[1; 16])
}

#[test]
fn each_request_names_the_reply_before_it() {
    let (mut client, mut context) = registered();
    for number in 1..=3 {
        client.submit(10, lookup()).unwrap();
        assert_eq!(client.submit(10, lookup()), Err(SubmitError::Busy));
        let (request, _) = sent(&mut client);
        assert_eq!(request.parent.get(), u128::from_le_bytes(context.0));
        assert_eq!((request.session.get(), request.request.get()), (7, number));
        assert_eq!(request.view.get(), 3);
        context = reply_header(&request, 8, b"results").context;
        client.handle(11, reply(&request, 8, b"results"));
        let (operation, body) = (Operation::LookupAccounts, Bytes::from_static(b"results"));
        let output = Output::Reply {
            operation,
            timestamp: 1008,
            body,
        };
        assert_eq!(client.poll_output(), Some(output));
    }
}

#[test]
fn duplicate_and_foreign_replies_are_ignored() {
    let (mut client, _) = registered();
    client.submit(10, lookup()).unwrap();
    let (first, _) = sent(&mut client);
    client.handle(11, reply(&first, 8, b""));
    assert!(client.poll_output().is_some());
    client.handle(12, reply(&first, 8, b""));
    assert_eq!(client.poll_output(), None);

    client.submit(13, lookup()).unwrap();
    let (second, _) = sent(&mut client);
    let mut foreign = second;
    foreign.client = 43.into();
    let mut other = second;
    other.checksum = Checksum::ZERO;
    for late in [first, foreign, other] {
        client.handle(14, reply(&late, 9, b""));
        assert_eq!(client.poll_output(), None);
        assert!(client.is_busy());
    }
    client.handle(15, reply(&second, 9, b""));
    assert!(client.poll_output().is_some());
}

#[test]
fn a_request_is_sent_again_with_the_same_bytes_and_longer_pauses() {
    let (mut client, _) = registered();
    client.submit(1000, lookup()).unwrap();
    let (_, first) = sent(&mut client);
    let mut times = Vec::new();
    for _ in 0..4 {
        let at = client.poll_timeout();
        client.handle(at - 1, Event::Tick);
        assert_eq!(client.poll_send(), None);
        client.handle(at, Event::Tick);
        assert_eq!(sent(&mut client).1, first);
        times.push(at);
    }
    assert_eq!(times, [1100, 1300, 1600, 1900]);
}

#[test]
fn a_new_connection_gets_the_request_in_flight_at_once() {
    let (mut client, _) = registered();
    client.submit(1000, lookup()).unwrap();
    client.handle(1001, Event::Disconnected);
    assert_eq!(client.poll_send(), None);
    assert_eq!(client.poll_timeout(), u64::MAX);
    client.handle(1500, Event::Connected);
    let (request, _) = sent(&mut client);
    assert_eq!(request.request.get(), 1);
    assert_eq!(client.poll_send(), None);
    client.handle(1501, reply(&request, 8, b""));
    assert!(client.poll_output().is_some());
}

#[test]
fn an_eviction_ends_the_session() {
    let (mut client, _) = registered();
    client.submit(10, lookup()).unwrap();
    client.handle(
        11,
        Event::Frame(build::eviction(&SERVER, 43, Evicted::NoSession)),
    );
    assert_eq!(client.poll_output(), None, "it is for another client");
    client.handle(
        11,
        Event::Frame(build::eviction(&SERVER, 42, Evicted::NoSession)),
    );
    let failure = Failure::Evicted(Evicted::NoSession);
    assert_eq!(client.poll_output(), Some(Output::Failed(failure)));
    assert_eq!(client.poll_send(), None);
    assert_eq!(
        client.submit(12, lookup()),
        Err(SubmitError::Failed(failure))
    );
    assert_eq!(client.poll_timeout(), u64::MAX);
}

#[test]
fn damaged_frames_end_the_connection_and_change_nothing() {
    let (mut client, _) = registered();
    client.submit(10, lookup()).unwrap();
    let (request, _) = sent(&mut client);
    let Event::Frame(good) = reply(&request, 8, b"results") else {
        unreachable!()
    };
    for at in [0, 40, 100, 200, 256, 262] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        client.handle(11, Event::Frame(bad.into()));
        assert!(
            matches!(client.poll_output(), Some(Output::Disconnect(_))),
            "byte {at}"
        );
        assert!(client.is_busy());
    }
    client.handle(12, Event::Frame(good));
    assert!(matches!(client.poll_output(), Some(Output::Reply { .. })));
}

#[test]
fn idle_clients_ping_and_learn_the_view() {
    let (mut client, _) = registered();
    let at = client.poll_timeout();
    assert_eq!(at, 10_001);
    client.handle(at, Event::Tick);
    let frame = client.poll_send().unwrap();
    let ping = match ClientMessage::decode(&frame, 5).unwrap() {
        Some((ClientMessage::Ping(ping), _)) => *ping,
        other => panic!("not a ping: {other:?}"),
    };
    assert_eq!((ping.session.get(), ping.client.get()), (7, 42));
    let later = Sender { view: 9, ..SERVER };
    client.handle(at + 1, Event::Frame(build::pong(&later, &ping)));
    assert_eq!(client.poll_output(), None);
    client.submit(at + 2, lookup()).unwrap();
    assert_eq!(sent(&mut client).0.view.get(), 9);
}

#[test]
fn a_prepared_request_has_the_bytes_of_one_made_at_once() {
    let (mut client, context) = registered();
    client.submit(10, lookup()).unwrap();
    let state = build::ClientState {
        cluster: 5,
        view: 3,
        release: options().release,
        client: 42,
        session: 7,
        request: 1,
        parent: context,
    };
    let body = crate::wire::multi_batch::encode(16, &[&[1; 16]]);
    let expected = build::request(&state, Operation::LookupAccounts, &body);
    assert_eq!(sent(&mut client).1, expected);
}
