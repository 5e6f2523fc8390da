//! The simulator and the reference model.
#![forbid(unsafe_code)]

pub mod generate;
pub mod model;
#[cfg(madsim)]
pub mod sim;
