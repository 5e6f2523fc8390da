//! What executes requests: the model, or the ledger of the server.

use daftari::ledger::{Ledger, LedgerOptions};
use daftari::wire::Operation;

use crate::model::Model;

/// A ledger that executes committed requests.
pub trait Machine {
    /// Executes a valid request and gives the body of the reply.
    fn execute(&mut self, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8>;
    /// Whether a pulse must come before a request at that time.
    fn pulse_due(&self, now: u64) -> bool;
    /// Expires what is due.
    fn pulse(&mut self, timestamp: u64);
}

impl Machine for Model {
    fn execute(&mut self, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
        Self::execute(self, operation, timestamp, body)
    }

    fn pulse_due(&self, now: u64) -> bool {
        Self::pulse_due(self, now)
    }

    fn pulse(&mut self, timestamp: u64) {
        Self::pulse(self, timestamp);
    }
}

/// The ledger of the server.
#[derive(Debug)]
pub struct Server {
    ledger: Ledger,
}

impl Server {
    /// An empty ledger that may take that much memory.
    #[must_use]
    pub fn new(memory_limit: u64) -> Self {
        Self {
            ledger: Ledger::new(LedgerOptions { memory_limit }),
        }
    }

    /// The ledger itself.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl Machine for Server {
    fn execute(&mut self, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
        let operation = Operation::from_u8(operation).expect("an operation of the ledger");
        let mut reply = Vec::new();
        self.ledger.execute(operation, timestamp, body, &mut reply);
        reply
    }

    fn pulse_due(&self, now: u64) -> bool {
        self.ledger.pulse_due(now)
    }

    fn pulse(&mut self, timestamp: u64) {
        self.ledger.pulse(timestamp);
    }
}
