//! Tables of fixed-size records, and trees that index them.
//!
//! Tables that only grow, and trees, are on disk but for what was added last; tables whose records
//! change are in memory. What is done and written follows from the records alone. Nothing here is ever
//! iterated in the order of a hash.

pub mod beat;
pub mod chunk;
pub mod clock;
pub mod cursor;
pub mod entry;
pub mod fuse;
pub mod hash;
mod id_group;
pub mod id_index;
pub mod id_lookup;
pub mod id_tree;
mod index_table;
pub mod index_tree;
pub mod layout;
pub mod log_table;
pub mod merge;
#[cfg(test)]
mod mock;
pub mod mutable_table;
mod output;
pub mod run;
pub mod sort;
pub mod tiers;
#[cfg(test)]
mod tree_tests;

pub use chunk::{Chunk, Record};
pub use clock::Clock;
pub use cursor::{Cursor, Seek};
pub use hash::Hash;
pub use id_index::IdIndex;
pub use id_lookup::Lookup;
pub use id_tree::IdTree;
pub use index_tree::IndexTree;
pub use layout::TreeOptions;
pub use log_table::{LogTable, Ranked, Tail};
pub use merge::MergeState;
pub use mutable_table::MutableTable;
pub use run::{BlockEntry, RunState};
pub use tiers::{Extent, TierState, TreeState};
