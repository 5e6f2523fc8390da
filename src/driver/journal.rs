//! The journal on disk: both rings as they are found, mended, written and read again.

use crate::constants;
use crate::io::{Io, Storage, once_more, write_unless};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, to_usize, u64_to_usize};
use crate::vsr::journal::{Decision, SlotRead};
use crate::vsr::{Prepare, Replica};
use futures_util::stream::{self, StreamExt};
use std::collections::BTreeSet;
use std::future::Future;
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{Geometry, PrepareHeader, SECTOR_SIZE, Superblock, checksum};
use zerocopy::{FromBytes, IntoBytes};

/// Slots that are read at the same time.
const READS_MAX: usize = 16;

/// The redundant header ring, as it is in the data file.
#[derive(Debug)]
pub(super) struct HeaderRing {
    offset: u64,
    pub(super) headers: Vec<PrepareHeader>,
    /// Slots whose prepare was written since their header was, or was not sound at the start.
    pub(super) unsettled: BTreeSet<usize>,
}

impl HeaderRing {
    /// The slot of `op` gets another prepare; its header follows.
    pub(super) fn unsettle(&mut self, op: u64) {
        let slot = u64_to_usize(op % to_u64(self.headers.len()));
        self.unsettled.insert(slot);
    }

    /// Writes the sector that holds the slots of all of `newer`.
    pub(super) fn write<'a, I: Io>(
        &mut self,
        io: &'a I,
        newer: &[PrepareHeader],
    ) -> impl Future<Output = ()> + use<'a, I> {
        let slot_count = to_u64(self.headers.len());
        let mut slot = 0;
        for header in newer {
            slot = u64_to_usize(header.op.get() % slot_count);
            self.headers[slot] = *header;
            self.unsettled.remove(&slot);
        }
        let (offset, buffer) = self.sector(slot);
        async move {
            drop(io.storage().write(offset, buffer, SECTOR_SIZE).await);
        }
    }

    fn sector(&self, slot: usize) -> (u64, SectorBuf) {
        let first = slot - slot % HEADERS_PER_SECTOR;
        let mut buffer = SectorBuf::zeroed(SECTOR_SIZE);
        let headers = &self.headers[first..first + HEADERS_PER_SECTOR];
        buffer.copy_from_slice(headers.as_bytes());
        (self.offset + to_u64(first * constants::HEADER_SIZE), buffer)
    }
}

/// Both rings of the journal, slot by slot.
pub(super) struct Journal {
    /// The headers as they were read, whatever they are.
    ring: Vec<PrepareHeader>,
    pub(super) headers: Vec<SlotRead>,
    pub(super) prepares: Vec<SlotRead>,
}

pub(super) async fn read_journal<I: Io>(io: &I, superblock: &Superblock) -> Journal {
    let geometry = superblock.geometry;
    let cluster = superblock.cluster.get();
    let checkpoint_op = superblock.checkpoint.op.get();
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let classify = |(slot, header)| SlotRead::classify(header, cluster, slot, slot_count);
    let mut ring = read_ring(io, &geometry).await;
    let mut headers: Vec<SlotRead> = (0..).zip(&ring).map(classify).collect();
    if headers.contains(&SlotRead::Bad) {
        mark(Mark::HeadersReadAgain);
        let again = read_ring(io, &geometry).await;
        let reads: Vec<SlotRead> = (0..).zip(&again).map(classify).collect();
        for (slot, read) in reads.into_iter().enumerate() {
            if headers[slot] == SlotRead::Bad {
                (ring[slot], headers[slot]) = (again[slot], read);
            }
        }
    }
    let reads = (0..slot_count).map(|slot| read_slot(io, &geometry, cluster, slot, checkpoint_op));
    let prepares = stream::iter(reads).buffered(READS_MAX).collect().await;
    Journal {
        ring,
        headers,
        prepares,
    }
}

/// The ring of headers, whatever it holds.
async fn read_ring<I: Io>(io: &I, geometry: &Geometry) -> Vec<PrepareHeader> {
    let size = to_usize(geometry.journal_slot_count.get()) * constants::HEADER_SIZE;
    let buffer = SectorBuf::zeroed(size.next_multiple_of(SECTOR_SIZE));
    let buffer = io.storage().read(geometry.headers_offset(), buffer).await;
    buffer[..size]
        .chunks_exact(constants::HEADER_SIZE)
        .map(|bytes| PrepareHeader::read_from_bytes(bytes).expect("256 bytes"))
        .collect()
}

