//! Blocks of the data file by address: which are free, what is in memory, what is on its way.

pub mod blocks;
pub mod cache;
pub mod damage;
pub mod free_set;
pub mod scrub;
pub mod store;

pub use blocks::{Grid, Writes};
pub use cache::PageCache;
pub use damage::Damage;
pub use free_set::FreeSet;
pub use store::{BlockStore, NewBlock, Pages};
