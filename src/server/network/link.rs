//! What the core and one network core share beside the rings: a waker, the bytes on their way back,
//! and whether to close.

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by the core and one network core.
#[derive(Debug, Default)]
pub struct Link {
    /// The task of the network core that takes frames from the core and grants permits.
    pub pump: AtomicWaker,
    released: AtomicU64,
    starved: AtomicBool,
    closing: AtomicBool,
    sending: AtomicU64,
}

impl Link {
    /// Nothing released, nothing sent.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Gives bytes back to the budget; any thread.
    pub fn release(&self, bytes: u64) {
        self.released.fetch_add(bytes, Ordering::SeqCst);
        if self.starved.load(Ordering::SeqCst) {
            self.pump.wake();
        }
    }

    /// The bytes that came back since the last call.
    pub fn take_released(&self) -> u64 {
        self.released.swap(0, Ordering::SeqCst)
    }

    /// Says whether somebody waits for bytes; true if some came back meanwhile that have to be
    /// looked at.
    pub fn set_starved(&self, starved: bool) -> bool {
        self.starved.store(starved, Ordering::SeqCst);
        starved && self.released.load(Ordering::SeqCst) > 0
    }

    /// Takes `bytes` of the room for frames to send, of which there is `max`.
    #[must_use]
    pub fn send_reserve(&self, bytes: u64, max: u64) -> bool {
        let previous = self.sending.fetch_add(bytes, Ordering::Relaxed);
        if previous + bytes > max {
            self.send_release(bytes);
            return false;
        }
        true
    }

    /// Gives the room of a frame back.
    pub fn send_release(&self, bytes: u64) {
        let previous = self.sending.fetch_sub(bytes, Ordering::Relaxed);
        assert!(previous >= bytes, "what was reserved is released once");
    }

    /// Tells the network core to send what it has, and to end.
    pub fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.pump.wake();
    }

    /// Whether the core has said that it is done.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}