/// Writes the headers that recovery mends. All others stay as they are, whatever that is: what looks
/// damaged now has to look damaged after the next crash.
pub(super) async fn mend_journal<I: Io>(
    io: &I,
    superblock: &Superblock,
    journal: &Journal,
    decisions: &[Decision],
) -> HeaderRing {
    let cluster = superblock.cluster.get();
    let mut mended = HeaderRing {
        offset: superblock.geometry.headers_offset(),
        headers: journal.ring.clone(),
        unsettled: BTreeSet::new(),
    };
    let sound = |decision: &Decision| match decision {
        Decision::Keep | Decision::Fix | Decision::CleanEmpty | Decision::FixEmpty => true,
        Decision::Torn | Decision::Discard | Decision::Faulty | Decision::Fatal => false,
    };
    let unsound = decisions.iter().enumerate().filter(|(_, of)| !sound(of));
    mended.unsettled.extend(unsound.map(|(slot, _)| slot));
    let mut sectors = Vec::new();
    // Left as it is until the slot is written again, with all its sector: if a crash damaged that now,
    // neither ring would say any more that the append was never acknowledged.
    let torn = decisions.iter().position(|of| *of == Decision::Torn);
    let torn = torn.map(|slot| slot / HEADERS_PER_SECTOR);
    for (slot, decision) in decisions.iter().enumerate() {
        let header = match (decision, &journal.prepares[slot]) {
            (Decision::Fix, SlotRead::Valid(header)) => *header,
            (Decision::FixEmpty, _) => PrepareHeader::empty(cluster, to_u64(slot)),
            _ => continue,
        };
        mended.headers[slot] = header;
        let sector = slot / HEADERS_PER_SECTOR;
        if torn != Some(sector) && sectors.last() != Some(&sector) {
            sectors.push(sector);
        }
    }
    for sector in sectors {
        let (offset, buffer) = mended.sector(sector * HEADERS_PER_SECTOR);
        drop(io.storage().write(offset, buffer, SECTOR_SIZE).await);
    }
    mended
}

/// Reads the prepare in a slot; its body only if its op is above the checkpoint. What makes no sense is read
/// again.
async fn read_slot<I: Io>(
    io: &I,
    geometry: &Geometry,
    cluster: u128,
    slot: u64,
    checkpoint_op: u64,
) -> SlotRead {
    let read = async || {
        let read = read_slot_once(io, geometry, cluster, slot, checkpoint_op).await;
        (read != SlotRead::Bad).then_some(read)
    };
    let read = once_more(Mark::PrepareReadAgain, read).await;
    read.unwrap_or(SlotRead::Bad)
}

async fn read_slot_once<I: Io>(
    io: &I,
    geometry: &Geometry,
    cluster: u128,
    slot: u64,
    checkpoint_op: u64,
) -> SlotRead {
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let offset = Replica::prepare_offset(geometry, slot);
    let first = io
        .storage()
        .read(offset, SectorBuf::zeroed(SECTOR_SIZE))
        .await;
    let header = PrepareHeader::read_from_bytes(&first[..constants::HEADER_SIZE]);
    let header = header.expect("a header is 256 bytes of any value");
    let read = SlotRead::classify(&header, cluster, slot, slot_count);
    let SlotRead::Valid(header) = read else {
        return read;
    };
    if header.op.get() <= checkpoint_op || planted(Bug::TakeTornHead) {
        return read;
    }
    match read_body(io, geometry, &header).await {
        Some(_) => read,
        None => SlotRead::Bad,
    }
}

/// The whole prepare, if it is intact.
async fn read_body<I: Io>(
    io: &I,
    geometry: &Geometry,
    header: &PrepareHeader,
) -> Option<SectorBuf> {
    let size = to_usize(header.size.get());
    if header.size > geometry.journal_slot_size {
        return None;
    }
    let offset = Replica::prepare_offset(geometry, header.op.get());
    let buffer = SectorBuf::zeroed(size.next_multiple_of(SECTOR_SIZE));
    let buffer = io.storage().read(offset, buffer).await;
    let intact = buffer[..constants::HEADER_SIZE] == *header.as_bytes()
        && (planted(Bug::TakeTornHead)
            || checksum(&buffer[constants::HEADER_SIZE..size]) == header.checksum_body)
        && buffer[size..].iter().all(|byte| *byte == 0);
    intact.then_some(buffer)
}

/// A prepare as the journal has it, if it is intact. What makes no sense is read again.
pub(super) async fn read_prepare<I: Io>(
    io: &I,
    geometry: &Geometry,
    header: &PrepareHeader,
) -> Option<Prepare> {
    let read = async || read_body(io, geometry, header).await;
    let buffer = once_more(Mark::PrepareReadAgain, read).await?;
    let header = *header;
    Some(Prepare { header, buffer })
}

