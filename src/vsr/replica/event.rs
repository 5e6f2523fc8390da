//! What a replica is told, and what it wants done.

use crate::constants;
use crate::io::{ConnectionId, Incoming};
use crate::stdx::{SectorBuf, to_usize};
use crate::vsr::FatalReason;
use crate::vsr::message::CheckpointState;
use bytes::Bytes;
use storage_format::{PrepareHeader, RequestEntry, SECTOR_SIZE};
use zerocopy::{FromBytes, IntoBytes};

/// A message of the log: header, entries and bodies in one buffer.
#[derive(Debug)]
pub struct Prepare {
    /// Its header, also at the start of `buffer`.
    pub header: PrepareHeader,
    /// The message; as large as a journal slot.
    pub buffer: SectorBuf,
}

impl Prepare {
    /// A prepare in a buffer that is long enough for it.
    pub(super) fn new(header: &PrepareHeader, body: &[u8], mut buffer: SectorBuf) -> Self {
        let size = constants::HEADER_SIZE + body.len();
        buffer[..constants::HEADER_SIZE].copy_from_slice(header.as_bytes());
        buffer[constants::HEADER_SIZE..size].copy_from_slice(body);
        buffer[size..size.next_multiple_of(SECTOR_SIZE)].fill(0);
        Self {
            header: *header,
            buffer,
        }
    }

    /// Bytes of the message.
    #[must_use]
    pub fn size(&self) -> usize {
        to_usize(self.header.size.get())
    }

    /// The message as it goes to another replica.
    #[must_use]
    pub fn frame(&self) -> Bytes {
        Bytes::copy_from_slice(&self.buffer[..self.size()])
    }

    /// The entries of the requests, with their bodies.
    pub fn requests(&self) -> impl Iterator<Item = (RequestEntry, &[u8])> {
        let count = to_usize(self.header.request_count.get());
        let entries_end = constants::HEADER_SIZE + count * size_of::<RequestEntry>();
        let mut body_at = entries_end;
        (0..count).map(move |index| {
            let at = constants::HEADER_SIZE + index * size_of::<RequestEntry>();
            let entry = RequestEntry::read_from_bytes(&self.buffer[at..at + 64])
                .expect("an entry is 64 bytes of any value");
            let body = &self.buffer[body_at..body_at + to_usize(entry.body_size.get())];
            body_at += body.len();
            (entry, body)
        })
    }
}

/// An op to execute.
#[derive(Debug)]
pub enum Op {
    /// As the journal has it, or a replica that follows got it.
    Written(Prepare),
    /// Ahead of the journal, which is at it: by the requests that it was made of.
    Ahead(PrepareHeader, Vec<(RequestEntry, Bytes)>),
}

impl Op {
    /// Its header.
    #[must_use]
    pub fn header(&self) -> &PrepareHeader {
        match self {
            Self::Written(prepare) => &prepare.header,
            Self::Ahead(header, _) => header,
        }
    }

    /// The entries of its requests, with their bodies.
    pub fn requests(&self) -> impl Iterator<Item = (RequestEntry, &[u8])> {
        let (written, ahead) = match self {
            Self::Written(prepare) => (Some(prepare.requests()), None),
            Self::Ahead(_, requests) => (None, Some(requests)),
        };
        let ahead = ahead.into_iter().flatten();
        let ahead = ahead.map(|(entry, body)| (*entry, &body[..]));
        written.into_iter().flatten().chain(ahead)
    }
}

/// What came of executing an op.
#[derive(Debug)]
pub struct Outcome {
    /// Reply frames, in the view of the prepare: one for each entry, none for a session that is gone.
    pub replies: Vec<Option<Bytes>>,
    /// When the next pending transfer expires.
    pub pulse_next: u64,
}

/// What the superblock has of the view.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ViewState {
    /// The view.
    pub view: u32,
    /// The view in which the log was installed.
    pub log_view: u32,
    /// Highest op that is known to be committed.
    pub commit_max: u64,
    /// Release of the log.
    pub release: u32,
    /// The top of the log, newest first; at most [`crate::vsr::message::VIEW_HEADERS_MAX`].
    pub headers: Vec<PrepareHeader>,
}

/// What the surroundings tell the replica.
#[derive(Debug)]
pub enum Event {
    /// The network brought something.
    Incoming(Incoming),
    /// The prepare is on stable storage.
    PrepareDurable(Prepare),
    /// The redundant headers that were to be written are on stable storage.
    HeadersDurable,
    /// The view is in the superblock.
    ViewDurable,
    /// A prepare was read from the journal; nothing if it is not intact there.
    PrepareRead(Option<Prepare>),
    /// A prepare was found damaged in the journal.
    PrepareDamaged(Box<PrepareHeader>),
    /// Nothing happened for a moment: what was put off is to be done.
    Quiet,
    /// The op was executed.
    Executed(Op, Outcome),
    /// A checkpoint is durable.
    Checkpointed(Box<CheckpointState>),
    /// The ledger is as the checkpoint has it.
    Loaded {
        /// When the next pending transfer expires.
        pulse_next: u64,
        /// Highest timestamp that the ledger ever gave out.
        timestamp_last: u64,
    },
    /// The superblock has the checkpoint of another replica.
    Synced,
    /// It has that checkpoint already, made here.
    SyncNeedless,
    /// All blocks of that checkpoint are here.
    ContentComplete,
}

/// What the replica wants done.
#[derive(Debug)]
pub enum Effect {
    /// Write the prepare to its slot; `PrepareDurable` follows.
    WritePrepare(Prepare),
    /// Write redundant headers, all of one sector; `HeadersDurable` follows.
    WriteHeaders(Vec<PrepareHeader>),
    /// Write the view to the superblock; `ViewDurable` follows.
    WriteView(ViewState),
    /// Give the ledger up, and write a checkpoint of another replica to the superblock, with the view;
    /// `Synced` follows, then `Loaded`, then
    /// `ContentComplete`; or `SyncNeedless`.
    Sync(Box<(CheckpointState, ViewState)>),
    /// Read the prepare from the journal; `PrepareRead` follows.
    ReadPrepare(PrepareHeader),
    /// Execute the op; `Executed` follows.
    Execute(Op),
    /// Stop for good.
    Stop(FatalReason),
    /// Send a frame.
    Send {
        /// To whom.
        to: Way,
        /// What.
        frame: Bytes,
    },
}

/// How somebody is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// A client, over its connection.
    Connection(ConnectionId),
    /// Another replica, or a client through it.
    Peer(u8),
}

/// Whether there is room for what a request would add.
pub trait Admission {
    /// `events` are those of the request, `events_waiting` those of the requests admitted before it
    /// whose replies are not out yet: those that were executed ahead of the journal count twice for a moment.
    fn admits(&self, events: u64, events_waiting: u64) -> bool;
}
