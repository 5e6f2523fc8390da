//! What executes requests: the model, or the ledger of the server.

use daftari::ledger::LedgerInMemory;
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

impl Machine for LedgerInMemory {
    fn execute(&mut self, operation: u8, timestamp: u64, body: &[u8]) -> Vec<u8> {
        let operation = Operation::from_u8(operation).expect("the caller knows the operations");
        let mut reply = Vec::new();
        Self::execute(self, operation, timestamp, body, &mut reply);
        reply
    }

    fn pulse_due(&self, now: u64) -> bool {
        self.ledger.pulse_due(now)
    }

    fn pulse(&mut self, timestamp: u64) {
        Self::pulse(self, timestamp);
    }
}
