//! The simulator and the reference model.
#![forbid(unsafe_code)]
