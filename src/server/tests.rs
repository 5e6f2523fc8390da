//! The server on this machine: a real file, real sockets, a core that echoes.
#![expect(
    clippy::disallowed_types,
    reason = "the tests are the clients, and clients use sockets, threads and clocks"
)]

mod peers;

use super::data_file::{DataFile, DataFileError};
use super::{ServerError, ServerIo, ServerOptions, block_on_file, run};
use crate::io::{ConnectionId, Incoming, Io, Network, Storage};
use crate::stdx::{SectorBuf, to_u64};
use crate::wire::PingClientHeader;
use crate::wire::header::command;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use storage_format::SECTOR_SIZE;
use zerocopy::IntoBytes;

const CLUSTER: u128 = 7;

/// A path that nothing else uses; what is there is removed with it.
struct TestPath(PathBuf);

impl TestPath {
    fn new(name: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target");
        let this = Self(directory.join(format!("test-{name}-{}.daftari", std::process::id())));
        this.remove();
        this
    }

    fn remove(&self) {
        if self.0.exists() {
            std::fs::remove_file(&self.0).unwrap();
        }
    }
}

impl Drop for TestPath {
    fn drop(&mut self) {
        self.remove();
    }
}

fn options() -> ServerOptions {
    ServerOptions {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        cluster: CLUSTER,
        signals: false,
        ..ServerOptions::default()
    }
}

fn sector_buf(size: usize, byte: u8) -> SectorBuf {
    let mut buffer = SectorBuf::zeroed(size);
    buffer.fill(byte);
    buffer
}

/// A whole frame with such a body.
fn frame(cluster: u128, tag: u64, body: &[u8]) -> Vec<u8> {
    let mut header = PingClientHeader::zeroed();
    header.cluster = cluster.into();
    header.size = u32::try_from(256 + body.len()).unwrap().into();
    header.command = command::PING_CLIENT;
    header.ping_timestamp_monotonic = tag.into();
    let mut frame = header.sealed(body).as_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

/// The tag of a frame that stops the echo.
const STOP: u64 = u64::MAX;

fn tag(header: &[u8; 256]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&header[144..152]);
    u64::from_le_bytes(bytes)
}

/// Sends back what it gets, until it is told to stop; returns how many frames there were.
async fn echo(io: Rc<ServerIo>, started: mpsc::Sender<SocketAddr>) -> u64 {
    started.send(io.network().addresses()[0]).unwrap();
    let mut count = 0;
    loop {
        let Incoming::Frame {
            connection,
            header,
            body,
        } = io.network().receive().await
        else {
            return count;
        };
        count += 1;
        io.network()
            .send(connection, Bytes::from([&header[..], &body[..]].concat()));
        if tag(&header) == STOP {
            return count;
        }
    }
}

/// Runs an echo core, and `clients` against it; then stops it. Returns what the core returned.
fn with_echo(name: &str, options: &ServerOptions, clients: impl FnOnce(SocketAddr) + Send) -> u64 {
    let path = TestPath::new(name);
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    let (started, address) = mpsc::channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| run(options, file, |io| echo(io, started)).unwrap());
        let address = address.recv().unwrap();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| clients(address)));
        let last = frame(CLUSTER, STOP, &[]);
        // Refused as long as the server has not seen the end of other connections.
        while stop(address, &last) != last {}
        match result {
            Ok(()) => server.join().unwrap(),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What comes back until the server closes the connection; all that is queued is sent before it
/// ends.
fn stop(address: SocketAddr, frame: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut stream = connect(address);
    let result = stream
        .write_all(frame)
        .and_then(|()| stream.read_to_end(&mut answer));
    drop(result);
    answer
}

/// Nothing in these tests takes so long.
const TIMEOUT: Duration = Duration::from_secs(30);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(frame).unwrap();
    read_back(stream, frame);
}

fn read_back(stream: &mut TcpStream, frame: &[u8]) {
    let mut answer = vec![0; frame.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, frame);
}

/// Whether the server has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn what_was_written_is_read_back_by_the_next_process() {
    let path = TestPath::new("storage");
    let file = DataFile::create(&path.0, 8 << 20).unwrap();
    file.write_zeros(0, 8 << 20).unwrap();
    block_on_file(file, |storage| async move {
        assert_eq!(storage.size(), 8 << 20);
        // More at once than the ring has entries.
        let writes = (0..700_u64).map(|index| {
            let byte = u8::try_from(index % 251).unwrap();
            storage.write(index * 8192, sector_buf(8192, byte), SECTOR_SIZE)
        });
        for buffer in join_all(writes).await {
            assert_eq!(buffer.len(), 8192, "the buffer comes back");
        }
    })
    .unwrap();
    block_on_file(DataFile::open(&path.0).unwrap(), |storage| async move {
        let reads = (0..700_u64).map(|index| storage.read(index * 8192, sector_buf(8192, 255)));
        for (index, buffer) in (0..700_u64).zip(join_all(reads).await) {
            let byte = u8::try_from(index % 251).unwrap();
            assert!(buffer[..SECTOR_SIZE].iter().all(|found| *found == byte));
            assert!(
                buffer[SECTOR_SIZE..].iter().all(|found| *found == 0),
                "not written"
            );
        }
    })
    .unwrap();
}

