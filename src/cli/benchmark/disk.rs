//! What one small durable write costs where the data file is: what no server can be faster than
//! that acknowledges one request at a time.
#![expect(
    clippy::disallowed_types,
    reason = "the probe measures the disk itself"
)]

use crate::stdx::{SectorBuf, to_u64};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes that are measured.
const WRITES: u64 = 500;
/// Bytes of the file that is written to, so that the device sees different addresses.
const FILE_SIZE: usize = 1 << 20;

/// The median time of a write of 4 KiB beside the data file, or nothing when it cannot be measured.
#[must_use]
pub fn measure(beside: &Path) -> Option<Duration> {
    let path = beside.with_extension(format!("probe-{}", std::process::id()));
    let measured = probe(&path);
    let removed = std::fs::remove_file(&path);
    match (measured, removed) {
        (Ok(median), Ok(())) => Some(median),
        (Err(error), _) | (Ok(_), Err(error)) => {
            tracing::warn!(%error, path = %path.display(), "the disk could not be measured");
            None
        }
    }
}

fn probe(path: &Path) -> std::io::Result<Duration> {
    let file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(path)?;
    // Allocated beforehand, as the journal is: the file system has nothing to note afterwards.
    file.write_all_at(&SectorBuf::zeroed(FILE_SIZE), 0)?;
    let mut sector = SectorBuf::zeroed(storage_format::SECTOR_SIZE);
    sector.fill(0xa5);
    let mut times = Vec::new();
    for index in 0..WRITES {
        let offset = index * to_u64(storage_format::SECTOR_SIZE) % to_u64(FILE_SIZE);
        let begin = Instant::now();
        file.write_all_at(&sector, offset)?;
        times.push(begin.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}
