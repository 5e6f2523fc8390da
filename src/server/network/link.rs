//! What the core and one network core share beside the rings: a way to wake the pump, and whether to
//! close.
//!
//! The pump is woken by a byte in a socket, not by a waker. A waker of glommio 0.9 called from
//! another thread is queued first and then announced through an eventfd; if the executor takes it
//! from the queue before the eventfd fires, the late event counts as a preemption, the executor
//! takes that for having nothing to run, and sleeps on its runnable tasks (seen within seconds
//! with 16 connections on two busy processors). A socket is an event like those of connections.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Shared by the core and one network core.
#[derive(Debug)]
pub struct Link {
    /// The end that is written to; the pump reads the other.
    bell: UnixStream,
    parked: AtomicBool,
    closing: AtomicBool,
}

impl Link {
    /// A link, and the end that the pump reads.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<(Arc<Self>, UnixStream)> {
        let (bell, pump) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let link = Self {
            bell,
            parked: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        };
        Ok((Arc::new(link), pump))
    }

    /// Wakes the pump, from any thread, if it has parked; what it is to find has been written
    /// before.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst) {
            // A full socket wakes as well as one byte more; a closed one has nobody to wake.
            let written = (&self.bell).write(&[1]);
            drop(written);
        }
    }

    /// The pump is about to wait, and has to look for work once more before it does.
    pub fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The pump is back.
    pub fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Tells the network core to send what it has, and to end.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether the core has said that it is done.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}
