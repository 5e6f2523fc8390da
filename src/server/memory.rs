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