/// Writes a prepare to its slot, and gives it back.
pub(super) fn write_prepare<'a, I: Io>(
    io: &'a I,
    geometry: &Geometry,
    prepare: Prepare,
) -> impl Future<Output = Prepare> + use<'a, I> {
    let offset = Replica::prepare_offset(geometry, prepare.header.op.get());
    let size = prepare.size().next_multiple_of(SECTOR_SIZE);
    async move {
        let bug = Bug::AcknowledgeBeforeWrite;
        let buffer = write_unless(bug, io, offset, prepare.buffer, size).await;
        let header = prepare.header;
        Prepare { header, buffer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{FormatOptions, format, read_superblock};
    use crate::io::MemoryIo;
    use crate::stdx::run_to_end;
    use crate::vsr::journal::{Recovered, recover_solo};
    use storage_format::{Checksum, PrepareKind};

    const CLUSTER: u128 = 7;

    fn made() -> (MemoryIo, Superblock) {
        let io = MemoryIo::default();
        let options = FormatOptions {
            recovering: false,
            release: constants::RELEASE_LOG_MAX,
            cluster: CLUSTER,
            replica: 0,
            replica_count: 1,
            geometry: Geometry {
                journal_slot_count: 48.into(),
                message_size_max: (1 << 20).into(),
                journal_slot_size: ((1 << 20) + 65536).into(),
                session_count_max: 2.into(),
                block_size: u32::try_from(constants::BLOCK_SIZE).unwrap().into(),
                file_size_max: (1 << 30).into(),
                ..Geometry::default()
            },
        };
        let superblock = run_to_end(async {
            Box::pin(format(io.storage(), &options)).await.unwrap();
            read_superblock(io.storage()).await.unwrap()
        });
        (io, superblock)
    }

    fn put(io: &MemoryIo, offset: u64, bytes: &[u8]) {
        let mut sector = SectorBuf::zeroed(SECTOR_SIZE);
        sector[..bytes.len()].copy_from_slice(bytes);
        let _buffer = run_to_end(io.storage().write(offset, sector, SECTOR_SIZE));
    }

    /// An op whose header is missing in its ring, in the slot of its number.
    fn put_prepare(io: &MemoryIo, geometry: &Geometry, op: u64, parent: Checksum) -> Checksum {
        let mut header = PrepareHeader::root(CLUSTER);
        header.kind = PrepareKind::Pulse as u8;
        header.op = op.into();
        header.parent = parent;
        header.timestamp = (1000 + op).into();
        header.checksum_body = checksum(&[]);
        header.seal();
        put(io, Replica::prepare_offset(geometry, op), header.as_bytes());
        header.checksum
    }

    fn sectors(io: &MemoryIo, geometry: &Geometry) -> Vec<SectorBuf> {
        let count = to_u64(geometry.journal_slot_count.get() as usize / HEADERS_PER_SECTOR);
        let read = |sector: u64| {
            let offset = geometry.headers_offset() + sector * to_u64(SECTOR_SIZE);
            let buffer = SectorBuf::zeroed(SECTOR_SIZE);
            run_to_end(io.storage().read(offset, buffer))
        };
        (0..count).map(read).collect()
    }

    async fn recover(io: &MemoryIo, superblock: &Superblock) -> (HeaderRing, Recovered) {
        let journal = read_journal(io, superblock).await;
        let (headers, prepares) = (&journal.headers, &journal.prepares);
        let recovered = recover_solo(headers, prepares, &superblock.checkpoint).unwrap();
        let ring = mend_journal(io, superblock, &journal, &recovered.decisions).await;
        (ring, recovered)
    }

    #[test]
    fn the_header_sector_of_a_torn_append_is_left_as_it_is() {
        let (io, superblock) = made();
        let geometry = superblock.geometry;
        // Headers of the last ops are missing, in two sectors; the append of op 18 was torn.
        let mut parent = PrepareHeader::root(CLUSTER).checksum;
        for op in 1..=17 {
            parent = put_prepare(&io, &geometry, op, parent);
        }
        put(
            &io,
            Replica::prepare_offset(&geometry, 18),
            &[0xA5; SECTOR_SIZE],
        );
        let before = sectors(&io, &geometry);
        let (ring, recovered) = run_to_end(recover(&io, &superblock));
        assert_eq!(recovered.decisions[17], Decision::Fix);
        assert_eq!(recovered.decisions[18], Decision::Torn);
        assert_eq!(ring.headers[17].op.get(), 17);
        let after = sectors(&io, &geometry);
        assert!(
            after[0][..] != before[0][..],
            "the headers of ops 1 to 15 are mended"
        );
        assert!(
            after[1][..] == before[1][..],
            "that of op 18 is in no danger"
        );
        // A restart finds the same.
        let (_, again) = run_to_end(recover(&io, &superblock));
        assert_eq!(again.decisions[17..=18], recovered.decisions[17..=18]);
    }
}