#[test]
fn beyond_the_end_there_are_zeros() {
    let path = TestPath::new("end");
    let size = to_u64(SECTOR_SIZE) * 4;
    drop(DataFile::create(&path.0, size).unwrap());
    // A file that was cut off in the middle of a sector.
    let cut = std::fs::OpenOptions::new()
        .write(true)
        .open(&path.0)
        .unwrap();
    cut.set_len(size - 100).unwrap();
    block_on_file(DataFile::open(&path.0).unwrap(), |storage| async move {
        storage
            .write(0, sector_buf(3 * SECTOR_SIZE, 9), 3 * SECTOR_SIZE)
            .await;
        let buffer = storage
            .read(to_u64(2 * SECTOR_SIZE), sector_buf(4 * SECTOR_SIZE, 255))
            .await;
        assert!(buffer[..SECTOR_SIZE].iter().all(|byte| *byte == 9));
        assert!(buffer[SECTOR_SIZE..].iter().all(|byte| *byte == 0));
        let buffer = storage.read(size * 10, sector_buf(SECTOR_SIZE, 255)).await;
        assert!(buffer.iter().all(|byte| *byte == 0));
    })
    .unwrap();
}

#[test]
fn dropping_a_transfer_leaves_its_buffer_to_the_kernel() {
    let path = TestPath::new("dropped");
    let file = DataFile::create(&path.0, 4 << 20).unwrap();
    block_on_file(file, |storage| async move {
        for _ in 0..64 {
            let mut write = Box::pin(storage.write(0, sector_buf(1 << 20, 5), 1 << 20));
            assert!((&mut write).now_or_never().is_none(), "under way");
            let mut read = Box::pin(storage.read(1 << 20, sector_buf(1 << 20, 5)));
            assert!((&mut read).now_or_never().is_none(), "under way");
        }
        // Never polled, so never started.
        drop(storage.write(0, sector_buf(SECTOR_SIZE, 6), SECTOR_SIZE));
        let buffer = storage.read(0, SectorBuf::zeroed(SECTOR_SIZE)).await;
        assert!(buffer.iter().all(|byte| *byte == 0 || *byte == 5));
        // The rest is under way when the ring is dropped.
    })
    .unwrap();
    block_on_file(DataFile::open(&path.0).unwrap(), |storage| async move {
        let buffer = storage.read(0, SectorBuf::zeroed(1 << 20)).await;
        assert!(
            buffer.iter().all(|byte| *byte == 5),
            "a write that has started is finished"
        );
    })
    .unwrap();
}

#[test]
fn a_data_file_has_one_owner_and_is_never_overwritten() {
    let path = TestPath::new("lock");
    assert!(matches!(
        DataFile::open(&path.0),
        Err(DataFileError::Missing { .. })
    ));
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    assert!(matches!(
        DataFile::open(&path.0),
        Err(DataFileError::InUse { .. })
    ));
    assert!(matches!(
        DataFile::create(&path.0, 1 << 20),
        Err(DataFileError::Exists { .. })
    ));
    drop(file);
    assert_eq!(DataFile::open(&path.0).unwrap().size(), 1 << 20);
    assert!(matches!(
        DataFile::create(&path.0, 1 << 20),
        Err(DataFileError::Exists { .. })
    ));
}

#[test]
fn unusable_places_are_named() {
    let directory = DataFile::open(env!("CARGO_MANIFEST_DIR").as_ref());
    assert!(
        matches!(directory, Err(DataFileError::Kind { .. })),
        "{directory:?}"
    );
    let device = DataFile::open("/dev/null".as_ref());
    assert!(matches!(
        device,
        Err(DataFileError::Kind { .. } | DataFileError::NoDirect { .. })
    ));
    // The kernel accepts O_DIRECT nowhere in /proc.
    let proc = DataFile::open("/proc/self/comm".as_ref());
    assert!(
        matches!(proc, Err(DataFileError::NoDirect { .. })),
        "{proc:?}"
    );
    let path = TestPath::new("huge");
    let full = DataFile::create(&path.0, 1 << 43);
    assert!(matches!(full, Err(DataFileError::Full { .. })), "{full:?}");
    assert!(!path.0.exists(), "what could not be finished is removed");
}

