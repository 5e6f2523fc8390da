//! daftari: a replicated double-entry ledger server.
//!
//! The modules in reading order. Imports point upwards only: `server` and `cli` use `driver`, which
//! joins `vsr` (consensus, no I/O) and `ledger` (rules, no consensus) over `io`.

// The command line.
#[cfg(feature = "server")]
pub mod cli;
// The client's side of the protocol, without I/O.
pub mod client;
// Every limit, with the assertions that relate them.
pub mod constants;
// The loop that joins all of the core, generic over `io`.
pub mod driver;
// Blocks of the data file by address.
pub mod grid;
// The seam between the core and its surroundings: storage, network, time.
pub mod io;
// Accounts, transfers, queries, expiry: the rules.
pub mod ledger;
// Tables of fixed-size records, and the indexes over them.
pub mod lsm;
// Production: disk on io_uring, network on glommio.
#[cfg(feature = "server")]
pub mod server;
// Small building blocks: aligned sectors, bounded queues, a seeded generator.
pub mod stdx;
// Consensus: the journal, the superblock, sessions, the replica.
pub mod vsr;
// The client protocol: headers, operations, multi-batch bodies.
pub mod wire;
