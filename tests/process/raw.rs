//! A blocking client below the official one: it shows every frame, and sends again what it wants.

use crate::util::PATIENCE;
use daftari::constants::{HEADER_SIZE, RELEASE};
use daftari::wire::build::{ping, request};
use daftari::wire::header::command;
use daftari::wire::multi_batch::encode;
use daftari::wire::{
    ClientState, CommonHeader, EvictionHeader, Operation, ReplyHeader, check_body, check_header,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use storage_format::Checksum;
use zerocopy::{FromBytes, IntoBytes};

/// A frame of the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Reply(Box<Reply>),
    Eviction { client: u128, reason: u8 },
    Pong,
}

/// A reply as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reply {
    pub(crate) header: ReplyHeader,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Whether `again` is this reply, sent again in the same or a later view: nothing else differs.
    pub(crate) fn is_repeated_by(&self, again: &Self) -> bool {
        let view = again.header.view.get();
        view >= self.header.view.get()
            && self.header.with_view(view, again.header.replica).as_bytes()
                == again.header.as_bytes()
            && self.body == again.body
    }
}

/// One session on one connection at a time.
#[derive(Debug)]
pub(crate) struct Raw {
    port: u16,
    stream: Option<TcpStream>,
    pub(crate) state: ClientState,
}

impl Raw {
    /// A client without a session.
    pub(crate) fn new(port: u16, client: u128) -> Self {
        let state = ClientState {
            cluster: 0,
            view: 0,
            release: RELEASE,
            client,
            session: 0,
            request: 0,
            parent: Checksum([0; 16]),
        };
        Self {
            port,
            stream: None,
            state,
        }
    }

    /// A client with a session.
    pub(crate) fn registered(port: u16, client: u128) -> Self {
        let mut raw = Self::new(port, client);
        raw.register().expect("the server is there");
        raw
    }

    pub(crate) fn register(&mut self) -> io::Result<()> {
        let frame = request(&self.state, Operation::Register, &[0; 256]);
        match self.exchange(&frame)? {
            Answer::Reply(reply) => {
                self.state.session = reply.header.commit.get();
                self.advance(&reply);
                Ok(())
            }
            other @ (Answer::Eviction { .. } | Answer::Pong) => panic!("register: {other:?}"),
        }
    }

    /// The next request of the session; `events` are those of a single batch.
    pub(crate) fn frame(&self, operation: Operation, event_size: usize, events: &[u8]) -> Vec<u8> {
        request(&self.state, operation, &encode(event_size, &[events])).to_vec()
    }

    /// Takes the reply to the newest request.
    pub(crate) fn advance(&mut self, reply: &Reply) {
        assert_eq!(reply.header.request.get(), self.state.request);
        assert_eq!(reply.header.client.get(), self.state.client);
        self.state.request += 1;
        self.state.parent = reply.header.context;
        self.state.view = self.state.view.max(reply.header.view.get());
    }

    /// Sends a request and takes its reply.
    pub(crate) fn call(
        &mut self,
        operation: Operation,
        event_size: usize,
        events: &[u8],
    ) -> io::Result<Answer> {
        let frame = self.frame(operation, event_size, events);
        let answer = self.exchange(&frame)?;
        if let Answer::Reply(reply) = &answer {
            self.advance(reply);
        }
        Ok(answer)
    }

    pub(crate) fn ping(&mut self) -> io::Result<Answer> {
        let frame = ping(&self.state, 1);
        self.exchange(&frame)
    }

    /// Sends a frame, on a new connection if there is none, and waits for the next frame. After an
    /// error the connection is gone.
    pub(crate) fn exchange(&mut self, frame: &[u8]) -> io::Result<Answer> {
        let result = self.try_exchange(frame);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
    }

    fn try_exchange(&mut self, frame: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.port)?,
        };
        stream.write_all(frame)?;
        let answer = read_answer(&mut stream, self.state.cluster)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The view that a replica is in, as it tells clients.
pub(crate) fn view(port: u16) -> io::Result<u32> {
    let mut stream = connect(port)?;
    stream.write_all(&ping(&Raw::new(port, 1).state, 1))?;
    let mut header = [0; HEADER_SIZE];
    stream.read_exact(&mut header)?;
    let header = CommonHeader::read_from_bytes(&header).expect("it has 256 bytes");
    assert_eq!(header.command, command::PONG_CLIENT);
    Ok(header.view.get())
}

/// Whether the server closes the connection without a word within a few seconds.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("the time is not zero");
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn read_answer(stream: &mut TcpStream, cluster: u128) -> io::Result<Answer> {
    let mut header = [0; HEADER_SIZE];
    stream.read_exact(&mut header)?;
    let info = check_header(&header, cluster).expect("a server's header is right");
    let common = CommonHeader::read_from_bytes(&header).expect("it has 256 bytes");
    let size = usize::try_from(common.size.get()).expect("it has 64 bits");
    let mut body = vec![0; size - HEADER_SIZE];
    stream.read_exact(&mut body)?;
    check_body(&info, &body).expect("a server's body is right");
    Ok(match common.command {
        command::REPLY => {
            let header = ReplyHeader::read_from_bytes(&header).expect("it has 256 bytes");
            Answer::Reply(Box::new(Reply { header, body }))
        }
        command::EVICTION => {
            let header = EvictionHeader::read_from_bytes(&header).expect("it has 256 bytes");
            Answer::Eviction {
                client: header.client.get(),
                reason: header.reason,
            }
        }
        command::PONG_CLIENT => Answer::Pong,
        other => panic!("a server sent command {other}"),
    })
}