#[test]
fn timers_fire_in_order_and_can_be_dropped() {
    let path = TestPath::new("timers");
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    run(&options(), file, |io| async move {
        let start = io.monotonic();
        assert!(
            Box::pin(io.sleep(3_600_000_000_000))
                .now_or_never()
                .is_none()
        );
        let first = async {
            io.sleep(20_000_000).await;
            io.monotonic() - start
        };
        let second = async {
            io.sleep(5_000_000).await;
            io.monotonic() - start
        };
        let (first, second) = join(first, second).await;
        assert!(second >= 5_000_000 && first >= 20_000_000 && second < first);
        assert!(io.realtime() > 1_700_000_000_000_000_000);
    })
    .unwrap();
}

#[test]
fn many_connections_are_served_in_order_while_others_send_garbage() {
    let options = ServerOptions {
        network_cores: 2,
        ..options()
    };
    let count = with_echo("many", &options, |address| {
        std::thread::scope(|scope| {
            for client in 0..16_u64 {
                scope.spawn(move || {
                    let mut stream = connect(address);
                    let body = vec![u8::try_from(client).unwrap(); 3000];
                    for request in 0..50 {
                        round_trip(&mut stream, &frame(CLUSTER, request, &[]));
                        // Four at once come back in order.
                        let four: Vec<_> = (0..4_usize)
                            .map(|part| frame(CLUSTER, request, &body[..part * 1000]))
                            .collect();
                        round_trip(&mut stream, &four.concat());
                    }
                    round_trip(&mut stream, &frame(CLUSTER, 1, &vec![3; (1 << 20) - 256]));
                });
            }
            scope.spawn(move || send_garbage(address));
        });
    });
    assert_eq!(
        count,
        16 * (50 * 5 + 1) + 1,
        "garbage never reaches the core"
    );
}

fn send_garbage(address: SocketAddr) {
    let mut flipped = frame(CLUSTER, 1, b"body");
    flipped[200] ^= 1;
    let mut body = frame(CLUSTER, 1, b"body");
    *body.last_mut().unwrap() ^= 1;
    let mut large = PingClientHeader::zeroed();
    large.cluster = CLUSTER.into();
    large.size = ((1 << 20) + 1).into();
    let mut small = large;
    small.size = 255.into();
    let garbage = [
        vec![0; 256],
        b"GET / HTTP/1.1\r\n".repeat(64),
        flipped,
        body,
        frame(CLUSTER + 1, 1, &[]),
        large.sealed(&[]).as_bytes().to_vec(),
        small.sealed(&[]).as_bytes().to_vec(),
    ];
    for bytes in garbage {
        let mut stream = connect(address);
        stream.write_all(&bytes).unwrap();
        assert!(is_closed(&mut stream), "{:?}", &bytes[..16]);
    }
    // A part of a frame, and then the end.
    let mut stream = connect(address);
    stream
        .write_all(&frame(CLUSTER, 1, b"body")[..258])
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(is_closed(&mut stream));
}

