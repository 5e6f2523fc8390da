//! Damage of a checkpoint's blocks: which block, and what the replica may do about it.

use super::disk::Disk;
use super::platter;
use crate::random::Random;
use daftari::constants::BLOCK_DATA_SIZE;
use daftari::ledger::catalog::{Growth, TableInfo, TreeInfo, TreeKind};
use daftari::stdx::{to_u64, to_usize, u64_to_usize};
use storage_format::{BlockHeader, ManifestKind, ManifestRecord, SECTOR_SIZE, Superblock};
use zerocopy::FromBytes;

/// The blocks of a checkpoint by when they are read.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// When the file is opened.
    pub at_open: Vec<u64>,
    /// Later, if at all; or at open only to fill memory again.
    pub later: Vec<u64>,
}

/// The blocks of the checkpoint of `superblock`; none when there is no checkpoint.
#[must_use]
pub fn blocks(disk: &Disk, superblock: &Superblock) -> Blocks {
    let manifest = platter::manifest(disk, superblock).expect("the checkpoint is intact");
    let mut blocks = Blocks {
        at_open: manifest.addresses,
        later: Vec::new(),
    };
    for record in storage_format::manifest::blocks(&manifest.records) {
        let address = record.block.address.get();
        if is_read_at_open(disk, superblock, &record) {
            blocks.at_open.push(address);
        } else {
            blocks.later.push(address);
        }
    }
    blocks
}

fn is_read_at_open(disk: &Disk, superblock: &Superblock, record: &ManifestRecord) -> bool {
    let table = record.tag.table;
    if record.tag.kind != ManifestKind::TableBlock as u8 {
        // Filters are in blocks of ids.
        return TreeInfo::of(table).is_some_and(|tree| tree.kind == TreeKind::Ids);
    }
    // Full blocks of tables that only grow are left where they are.
    if TableInfo::of(table).is_none_or(|table| table.growth != Growth::Appended) {
        return true;
    }
    let header = header(disk, superblock, record.block.address.get());
    let per_page = SECTOR_SIZE / to_usize(header.record_size.get());
    u64_to_usize(record.count.get()) < BLOCK_DATA_SIZE / SECTOR_SIZE * per_page
}

fn header(disk: &Disk, superblock: &Superblock, address: u64) -> BlockHeader {
    let first = disk.bytes(superblock.geometry.block_offset(address), SECTOR_SIZE);
    let (header, _) = BlockHeader::read_from_prefix(&first).expect("a sector");
    header
}

/// Damages a sector in use of one of the blocks; gives its address, `None` if there is none.
pub fn damage(
    disk: &mut Disk,
    superblock: &Superblock,
    blocks: &[u64],
    random: &mut Random,
) -> Option<u64> {
    if blocks.is_empty() {
        return None;
    }
    let address = random.pick(blocks);
    let header = header(disk, superblock, address);
    let sectors = 1 + to_usize(header.size.get()).div_ceil(SECTOR_SIZE);
    let sector = to_u64(random.index(sectors) * SECTOR_SIZE);
    let offset = superblock.geometry.block_offset(address);
    disk.damage(offset + sector, random);
    Some(address)
}
