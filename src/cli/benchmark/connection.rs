//! A client session over a blocking socket.
#![expect(
    clippy::disallowed_types,
    reason = "the load generator is a client, not the server"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the load generator may wait as it likes"
)]

use crate::cli::exit::{Status, failure};
use crate::client::{Client, Event, Options, Output, PreparedRequest};
use crate::constants::{HEADER_SIZE, MESSAGE_SIZE_MAX, NANOSECONDS};
use crate::stdx::to_usize;
use crate::wire::{CommonHeader, Operation};
use anyhow::Context;
use bytes::Bytes;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zerocopy::FromBytes;

/// How long a server may take until it accepts connections.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// How often the client machine looks at the time while nothing arrives.
const TICK: Duration = Duration::from_millis(500);
/// How long a request may take in all.
const REPLY_PATIENCE: Duration = Duration::from_secs(120);

/// The answer to a request.
#[derive(Debug)]
pub struct Reply {
    pub body: Bytes,
}

/// A session.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    client: Client,
    epoch: Instant,
    /// The frame that is arriving, and how much of it is there.
    frame: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Connects, and registers a client that nobody else is.
    pub fn open(address: SocketAddr, cluster: u128, index: u32) -> anyhow::Result<Self> {
        let stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let client = (since.as_nanos() << 32) | (u128::from(index) + 1);
        // The stream does not lose requests, and a long one may take a while.
        let options = Options {
            retry_min: 20 * NANOSECONDS,
            retry_max: 60 * NANOSECONDS,
            ..Options::new(cluster, client)
        };
        let mut connection = Self {
            address,
            stream: BufReader::with_capacity(1 << 16, stream),
            client: Client::new(options, 0),
            epoch: Instant::now(),
            frame: vec![0; HEADER_SIZE],
            filled: 0,
        };
        let now = connection.now();
        connection.client.handle(now, Event::Connected);
        match connection.output()? {
            Output::Registered { .. } => Ok(connection),
            other @ (Output::Reply { .. } | Output::Disconnect(_) | Output::Failed(_)) => {
                Err(connection.failed(&format!("it answered {other:?} to a register request")))
            }
        }
    }

    /// Sends a request; [`Self::receive`] has to follow before the next.
    pub fn send(&mut self, request: PreparedRequest) -> anyhow::Result<()> {
        let now = self.now();
        self.client
            .submit(now, request)
            .context("requests are sent one after the other")?;
        self.flush()
    }

    /// Waits for the answer.
    pub fn receive(&mut self) -> anyhow::Result<Reply> {
        match self.output()? {
            Output::Reply { body, .. } => Ok(Reply { body }),
            other @ (Output::Registered { .. } | Output::Disconnect(_) | Output::Failed(_)) => {
                Err(self.failed(&format!("it answered {other:?} to a request")))
            }
        }
    }

    /// Asks for one batch, and waits for the answer.
    pub fn call(&mut self, operation: Operation, events: &[u8]) -> anyhow::Result<Reply> {
        self.send(PreparedRequest::batch(operation, events))?;
        self.receive()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).expect("a run ends within 500 years")
    }

    fn failed(&self, what: &str) -> anyhow::Error {
        failure(
            Status::Server,
            format!("the server at {}: {what}", self.address),
        )
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while let Some(frame) = self.client.poll_send() {
            if let Err(error) = self.stream.get_mut().write_all(&frame) {
                return Err(self.failed(&format!("writing to it failed: {error}")));
            }
        }
        Ok(())
    }

    fn output(&mut self) -> anyhow::Result<Output> {
        let begin = self.epoch.elapsed();
        loop {
            self.flush()?;
            match self.client.poll_output() {
                None => {}
                Some(Output::Disconnect(error)) => {
                    return Err(self.failed(&format!("it sent damaged bytes: {error}")));
                }
                Some(Output::Failed(error)) => {
                    return Err(self.failed(&format!("the session has ended: {error}")));
                }
                Some(output @ (Output::Registered { .. } | Output::Reply { .. })) => {
                    return Ok(output);
                }
            }
            let event = match self.read_frame()? {
                Some(frame) => Event::Frame(frame),
                None if self.epoch.elapsed() - begin > REPLY_PATIENCE => {
                    let seconds = REPLY_PATIENCE.as_secs();
                    return Err(self.failed(&format!("no answer within {seconds} s")));
                }
                None => Event::Tick,
            };
            let now = self.now();
            self.client.handle(now, event);
        }
    }

    /// The next frame, or nothing when none arrives for a while.
    fn read_frame(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if self.filled == HEADER_SIZE {
                let (header, _) =
                    CommonHeader::read_from_prefix(&self.frame).expect("a whole header is there");
                let size = to_usize(header.size.get());
                if !(HEADER_SIZE..=MESSAGE_SIZE_MAX).contains(&size) {
                    return Err(self.failed(&format!("it sent a frame of {size} bytes")));
                }
                self.frame.resize(size, 0);
            }
            if self.filled >= HEADER_SIZE && self.filled == self.frame.len() {
                self.filled = 0;
                let frame = std::mem::replace(&mut self.frame, vec![0; HEADER_SIZE]);
                return Ok(Some(frame.into()));
            }
            match self.stream.read(&mut self.frame[self.filled..]) {
                Ok(0) => return Err(self.failed("it closed the connection")),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(self.failed(&format!("reading from it failed: {error}"))),
            }
        }
    }
}

