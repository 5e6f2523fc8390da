//! The simulator and the reference model.
#![forbid(unsafe_code)]

/// Virtual time.
pub mod clock;
/// The simulator of whole clusters.
#[cfg(madsim)]
pub mod cluster;
/// Random workloads.
pub mod generate;
/// Jobs for other cores.
#[cfg(madsim)]
pub mod jobs;
/// What executes requests.
pub mod machine;
/// The reference model of the ledger.
pub mod model;
/// Seeded random numbers.
pub mod random;
/// What happens to a cluster step by step, and what has to come of it.
#[cfg(madsim)]
pub mod scenarios;
/// How a seed is run, and what comes of it.
#[cfg(madsim)]
pub mod seed;
/// The simulator: the core in a world of faults.
#[cfg(madsim)]
pub mod sim;
/// What happened in a run, as a page.
#[cfg(madsim)]
pub mod timeline;
/// Recorded traces and their replay.
pub mod traces;
