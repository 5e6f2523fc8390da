//! The data file: opened past the page cache, every write durable when it returns, locked against
//! a second process.
//!
//! A plain file is made in one go: space is allocated for all of it, and the zones that are
//! written at every op are filled with zeros, so that a later write changes no metadata. A block
//! device is used as it is.
#![expect(
    unsafe_code,
    reason = "flock, fallocate and statx have no wrapper in std"
)]
#![expect(clippy::disallowed_types, reason = "this is where files belong")]
#![expect(
    clippy::disallowed_methods,
    reason = "the lock of a killed process takes a moment"
)]

use crate::stdx::{SectorBuf, to_u64, u64_to_usize};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use storage_format::SECTOR_SIZE;

/// Why the data file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFileError {
    /// Nothing there.
    #[error("{path}: there is no data file: make one with `daftari format`")]
    Missing {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something is there already.
    #[error("{path}: it exists already: remove it, or choose another path")]
    Exists {
        /// The path asked for.
        path: PathBuf,
    },
    /// A device that may hold something.
    #[error("{path}: the device does not begin with zeros: clear it first, with `blkdiscard -z`")]
    DeviceNotEmpty {
        /// The path asked for.
        path: PathBuf,
    },
    /// A device that is smaller than what was asked for.
    #[error("{path}: the device has {size} bytes, and {needed} are needed")]
    DeviceTooSmall {
        /// The path asked for.
        path: PathBuf,
        /// Bytes of the device.
        size: u64,
        /// Bytes asked for.
        needed: u64,
    },
    /// Neither a file nor a block device.
    #[error("{path}: it is neither a file nor a block device")]
    Kind {
        /// The path asked for.
        path: PathBuf,
    },
    /// Locked by another process.
    #[error("{path}: in use by another process: a data file is served by one process at a time")]
    InUse {
        /// The path asked for.
        path: PathBuf,
    },
    /// Reads and writes would go through the page cache.
    #[error(
        "{path}: the filesystem has no O_DIRECT in units of {SECTOR_SIZE} bytes: put the data \
         file on ext4, xfs or a raw block device"
    )]
    NoDirect {
        /// The path asked for.
        path: PathBuf,
    },
    /// No room.
    #[error("{path}: the disk is full: {needed} bytes are needed")]
    Full {
        /// The path asked for.
        path: PathBuf,
        /// Bytes asked for.
        needed: u64,
    },
    /// Anything else.
    #[error("{path}: cannot {action}: {error}")]
    Io {
        /// The path asked for.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
}

/// How often the lock is tried, and what lies between.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// An open, locked data file or block device.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Drop for DataFile {
    /// Gives the lock up at once: the kernel keeps a ring's files open for a while after it.
    fn drop(&mut self) {
        // SAFETY: takes no pointers, and the descriptor is open.
        let _ = unsafe { libc::flock(self.raw_fd(), libc::LOCK_UN) };
    }
}

