//! The simulator and the reference model.
#![forbid(unsafe_code)]

/// Virtual time.
pub mod clock;
/// What executes requests.
pub mod machine;
/// The reference model of the ledger.
pub mod model;
/// Recorded traces and their replay.
pub mod traces;
