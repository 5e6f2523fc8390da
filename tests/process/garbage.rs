//! Connections that send what no client sends cost the server nothing.

use crate::raw::{Answer, Raw, connect, is_closed};
use crate::util::{Directory, Random, Server, block_on, format, free_port};
use daftari::wire::build::request;
use daftari::wire::{ClientState, Operation};
use std::io::Write;
use std::net::TcpStream;
use storage_format::Checksum;
use tigerbeetle as tb;

/// Bytes that the server may hold after all connections beyond what it held before: the receive
/// buffers that it keeps for its connections, and what the allocator does not give back.
const GROWTH_MAX: u64 = 64 << 20;

fn register_frame(cluster: u128) -> Vec<u8> {
    let state = ClientState {
        cluster,
        view: 0,
        release: daftari::constants::RELEASE,
        client: 5,
        session: 0,
        request: 0,
        parent: Checksum([0; 16]),
    };
    request(&state, Operation::Register, &[0; 256]).to_vec()
}

#[test]
fn a_thousand_connections_of_garbage_cost_nothing() {
    let directory = Directory::new("garbage");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let server = Server::start(&file, free_port(), &[]);
    let mut random = Random::from_environment("DAFTARI_GARBAGE_SEED");
    let mut witness = Raw::registered(server.port, 42);
    for _ in 0..50 {
        send_garbage(server.port, &mut random);
    }
    let before = server.resident();
    for _ in 0..1000 {
        send_garbage(server.port, &mut random);
    }
    let after = server.resident();
    assert!(
        after < before + GROWTH_MAX,
        "{before} bytes before, {after} after"
    );

    // The session of before, and a new client, are served.
    let answer = witness.call(Operation::LookupAccounts, 16, &[0; 16]);
    assert!(matches!(answer, Ok(Answer::Reply(_))), "{answer:?}");
    let client = tb::Client::new(0, &server.address()).expect("the address is right");
    let found = block_on(client.lookup_accounts(&[1])).expect("the server answers");
    assert_eq!(found, []);
    block_on(client.close()).expect("it closes");
    let (status, _) = server.terminate();
    assert!(status.success());
}

/// One connection: noise, a frame with one bit wrong, half a frame, another cluster's, a size out
/// of range, or nothing. The server may hang up before everything is sent.
fn send_garbage(port: u16, random: &mut Random) {
    let Ok(mut stream) = connect(port) else {
        panic!("the server accepts no connection");
    };
    let mut frame = register_frame(0);
    let place = |random: &mut Random, bound: usize| {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(random.below(bound)).expect("64 bits")
    };
    let bytes = match random.below(6) {
        0 => (0..place(random, 4000))
            .flat_map(|_| random.next().to_le_bytes())
            .collect(),
        1 => {
            let at = place(random, frame.len());
            frame[at] ^= 1 << random.below(8);
            frame
        }
        2 => {
            frame.truncate(place(random, frame.len()));
            frame
        }
        3 => register_frame(9),
        4 => {
            frame[96..100].copy_from_slice(&[0xff; 4]);
            frame
        }
        _ => Vec::new(),
    };
    drop(stream.write_all(&bytes));
}

fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(port).expect("the server accepts");
    stream.write_all(bytes).expect("the server reads");
    stream
}

#[test]
fn frames_that_cannot_be_trusted_end_the_connection() {
    let directory = Directory::new("frames");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let server = Server::start(&file, free_port(), &[]);
    let mut header = register_frame(0);
    header[20] ^= 1;
    assert!(
        is_closed(&mut send(server.port, &header)),
        "a wrong header checksum"
    );
    let mut body = register_frame(0);
    body[300] ^= 1;
    assert!(
        is_closed(&mut send(server.port, &body)),
        "a wrong body checksum"
    );
    assert!(
        is_closed(&mut send(server.port, &register_frame(9))),
        "another cluster"
    );
    let mut witness = Raw::registered(server.port, 42);
    assert_eq!(witness.ping().expect("the server answers"), Answer::Pong);
}
