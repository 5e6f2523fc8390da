//! Checks of frames and stored replies that need nothing but their bytes.

use super::verdict::{Failure, Verdict, require};
use daftari::stdx::to_usize;
use daftari::wire::{CommonHeader, PongClientHeader};
use storage_format::{ReplySlotHeader, SECTOR_SIZE, checksum};
use zerocopy::FromBytes;

/// A frame that leaves is whole, and of `cluster` (I15).
///
/// # Errors
/// When it is not.
pub fn check_frame(frame: &[u8], cluster: u128) -> Result<CommonHeader, Failure> {
    let (header, body) = CommonHeader::read_from_prefix(frame).expect("at least a header");
    let intact = header.checksum == checksum(&frame[16..256])
        && header.checksum_body == checksum(body)
        && to_usize(header.size.get()) == frame.len()
        && header.cluster.get() == cluster;
    require(intact, "I15", || "a frame left that is not intact".into())?;
    Ok(header)
}

/// A pong has nothing but what it has to have.
///
/// # Errors
/// When it does.
pub fn check_pong(frame: &[u8]) -> Verdict {
    let pong = PongClientHeader::read_from_bytes(frame).expect("256 bytes");
    let bare = pong.reserved == [0; 120];
    require(bare, "I17", || "a pong with a tail".into())
}

/// The slot that a reply is stored in, and the reply.
///
/// # Errors
/// When they do not belong together.
pub fn check_slot(data: &[u8]) -> Result<(ReplySlotHeader, &[u8]), Failure> {
    let (slot, _) = ReplySlotHeader::read_from_prefix(data).expect("at least a sector");
    let frame = &data[SECTOR_SIZE..SECTOR_SIZE + to_usize(slot.size.get())];
    let valid = slot.valid() && slot.checksum_message == checksum(frame);
    require(valid, "I17", || "a stored reply has a wrong slot".into())?;
    Ok((slot, frame))
}
