//! SIGTERM and SIGINT: the first asks the core to shut down, the second ends the process at once.
//!
//! The handler does what a handler may: it counts, and writes the eventfd that the core waits for.
#![expect(unsafe_code, reason = "signal handlers have no safe wrapper in std")]

use super::wake::{CoreWake, write_eventfd};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The eventfd of the core that gets the signals, or -1.
static EVENTFD: AtomicI32 = AtomicI32::new(-1);
/// Signals since the handlers were installed.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Signals go to one core of the process as long as this lives.
#[derive(Debug)]
pub struct Signals {
    seen: bool,
}

extern "C" fn on_signal(signal: libc::c_int) {
    if COUNT.fetch_add(1, Ordering::SeqCst) > 0 {
        // SAFETY: ends the process without running anything; allowed in a handler.
        unsafe { libc::_exit(128 + signal) }
    }
    let fd: RawFd = EVENTFD.load(Ordering::SeqCst);
    if fd >= 0 {
        write_eventfd(fd);
    }
}

impl Signals {
    /// Installs the handlers; SIGPIPE is ignored, a closed socket is an error of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install(wake: &CoreWake) -> io::Result<Self> {
        let previous = EVENTFD.swap(wake.eventfd(), Ordering::SeqCst);
        assert!(previous == -1, "one core of a process gets the signals");
        COUNT.store(0, Ordering::SeqCst);
        let this = Self { seen: false };
        let handler: extern "C" fn(libc::c_int) = on_signal;
        set_handler(libc::SIGTERM, handler as libc::sighandler_t)?;
        set_handler(libc::SIGINT, handler as libc::sighandler_t)?;
        set_handler(libc::SIGPIPE, libc::SIG_IGN)?;
        Ok(this)
    }

    /// True once, after the first signal.
    pub fn take(&mut self) -> bool {
        !self.seen && {
            self.seen = COUNT.load(Ordering::SeqCst) > 0;
            self.seen
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        EVENTFD.store(-1, Ordering::SeqCst);
    }
}

fn set_handler(signal: libc::c_int, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: a sigaction is plain numbers and an empty mask, for which zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialized, and the handler calls only what a handler may.
    let result = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
