//! Consensus: what a replica decides, without I/O.
//!
//! [`Replica`] takes events and gives effects; it never waits, so nothing can come between two of
//! its steps. Clusters have one replica for now: an op is committed when its prepare is durable
//! here. The messages between replicas, view changes and repair have their place beside it.

pub mod fatal;
pub mod journal;
pub mod replica;
pub mod sessions;

pub use fatal::FatalReason;
pub use replica::{Admission, Effect, Event, Prepare, Replica};
pub use sessions::{Session, Sessions};
