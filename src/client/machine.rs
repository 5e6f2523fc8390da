//! The session: register, requests one after the other, repetition, pings.

use super::PreparedRequest;
use crate::constants::{HEADER_SIZE, NANOSECONDS, RELEASE};
use crate::wire::build::{self, ClientState};
use crate::wire::header::command;
use crate::wire::{
    CommonHeader, Evicted, EvictionHeader, FrameError, Operation, RegisterRequest, RegisterResult,
    ReplyHeader, check_body, check_header,
};
use bytes::Bytes;
use std::collections::VecDeque;
use storage_format::Checksum;
use zerocopy::{FromBytes, IntoBytes};

/// What a client is made with. Times are in nanoseconds.
///
/// ```
/// use daftari::client::Options;
/// let options = Options::new(0, 42);
/// assert!(options.retry_min < options.retry_max);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The cluster.
    pub cluster: u128,
    /// Names the client; chosen at random, not 0.
    pub client: u128,
    /// The release that the client claims to be.
    pub release: u32,
    /// A request without an answer is sent again after this long at first,
    pub retry_min: u64,
    /// and after twice as long each time, but no longer than this.
    pub retry_max: u64,
    /// The server is pinged this often.
    pub ping_interval: u64,
}

impl Options {
    /// The usual times.
    ///
    /// ```
    /// assert_eq!(daftari::client::Options::new(0, 42).client, 42);
    /// ```
    #[must_use]
    pub fn new(cluster: u128, client: u128) -> Self {
        Self {
            cluster,
            client,
            release: RELEASE,
            retry_min: NANOSECONDS,
            retry_max: 16 * NANOSECONDS,
            ping_interval: 30 * NANOSECONDS,
        }
    }
}

/// What happens to a client.
#[derive(Clone, Debug)]
pub enum Event {
    /// There is a connection to the server, and it is new.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// Header and body of a message that arrived.
    Frame(Bytes),
    /// Time passed.
    Tick,
}

/// What a client tells its owner.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// There is a session, and requests may be submitted.
    Registered {
        /// Its number.
        session: u64,
        /// Bytes of the largest body.
        batch_size_limit: u32,
    },
    /// The answer to the request in flight.
    Reply {
        /// What was asked for.
        operation: Operation,
        /// Time at which the request took effect.
        timestamp: u64,
        /// The results.
        body: Bytes,
    },
    /// The bytes of the connection cannot be trusted: close it, and connect again.
    Disconnect(FrameError),
    /// The session has ended.
    Failed(Failure),
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The server says so.
    #[error("evicted: {0:?}")]
    Evicted(Evicted),
    /// The server says so, for a reason that this client does not know.
    #[error("evicted for a reason with the number {0}")]
    EvictedUnknown(u8),
    /// The reply to the register request does not have the size that it must have.
    #[error("the reply to the register request has {0} bytes")]
    RegisterReply(usize),
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// No session yet.
    #[error("the client has no session yet")]
    NotRegistered,
    /// A request is in flight.
    #[error("a request is in flight")]
    Busy,
    /// The session has ended.
    #[error("the session has ended: {0}")]
    Failed(Failure),
}

struct InFlight {
    operation: Operation,
    frame: Bytes,
    checksum: Checksum,
    retry_at: u64,
    retry_after: u64,
}

/// One session with the server. See the [module](super) for how to drive it.
///
/// ```
/// use daftari::client::{Client, Event, Options};
/// let mut client = Client::new(Options::new(0, 42), 1_000);
/// assert!(client.poll_send().is_none(), "there is no connection");
/// client.handle(2_000, Event::Connected);
/// assert_eq!(client.poll_send().unwrap().len(), 512); // the register request
/// assert!(client.poll_send().is_none());
/// assert!(client.poll_timeout() > 2_000);
/// ```
pub struct Client {
    options: Options,
    state: ClientState,
    connected: bool,
    failure: Option<Failure>,
    in_flight: Option<InFlight>,
    ping_at: u64,
    outbox: VecDeque<Bytes>,
    outputs: VecDeque<Output>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("client", &self.state.client)
            .field("session", &self.state.session)
            .field("request", &self.state.request)
            .field("connected", &self.connected)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that registers as soon as it is connected.
    ///
    /// ```
    /// use daftari::client::{Client, Options};
    /// assert!(Client::new(Options::new(0, 42), 0).is_busy());
    /// ```
    #[must_use]
    pub fn new(options: Options, now: u64) -> Self {
        assert!(options.client != 0, "0 names no client");
        assert!(options.retry_min > 0 && options.retry_min <= options.retry_max);
        let state = ClientState {
            cluster: options.cluster,
            view: 0,
            release: options.release,
            client: options.client,
            session: 0,
            request: 0,
            parent: Checksum::ZERO,
        };
        let mut client = Self {
            options,
            state,
            connected: false,
            failure: None,
            in_flight: None,
            ping_at: now + options.ping_interval,
            outbox: VecDeque::new(),
            outputs: VecDeque::new(),
        };
        let body = RegisterRequest::zeroed();
        client.send_request(
            now,
            PreparedRequest::raw(Operation::Register, body.as_bytes()),
        );
        client
    }

