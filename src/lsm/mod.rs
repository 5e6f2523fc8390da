//! Tables of fixed-size records, and trees that index them.
//!
//! Tables that only grow, and trees, are on disk but for what was added last; tables whose records
//! change are in memory. What is done and written follows from the records alone. Nothing here is ever
//! iterated in the order of a hash.

pub mod chunk;
pub mod hash;
pub mod id_index;
pub mod log_table;
pub mod mutable_table;

pub use chunk::{Chunk, Record};
pub use hash::Hash;
pub use id_index::IdIndex;
pub use log_table::{BlockEntry, LogTable, Ranked, Tail};
pub use mutable_table::MutableTable;
pub mod stub;
pub use stub::*;
