//! Whole-process tests: a real server process on a real file, driven by the official Rust client
//! and by a raw client of ours for what lies below it. They need the feature `server`.
//!
//! Every test has its own server, directory and port on 127.0.0.1, and a bound on each wait.
#![expect(
    clippy::disallowed_types,
    reason = "clients of a real server have sockets and time"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "tests wait, run threads and read their variables"
)]

mod benchmark;
mod cluster;
mod crash;
mod garbage;
mod inspect;
mod limits;
mod links;
mod official_client;
mod raw;
mod refusal;
mod scrub;
mod single_replica_cli;
mod util;
