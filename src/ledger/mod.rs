//! stub
use crate::lsm::Table;
use crate::wire::Operation;
/// x
#[derive(Debug)]
pub struct Ledger;
/// x
#[derive(Debug)]
pub struct LedgerOptions {
    /// x
    pub memory_limit: u64,
}
#[allow(missing_docs)]
impl Ledger {
    pub fn new(_: LedgerOptions) -> Self {
        Self
    }
    pub fn tables(&self) -> [&dyn Table; 5] {
        unimplemented!()
    }
    pub fn tables_mut(&mut self) -> [&mut dyn Table; 5] {
        unimplemented!()
    }
    pub fn execute(&mut self, _: Operation, _: u64, _: &[u8], _: &mut Vec<u8>) {}
    pub fn pulse(&mut self, _: u64) {}
    pub fn pulse_next(&self) -> u64 {
        0
    }
    pub fn timestamp_last(&self) -> u64 {
        0
    }
    pub fn memory_used(&self) -> u64 {
        0
    }
    pub fn admits(&self, _: Operation, _: u64, _: u64) -> bool {
        true
    }
    pub fn state(&self) -> [u8; 256] {
        [0; 256]
    }
    pub fn restore(&mut self, _: &[u8; 256]) -> Result<(), std::fmt::Error> {
        Ok(())
    }
}
