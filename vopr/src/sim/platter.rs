//! Reading the platter as recovery would, for the checker: the replica is not asked.

use super::disk::Disk;
use daftari::stdx::{to_u64, to_usize};
use std::collections::BTreeSet;
use storage_format::block::verify;
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use storage_format::{
    BlockReference, Geometry, PrepareHeader, PrepareKind, SECTOR_SIZE, Superblock, checksum,
};
use zerocopy::FromBytes;

/// The four copies.
#[must_use]
pub fn copies(disk: &Disk) -> [Superblock; SUPERBLOCK_COPY_COUNT] {
    let mut copies = [Superblock::zeroed(); SUPERBLOCK_COPY_COUNT];
    for (index, copy) in copies.iter_mut().enumerate() {
        let bytes = disk.bytes(to_u64(index * SUPERBLOCK_COPY_SIZE), SUPERBLOCK_COPY_SIZE);
        *copy = Superblock::read_from_bytes(&bytes).expect("a copy has that size");
    }
    copies
}

/// The superblock that a quorum of copies holds.
#[must_use]
pub fn superblock(disk: &Disk) -> Option<Superblock> {
    Superblock::choose(&copies(disk))
        .ok()
        .map(|(superblock, _)| superblock)
}

/// Whether `data` begins with a whole prepare.
#[must_use]
pub fn prepare_intact(data: &[u8], cluster: u128) -> bool {
    let Ok((header, _)) = PrepareHeader::read_from_prefix(data) else {
        return false;
    };
    let size = to_usize(header.size.get());
    header.valid(cluster)
        && (256..=data.len()).contains(&size)
        && checksum(&data[256..size]) == header.checksum_body
        && data[size..size.next_multiple_of(SECTOR_SIZE)]
            .iter()
            .all(|byte| *byte == 0)
}

/// Offset of the slot of `op`.
#[must_use]
pub fn slot_offset(geometry: &Geometry, op: u64) -> u64 {
    let slot = op % u64::from(geometry.journal_slot_count.get());
    geometry.prepares_offset() + slot * u64::from(geometry.journal_slot_size.get())
}

/// The prepare in the slot of `op`, if it is whole.
#[must_use]
pub fn prepare_at(disk: &Disk, geometry: &Geometry, op: u64) -> Option<PrepareHeader> {
    let offset = slot_offset(geometry, op);
    let first = disk.bytes(offset, SECTOR_SIZE);
    let (header, _) = PrepareHeader::read_from_prefix(&first).ok()?;
    if header.size > geometry.journal_slot_size {
        return None;
    }
    let size = to_usize(header.size.get())
        .next_multiple_of(SECTOR_SIZE)
        .max(SECTOR_SIZE);
    let data = disk.bytes(offset, size);
    prepare_intact(&data, header.cluster.get()).then_some(header)
}

/// Whether every slot that the header sector at `sector` describes holds a whole prepare or its
/// empty marker: then damage of that sector can be mended.
#[must_use]
pub fn header_sector_can_be_lost(disk: &Disk, geometry: &Geometry, sector: u64) -> bool {
    (sector * 16..(sector + 1) * 16).all(|slot| {
        prepare_at(disk, geometry, slot)
            .is_some_and(|header| header.kind() != PrepareKind::Empty || header.op.get() == slot)
    })
}

/// The addresses of all blocks that the checkpoint of `superblock` needs, each found intact.
///
/// # Errors
/// Names the first block that is not.
pub fn references(disk: &Disk, superblock: &Superblock) -> Result<BTreeSet<u64>, String> {
    let geometry = &superblock.geometry;
    let block_size = to_usize(geometry.block_size.get());
    let read = |reference: &BlockReference| {
        let address = reference.address.get();
        let bytes = disk.bytes(geometry.block_offset(address), block_size);
        match verify(&bytes, reference) {
            Ok(header) => Ok((header, bytes)),
            Err(error) => Err(format!("block {address}: {error}")),
        }
    };
    let mut addresses = BTreeSet::new();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 {
        let (header, bytes) = read(&next)?;
        addresses.insert(next.address.get());
        let data = &bytes[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
        for record in storage_format::manifest::blocks(data) {
            let (..) = read(&record.block)?;
            let address = record.block.address.get();
            if !addresses.insert(address) {
                return Err(format!("block {address} is referenced twice"));
            }
        }
        next = header.next;
    }
    Ok(addresses)
}
