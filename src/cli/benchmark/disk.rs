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

/// Times of small durable writes; none when the disk could not be measured.
#[derive(Clone, Debug, Default)]
pub struct Writes(Vec<Duration>);

impl Writes {
    /// Measures more of them, beside the data file.
    pub fn measure(&mut self, beside: &Path) {
        self.0.extend(measure(beside));
        self.0.sort();
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        self.0.get(self.0.len() / 2).copied()
    }
}

fn measure(beside: &Path) -> Vec<Duration> {
    let path = beside.with_extension(format!("probe-{}", std::process::id()));
    let measured = probe(&path);
    let removed = std::fs::remove_file(&path);
    match (measured, removed) {
        (Ok(times), Ok(())) => times,
        (Err(error), _) | (Ok(_), Err(error)) => {
            tracing::warn!(%error, path = %path.display(), "the disk could not be measured");
            Vec::new()
        }
    }
}

fn probe(path: &Path) -> std::io::Result<Vec<Duration>> {
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
    Ok(times)
}
