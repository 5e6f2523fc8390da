//! Virtual time: gives out the timestamps of requests, as a primary does.

use crate::machine::Machine;
use crate::model::batch::{self, Op};

/// Timestamps that a pulse takes: one for each expiry that it may contain.
pub const PULSE_TIMESTAMPS: u64 = 8190;

/// Gives out increasing timestamps.
#[derive(Debug)]
pub struct Clock {
    now: u64,
    latest: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            now: 1_800_000_000_000_000_000,
            latest: 0,
        }
    }
}

impl Clock {
    /// Lets time pass.
    pub fn advance(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
    }

    /// Lets time pass up to that time, unless it has passed.
    pub fn advance_to(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// The time, which is not before any timestamp.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now.max(self.latest)
    }

    /// The timestamp of a request, which takes `events` of them.
    pub fn prepare(&mut self, events: u64) -> u64 {
        self.latest = (self.latest + 1).max(self.now) + events;
        self.latest
    }

    /// The timestamp of a pulse, if one is due.
    pub fn pulse(&mut self, machine: &dyn Machine) -> Option<u64> {
        machine
            .pulse_due(self.now())
            .then(|| self.prepare(PULSE_TIMESTAMPS))
    }

    /// The timestamp of a request with that body.
    ///
    /// # Panics
    /// When the operation or the body is invalid.
    pub fn request(&mut self, operation: u8, body: &[u8]) -> u64 {
        let op = Op::from_code(operation).expect("an operation of the ledger");
        let mut events = 0;
        if op.creates() {
            let bytes = if op.multi_batch {
                let batches = batch::decode(op.event_size(), body).expect("a valid body");
                batches.iter().map(|batch| batch.len()).sum()
            } else {
                body.len()
            };
            events = u64::try_from(bytes / op.event_size()).expect("few events");
        }
        self.prepare(events)
    }
}
