//! Blocks of the data file by address.

pub mod free_set;
pub mod store;

pub use free_set::FreeSet;
pub use store::{BlockStore, NewBlock, Pages};
