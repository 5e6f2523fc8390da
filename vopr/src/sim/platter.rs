//! Reading the platter as recovery would, for the checker: the replica is not asked.

use super::disk::Disk;
use daftari::stdx::{to_u64, to_usize};
use std::collections::{BTreeMap, BTreeSet};
use storage_format::block::verify;
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use storage_format::{
    BlockHeader, BlockReference, Geometry, PrepareHeader, PrepareKind, SECTOR_SIZE, Superblock,
    checksum,
};
use zerocopy::FromBytes;

/// Blocks by address.
pub type References = BTreeMap<u64, BlockReference>;

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

/// Whether the superblock in `data` has a newer checkpoint than that on the platter.
#[must_use]
pub fn is_newer(disk: &Disk, data: &[u8]) -> bool {
    let next = Superblock::read_from_bytes(data);
    let durable = superblock(disk);
    next.is_ok_and(|next| durable.is_some_and(|durable| next.checkpoint.op > durable.checkpoint.op))
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

/// The slot at an offset of the prepare ring.
#[must_use]
pub fn slot_at(geometry: &Geometry, offset: u64) -> u64 {
    (offset - geometry.prepares_offset()) / u64::from(geometry.journal_slot_size.get())
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

/// A block of the file, found intact.
///
/// # Errors
/// Names it if it is not.
pub fn block(
    disk: &Disk,
    geometry: &Geometry,
    reference: &BlockReference,
) -> Result<(BlockHeader, Vec<u8>), String> {
    let address = reference.address.get();
    let block_size = to_usize(geometry.block_size.get());
    let bytes = disk.bytes(geometry.block_offset(address), block_size);
    match verify(&bytes, reference) {
        Ok(header) => Ok((header, bytes)),
        Err(error) => Err(format!("block {address}: {error}")),
    }
}

/// A checkpoint's manifest, and the addresses of its own blocks.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    /// Its records.
    pub records: Vec<u8>,
    /// Where they are.
    pub addresses: Vec<u64>,
}

/// The manifest of the checkpoint of `superblock`.
///
/// # Errors
/// Names the first block that is not intact.
pub fn manifest(disk: &Disk, superblock: &Superblock) -> Result<Manifest, String> {
    let mut manifest = Manifest::default();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 {
        let (header, bytes) = block(disk, &superblock.geometry, &next)?;
        manifest.addresses.push(next.address.get());
        let data = &bytes[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
        manifest.records.extend_from_slice(data);
        next = header.next;
    }
    Ok(manifest)
}

/// All blocks that the checkpoint of `superblock` needs, by address, each found intact but for those
/// that were damaged on purpose.
///
/// # Errors
/// Names the first block that is not.
pub fn references(
    disk: &Disk,
    superblock: &Superblock,
    damaged: &BTreeSet<u64>,
) -> Result<References, String> {
    let references = reachable(disk, superblock);
    let listed = superblock.checkpoint_block_count.get();
    for (address, reference) in &references {
        if !damaged.contains(address) {
            let (..) = block(disk, &superblock.geometry, reference)?;
        }
    }
    let manifest = match manifest(disk, superblock) {
        Ok(manifest) => manifest.addresses.len(),
        Err(_) if !damaged.is_empty() => return Ok(references),
        Err(error) => return Err(error),
    };
    let found = to_u64(references.len() - manifest);
    if found == listed {
        Ok(references)
    } else {
        Err(format!("{found} blocks are referenced, not {listed}"))
    }
}

/// The blocks of a checkpoint that can be found from its index, by address: what lies behind a block of
/// the manifest that is not intact is not among them.
#[must_use]
pub fn reachable(disk: &Disk, superblock: &Superblock) -> References {
    let mut references = References::new();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 {
        references.insert(next.address.get(), next);
        let Ok((header, bytes)) = block(disk, &superblock.geometry, &next) else {
            break;
        };
        let records = &bytes[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
        for record in storage_format::manifest::blocks(records) {
            references.insert(record.block.address.get(), record.block);
        }
        next = header.next;
    }
    references
}
