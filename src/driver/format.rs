//! Making a data file.

use super::superblock::write_copies;
use crate::constants::{self, STANDBY_COUNT_MAX};
use crate::io::Storage;
use crate::stdx::{SectorBuf, to_u64};
use crate::vsr::FatalReason;
use futures_util::stream::{FuturesUnordered, StreamExt};
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{Geometry, PrepareHeader, SECTOR_SIZE, Superblock};
use zerocopy::IntoBytes;

/// What a data file is made for.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Cluster.
    pub cluster: u128,
    /// Index of the member: below `replica_count` a replica, else a standby.
    pub replica: u8,
    /// Replicas that vote.
    pub replica_count: u8,
    /// Sizes.
    pub geometry: Geometry,
    /// Whether the file takes the place of one that was lost.
    pub recovering: bool,
    /// Release of the log; a file that takes the place of another gets that of the others.
    pub release: u32,
}

/// Writes under way at the same time.
const WRITES_MAX: usize = 32;

/// Writes an empty ledger. The superblock comes last: what a crash leaves before is no data file.
///
/// # Errors
/// When the sizes do not fit each other.
pub async fn format<S: Storage>(storage: &S, options: &FormatOptions) -> Result<(), FatalReason> {
    let geometry = &options.geometry;
    // An interval between checkpoints is as long as what an op may lag behind the one that it builds on.
    let too_few =
        u64::from(geometry.journal_slot_count.get()) < 6 * constants::PIPELINE_PREPARES_MAX;
    if !geometry.valid() || too_few {
        return Err(FatalReason::Geometry {
            what: format!("{geometry:?}"),
        });
    }
    let standby = options.replica >= options.replica_count;
    let beyond = options.replica_count + STANDBY_COUNT_MAX;
    // A standby has promised nothing, so it has nothing to recover.
    if options.replica >= beyond || (standby && options.recovering) {
        let what = format!("member {} of {}", options.replica, options.replica_count);
        return Err(FatalReason::Geometry { what });
    }
    let slot_count = u64::from(geometry.journal_slot_count.get());
    let marker = |slot: u64| match slot {
        0 => PrepareHeader::root(options.cluster),
        _ => PrepareHeader::empty(options.cluster, slot),
    };
    let mut writes = FuturesUnordered::new();
    for slot in 0..slot_count {
        let mut buffer = SectorBuf::zeroed(SECTOR_SIZE);
        buffer[..constants::HEADER_SIZE].copy_from_slice(marker(slot).as_bytes());
        let offset = crate::vsr::Replica::prepare_offset(geometry, slot);
        writes.push(storage.write(offset, buffer, SECTOR_SIZE));
        if slot % to_u64(HEADERS_PER_SECTOR) == 0 {
            let mut sector = SectorBuf::zeroed(SECTOR_SIZE);
            let slots = slot..slot + to_u64(HEADERS_PER_SECTOR);
            for (bytes, slot) in sector.chunks_exact_mut(constants::HEADER_SIZE).zip(slots) {
                bytes.copy_from_slice(marker(slot).as_bytes());
            }
            let offset = geometry.headers_offset() + slot * to_u64(constants::HEADER_SIZE);
            writes.push(storage.write(offset, sector, SECTOR_SIZE));
        }
        while writes.len() >= WRITES_MAX {
            drop(writes.next().await);
        }
    }
    while let Some(buffer) = writes.next().await {
        drop(buffer);
    }
    drop(writes);
    let mut superblock = Superblock::zeroed();
    superblock.release = options.release.into();
    superblock.cluster = options.cluster.into();
    superblock.sequence = 1.into();
    superblock.replica = options.replica;
    superblock.replica_count = options.replica_count;
    superblock.geometry = *geometry;
    superblock.recovering = u8::from(options.recovering);
    superblock.checkpoint = PrepareHeader::root(options.cluster);
    superblock.seal();
    write_copies(storage, &superblock).await;
    Ok(())
}
