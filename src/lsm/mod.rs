//! Tables of fixed-size records, and the indexes over them.
//!
//! State lives in memory; a table's chunks have the size of a block's data, so that a checkpoint
//! writes them as they are. Indexes are never written: they are made again from the tables when a
//! data file is opened. Nothing here is ever iterated in the order of a hash.

pub mod chunk;
pub mod hash;
pub mod id_index;
pub mod record_table;
pub mod segments;
pub mod tree;

pub use chunk::{Chunk, Record};
pub use hash::Hash;
pub use id_index::IdIndex;
pub use record_table::{LoadError, RecordTable, Table};
pub use segments::Segments;
pub use tree::Tree;