#[test]
fn bodies_in_flight_stay_within_the_budget() {
    const BODY: usize = (1 << 20) - 256;
    let path = TestPath::new("budget");
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    // Room for two large frames.
    let memory = 2 * ((1 << 20) + 1024);
    let options = ServerOptions {
        message_memory: memory,
        ..options()
    };
    let (started, address) = mpsc::channel();
    let core = |io: Rc<ServerIo>| async move {
        started.send(io.network().addresses()[0]).unwrap();
        let mut most = 0;
        let mut answered = 0;
        while answered < 8 * 5 {
            let mut held = vec![io.network().receive().await];
            // Time for others to get in, which two of these leave no room for.
            io.sleep(1_000_000).await;
            held.extend(std::iter::from_fn(|| io.network().try_receive()));
            most = most.max(held.len());
            for incoming in held {
                let Incoming::Frame {
                    connection, header, ..
                } = incoming
                else {
                    panic!("no signals here");
                };
                io.network()
                    .send(connection, Bytes::copy_from_slice(&header[..]));
                answered += 1;
            }
        }
        most
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| run(&options, file, core).unwrap());
        let address = address.recv().unwrap();
        let clients: Vec<_> = (0..8_u64)
            .map(|client| {
                scope.spawn(move || {
                    let mut stream = connect(address);
                    let frame = frame(CLUSTER, client, &vec![1; BODY]);
                    for _ in 0..5 {
                        stream.write_all(&frame).unwrap();
                        read_back(&mut stream, &frame[..256]);
                    }
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        assert_eq!(server.join().unwrap(), 2, "the budget is used, and kept");
    });
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let options = ServerOptions {
        connections_max: 3,
        ..options()
    };
    with_echo("limit", &options, |address| {
        let mut first = connect(address);
        let mut second = connect(address);
        let mut third = connect(address);
        for stream in [&mut first, &mut second, &mut third] {
            round_trip(stream, &frame(CLUSTER, 1, &[]));
        }
        let mut fourth = connect(address);
        assert!(is_closed(&mut fourth));
        drop(first);
        // The place is free when the server has seen the end of the first.
        loop {
            let mut stream = connect(address);
            let ping = frame(CLUSTER, 2, &[]);
            let mut answer = vec![0; ping.len()];
            if stream.write_all(&ping).is_ok() && stream.read_exact(&mut answer).is_ok() {
                break;
            }
        }
        // The connection that stops the server takes the place of these.
        drop((second, third));
    });
}

/// Bytes that a socket has sent and that nobody has acknowledged.
#[expect(unsafe_code, reason = "std has no way to ask")]
fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: the descriptor is open, and the kernel writes one int.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(done, 0);
    bytes
}

#[test]
fn what_has_come_of_a_body_is_acknowledged_soon() {
    // The kernel keeps it back for longer, once a connection has had requests and replies in turn.
    const SOON: Duration = Duration::from_millis(30);
    with_echo("acknowledge", &options(), |address| {
        let mut stream = connect(address);
        stream.set_nodelay(true).unwrap();
        let whole = frame(CLUSTER, 1, &[7; 4096]);
        let (some, rest) = whole.split_at(1000);
        // A machine that is busy may be late, but not each time.
        let soon = (0..50).any(|_| {
            for _ in 0..20 {
                round_trip(&mut stream, &frame(CLUSTER, 2, &[]));
            }
            stream.write_all(some).unwrap();
            let begin = Instant::now();
            while unacknowledged(&stream) > 0 {
                std::thread::yield_now();
            }
            let took = begin.elapsed();
            stream.write_all(rest).unwrap();
            read_back(&mut stream, &whole);
            took < SOON
        });
        assert!(soon, "it took longer than {SOON:?} each time");
    });
}

#[test]
fn a_peer_that_does_not_take_its_replies_is_cut_off() {
    let path = TestPath::new("slow");
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    let (started, address) = mpsc::channel();
    let options = options();
    let core = |io: Rc<ServerIo>| async move {
        started.send(io.network().addresses()[0]).unwrap();
        let Incoming::Frame { connection, .. } = io.network().receive().await else {
            panic!("no signals here");
        };
        // More than the socket and the queue hold.
        for _ in 0..200 {
            io.network().send(connection, vec![1; 1 << 20].into());
            io.sleep(100_000).await;
        }
        // A connection that is gone swallows what it is sent; others are served.
        io.network()
            .send(ConnectionId(999), Bytes::from_static(&[1; 256]));
        let Incoming::Frame {
            connection: other,
            header,
            ..
        } = io.network().receive().await
        else {
            panic!("no signals here");
        };
        assert_ne!(connection, other);
        io.network()
            .send(other, Bytes::copy_from_slice(&header[..]));
        let counters = io.network().counters();
        counters.slow.load(std::sync::atomic::Ordering::Relaxed)
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| run(&options, file, core).unwrap());
        let address = address.recv().unwrap();
        let mut slow = connect(address);
        slow.write_all(&frame(CLUSTER, 1, &[])).unwrap();
        let mut other = connect(address);
        round_trip(&mut other, &frame(CLUSTER, 2, &[]));
        assert_eq!(server.join().unwrap(), 1);
    });
}

#[test]
fn an_address_in_use_is_an_error_of_the_start() {
    with_echo("bound", &options(), |address| {
        let path = TestPath::new("second");
        let file = DataFile::create(&path.0, 1 << 20).unwrap();
        let options = ServerOptions {
            listen: vec![address],
            ..options()
        };
        let error = run(&options, file, |_| async {}).unwrap_err();
        assert!(matches!(error, ServerError::Bind { address: found, .. } if found == address));
        assert!(error.to_string().contains(&address.to_string()));
    });
}

#[test]
fn the_first_signal_asks_the_core_to_shut_down() {
    let path = TestPath::new("signal");
    let file = DataFile::create(&path.0, 1 << 20).unwrap();
    let options = ServerOptions {
        signals: true,
        ..options()
    };
    let (waiting, raise) = mpsc::channel();
    let core = |io: Rc<ServerIo>| async move {
        waiting.send(()).unwrap();
        let first = io.network().receive().await;
        assert!(matches!(first, Incoming::Shutdown));
        assert!(io.network().try_receive().is_none(), "once");
    };
    std::thread::scope(|scope| {
        let server = scope.spawn(|| run(&options, file, core).unwrap());
        raise.recv().unwrap();
        #[expect(unsafe_code, reason = "std raises no signals")]
        // SAFETY: the server has a handler for it.
        let result = unsafe { libc::raise(libc::SIGTERM) };
        assert_eq!(result, 0);
        server.join().unwrap();
    });
}
