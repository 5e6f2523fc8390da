//! Headers, sizes and room for tests.

use super::Admission;
use super::members::{Members, Voter};
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

/// A replica of a cluster of six.
pub fn voter(index: u8) -> Voter {
    let mut superblock = Superblock::zeroed();
    superblock.replica_count = 6;
    Members::new(&superblock, 0).voter(index).unwrap()
}
