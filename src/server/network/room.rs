//! A bound on the bytes of frames between the core and the sockets.

use crate::stdx::to_u64;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Room for so many bytes.
#[derive(Debug)]
pub struct Room {
    max: u64,
    taken: AtomicU64,
}

/// A frame that the core sends, with the room that it takes until it is dropped.
#[derive(Debug)]
pub struct Sending {
    /// All of its bytes.
    pub frame: Bytes,
    room: Arc<Room>,
}

impl Room {
    /// Room for `max` bytes.
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: AtomicU64::new(0),
        })
    }

    /// Takes room for the frame, if there is enough.
    pub fn take(self: &Arc<Self>, frame: Bytes) -> Option<Sending> {
        let bytes = to_u64(frame.len());
        let previous = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let sending = Sending {
            frame,
            room: Arc::clone(self),
        };
        (previous + bytes <= self.max).then_some(sending)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let bytes = to_u64(self.frame.len());
        let previous = self.room.taken.fetch_sub(bytes, Ordering::Relaxed);
        assert!(previous >= bytes, "what was taken is given back once");
    }
}

#[cfg(test)]
mod tests {
    use super::Room;
    use bytes::Bytes;

    #[test]
    fn a_frame_takes_its_room_as_long_as_it_lives() {
        let room = Room::new(10);
        let take = |bytes: &'static [u8]| room.take(Bytes::from_static(bytes));
        let first = take(&[0; 6]).unwrap();
        assert!(take(&[0; 5]).is_none());
        let second = take(&[0; 4]).unwrap();
        drop(first);
        assert!(take(&[0; 7]).is_none());
        assert!(take(&[0; 6]).is_some());
        drop(second);
        assert!(take(&[0; 10]).is_some());
    }
}
