//! Replicas that send to each other: several servers in one process, and sockets that behave badly.

use super::{CLUSTER, TestPath, connect, frame, is_closed, options};
use crate::constants::PEER_MESSAGE_SIZE_MAX;
use crate::io::{Incoming, Io, Network};
use crate::server::{DataFile, ServerIo, ServerOptions, run};
use crate::stdx::to_u64;
use crate::wire::PeerHeader;
use crate::wire::header::command;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use zerocopy::{FromBytes, IntoBytes};

/// Nanoseconds between two attempts to get a frame through.
const PAUSE: u64 = 2_000_000;
/// The body of the largest message.
const BODY_MAX: usize = PEER_MESSAGE_SIZE_MAX - 256;

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The options of a replica of the cluster.
fn replica(index: u8, addresses: &[SocketAddr]) -> ServerOptions {
    let peers = (0..).zip(addresses.iter().copied());
    ServerOptions {
        listen: vec![addresses[usize::from(index)]],
        peers: peers.filter(|(other, _)| *other != index).collect(),
        ..options()
    }
}

/// Runs a core on a server of its own.
fn serve<F, C>(options: &ServerOptions, core: C) -> F::Output
where
    C: FnOnce(Rc<ServerIo>) -> F + Send,
    F: Future,
    F::Output: Send,
{
    let path = TestPath::new(&format!("peer-{}", options.listen[0].port()));
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    run(options, file, core).unwrap()
}

fn peer_frame(command: u8, op: u64, body: &[u8]) -> Vec<u8> {
    let mut header = PeerHeader::zeroed();
    header.cluster = CLUSTER.into();
    header.size = u32::try_from(256 + body.len()).unwrap().into();
    header.command = command;
    header.op = op.into();
    [header.sealed(body).as_bytes(), body].concat()
}

fn prepare(op: u64, body: &[u8]) -> Vec<u8> {
    peer_frame(command::PREPARE, op, body)
}

/// Command, op and bytes of the body.
fn told(incoming: Incoming) -> (u8, u64, usize) {
    let Incoming::Frame { header, body, .. } = incoming else {
        panic!("no signals here");
    };
    let header = PeerHeader::read_from_bytes(&header[..]).unwrap();
    (header.command, header.op.get(), body.len())
}

/// Pings the other replica until it answers, sends it prepares, and takes its own, until both are done.
async fn exchange(io: &ServerIo, other: u8, done: &AtomicUsize) {
    const COUNT: usize = 40;
    let send = |frame: Vec<u8>| io.network().send_peer(other, frame.into());
    let (mut answered, mut received) = (false, Vec::new());
    while done.load(Ordering::Relaxed) < 2 {
        if !answered {
            send(peer_frame(command::COMMIT, 0, &[]));
        }
        io.sleep(PAUSE).await;
        while let Some(incoming) = io.network().try_receive() {
            match told(incoming) {
                (command::COMMIT, ..) => send(peer_frame(command::PONG, 0, &[])),
                (command::PONG, ..) if answered => {}
                (command::PONG, ..) => {
                    answered = true;
                    (1..COUNT).for_each(|op| send(prepare(to_u64(op), &vec![other; op * 100])));
                    send(prepare(to_u64(COUNT), &vec![other; BODY_MAX]));
                    // Nobody has this index.
                    io.network().send_peer(7, prepare(1, &[]).into());
                }
                (_, op, size) => {
                    received.push((op, size));
                    if received.len() == COUNT {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
    let sent = (1..COUNT).map(|op| (to_u64(op), op * 100));
    let sent: Vec<_> = sent.chain([(to_u64(COUNT), BODY_MAX)]).collect();
    assert_eq!(received, sent);
}

#[test]
fn replicas_send_to_each_other_in_order() {
    let addresses = [free_address(), free_address()];
    let done = AtomicUsize::new(0);
    let core = |other: u8| {
        let done = &done;
        move |io: Rc<ServerIo>| async move { exchange(&io, other, done).await }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&replica(0, &addresses), core(1)));
        scope.spawn(|| {
            let options = ServerOptions {
                network_cores: 2,
                ..replica(1, &addresses)
            };
            serve(&options, core(0));
        });
    });
}

#[test]
fn a_peer_that_was_away_is_connected_again() {
    let addresses = [free_address(), free_address()];
    let done = AtomicBool::new(false);
    let core = |io: Rc<ServerIo>| {
        let done = &done;
        async move {
            let mut op = 0;
            while !done.load(Ordering::Relaxed) {
                op += 1;
                io.network().send_peer(1, prepare(op, &[1; 3000]).into());
                io.sleep(PAUSE).await;
            }
            op
        }
    };
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| serve(&replica(0, &addresses), core));
        let mut last = 0;
        for _ in 0..3 {
            let options = replica(1, &addresses);
            let op = serve(&options, |io| async move {
                told(io.network().receive().await).1
            });
            assert!(op > last, "frames come in order, and none twice");
            last = op;
        }
        done.store(true, Ordering::Relaxed);
        assert!(sender.join().unwrap() >= last);
    });
}

