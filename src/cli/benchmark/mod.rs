//! `daftari benchmark`: a load generator over the client protocol.
//!
//! * Closed loop: every client has one request in flight, and makes the next one meanwhile, so that
//!   the generator is not what is measured.
//! * What batch number N holds is a function of the seed and N alone, so that it can be made again
//!   for `--validate`.
//! * Every result is looked at: a transfer that was not created makes the run fail.

mod connection;
mod disk;
mod generator;
mod load;
mod report;
mod server;
mod validate;

use super::exit::{Status, failure};
use super::parse::{self, Addresses};
use crate::constants::BATCH_EVENTS_MAX;
use clap::{Args, ValueEnum};
use connection::Connection;
use generator::{Generator, Workload};
use load::Measured;
use server::Server;
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  daftari benchmark
      Makes a data file here, serves it, loads it, and removes it again.

  daftari benchmark --transfer-count=2_000_000 --id-order=random
  daftari benchmark --transfer-count=20_000 --transfer-batch-size=1 --clients=32
  daftari benchmark --addresses=127.0.0.1:3000 --cluster=7 --id-start=100_000_000
      Loads a server that runs already; ids must be new to it.";

/// What `benchmark` is asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// A server that runs already; without this, one is started and stopped.
    #[arg(long, value_name = "ADDRESS", value_parser = parse::addresses)]
    pub addresses: Option<Addresses>,
    /// Cluster of the server.
    #[arg(long, default_value = "0", value_parser = parse::number_u128)]
    pub cluster: u128,
    /// Keep the data file, under this name.
    #[arg(long, value_name = "PATH", conflicts_with = "addresses")]
    pub file: Option<PathBuf>,
    /// Memory of the server that is started, as in 4GiB.
    #[arg(long, value_name = "SIZE", conflicts_with = "addresses", value_parser = parse::size)]
    pub limit_memory: Option<u64>,
    /// Accounts to create.
    #[arg(long, value_name = "COUNT", default_value = "10_000", value_parser = parse::number)]
    pub account_count: u64,
    /// Accounts that are debited more often than others.
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = parse::number)]
    pub account_count_hot: u64,
    /// How many of 100 transfers debit a hot account.
    #[arg(long, value_name = "PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(0..=100))]
    pub transfer_hot_percent: u64,
    /// Transfers to create.
    #[arg(long, value_name = "COUNT", default_value = "10_000_000", value_parser = parse::number)]
    pub transfer_count: u64,
    /// Transfers in a request.
    #[arg(long, value_name = "COUNT", default_value = "8189", value_parser = parse::positive_u32)]
    pub transfer_batch_size: u32,
    /// Microseconds that a client waits after each reply.
    #[arg(long, value_name = "US", default_value = "0", value_parser = parse::number)]
    pub transfer_batch_delay_us: u64,
    /// Pending transfers, which nobody posts.
    #[arg(long)]
    pub transfer_pending: bool,
    /// Queries for the transfers of an account, after the load.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = parse::number)]
    pub query_count: u64,
    /// Order of the ids of transfers and accounts.
    #[arg(long, value_enum, default_value_t = IdOrder::Sequential)]
    pub id_order: IdOrder,
    /// Where ids begin, for a server that has some already.
    #[arg(long, value_name = "ID", default_value = "1", value_parser = parse::number)]
    pub id_start: u64,
    /// Clients, each with a session and one request in flight.
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub clients: u32,
    /// Accounts that keep their balances of the past.
    #[arg(long)]
    pub flag_history: bool,
    /// Accounts and transfers with timestamps of the past; one client only.
    #[arg(long)]
    pub flag_imported: bool,
    /// What the random numbers begin with.
    #[arg(long, default_value = "42", value_parser = parse::number)]
    pub seed: u64,
    /// Read everything back afterwards, and compare.
    #[arg(long)]
    pub validate: bool,
    /// A line for each batch.
    #[arg(long)]
    pub print_batch_timings: bool,
}

/// The order in which ids are used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum IdOrder {
    /// 1, 2, 3.
    Sequential,
    /// All over the range of 128 bits.
    Random,
    /// Downwards from the maximum.
    Reversed,
}