/// Connects, again and again while nobody listens yet.
fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let begin = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error)
                if error.kind() == ErrorKind::ConnectionRefused
                    && begin.elapsed() < Duration::from_secs(10) =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => {
                return Err(failure(
                    Status::Server,
                    format!("the server at {address} cannot be reached: {error}"),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Connection;
    use crate::client::PreparedRequest;
    use crate::wire::build::{self, Answered, Sender};
    use crate::wire::{ClientMessage, Operation, ReplyHeader, frame::concat};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use zerocopy::IntoBytes;

    const SENDER: Sender = Sender {
        cluster: 3,
        view: 1,
        release: 0x1109,
        replica: 0,
    };

    /// Answers each request: a register properly, the others with their own bodies, byte by byte.
    fn serve(mut stream: TcpStream, requests: u64) {
        let mut bytes = Vec::new();
        for op in 1..=requests {
            let (frame, size) = loop {
                if let Some((ClientMessage::Request(header, body), size)) =
                    ClientMessage::decode(&bytes, 3).expect("the client sends whole frames")
                {
                    let operation = Operation::from_u8(header.operation).unwrap();
                    let registered = build::register_result();
                    let register = operation == Operation::Register;
                    let body = if register {
                        registered.as_bytes()
                    } else {
                        body
                    };
                    let answered = Answered {
                        request_checksum: header.checksum,
                        client: header.client.get(),
                        request: header.request.get(),
                        release: header.release.get(),
                        op,
                        timestamp: op,
                        operation,
                    };
                    break (
                        concat(&ReplyHeader::new(&SENDER, &answered, body), body),
                        size,
                    );
                }
                let mut more = [0; 4096];
                let count = stream.read(&mut more).unwrap();
                assert!(count > 0, "the client has hung up");
                bytes.extend_from_slice(&more[..count]);
            };
            bytes.drain(..size);
            for part in frame.chunks(100) {
                stream.write_all(part).unwrap();
            }
        }
    }

    #[test]
    fn a_session_over_a_socket_asks_and_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| serve(listener.accept().unwrap().0, 3));
            let mut connection = Connection::open(address, 3, 0).unwrap();
            for size in [16, 16 * 1000] {
                let ids = vec![9; size];
                let request = PreparedRequest::batch(Operation::LookupAccounts, &ids);
                let expected = request.body().to_vec();
                connection.send(request).unwrap();
                assert_eq!(connection.receive().unwrap().body, expected);
            }
            let error = connection
                .call(Operation::LookupAccounts, &[9; 16])
                .unwrap_err();
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        });
    }
}
