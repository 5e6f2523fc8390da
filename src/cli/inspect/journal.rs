//! The slots of the journal: what the two rings say of each, and whether they agree.

use super::DataFile;
use super::document::{Cell, Document};
use crate::constants::HEADER_SIZE;
use crate::stdx::{to_u64, to_usize};
use crate::vsr::journal::SlotRead;
use storage_format::{Geometry, PrepareHeader, PrepareKind, Superblock, checksum};
use zerocopy::FromBytes;

/// What the rings say of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Never used, or truncated.
    Empty,
    /// Header and prepare are whole, and the same.
    Clean,
    /// The prepare is whole, the header in the ring is not: the prepare says it all.
    HeaderDamaged,
    /// Both are whole, the prepare is the newer: a crash came before its header was written.
    HeaderOld,
    /// The header is of an op whose prepare is gone: overwritten in part, or damaged.
    PrepareDamaged,
    /// Neither is whole.
    Damaged,
}

impl State {
    /// For people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Clean => "clean",
            Self::HeaderDamaged => "header_damaged",
            Self::HeaderOld => "header_old",
            Self::PrepareDamaged => "prepare_damaged",
            Self::Damaged => "damaged",
        }
    }
}

/// A slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its number.
    pub number: u64,
    /// What the rings say.
    pub state: State,
    /// The header that describes it best, if there is one.
    pub header: Option<PrepareHeader>,
    /// What a server that opens the file finds in the header ring.
    pub header_read: SlotRead,
    /// The same for the prepare ring.
    pub prepare_read: SlotRead,
}

/// Reads every slot of the journal.
pub fn slots<'a>(
    file: &'a DataFile,
    superblock: &'a Superblock,
) -> impl Iterator<Item = Slot> + 'a {
    let geometry = superblock.geometry;
    let cluster = superblock.cluster.get();
    let count = to_usize(geometry.journal_slot_count.get());
    let ring = file.read(geometry.headers_offset(), count * HEADER_SIZE);
    (0..count).map(move |index| {
        let number = to_u64(index);
        let bytes = &ring[index * HEADER_SIZE..(index + 1) * HEADER_SIZE];
        let header = belongs(bytes, cluster, number, &geometry);
        let prepare = read_prepare(file, cluster, number, &geometry);
        let state = classify(header, prepare);
        let read = |header: Option<PrepareHeader>| {
            header.map_or(SlotRead::Bad, |header| {
                SlotRead::classify(&header, cluster, number, to_u64(count))
            })
        };
        let header_read = read(header);
        // What the checkpoint holds is not read again.
        let old = |header: &PrepareHeader| header.op <= superblock.checkpoint.op;
        let prepare_read = read(
            prepare
                .filter(|(header, whole)| *whole || old(header))
                .map(|(header, _)| header),
        );
        let header = match state {
            State::HeaderDamaged | State::HeaderOld => prepare.map(|(found, _)| found),
            State::Empty | State::Clean | State::PrepareDamaged => header,
            State::Damaged => None,
        };
        Slot {
            number,
            state,
            header,
            header_read,
            prepare_read,
        }
    })
}

/// A header that is whole and belongs into the slot.
fn belongs(bytes: &[u8], cluster: u128, slot: u64, geometry: &Geometry) -> Option<PrepareHeader> {
    let header = PrepareHeader::read_from_bytes(bytes).expect("the size of a header");
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let fits = header.valid(cluster)
        && header.op.get() % slot_count == slot
        && header.size.get() <= geometry.journal_slot_size.get();
    fits.then_some(header)
}

/// The header in the prepare ring, and whether what follows it is whole.
fn read_prepare(
    file: &DataFile,
    cluster: u128,
    slot: u64,
    geometry: &Geometry,
) -> Option<(PrepareHeader, bool)> {
    let offset = geometry.prepares_offset() + slot * u64::from(geometry.journal_slot_size.get());
    let header = belongs(&file.read(offset, HEADER_SIZE), cluster, slot, geometry)?;
    let size = to_usize(header.size.get()) - HEADER_SIZE;
    let body = file.read(offset + to_u64(HEADER_SIZE), size);
    Some((header, checksum(&body) == header.checksum_body))
}

fn classify(header: Option<PrepareHeader>, prepare: Option<(PrepareHeader, bool)>) -> State {
    match (header, prepare) {
        (Some(header), _) if header.kind() == PrepareKind::Empty => match prepare {
            Some((prepare, true)) if prepare.kind() != PrepareKind::Empty => State::HeaderOld,
            _ => State::Empty,
        },
        (Some(header), Some((prepare, true))) if header.checksum == prepare.checksum => {
            State::Clean
        }
        (Some(header), Some((prepare, true))) if prepare.op.get() > header.op.get() => {
            State::HeaderOld
        }
        // One op, two views: the later one was written last.
        (Some(header), Some((prepare, true)))
            if prepare.op == header.op && prepare.view.get() > header.view.get() =>
        {
            State::HeaderOld
        }
        // A root has nothing but its header, which the ring holds.
        (Some(header), None) if header.kind() == PrepareKind::Root => State::Clean,
        (Some(_), _) => State::PrepareDamaged,
        (None, Some((_, true))) => State::HeaderDamaged,
        (None, _) => State::Damaged,
    }
}

/// Every slot, in the order of the file.
///
/// # Errors
/// When there is no superblock.
pub fn run(file: &DataFile) -> anyhow::Result<Document> {
    let superblock = file.superblock()?;
    let rows = slots(file, &superblock).map(|slot| row(&slot)).collect();
    let columns = [
        "slot",
        "state",
        "op",
        "view",
        "kind",
        "requests",
        "size",
        "timestamp",
        "checksum",
    ];
    let mut document = Document::default();
    document.table("journal", &columns, rows);
    Ok(document)
}

fn row(slot: &Slot) -> Vec<Cell> {
    let mut row = vec![slot.number.into(), slot.state.name().into()];
    match slot.header.filter(|_| slot.state != State::Empty) {
        None => row.extend(std::iter::repeat_n("-".into(), 7)),
        Some(header) => row.extend([
            header.op.get().into(),
            header.view.get().into(),
            kind_name(header.kind()).into(),
            header.request_count.get().into(),
            header.size.get().into(),
            header.timestamp.get().into(),
            header.checksum.to_string().into(),
        ]),
    }
    row
}

fn kind_name(kind: PrepareKind) -> &'static str {
    match kind {
        PrepareKind::Empty => "empty",
        PrepareKind::Root => "root",
        PrepareKind::Requests => "requests",
        PrepareKind::Pulse => "pulse",
    }
}