#[test]
fn a_peer_that_takes_nothing_delays_nobody_and_is_cut_off() {
    // A socket that is never read from.
    let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [free_address(), stuck.local_addr().unwrap(), free_address()];
    let done = AtomicBool::new(false);
    let core = |io: Rc<ServerIo>| {
        let done = &done;
        async move {
            let body = vec![1; BODY_MAX];
            let mut op = 0;
            while !done.load(Ordering::Relaxed) {
                op += 1;
                io.network().send_peer(1, prepare(op, &body).into());
                io.network().send_peer(2, prepare(op, &body).into());
                io.sleep(PAUSE).await;
            }
            let counters = io.network().counters();
            counters.peer_dropped.load(Ordering::Relaxed)
        }
    };
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| serve(&replica(0, &addresses), core));
        let first = stuck.accept().unwrap();
        // More than fits on the way to the other one.
        let count = serve(&replica(2, &addresses), |io| async move {
            let mut count = 0;
            while count < 100 {
                assert_eq!(told(io.network().receive().await).2, BODY_MAX);
                count += 1;
            }
            count
        });
        assert_eq!(count, 100);
        let second = stuck.accept().unwrap();
        done.store(true, Ordering::Relaxed);
        assert!(sender.join().unwrap() > 0, "what finds no room is dropped");
        drop((first, second));
    });
}

#[test]
fn frames_of_peers_pass_requests_that_fill_their_lane() {
    const LARGE: usize = (1 << 20) - 256;
    let options = ServerOptions {
        message_memory: 2 * ((1 << 20) + 1024),
        peers: vec![(1, free_address())],
        ..options()
    };
    let (started, address) = mpsc::channel();
    let (go, proceed) = mpsc::channel();
    let core = |io: Rc<ServerIo>| async move {
        started.send(io.network().addresses()[0]).unwrap();
        // Two requests are held, as if they waited for others to acknowledge a prepare.
        let held = [io.network().receive().await, io.network().receive().await];
        go.send(()).unwrap();
        let mut frames: Vec<(u8, u64, usize)> = Vec::new();
        while frames.last().is_none_or(|last| last.1 != 9) {
            frames.push(told(io.network().receive().await));
        }
        drop(held);
        // The third request, which waited.
        frames.push(told(io.network().receive().await));
        io.sleep(50_000_000).await;
        assert!(io.network().try_receive().is_none());
        frames
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&options, core));
        let address = address.recv().unwrap();
        let mut clients: Vec<_> = (0..3).map(|_| connect(address)).collect();
        for client in &mut clients {
            client
                .write_all(&frame(CLUSTER, 1, &vec![1; LARGE]))
                .unwrap();
        }
        proceed.recv().unwrap();
        let mut peer = connect(address);
        for bytes in [
            peer_frame(command::PREPARE_OK, 1, &[]),
            // No request may stand in the way of what is behind it.
            peer_frame(command::FORWARD, 2, &vec![1; LARGE]),
            peer_frame(command::RELAY, 3, &[1; 5000]),
            prepare(9, &vec![1; BODY_MAX]),
        ] {
            peer.write_all(&bytes).unwrap();
        }
        let frames = server.join().unwrap();
        let expected = [(command::PREPARE_OK, 1, 0), (command::PREPARE, 9, BODY_MAX)];
        assert_eq!(frames[..2], expected);
        assert_eq!(frames.len(), 3);
        assert_eq!((frames[2].0, frames[2].2), (command::PING_CLIENT, LARGE));
    });
}

