//! How a seed is run, and what comes of it, in whichever simulator.

pub mod cuts;
pub mod injection;
pub mod minimise;
pub mod numbers;

use crate::sim::hash::EventHash;
use crate::sim::verdict::Failure;
use crate::timeline::Recording;
use cuts::Cuts;
use daftari::stdx::marks::Marks;
use daftari::stdx::planted::Bug;
use injection::Faults;
use storage_format::checksum;

/// What is asked for of a run.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Decides everything else.
    pub seed: u64,
    /// The bug that is planted.
    pub bug: Option<Bug>,
    /// Whether every event is printed.
    pub log: bool,
    /// The event before which the run is stopped; at its own end if not set.
    pub until: Option<u64>,
    /// How many events are kept for a timeline; none if not set. It changes nothing in the run.
    pub record: Option<usize>,
    /// What is left out of the seed.
    pub cuts: Cuts,
}

impl Setup {
    /// A seed as it is.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        Self {
            seed,
            bug,
            ..Self::default()
        }
    }

    /// The same run, and nothing printed or kept of it.
    #[must_use]
    pub fn quiet(&self) -> Self {
        Self {
            log: false,
            record: None,
            ..self.clone()
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The first failure, if any.
    pub failure: Option<Failure>,
    /// The hash of all events.
    pub hash: EventHash,
    /// Simulated nanoseconds.
    pub time: u64,
    /// Identifies the options that were drawn.
    pub config: u32,
    /// Replicas.
    pub replicas: u8,
    /// Standbys.
    pub standbys: u8,
    /// Clients at work.
    pub clients: usize,
    /// Requests that clients began.
    pub requests: u64,
    /// The highest committed op.
    pub op: u64,
    /// Rare branches that were reached.
    pub marks: Marks,
    /// The proof that the cluster had to stand still, if it did.
    pub unavailable: Option<String>,
    /// The faults that there were.
    pub faults: Faults,
    /// The events, if they were asked for.
    pub recording: Option<Recording>,
}

/// Identifies options: equal ones have the same number.
#[must_use]
pub fn config(options: &impl std::fmt::Debug) -> u32 {
    let digest = checksum(format!("{options:?}").as_bytes());
    let [a, b, c, d, ..] = digest.0;
    u32::from_le_bytes([a, b, c, d])
}
