//! The client protocol: 256-byte headers, operations, multi-batch bodies.
//!
//! Any byte string is either a message or a precise rejection. Nothing here does I/O.

pub mod header;

pub use header::{
    CommonHeader, Evicted, EvictionHeader, PingClientHeader, PongClientHeader, ReplyHeader,
    RequestHeader,
};