#[test]
fn frames_of_peers_come_first() {
    let options = ServerOptions {
        peers: vec![(1, free_address())],
        network_cores: 2,
        ..options()
    };
    let (started, address) = mpsc::channel();
    let (go, proceed) = mpsc::channel();
    let core = |io: Rc<ServerIo>| async move {
        started.send(io.network().addresses()[0]).unwrap();
        let mut first = vec![told(io.network().receive().await).0];
        go.send(()).unwrap();
        // Time for the others to arrive.
        io.sleep(200_000_000).await;
        first.extend(std::iter::from_fn(|| io.network().try_receive()).map(|frame| told(frame).0));
        first
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&options, core));
        let address = address.recv().unwrap();
        let mut client = connect(address);
        let pings: Vec<_> = (0..20).map(|tag| frame(CLUSTER, tag, &[])).collect();
        client.write_all(&pings.concat()).unwrap();
        proceed.recv().unwrap();
        let mut peer = connect(address);
        let forward = peer_frame(command::FORWARD, 1, &[1; 500]);
        let commit = peer_frame(command::COMMIT, 2, &[]);
        peer.write_all(&[forward, commit].concat()).unwrap();
        let commands = server.join().unwrap();
        let mut expected = vec![command::PING_CLIENT; 22];
        expected[1] = command::COMMIT;
        let forward = commands.iter().position(|found| *found == command::FORWARD);
        expected[forward.unwrap()] = command::FORWARD;
        assert_eq!(commands, expected);
    });
}

#[test]
fn peers_get_in_when_clients_have_taken_all_connections() {
    let options = ServerOptions {
        peers: vec![(1, free_address())],
        connections_max: 2,
        ..options()
    };
    let (started, address) = mpsc::channel();
    let core = |io: Rc<ServerIo>| async move {
        started.send(io.network().addresses()[0]).unwrap();
        while told(io.network().receive().await).0 != command::PREPARE {}
        let counters = io.network().counters();
        counters.refused.load(Ordering::Relaxed)
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&options, core));
        let address = address.recv().unwrap();
        let clients = [connect(address), connect(address)];
        let mut talking = connect(address);
        talking.write_all(&frame(CLUSTER, 1, &[])).unwrap();
        assert!(is_closed(&mut talking));
        let mut silent = connect(address);
        assert!(is_closed(&mut silent));
        let mut peer = connect(address);
        peer.write_all(&prepare(1, &[1; 3000])).unwrap();
        assert_eq!(server.join().unwrap(), 2);
        drop(clients);
    });
}

#[test]
fn without_peers_their_frames_are_skipped() {
    super::with_echo("no-peers", &options(), |address| {
        let mut stream = connect(address);
        for command in [command::PREPARE, command::FORWARD, 200] {
            let bytes = peer_frame(command, 1, &[1; 100_000]);
            stream.write_all(&bytes).unwrap();
        }
        let ping = frame(CLUSTER, 1, &[]);
        stream.write_all(&ping).unwrap();
        let mut answer = vec![0; ping.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, ping, "the first answer is the one to the ping");
    });
}
