//! Consensus: what a replica decides, without I/O.
//!
//! Viewstamped Replication with a journal that may lose what it has. [`Replica`] takes events and gives
//! effects; it never waits, so nothing can come between two of its steps. With one replica an op is
//! committed when its prepare is durable here.

pub mod clock;
pub mod fatal;
pub mod journal;
pub mod lineage;
pub mod log;
pub mod members;
pub mod message;
pub mod quorum;
pub mod release;
pub mod replica;
pub mod sessions;
pub mod vote;

#[cfg(test)]
mod testing;

pub use fatal::FatalReason;
pub use release::Releases;
pub use replica::{Admission, Effect, Event, Op, Outcome, Prepare, Replica, ViewState, Way};
pub use sessions::{Session, Sessions};
