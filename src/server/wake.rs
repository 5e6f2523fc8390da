//! Waking the replica core from any thread.
//!
//! `ready` says that the core has something to do, `parked` that it waits in the kernel. Both sides
//! first write their own flag and then read the other's, in one total order, so at least one of
//! them sees the other: either the core does not park, or the waker writes the eventfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

/// The flags and the eventfd.
#[derive(Debug)]
pub struct CoreWake {
    eventfd: OwnedFd,
    ready: AtomicBool,
    parked: AtomicBool,
}

impl CoreWake {
    /// Ready, so that the root future is polled once.
    ///
    /// # Errors
    /// When the process has no file descriptors left.
    #[expect(unsafe_code, reason = "std has no eventfd")]
    pub fn new() -> io::Result<Arc<Self>> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and belongs to nobody else.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let (ready, parked) = (AtomicBool::new(true), AtomicBool::new(false));
        Ok(Arc::new(Self {
            eventfd,
            ready,
            parked,
        }))
    }

    /// What the core's ring reads from.
    #[must_use]
    pub fn eventfd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Whether anything woke the core since the last call.
    #[must_use]
    pub fn take_ready(&self) -> bool {
        self.ready.swap(false, Ordering::SeqCst)
    }

    /// Whether the core may wait in the kernel. Until [`CoreWake::unpark`], wakers write the
    /// eventfd.
    #[must_use]
    pub fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        if self.ready.load(Ordering::SeqCst) {
            self.parked.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// The core is back from the kernel, or was not there.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Writes the eventfd, whatever the flags say.
    pub fn write_eventfd(&self) {
        write_eventfd(self.eventfd());
    }
}

impl Wake for CoreWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.store(true, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            self.write_eventfd();
        }
    }
}

/// Adds one to an eventfd; safe in a signal handler.
#[expect(unsafe_code, reason = "a write without a File around the descriptor")]
pub fn write_eventfd(fd: RawFd) {
    let one: u64 = 1;
    // SAFETY: `one` is 8 readable bytes. The counter cannot overflow: the core reads it.
    let written = unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
    assert!(written == 8, "an eventfd takes 8 bytes");
}
