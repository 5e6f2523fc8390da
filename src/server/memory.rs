//! A thread that touches memory before the state needs it.
//!
//! The first touch of a page costs a fault, and on a virtual machine a second one in the host:
//! together as much as a transfer. It stays a fixed amount ahead, and ends when all that the state
//! may take has been handed out.

use crate::stdx::slab::Region;
use crate::stdx::{Slab, to_u64};
use std::io;

/// Bytes that are touched ahead of use at most.
pub const AHEAD: u64 = 64 << 20;

/// Has the allocator keep what is freed: the state frees tables that it is going to need again, and
/// memory that went back to the system has to be touched anew.
#[expect(unsafe_code, reason = "std has no way to set up the allocator")]
pub fn keep() {
    // SAFETY: both parameters take any value of this size; who allocates meanwhile sees the old or
    // the new one.
    let trim = unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30) };
    // SAFETY: the same.
    let map = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20) };
    if trim != 1 || map != 1 {
        tracing::warn!("the allocator does not keep what is freed");
    }
}

/// Starts the thread; the slabs are for the calling thread. `limit` is what the state may take.
///
/// # Errors
/// When the system has no thread to offer.
pub fn start(limit: u64) -> io::Result<()> {
    let region = to_u64(Region::SIZE);
    let capacity = crate::stdx::u64_to_usize(AHEAD / region);
    let (mut regions, mut touched) = rtrb::RingBuffer::new(capacity);
    let thread = std::thread::Builder::new()
        .name("memory".into())
        .spawn(move || {
            for _ in 0..limit / region {
                let mut region = Region::touched();
                while let Err(rtrb::PushError::Full(back)) = regions.push(region) {
                    if regions.is_abandoned() {
                        return;
                    }
                    region = back;
                    std::thread::park();
                }
            }
        })?;
    Slab::set_source(move || {
        let region = touched.pop().ok();
        thread.thread().unpark();
        region
    });
    Ok(())
}