impl DataFile {
    /// Makes a file of `size` bytes with all its space allocated; or takes a block device that
    /// begins with zeros and has so many bytes.
    ///
    /// # Errors
    /// When something is there already, or there is no room. What was made is removed again.
    pub fn create(path: &Path, size: u64) -> Result<Self, DataFileError> {
        assert!(
            size > 0 && size.is_multiple_of(to_u64(SECTOR_SIZE)),
            "whole sectors: {size}"
        );
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device()) {
            return Self::take_device(path, size);
        }
        let file = open_options().create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return DataFileError::Exists { path: path.into() };
            }
            // The kernel refuses O_DIRECT after it has made the file.
            if error.raw_os_error() == Some(libc::EINVAL) {
                remove(path);
            }
            open_error(path, error)
        })?;
        let this = Self {
            file,
            path: path.into(),
            size,
        };
        match this.prepare_new() {
            Ok(()) => Ok(this),
            Err(error) => {
                remove(path);
                Err(error)
            }
        }
    }

    /// Opens a data file or a block device.
    ///
    /// # Errors
    /// When it is not there, is used by another process, or lies on a filesystem without O_DIRECT.
    pub fn open(path: &Path) -> Result<Self, DataFileError> {
        let mut file = open_options()
            .open(path)
            .map_err(|error| open_error(path, error))?;
        let io_error = |error| io_error(path, "find its size", error);
        let kind = file.metadata().map_err(io_error)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DataFileError::Kind { path: path.into() });
        }
        // Of a block device, the metadata has no size.
        let size = file.seek(SeekFrom::End(0)).map_err(io_error)?;
        let this = Self {
            file,
            path: path.into(),
            size,
        };
        this.lock()?;
        this.check_direct()?;
        Ok(this)
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file or the device.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills a zone with zeros that are really written: fallocate alone leaves extents that the
    /// first write has to convert, and O_DSYNC then waits for the filesystem's journal as well.
    ///
    /// # Errors
    /// When the disk is full or refuses the write.
    pub fn write_zeros(&self, offset: u64, size: u64) -> Result<(), DataFileError> {
        const CHUNK: u64 = 4 << 20;
        let sector = to_u64(SECTOR_SIZE);
        assert!(
            offset.is_multiple_of(sector) && size.is_multiple_of(sector),
            "whole sectors"
        );
        assert!(offset + size <= self.size, "the zone lies in the file");
        let zeros = SectorBuf::zeroed(u64_to_usize(CHUNK));
        let mut written = 0;
        while written < size {
            let chunk = CHUNK.min(size - written);
            let bytes = &zeros[..u64_to_usize(chunk)];
            let result = self.file.write_all_at(bytes, offset + written);
            result.map_err(|error| self.write_error("write zeros", error))?;
            written += chunk;
        }
        Ok(())
    }

    /// Whether it is a block device.
    pub(super) fn is_device(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.file_type().is_block_device())
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn take_device(path: &Path, needed: u64) -> Result<Self, DataFileError> {
        let this = Self::open(path)?;
        if this.size < needed {
            let (path, size) = (path.into(), this.size);
            return Err(DataFileError::DeviceTooSmall { path, size, needed });
        }
        let mut first = SectorBuf::zeroed(16 * SECTOR_SIZE);
        let read = this.file.read_exact_at(&mut first, 0);
        read.map_err(|error| io_error(path, "read the device", error))?;
        if first.iter().any(|byte| *byte != 0) {
            return Err(DataFileError::DeviceNotEmpty { path: path.into() });
        }
        Ok(this)
    }

    fn prepare_new(&self) -> Result<(), DataFileError> {
        self.lock()?;
        self.check_direct()?;
        let size = i64::try_from(self.size)
            .map_err(|error| io_error(&self.path, "allocate space", io::Error::other(error)))?;
        // SAFETY: takes no pointers, and the descriptor is open.
        if unsafe { libc::fallocate(self.raw_fd(), 0, 0, size) } != 0 {
            return Err(self.write_error("allocate space", io::Error::last_os_error()));
        }
        self.file
            .sync_all()
            .map_err(|error| self.write_error("sync", error))?;
        // Without this the name may be gone after a crash, although the contents are durable.
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let synced = File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(|error| io_error(&self.path, "sync its directory", error))
    }

    /// Takes the lock. A process that was killed keeps it until the kernel has torn its ring down,
    /// a moment after the process is gone: so it is tried for a while.
    fn lock(&self) -> Result<(), DataFileError> {
        let mut error = io::Error::last_os_error();
        for attempt in 0..LOCK_ATTEMPTS {
            if attempt > 0 {
                std::thread::sleep(LOCK_PAUSE);
            }
            // SAFETY: takes no pointers, and the descriptor is open.
            if unsafe { libc::flock(self.raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                return Ok(());
            }
            error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                break;
            }
        }
        if error.kind() == io::ErrorKind::WouldBlock {
            let path = self.path.clone();
            return Err(DataFileError::InUse { path });
        }
        Err(io_error(&self.path, "lock it", error))
    }

    /// Asks the kernel for the unit of direct reads and writes; kernels before 6.1 do not say.
    fn check_direct(&self) -> Result<(), DataFileError> {
        // SAFETY: a statx buffer is plain numbers, for which zero is a value.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN);
        // SAFETY: the path is an empty string, and `stat` is a valid buffer.
        let result =
            unsafe { libc::statx(self.raw_fd(), c"".as_ptr(), flags, mask, &raw mut stat) };
        if result != 0 || stat.stx_mask & libc::STATX_DIOALIGN == 0 {
            return Ok(());
        }
        let sector = u32::try_from(SECTOR_SIZE).expect("a sector is small");
        let usable = |align: u32| align != 0 && align <= sector;
        if usable(stat.stx_dio_offset_align) && usable(stat.stx_dio_mem_align) {
            Ok(())
        } else {
            Err(DataFileError::NoDirect {
                path: self.path.clone(),
            })
        }
    }

    fn write_error(&self, action: &'static str, error: io::Error) -> DataFileError {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DataFileError::Full {
                path: self.path.clone(),
                needed: self.size,
            },
            _ => io_error(&self.path, action, error),
        }
    }
}

/// O_CLOEXEC is std's default. O_DSYNC makes a write durable when it returns; O_DIRECT keeps a
/// failed write from lingering in the page cache, where a later read would find it.
fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    options
}

fn open_error(path: &Path, error: io::Error) -> DataFileError {
    match error.raw_os_error() {
        Some(libc::ENOENT) => DataFileError::Missing { path: path.into() },
        Some(libc::EINVAL) => DataFileError::NoDirect { path: path.into() },
        Some(libc::EISDIR) => DataFileError::Kind { path: path.into() },
        _ => io_error(path, "open it", error),
    }
}

fn io_error(path: &Path, action: &'static str, error: io::Error) -> DataFileError {
    DataFileError::Io {
        path: path.into(),
        action,
        error,
    }
}

/// Removes a file that could not be finished; the error that led here is the one to report.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the unfinished file");
    }
}
