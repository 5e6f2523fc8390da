//! Every limit of the protocol and the server, with the assertions that relate them.

/// Extra checks that cost too much for production: on in tests and in the simulator.
pub const VERIFY: bool = cfg!(any(test, madsim, debug_assertions));

/// What a pong and an eviction tell a client, as `major << 16 | minor << 8 | patch`: the newest client
/// release whose protocol the server speaks. The log has a release of its own.
pub const RELEASE: u32 = release(0, 17, 9);
/// The oldest client release that is served.
pub const RELEASE_CLIENT_MIN: u32 = release(0, 16, 4);
/// The first release whose patch level does not matter: every 0.17 client is served.
pub const RELEASE_CLIENT_MAX: u32 = release(0, 17, 255);

/// The oldest release of a log that this binary executes.
pub const RELEASE_LOG_MIN: u32 = release(0, 17, 9);
/// The newest: that of the files that it formats.
pub const RELEASE_LOG_MAX: u32 = release(0, 17, 10);

/// A release as one number.
#[must_use]
pub const fn release(major: u32, minor: u32, patch: u32) -> u32 {
    assert!(major < 1 << 16 && minor < 1 << 8 && patch < 1 << 8);
    major << 16 | minor << 8 | patch
}

/// A release as text.
#[must_use]
pub fn release_text(release: u32) -> String {
    format!("{}.{}.{}", release >> 16, release >> 8 & 255, release & 255)
}

/// Bytes of a message header.
pub const HEADER_SIZE: usize = 256;
/// Bytes of the largest client message, header included.
pub const MESSAGE_SIZE_MAX: usize = 1 << 20;
/// Bytes of the largest body.
pub const BODY_SIZE_MAX: usize = MESSAGE_SIZE_MAX - HEADER_SIZE;
/// Events of 128 bytes that fit a request beside its trailer, and the cap of a query's limit.
pub const BATCH_EVENTS_MAX: u32 = 8189;
/// Change events of 384 bytes that fit a reply.
pub const CHANGE_EVENTS_MAX: u32 = 2730;
/// Pending transfers that one pulse expires at most.
pub const PULSE_EXPIRIES_MAX: u64 = 8190;

/// Bytes that a journal slot has beyond a message, for the entries of the requests in a prepare.
pub const PREPARE_ENTRIES_SIZE: usize = 64 * 1024;
/// Requests in a prepare at most.
pub const PREPARE_REQUESTS_MAX: usize = 1000;
/// Prepares in flight: made, and not committed yet. Small in the simulator, as are the blocks, so
/// that a short run wraps the journal and fills many blocks.
pub const PIPELINE_PREPARES_MAX: u64 = if cfg!(madsim) { 4 } else { 8 };

/// Headers of durable prepares that may not be in the header ring yet.
pub const HEADERS_BEHIND_MAX: usize = if cfg!(madsim) { 4 } else { 8 };

/// Replicas that vote, at most.
pub const REPLICA_COUNT_MAX: u8 = 6;
/// Members that follow without voting, at most.
pub const STANDBY_COUNT_MAX: u8 = 6;
/// Bytes of the largest message between replicas: a prepare, or a client's frame on its way.
pub const PEER_MESSAGE_SIZE_MAX: usize = MESSAGE_SIZE_MAX + PREPARE_ENTRIES_SIZE;

/// Sessions of a file that `format` makes unless told otherwise.
pub const SESSIONS_DEFAULT: u32 = 256;
/// Bytes of a grid block; in the simulator the fewest that have two data pages.
pub const BLOCK_SIZE: usize = if cfg!(madsim) { 12 * 1024 } else { 256 * 1024 };
/// Data bytes of a grid block.
pub const BLOCK_DATA_SIZE: usize = storage_format::block::data_size_max(BLOCK_SIZE);

/// Nanoseconds in a second.
pub const NANOSECONDS: u64 = 1_000_000_000;
/// Timestamps are below this: they fit a signed 64-bit integer.
pub const TIMESTAMP_MAX: u64 = (1 << 63) - 1;

const _: () = assert!(BODY_SIZE_MAX == 1_048_320);
const _: () = assert!((8189 + 1) * 128 == BODY_SIZE_MAX);
const _: () = assert!(2730 * 384 <= BODY_SIZE_MAX && 2731 * 384 > BODY_SIZE_MAX);
const _: () = assert!(PREPARE_REQUESTS_MAX * 64 + HEADER_SIZE <= PREPARE_ENTRIES_SIZE);
const _: () = assert!(cfg!(madsim) || BLOCK_DATA_SIZE == 63 * 4096);
