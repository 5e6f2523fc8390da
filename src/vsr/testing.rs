//! Headers, sizes, members and frames for tests.

use super::log::{Entry, Log};
use super::members::{Members, Voter};
use super::replica::Start;
use super::sessions::Sessions;
use super::{Admission, Event, Releases, Replica};
use crate::constants::{HEADER_SIZE, RELEASE_LOG_MAX};
use crate::io::{ConnectionId, Incoming};
use crate::stdx::to_usize;
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use storage_format::{Geometry, PrepareHeader, PrepareKind, Superblock};

/// There is room for everything.
pub struct Room;

impl Admission for Room {
    fn admits(&self, _events: u64, _events_waiting: u64) -> bool {
        true
    }
}

/// The sizes of a data file with a journal of so many slots.
pub fn geometry(slots: u64) -> Geometry {
    Geometry {
        message_size_max: (16 << 10).into(),
        journal_slot_count: u32::try_from(slots).unwrap().into(),
        journal_slot_size: (32 << 10).into(),
        session_count_max: 8.into(),
        block_size: (256 << 10).into(),
        reserved: 0.into(),
        file_size_max: (1 << 40).into(),
    }
}

/// The op that follows `parent`, made in `view`.
pub fn next(parent: &PrepareHeader, view: u32) -> PrepareHeader {
    let mut header = PrepareHeader::empty(parent.cluster.get(), parent.op.get() + 1);
    header.kind = PrepareKind::Pulse.code();
    header.view = view.into();
    header.parent = parent.checksum;
    header.seal();
    header
}

/// Op 0, and one op for each view.
pub fn chain(views: &[u32]) -> Vec<PrepareHeader> {
    let mut headers = vec![PrepareHeader::root(0)];
    for view in views {
        headers.push(next(&headers[headers.len() - 1], *view));
    }
    headers
}

/// The superblock of a member whose file was just made, with a journal of so many slots.
pub fn superblock(index: u8, replica_count: u8, slots: u64) -> Superblock {
    let mut superblock = Superblock::zeroed();
    superblock.geometry = geometry(slots);
    superblock.release = RELEASE_LOG_MAX.into();
    (superblock.replica, superblock.replica_count) = (index, replica_count);
    superblock.checkpoint = PrepareHeader::root(0);
    superblock
}

/// A member that starts from such a file, in a cluster with one standby.
pub fn start(superblock: &Superblock, nonce: u128) -> Replica {
    let slots = to_usize(superblock.geometry.journal_slot_count.get());
    let start = Start {
        log: Log::new(&vec![Entry::empty(); slots], &superblock.checkpoint),
        certain: true,
        executed: superblock.checkpoint,
        releases: Releases::OF_BINARY,
    };
    let sessions = Rc::new(RefCell::new(Sessions::new(8)));
    let members = Members::new(superblock, 1);
    Replica::new(superblock, members, start, sessions, nonce)
}

/// A frame as it comes from the network, over a connection.
pub fn incoming(connection: u64, frame: &Bytes) -> Event {
    Event::Incoming(Incoming::Frame {
        connection: ConnectionId(connection),
        header: Box::new(frame[..HEADER_SIZE].try_into().unwrap()),
        body: frame.slice(HEADER_SIZE..),
    })
}

/// A replica of a cluster of six.
pub fn voter(index: u8) -> Voter {
    let mut superblock = Superblock::zeroed();
    superblock.replica_count = 6;
    Members::new(&superblock, 0).voter(index).unwrap()
}
