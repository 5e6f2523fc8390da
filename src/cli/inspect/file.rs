//! A data file, opened for reading only.
//!
//! What cannot be read comes back zeroed, as in the server, so that only checksums decide.
#![expect(
    clippy::disallowed_types,
    reason = "inspection reads the file without the server"
)]

use crate::cli::exit::{Status, failure};
use crate::stdx::{to_u64, to_usize};
use std::fs::{File, TryLockError};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use storage_format::{Geometry, Superblock, SuperblockError};
use zerocopy::FromBytes;

/// A data file; the lock on it, if it was taken, is shared and ends with the value.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl DataFile {
    /// Opens the file for reading.
    ///
    /// # Errors
    /// When it cannot be opened, and when a server has it and `live` does not allow that.
    pub fn open(path: &Path, live: bool) -> anyhow::Result<Self> {
        let file = File::open(path).map_err(|error| {
            failure(
                Status::InputOutput,
                format!(
                    "{} cannot be opened: {error}; check the path",
                    path.display()
                ),
            )
        })?;
        if !live {
            match try_lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(failure(
                        Status::FileInUse,
                        format!(
                            "{} is in use by another process; stop that server first, or pass \
                             --live to read what may be out of date",
                            path.display()
                        ),
                    ));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(failure(
                        Status::InputOutput,
                        format!("{} cannot be locked: {error}; pass --live", path.display()),
                    ));
                }
            }
        }
        // Of a block device, the metadata has no size.
        let size = (&file).seek(SeekFrom::End(0)).unwrap_or(0);
        Ok(Self {
            file,
            path: path.to_owned(),
            size,
        })
    }

    /// Bytes that it had when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes at `offset`; zeros where there are none.
    #[must_use]
    pub fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let mut buffer = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match self
                .file
                .read_at(&mut buffer[filled..], offset + to_u64(filled))
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, offset, "unreadable");
                    buffer[filled..].fill(0);
                    break;
                }
            }
        }
        buffer
    }

    /// All copies of the superblock.
    #[must_use]
    pub fn superblock_copies(&self) -> Box<[Superblock; SUPERBLOCK_COPY_COUNT]> {
        let copies: Box<[Superblock]> = (0..SUPERBLOCK_COPY_COUNT)
            .map(|copy| {
                let bytes = self.read(to_u64(copy * SUPERBLOCK_COPY_SIZE), SUPERBLOCK_COPY_SIZE);
                Superblock::read_from_bytes(&bytes).expect("the buffer has the size of a copy")
            })
            .collect();
        copies.try_into().expect("one was read for each copy")
    }

    /// The superblock that counts.
    ///
    /// # Errors
    /// When the copies do not make one.
    pub fn superblock(&self) -> anyhow::Result<Superblock> {
        match Superblock::choose(&self.superblock_copies()) {
            Ok((superblock, _)) => Ok(superblock),
            Err(error) => Err(failure(
                Status::FileUnusable,
                format!("{}: {}", self.path.display(), explain(error)),
            )),
        }
    }

    /// The block at `address`, as far as the file goes.
    #[must_use]
    pub fn block(&self, geometry: &Geometry, address: u64) -> Vec<u8> {
        self.read(
            geometry.block_offset(address),
            to_usize(geometry.block_size.get()),
        )
    }
}

/// Takes the lock. A server that was killed keeps it for a moment, see `server::data_file`.
#[expect(
    clippy::disallowed_methods,
    reason = "the lock of a killed process takes a moment"
)]
fn try_lock(file: &File) -> Result<(), TryLockError> {
    const ATTEMPTS: u32 = 20;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
    for _ in 1..ATTEMPTS {
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            other @ (Ok(()) | Err(TryLockError::Error(_))) => return other,
        }
    }
    file.try_lock_shared()
}

/// Why the copies do not make a superblock, and what to do.
#[must_use]
pub fn explain(error: SuperblockError) -> String {
    match error {
        SuperblockError::Foreign => "this is not a daftari data file; check the path".to_owned(),
        SuperblockError::Version { found } => format!(
            "the file has layout version {found}, and this release reads {}; use the release that \
             wrote it",
            storage_format::FORMAT_VERSION
        ),
        SuperblockError::NoQuorum { valid } => format!(
            "only {valid} of {SUPERBLOCK_COPY_COUNT} superblock copies are intact, and no two are \
             the same; restore the file from a backup"
        ),
        SuperblockError::Fork { sequence } => format!(
            "two different superblocks have the sequence number {sequence}: two processes have \
             written the file; restore it from a backup"
        ),
    }
}