    /// Takes a request, which is sent at once if there is a connection.
    ///
    /// # Errors
    /// When there is no session, or a request in flight already.
    ///
    /// ```
    /// use daftari::client::{Client, Options, PreparedRequest, SubmitError};
    /// use daftari::wire::Operation;
    /// let mut client = Client::new(Options::new(0, 42), 0);
    /// let request = PreparedRequest::batch(Operation::LookupAccounts, &[1; 16]);
    /// assert_eq!(client.submit(1, request), Err(SubmitError::NotRegistered));
    /// ```
    pub fn submit(&mut self, now: u64, request: PreparedRequest) -> Result<(), SubmitError> {
        if let Some(failure) = self.failure {
            return Err(SubmitError::Failed(failure));
        }
        if self.state.session == 0 {
            return Err(SubmitError::NotRegistered);
        }
        if self.in_flight.is_some() {
            return Err(SubmitError::Busy);
        }
        assert!(
            request.operation() != Operation::Register,
            "the client registers by itself"
        );
        self.send_request(now, request);
        Ok(())
    }

    /// Whether an answer is awaited.
    ///
    /// ```
    /// # use daftari::client::{Client, Options};
    /// assert!(Client::new(Options::new(0, 42), 0).is_busy()); // it wants to register
    /// ```
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The session, once there is one.
    ///
    /// ```
    /// # use daftari::client::{Client, Options};
    /// assert_eq!(Client::new(Options::new(0, 42), 0).session(), None);
    /// ```
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        (self.state.session != 0).then_some(self.state.session)
    }

    /// Takes what happened at `now`, in nanoseconds of a clock that never steps back.
    ///
    /// ```
    /// use daftari::client::{Client, Event, Options, Output};
    /// let mut client = Client::new(Options::new(0, 42), 0);
    /// client.handle(1, Event::Connected);
    /// client.handle(2, Event::Frame(vec![0; 256].into()));
    /// assert!(matches!(client.poll_output(), Some(Output::Disconnect(_)))); // not a frame at all
    /// ```
    pub fn handle(&mut self, now: u64, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.outbox.clear();
                self.ping_at = now + self.options.ping_interval;
                if let Some(in_flight) = &mut self.in_flight {
                    in_flight.retry_after = self.options.retry_min;
                    in_flight.retry_at = now + in_flight.retry_after;
                    self.outbox.push_back(in_flight.frame.clone());
                }
            }
            Event::Disconnected => {
                self.connected = false;
                self.outbox.clear();
            }
            Event::Frame(frame) => self.on_frame(frame),
            Event::Tick => self.on_tick(now),
        }
    }

    /// The next frame to write to the connection.
    ///
    /// ```
    /// # use daftari::client::{Client, Event, Options};
    /// let mut client = Client::new(Options::new(0, 42), 0);
    /// client.handle(1, Event::Connected);
    /// assert!(client.poll_send().is_some());
    /// ```
    pub fn poll_send(&mut self) -> Option<Bytes> {
        self.outbox.pop_front()
    }

    /// What came of it.
    ///
    /// ```
    /// # use daftari::client::{Client, Options};
    /// assert_eq!(Client::new(Options::new(0, 42), 0).poll_output(), None);
    /// ```
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Event::Tick`] has to be handled at the latest.
    ///
    /// ```
    /// # use daftari::client::{Client, Options};
    /// assert_eq!(Client::new(Options::new(0, 42), 0).poll_timeout(), u64::MAX); // no connection
    /// ```
    #[must_use]
    pub fn poll_timeout(&self) -> u64 {
        if !self.connected || self.failure.is_some() {
            return u64::MAX;
        }
        let retry_at = self
            .in_flight
            .as_ref()
            .map_or(u64::MAX, |in_flight| in_flight.retry_at);
        retry_at.min(self.ping_at)
    }

    fn send_request(&mut self, now: u64, request: PreparedRequest) {
        assert!(self.in_flight.is_none());
        let operation = request.operation();
        let (frame, checksum) = request.finish(&self.state);
        if self.connected {
            self.outbox.push_back(frame.clone());
        }
        let retry_after = self.options.retry_min;
        let retry_at = now + retry_after;
        self.in_flight = Some(InFlight {
            operation,
            frame,
            checksum,
            retry_at,
            retry_after,
        });
    }

    fn on_tick(&mut self, now: u64) {
        if !self.connected || self.failure.is_some() {
            return;
        }
        if let Some(in_flight) = &mut self.in_flight
            && in_flight.retry_at <= now
        {
            in_flight.retry_after = (2 * in_flight.retry_after).min(self.options.retry_max);
            in_flight.retry_at = now + in_flight.retry_after;
            self.outbox.push_back(in_flight.frame.clone());
        }
        if self.ping_at <= now {
            self.ping_at = now + self.options.ping_interval;
            self.outbox.push_back(build::ping(&self.state, now));
        }
    }

    fn on_frame(&mut self, frame: Bytes) {
        if self.failure.is_some() {
            return;
        }
        let header = frame
            .first_chunk::<HEADER_SIZE>()
            .expect("the caller cuts whole frames");
        let info = match check_header(header, self.state.cluster) {
            Ok(info) => info,
            Err(error) => return self.outputs.push_back(Output::Disconnect(error)),
        };
        if let Err(error) = check_body(&info, &frame[HEADER_SIZE..]) {
            return self.outputs.push_back(Output::Disconnect(error));
        }
        let common: CommonHeader = zerocopy::transmute!(*header);
        match info.command {
            command::REPLY => self.on_reply(&zerocopy::transmute!(*header), &frame),
            command::EVICTION => self.on_eviction(&zerocopy::transmute!(*header)),
            command::PONG_CLIENT => self.state.view = self.state.view.max(common.view.get()),
            _ => {} // Commands of later releases, which this client has not asked for.
        }
    }

    fn on_reply(&mut self, header: &ReplyHeader, frame: &Bytes) {
        let awaited = self.in_flight.as_ref().is_some_and(|in_flight| {
            header.client.get() == self.state.client
                && header.request.get() == self.state.request
                && header.request_checksum == in_flight.checksum
                && header.operation == in_flight.operation.code()
        });
        if !awaited {
            return; // Of an earlier request, or sent twice.
        }
        let in_flight = self.in_flight.take().expect("it is awaited");
        let body = frame.slice(HEADER_SIZE..);
        self.state.view = self.state.view.max(header.view.get());
        self.state.parent = header.context;
        self.state.request += 1;
        if in_flight.operation != Operation::Register {
            let timestamp = header.timestamp.get();
            let operation = in_flight.operation;
            self.outputs.push_back(Output::Reply {
                operation,
                timestamp,
                body,
            });
            return;
        }
        let Ok(result) = RegisterResult::read_from_bytes(&body) else {
            return self.fail(Failure::RegisterReply(body.len()));
        };
        self.state.session = header.commit.get();
        self.outputs.push_back(Output::Registered {
            session: self.state.session,
            batch_size_limit: result.batch_size_limit.get(),
        });
    }

    fn on_eviction(&mut self, header: &EvictionHeader) {
        if header.client.get() != self.state.client {
            return;
        }
        let reason = [
            Evicted::NoSession,
            Evicted::ReleaseTooLow,
            Evicted::ReleaseTooHigh,
            Evicted::InvalidOperation,
            Evicted::InvalidBody,
            Evicted::InvalidBodySize,
            Evicted::SessionTooLow,
            Evicted::SessionReleaseMismatch,
        ]
        .into_iter()
        .find(|reason| reason.code() == header.reason);
        self.fail(match reason {
            Some(reason) => Failure::Evicted(reason),
            None => Failure::EvictedUnknown(header.reason),
        });
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = Some(failure);
        self.in_flight = None;
        self.outbox.clear();
        self.outputs.push_back(Output::Failed(failure));
    }
}
