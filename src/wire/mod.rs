//! The client protocol: 256-byte headers, operations, multi-batch bodies.
//!
//! Any byte string is either a message or a precise rejection. Nothing here does I/O.

pub mod build;
pub mod frame;
pub mod header;
pub mod multi_batch;
pub mod operation;
pub mod request;
pub mod status;
pub mod types;

#[cfg(test)]
mod tests;

pub use build::{Answered, ClientState, Sender};
pub use frame::{ClientMessage, FrameError, FrameInfo, check_body, check_header};
pub use header::{
    CommonHeader, Evicted, EvictionHeader, PeerHeader, PingClientHeader, PongClientHeader,
    ReplyHeader, RequestHeader,
};
pub use multi_batch::{Batches, MultiBatchError, ReplyEncoder};
pub use operation::{Family, Operation};
pub use request::{IgnoreReason, Rejection, check, check_ping};
pub use status::{CreateAccountStatus, CreateTransferStatus};
pub use types::{
    Account, AccountBalance, AccountFilter, ChangeEvent, ChangeEventKind, ChangeEventsFilter,
    CreateResult, QueryFilter, RegisterRequest, RegisterResult, SparseResult, Transfer,
};
