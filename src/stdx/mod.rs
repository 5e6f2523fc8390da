//! Small building blocks that know nothing of the rest.

pub mod marks;
pub mod planted;
pub mod sectors;
pub mod slab;
pub mod task;

pub use sectors::SectorBuf;
pub use slab::Slab;
pub use task::{Job, Task};

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// `usize` to `u64`: lossless on every platform that daftari runs on.
#[must_use]
pub const fn to_u64(value: usize) -> u64 {
    const { assert!(size_of::<usize>() == size_of::<u64>()) }
    value as u64
}

/// `u32` to `usize`: lossless on every platform that daftari runs on.
#[must_use]
pub const fn to_usize(value: u32) -> usize {
    value as usize
}

/// `u64` to `usize`: lossless on every platform that daftari runs on.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits, asserted in to_u64"
)]
pub const fn u64_to_usize(value: u64) -> usize {
    const { assert!(size_of::<usize>() == size_of::<u64>()) }
    value as usize
}

/// Lets everything else go on once: what was queued reaches the device.
pub async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls to the end what waits for nothing outside: it may let others go on, of which there are none.
pub fn run_to_end<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return done;
        }
    }
}
