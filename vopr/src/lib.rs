//! The simulator and the reference model.
#![forbid(unsafe_code)]

/// Virtual time.
pub mod clock;
/// Requests made from a seed.
pub mod generate;
/// What executes requests.
pub mod machine;
/// The reference model of the ledger.
pub mod model;
/// The simulator: the core in a world of faults.
#[cfg(madsim)]
pub mod sim;
/// Recorded traces and their replay.
pub mod traces;
