//! Space for the data file, claimed before it is used.
//!
//! * The first bytes of the file up to a mark are certain: a write there never meets a full disk.
//! * The mark moves ahead on a thread of its own, so that whoever asks rarely waits; who asks for
//!   more than there is has it claimed at once.
//! * The last bytes of a filesystem are left to others. An attempt that failed is not repeated within
//!   a second.
//! * A block device is as large as it is; on a filesystem that cannot claim space nothing is certain,
//!   and nothing is refused.
#![expect(unsafe_code, reason = "fallocate and fstatvfs have no wrapper in std")]

use super::data_file::DataFile;
use super::ring::monotonic;
use crate::constants::NANOSECONDS;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;

/// How far the mark is ahead of what was asked for, and the least that is claimed at a time.
const AHEAD: u64 = 64 << 20;
/// The most that is claimed in one call.
const CLAIM_MAX: u64 = 4 << 30;
/// What is left to others on the filesystem.
const LEFT: u64 = 8 << 20;
/// What remains is claimed in multiples of this.
const UNIT: u64 = 1 << 20;
/// Nanoseconds between attempts, when one failed.
const PAUSE: u64 = NANOSECONDS;

#[derive(Debug)]
struct Shared {
    file: OwnedFd,
    path: PathBuf,
    /// Bytes that the file had at first: what lies below takes no new space, but for holes.
    size: u64,
    /// The file never needs more.
    limit: AtomicU64,
    mark: AtomicU64,
    /// Where the thread moves the mark to.
    target: AtomicU64,
    /// When the last attempt failed; 0 when it did not.
    failed: AtomicU64,
    ended: AtomicBool,
}

/// See the module.
#[derive(Debug)]
pub struct Space {
    shared: Arc<Shared>,
    thread: Option<Thread>,
}

impl Space {
    /// The space of a file that is open.
    ///
    /// # Errors
    /// When the system has no descriptor or no thread to offer.
    pub fn new(file: &DataFile) -> io::Result<Self> {
        let device = file.is_device()?;
        let mark = if device { file.size() } else { 0 };
        let shared = Arc::new(Shared {
            file: file.as_fd().try_clone_to_owned()?,
            path: file.path().to_path_buf(),
            size: file.size(),
            limit: AtomicU64::new(if device { file.size() } else { u64::MAX }),
            mark: AtomicU64::new(mark),
            target: AtomicU64::new(mark),
            failed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let thread = (!device)
            .then(|| {
                let shared = Arc::clone(&shared);
                let name = "space".to_owned();
                let thread = std::thread::Builder::new().name(name);
                thread.spawn(move || {
                    while !shared.ended.load(Ordering::Acquire) {
                        shared.claim(shared.target.load(Ordering::Acquire));
                        std::thread::park();
                    }
                })
            })
            .transpose()?;
        Ok(Self {
            shared,
            thread: thread.map(|thread| thread.thread().clone()),
        })
    }

    /// Has the first `size` bytes of the file, which never needs more than `limit`, made certain, and
    /// gives how many are.
    #[must_use]
    pub fn reserve(&self, size: u64, limit: u64) -> u64 {
        let shared = &self.shared;
        if let Some(thread) = &self.thread {
            shared.limit.store(limit, Ordering::Release);
            let target = size.saturating_add(AHEAD).min(limit);
            if shared.mark.load(Ordering::Acquire) < target
                && shared.target.fetch_max(target, Ordering::AcqRel) < target
            {
                thread.unpark();
            }
            if shared.mark.load(Ordering::Acquire) < size {
                shared.claim(size);
            }
        }
        shared.mark.load(Ordering::Acquire)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

impl Shared {
    /// Moves the mark to `upto`, or as far as it goes.
    fn claim(&self, upto: u64) {
        loop {
            let mark = self.mark.load(Ordering::Acquire);
            if mark >= upto {
                return;
            }
            let failed = self.failed.load(Ordering::Acquire);
            if failed > 0 && monotonic().saturating_sub(failed) < PAUSE {
                return;
            }
            let limit = self.limit.load(Ordering::Acquire);
            let wanted = (upto - mark).clamp(AHEAD, CLAIM_MAX);
            let wanted = wanted.min(limit.saturating_sub(mark));
            let size = if mark < self.size {
                wanted.min(self.size - mark)
            } else {
                self.available(wanted)
            };
            let claimed = if size == 0 {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            } else {
                self.fallocate(mark, size)
            };
            match claimed {
                Ok(()) => {
                    self.failed.store(0, Ordering::Release);
                    let _: u64 = self.mark.fetch_max(mark + size, Ordering::AcqRel);
                }
                Err(error) => return self.refused(mark, wanted, &error),
            }
        }
    }

    fn refused(&self, mark: u64, wanted: u64, error: &io::Error) {
        let path = self.path.display();
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => {
                tracing::warn!(%path, "the filesystem cannot reserve space: a full disk stops the server");
                self.mark.store(u64::MAX, Ordering::Release);
            }
            Some(libc::EINTR) => {}
            _ => {
                tracing::warn!(%path, size = mark, wanted, %error, "the data file cannot grow");
                self.failed.store(monotonic().max(1), Ordering::Release);
            }
        }
    }

    /// How much of `wanted` the filesystem has, and can spare.
    fn available(&self, wanted: u64) -> u64 {
        // SAFETY: a statvfs buffer is plain numbers, for which zero is a value.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and `stat` is a valid buffer.
        if unsafe { libc::fstatvfs(self.file.as_raw_fd(), &raw mut stat) } != 0 {
            return wanted;
        }
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let spare = free.saturating_sub(LEFT);
        if spare >= wanted {
            wanted
        } else {
            spare - spare % UNIT
        }
    }

    fn fallocate(&self, offset: u64, size: u64) -> io::Result<()> {
        let number = |value: u64| i64::try_from(value).map_err(io::Error::other);
        let (offset, size) = (number(offset)?, number(size)?);
        // SAFETY: takes no pointers, and the descriptor is open.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), 0, offset, size) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AHEAD, Space};
    use crate::server::DataFile;

    #[test]
    fn what_is_reserved_is_allocated_up_to_the_limit() {
        let name = format!("daftari-space-{}", std::process::id());
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        std::fs::create_dir_all(&path).unwrap();
        let path = path.join(name);
        let file = DataFile::create(&path, 1 << 20).unwrap();
        let space = Space::new(&file).unwrap();
        let limit = (1 << 20) + 3 * AHEAD / 2;
        assert!(space.reserve(1 << 20, limit) >= 1 << 20);
        assert!(space.reserve(2 << 20, limit) >= 2 << 20);
        assert_eq!(space.reserve(limit, limit), limit);
        assert_eq!(space.reserve(limit + 1, limit), limit);
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, limit);
        drop((space, file));
        std::fs::remove_file(&path).unwrap();
    }
}
