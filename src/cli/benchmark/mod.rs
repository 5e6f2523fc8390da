//! `daftari benchmark`: a load generator over the client protocol.
//!
//! * Closed loop: every client has one request in flight, and makes the next one meanwhile, so that
//!   the generator is not what is measured.
//! * What batch number N holds is a function of the seed and N alone, so that it can be made again
//!   for `--validate`.
//! * Every result is looked at: a transfer that was not created makes the run fail.
//! * What needs more than a connection (restarts, memory, bytes on disk) is measured of a server that
//!   the benchmark has started itself.

mod connection;
mod disk;
mod generator;
mod load;
mod options;
mod process;
mod progress;
mod query;
mod report;
mod server;
mod validate;
mod windows;

use connection::Connection;
use generator::Generator;
use load::Measured;
pub use options::Options;
use query::Topic;
use report::LoadUsage;
use server::Server;
use std::net::SocketAddr;

/// Measures, and prints what came of it.
///
/// # Errors
/// When values do not fit together, the server fails, or something was not as it should be.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let generator = Generator::new(options.workload()?);
    match options.remote()? {
        Some(address) => run_remote(options, &generator, address),
        None => run_own(options, &generator),
    }
}

/// Measures a server that runs already.
fn run_remote(options: &Options, generator: &Generator, address: SocketAddr) -> anyhow::Result<()> {
    let mut connections = connect(options, address)?;
    report::print_accounts(&load::create_accounts(generator, &mut connections[0])?);
    let transfers = load::create_transfers(options, generator, &mut connections, None)?;
    report::print_transfers(options, &transfers);
    report::print_windows(options, &transfers);
    let accounts = query::choose_accounts(generator, options.query_count);
    if !accounts.is_empty() {
        for topic in topics(options) {
            let measured = query::run(*topic, &accounts, generator, &mut connections[0])?;
            report_series(*topic, "", &measured);
        }
    }
    finish(options, generator, &mut connections[0], &transfers)
}

/// Measures a server of its own.
fn run_own(options: &Options, generator: &Generator) -> anyhow::Result<()> {
    let mut server = Server::start(options)?;
    let mut writes = disk::Writes::default();
    writes.measure(server.file());
    let transfers = load_own(options, generator, &server)?;
    // The speed of a disk drifts: half of the writes come before the load, half after it.
    writes.measure(server.file());
    if options.kill {
        report::print_start("a crash", server.crash(options)?);
    }
    let accounts = query::choose_accounts(generator, options.query_count);
    if !accounts.is_empty() {
        for topic in topics(options) {
            // What one topic has read makes the other warm, so each has a start of its own.
            report::print_start("a stop", server.restart(options)?);
            let mut connection = Connection::open(server.address(), options.cluster, 0)?;
            let cold = query::run(*topic, &accounts, generator, &mut connection)?;
            report::print_series(*topic, ", cold", &cold);
            let warm = query::run(*topic, &accounts, generator, &mut connection)?;
            report_series(*topic, ", warm", &warm);
        }
    }
    let mut connection = Connection::open(server.address(), options.cluster, 0)?;
    finish(options, generator, &mut connection, &transfers)?;
    report::print_disk(options, &transfers, writes.median());
    let usage = server.stop()?;
    report::print_usage(&usage)?;
    report::print_file(&transfers, &usage);
    Ok(())
}

/// Accounts and transfers, and what the server used for the transfers.
fn load_own(options: &Options, generator: &Generator, server: &Server) -> anyhow::Result<Measured> {
    let mut connections = connect(options, server.address())?;
    report::print_accounts(&load::create_accounts(generator, &mut connections[0])?);
    let process = server.process();
    let before = process.bytes_written();
    let transfers = load::create_transfers(options, generator, &mut connections, Some(process))?;
    let after = process.bytes_written();
    let usage = LoadUsage {
        written: after.zip(before).map(|(after, before)| after - before),
        memory_peak: process.memory_peak(),
    };
    report::print_transfers(options, &transfers);
    report::print_windows(options, &transfers);
    report::print_load_usage(&transfers, &usage);
    Ok(transfers)
}

fn connect(options: &Options, address: SocketAddr) -> anyhow::Result<Vec<Connection>> {
    (0..options.clients)
        .map(|index| Connection::open(address, options.cluster, index))
        .collect()
}

/// What queries ask for: accounts without history have no balances of the past.
fn topics(options: &Options) -> &'static [Topic] {
    if options.flag_history {
        &[Topic::Transfers, Topic::Balances]
    } else {
        &[Topic::Transfers]
    }
}

/// The last series of a topic, with the lines that say more of it.
fn report_series(topic: Topic, state: &str, measured: &Measured) {
    report::print_series(topic, state, measured);
    if topic == Topic::Transfers {
        report::print_queries(measured);
    }
}

/// Compares what is there with what was sent, if asked to; fails when anything was refused.
fn finish(
    options: &Options,
    generator: &Generator,
    connection: &mut Connection,
    transfers: &Measured,
) -> anyhow::Result<()> {
    if options.validate {
        let compared = validate::compare(generator, connection)?;
        report::print_validated(&compared);
    }
    transfers.refused_none()
}
