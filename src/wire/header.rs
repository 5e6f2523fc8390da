//! The headers of the client protocol, field by field (see `conformance/tbwire.py` for offsets).
#![expect(
    missing_debug_implementations,
    reason = "zerocopy's derive makes a hidden type per field, which rustc takes for ours in a macro"
)]

use storage_format::{Checksum, checksum};
use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Command numbers in the frame.
pub mod command {
    /// A replica asks for another's time of day.
    pub const PING: u8 = 1;
    /// The answer to it, and what a backup says when it has heard its primary.
    pub const PONG: u8 = 2;
    /// A client asks whether the server is there.
    pub const PING_CLIENT: u8 = 3;
    /// The answer to it.
    pub const PONG_CLIENT: u8 = 4;
    /// A client's request.
    pub const REQUEST: u8 = 5;
    /// An op of the log, from the primary or from whoever repairs it.
    pub const PREPARE: u8 = storage_format::prepare::COMMAND_PREPARE;
    /// A backup has the op on stable storage.
    pub const PREPARE_OK: u8 = 7;
    /// The answer to a request.
    pub const REPLY: u8 = 8;
    /// The primary is there, and what is committed.
    pub const COMMIT: u8 = 9;
    /// A replica misses its primary.
    pub const START_VIEW_CHANGE: u8 = 10;
    /// What a replica knows of the log, for the primary of a new view.
    pub const DO_VIEW_CHANGE: u8 = 11;
    /// Asks the primary of a view for its start.
    pub const REQUEST_START_VIEW: u8 = 13;
    /// Asks for headers of the log.
    pub const REQUEST_HEADERS: u8 = 14;
    /// Asks for a prepare.
    pub const REQUEST_PREPARE: u8 = 15;
    /// Asks for the last reply to a client.
    pub const REQUEST_REPLY: u8 = 16;
    /// Headers of the log.
    pub const HEADERS: u8 = 17;
    /// The session is gone, or the request can never be served.
    pub const EVICTION: u8 = 18;
    /// Asks for a block of the data file.
    pub const REQUEST_BLOCK: u8 = 19;
    /// A block of the data file.
    pub const BLOCK: u8 = 20;
    /// The last reply to a client, as it is stored.
    pub const STORED_REPLY: u8 = 21;
    /// The log as it is when a view starts.
    pub const START_VIEW: u8 = 24;
    /// A client's request on its way from a backup to the primary: a frame within a frame.
    pub const FORWARD: u8 = 30;
    /// What the primary answers to it, on its way back to the client.
    pub const RELAY: u8 = 31;
    /// A replica whose file was lost asks what it may have promised.
    pub const RECOVER: u8 = 32;
    /// The answer to it.
    pub const RECOVERY: u8 = 33;

    /// Whether only replicas send such frames.
    #[must_use]
    pub const fn is_of_peers(command: u8) -> bool {
        !matches!(
            command,
            PING_CLIENT | PONG_CLIENT | REQUEST | REPLY | EVICTION
        )
    }
}

macro_rules! header {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
            Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            /// Of bytes 16 to 255.
            pub checksum: Checksum,
            /// Zero.
            pub checksum_padding: U128,
            /// Of the body.
            pub checksum_body: Checksum,
            /// Zero.
            pub checksum_body_padding: U128,
            /// Zero.
            pub nonce_reserved: U128,
            /// Cluster.
            pub cluster: U128,
            /// Bytes of header and body.
            pub size: U32,
            /// Zero.
            pub epoch: U32,
            /// View of the sender, as far as it knows.
            pub view: U32,
            /// Release of the sender (a reply: of the request).
            pub release: U32,
            /// Zero.
            pub protocol: U16,
            /// See [`command`].
            pub command: u8,
            /// Replica that sends; 0 for a client.
            pub replica: u8,
            /// Zero.
            pub reserved_frame: [u8; 12],
            $($(#[$field_doc])* pub $field: $type,)*
        }

        const _: () = assert!(size_of::<$name>() == 256);

        impl $name {
            /// A header with every field zero.
            #[must_use]
            pub fn zeroed() -> Self {
                zerocopy::FromZeros::new_zeroed()
            }

            /// The header as the wire has it, sealed for `body`.
            #[must_use]
            pub fn sealed(mut self, body: &[u8]) -> Self {
                self.checksum_body = checksum(body);
                self.seal();
                self
            }

            /// Sets `checksum`; every other field is final.
            pub fn seal(&mut self) {
                self.checksum = checksum(&self.as_bytes()[16..]);
            }
        }
    };
}