impl Options {
    /// What the load is made of.
    ///
    /// # Errors
    /// When values do not fit together.
    pub(super) fn workload(&self) -> anyhow::Result<Workload> {
        let usage = |sentence: String| Err(failure(Status::Usage, sentence));
        if self.transfer_batch_size > BATCH_EVENTS_MAX {
            return usage(format!(
                "--transfer-batch-size={}: a request holds at most {BATCH_EVENTS_MAX}",
                self.transfer_batch_size
            ));
        }
        if self.account_count < 2 {
            return usage("--account-count: a transfer needs two accounts".into());
        }
        if self.account_count_hot >= self.account_count {
            return usage(format!(
                "--account-count-hot={}: it has to be below --account-count={}",
                self.account_count_hot, self.account_count
            ));
        }
        if self.id_start == 0 || self.id_start.checked_add(self.transfer_count).is_none() {
            return usage(format!(
                "--id-start={}: it is 0, or ids run over",
                self.id_start
            ));
        }
        if self.flag_imported && self.clients > 1 {
            return usage(
                "--flag-imported: imported timestamps have to grow from request to request, so \
                 it goes with --clients=1 only"
                    .into(),
            );
        }
        Ok(Workload {
            seed: self.seed,
            id_order: self.id_order,
            id_start: self.id_start,
            account_count: self.account_count,
            account_count_hot: self.account_count_hot,
            transfer_hot_percent: self.transfer_hot_percent,
            transfer_count: self.transfer_count,
            transfer_batch_size: u64::from(self.transfer_batch_size),
            pending: self.transfer_pending,
            history: self.flag_history,
            imported: self.flag_imported,
        })
    }

    fn remote(&self) -> anyhow::Result<Option<SocketAddr>> {
        match self.addresses.as_ref().map(|addresses| &addresses.0[..]) {
            None => Ok(None),
            Some([address]) => Ok(Some(*address)),
            Some(_) => Err(failure(
                Status::Usage,
                "--addresses names several replicas; write the one to load",
            )),
        }
    }
}

/// Measures, and prints what came of it.
///
/// # Errors
/// When values do not fit together, the server fails, or something was not as it should be.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let generator = Generator::new(options.workload()?);
    let Some(address) = options.remote()? else {
        let mut server = Server::start(options)?;
        let mut writes = disk::Writes::default();
        writes.measure(server.file());
        let transfers = load(options, &generator, server.address())?;
        // The speed of a disk drifts: half of the writes come before the load, half after it.
        writes.measure(server.file());
        report::print_disk(options, &transfers, writes.median());
        return report::print_usage(&server.stop()?);
    };
    load(options, &generator, address).map(drop)
}

fn load(options: &Options, generator: &Generator, address: SocketAddr) -> anyhow::Result<Measured> {
    let mut connections = (0..options.clients)
        .map(|index| Connection::open(address, options.cluster, index))
        .collect::<anyhow::Result<Vec<_>>>()?;
    report::print_accounts(&load::create_accounts(generator, &mut connections[0])?);
    let transfers = load::create_transfers(options, generator, &mut connections)?;
    report::print_transfers(options, &transfers);
    if options.query_count > 0 {
        let queries = load::query(options.query_count, generator, &mut connections[0])?;
        report::print_queries(&queries);
    }
    if options.validate {
        let compared = validate::compare(generator, &mut connections[0])?;
        report::print_validated(&compared);
    }
    transfers.refused_none()?;
    Ok(transfers)
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn check(arguments: &str, expected: &str) {
        let all = ["daftari", "benchmark"]
            .into_iter()
            .chain(arguments.split_whitespace());
        let Command::Benchmark(options) = Cli::try_parse_from(all).unwrap().command else {
            unreachable!("benchmark was asked for")
        };
        let error = options.workload().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn values_that_do_not_fit_together_are_named() {
        check("--transfer-batch-size=8190", "at most 8189");
        check("--account-count=1", "two accounts");
        check(
            "--account-count=5 --account-count-hot=5",
            "--account-count-hot=5",
        );
        check("--id-start=0", "--id-start=0");
        check("--flag-imported --clients=2", "--clients=1");
    }
}
