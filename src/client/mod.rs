//! The client's side of the protocol, without I/O.
//!
//! [`Client`] owns one session. It is told what happens and what time it is ([`Client::handle`]),
//! and says what to send ([`Client::poll_send`]), what came of it ([`Client::poll_output`]) and when
//! it has to be called again ([`Client::poll_timeout`]). The caller owns the connection.
//!
//! * One request is in flight. Its bytes never change, so that the server recognizes a repetition.
//! * Each request names the reply before it as its parent.
//! * A reply counts only if its checksums, client, number and request checksum are right.
//! * An eviction is final: the caller decides whether to begin a new session, which cannot tell
//!   whether the request in flight took effect (its transfer ids can).

mod machine;
mod request;

#[cfg(test)]
mod tests;

pub use machine::{Client, Event, Failure, Options, Output, SubmitError};
pub use request::PreparedRequest;