header! {
    /// What all headers share.
    CommonHeader {
        /// Depends on the command.
        specific: [u8; 128],
    }
}

header! {
    /// A client's request.
    RequestHeader {
        /// `context` of the reply before; 0 for a register request.
        parent: U128,
        /// Zero.
        parent_padding: U128,
        /// The client, chosen by itself; not 0.
        client: U128,
        /// The session: op of the register request; 0 for a register request.
        session: U64,
        /// Zero.
        timestamp: U64,
        /// Number of the request in its session; 0 for a register request.
        request: U32,
        /// Operation.
        operation: u8,
        /// Zero.
        previous_request_latency_padding: [u8; 3],
        /// How long the client's last request took; any value.
        previous_request_latency: U32,
        /// Zero.
        reserved: [u8; 52],
    }
}

header! {
    /// The answer to a request.
    ReplyHeader {
        /// `checksum` of the request.
        request_checksum: Checksum,
        /// Zero.
        request_checksum_padding: U128,
        /// `checksum` as it would be with a zero context, in the view that made the reply.
        context: Checksum,
        /// Zero.
        context_padding: U128,
        /// The client.
        client: U128,
        /// Op that executed the request.
        op: U64,
        /// The same.
        commit: U64,
        /// Timestamp of the request.
        timestamp: U64,
        /// Number of the request.
        request: U32,
        /// Its operation.
        operation: u8,
        /// Zero.
        reserved: [u8; 19],
    }
}

header! {
    /// A client asks whether the server is there.
    PingClientHeader {
        /// The client.
        client: U128,
        /// Comes back in the pong.
        ping_timestamp_monotonic: U64,
        /// The client's session, or 0.
        session: U64,
        /// Zero.
        reserved: [u8; 96],
    }
}

header! {
    /// The answer to a ping.
    PongClientHeader {
        /// From the ping.
        ping_timestamp_monotonic: U64,
        /// Zero.
        reserved: [u8; 120],
    }
}

header! {
    /// The session is gone, or the request can never be served.
    EvictionHeader {
        /// The client.
        client: U128,
        /// Zero.
        reserved: [u8; 111],
        /// An [`Evicted`].
        reason: u8,
    }
}

header! {
    /// A message between replicas, whatever its command; fields that the command does not need are zero.
    PeerHeader {
        /// Identity of the prepare at `op`, or of a block.
        checksum_item: Checksum,
        /// Names the question that this answers; or a client.
        nonce: U128,
        /// An op: of a prepare, or the head of the sender's log; or the address of a block; or of the newest checkpoint
        /// that the receiver has told of.
        op: U64,
        /// Highest op that the sender knows to be committed.
        commit: U64,
        /// Op of the sender's durable checkpoint.
        checkpoint_op: U64,
        /// View in which the sender's log was installed.
        log_view: U32,
        /// The view that the sender asks for; or the newest that the receiver has told of.
        view_next: U32,
        /// One bit for each header of the body: the sender has the prepare on stable storage.
        present: U64,
        /// One bit for each header of the body: the sender never acknowledged the prepare.
        nacks: U64,
        /// The last of several ops from `op` on.
        op_last: U64,
        /// Monotonic time at which the replica asked that this answers, in nanoseconds.
        monotonic: U64,
        /// The sender's time of day, in nanoseconds.
        realtime: U64,
        /// 1 if the sender may have lost the end of its log.
        uncertain: u8,
        /// 1 if the sender's time of day is one that a quorum agrees on.
        synchronized: u8,
        /// Replicas that the sender's data file names; older binaries say 0.
        replica_count: u8,
        /// Zero.
        reserved_flags: u8,
        /// The newest release that the sender's binary has; `release` is that of its log.
        release_newest: U32,
        /// Zero.
        reserved: [u8; 16],
    }
}

/// Why a client is sent an eviction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Evicted {
    /// The client has no session, or lost it to another client.
    NoSession = 1,
    /// The client is older than the server serves.
    ReleaseTooLow = 2,
    /// The client is newer than the server.
    ReleaseTooHigh = 3,
    /// No such operation.
    InvalidOperation = 4,
    /// The body does not fit the operation.
    InvalidBody = 5,
    /// The body is too long.
    InvalidBodySize = 6,
    /// The client has a newer session.
    SessionTooLow = 7,
    /// The session was registered by another release.
    SessionReleaseMismatch = 8,
}

impl Evicted {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}
