//! What `daftari benchmark` is asked for, and what does not fit together.

use super::generator::Workload;
use crate::cli::exit::{Status, failure};
use crate::cli::parse::{self, Addresses};
use crate::constants::BATCH_EVENTS_MAX;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  daftari benchmark
      Makes a data file here, serves it, loads it, and removes it again.

  daftari benchmark --transfer-count=2_000_000 --id-order=random
  daftari benchmark --transfer-count=20_000 --transfer-batch-size=1 --clients=32
  daftari benchmark --addresses=127.0.0.1:3000 --cluster=7 --id-start=100_000_000
      Loads a server that runs already; ids must be new to it.

  daftari benchmark --two-phase --history --query-count=1_000 --kill
      Pending transfers and those that post them; then SIGKILL and a start, and the history of
      1,000 accounts, first from a server that has just started.

  daftari benchmark --transfer-count=100_000_000 --account-count=10_000_000 \
      --account-distribution=hot --limit-memory=2GiB --server-arg=--log-level=info
      A state larger than memory: compare the rates of the second and the last window.";

/// Accounts of which one is hot, when only the distribution is asked for.
const ACCOUNTS_PER_HOT: u64 = 100;
/// How many of 100 transfers debit a hot account, when only the distribution is asked for.
const HOT_PERCENT: u64 = 90;
/// What `--account-count` goes up to.
const ACCOUNT_COUNT_MAX: u64 = 1_000_000_000;

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
    /// An argument for `daftari start`, as it is; can be repeated: --server-arg=--network-cores=2.
    #[arg(
        long,
        value_name = "ARG",
        conflicts_with = "addresses",
        allow_hyphen_values = true
    )]
    pub server_arg: Vec<String>,
    /// Accounts to create.
    #[arg(long, value_name = "COUNT", default_value = "10_000", value_parser = parse::number)]
    pub account_count: u64,
    /// Accounts that are debited more often than others.
    #[arg(long, value_name = "COUNT", default_value = "0", value_parser = parse::number)]
    pub account_count_hot: u64,
    /// How many of 100 transfers debit a hot account [default: 100; of the hot distribution: 90].
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(0..=100))]
    pub transfer_hot_percent: Option<u64>,
    /// Which accounts are debited [default: uniform, unless --account-count-hot is there].
    #[arg(long, value_enum)]
    pub account_distribution: Option<Distribution>,
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
    /// Each batch of pending transfers is followed by one that posts them: twice as many transfers
    /// as --transfer-count are created, and counted.
    #[arg(long)]
    pub two_phase: bool,
    /// Pending batches that a client has open before it posts the oldest, or `all`.
    #[arg(long, value_name = "BATCHES", default_value = "1", requires = "two_phase",
          value_parser = distance)]
    pub two_phase_distance: u64,
    /// Transfers in a window: the rates of the second and of the last one are compared.
    #[arg(long, value_name = "COUNT", default_value = "1_000_000", value_parser = positive)]
    pub window: u64,
    /// After the load, kill the server by SIGKILL, and time its next start.
    #[arg(long, conflicts_with = "addresses")]
    pub kill: bool,
    /// Queries for the history of an account, after the load; each is for another account, so there
    /// are at most --account-count.
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
    #[arg(long, visible_alias = "history")]
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

/// Which accounts transfers debit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Distribution {
    /// All alike.
    Uniform,
    /// 90 of 100 transfers debit one of the hundredth part of the accounts.
    Hot,
}

fn positive(text: &str) -> Result<u64, String> {
    match parse::number(text)? {
        0 => Err("it has to be above 0".into()),
        number => Ok(number),
    }
}

fn distance(text: &str) -> Result<u64, String> {
    match text {
        "all" => Ok(u64::MAX),
        number => positive(number),
    }
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
        let (account_count_hot, transfer_hot_percent) = self.hot()?;
        if account_count_hot >= self.account_count {
            return usage(format!(
                "--account-count-hot={account_count_hot}: it has to be below --account-count={}",
                self.account_count
            ));
        }
        self.check_ids()?;
        self.check_two_phase()?;
        self.check_server_arg()?;
        if self.window < u64::from(self.transfer_batch_size) {
            return usage(format!(
                "--window={}: a window has to hold a batch, of --transfer-batch-size={}",
                self.window, self.transfer_batch_size
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
            account_count_hot,
            transfer_hot_percent,
            transfer_count: self.transfer_count,
            transfer_batch_size: u64::from(self.transfer_batch_size),
            pending: self.transfer_pending,
            two_phase_distance: self.two_phase.then_some(self.two_phase_distance),
            history: self.flag_history,
            imported: self.flag_imported,
        })
    }

    /// Hot accounts, and how many of 100 transfers debit them.
    fn hot(&self) -> anyhow::Result<(u64, u64)> {
        let percent = self.transfer_hot_percent;
        match self.account_distribution {
            Some(Distribution::Uniform) if self.account_count_hot > 0 => Err(failure(
                Status::Usage,
                format!(
                    "--account-distribution=uniform does not go with --account-count-hot={}",
                    self.account_count_hot
                ),
            )),
            Some(Distribution::Hot) if self.account_count_hot == 0 => Ok((
                (self.account_count / ACCOUNTS_PER_HOT).max(1),
                percent.unwrap_or(HOT_PERCENT),
            )),
            Some(Distribution::Hot) => Ok((self.account_count_hot, percent.unwrap_or(HOT_PERCENT))),
            Some(Distribution::Uniform) | None => {
                Ok((self.account_count_hot, percent.unwrap_or(100)))
            }
        }
    }

    fn check_ids(&self) -> anyhow::Result<()> {
        if self.account_count > ACCOUNT_COUNT_MAX {
            let sentence = format!("--account-count: it has to be at most {ACCOUNT_COUNT_MAX}");
            return Err(failure(Status::Usage, sentence));
        }
        // Two phases take ids by whole batches, twice.
        let transfers = if self.two_phase {
            self.transfer_count
                .checked_next_multiple_of(self.transfer_batch_size.into())
                .and_then(|count| count.checked_mul(2))
        } else {
            Some(self.transfer_count)
        };
        let last = transfers.and_then(|count| self.id_start.checked_add(count));
        let last_account = self.id_start.checked_add(self.account_count);
        if self.id_start == 0 || last.is_none() || last_account.is_none() {
            return Err(failure(
                Status::Usage,
                format!("--id-start={}: it is 0, or ids run over", self.id_start),
            ));
        }
        Ok(())
    }

    fn check_two_phase(&self) -> anyhow::Result<()> {
        let other = if self.transfer_pending {
            "--transfer-pending: that leaves transfers pending, and this posts them"
        } else if self.flag_imported {
            "--flag-imported: imported timestamps have to grow from batch to batch"
        } else {
            return Ok(());
        };
        if self.two_phase {
            let sentence = format!("--two-phase does not go with {other}");
            return Err(failure(Status::Usage, sentence));
        }
        Ok(())
    }

    /// What the benchmark tells its server itself cannot be told once more.
    fn check_server_arg(&self) -> anyhow::Result<()> {
        let name = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        for argument in &self.server_arg {
            let reason = match name(argument).as_str() {
                "--addresses" => "the benchmark chooses the address of its server",
                "--development" | "--cluster" => "the benchmark makes the data file; see --cluster",
                "--limit-memory" if self.limit_memory.is_some() => "--limit-memory is there too",
                name if name.starts_with('-') => continue,
                _ => "arguments of `daftari start` begin with --, as in --server-arg=--a=b",
            };
            let sentence = format!("--server-arg={argument}: {reason}");
            return Err(failure(Status::Usage, sentence));
        }
        Ok(())
    }

    /// The server to load, if it runs already.
    ///
    /// # Errors
    /// When there are several.
    pub(super) fn remote(&self) -> anyhow::Result<Option<SocketAddr>> {
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

#[cfg(test)]
mod tests {
    use super::Options;
    use crate::cli::exit::{Status, status_of};
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn parse(arguments: &str) -> Result<Options, clap::Error> {
        let all = ["daftari", "benchmark"]
            .into_iter()
            .chain(arguments.split_whitespace());
        let Command::Benchmark(options) = Cli::try_parse_from(all)?.command else {
            unreachable!("benchmark was asked for")
        };
        Ok(options)
    }

    fn check(arguments: &str, expected: &str) {
        let error = parse(arguments).unwrap().workload().unwrap_err();
        assert_eq!(status_of(&error), Status::Usage, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
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
        let last = "--id-start=18446744073709551615 --transfer-count=0";
        check(last, "--id-start=18446744073709551615");
        let half = "--transfer-count=9223372036854775808 --transfer-batch-size=1 --two-phase";
        check(half, "ids run over");
        check("--account-count=1_000_000_001", "at most 1000000000");
        check("--flag-imported --clients=2", "--clients=1");
        check("--two-phase --transfer-pending", "--transfer-pending");
        check("--two-phase --flag-imported", "--flag-imported");
        check(
            "--account-distribution=uniform --account-count-hot=3",
            "uniform does not go with --account-count-hot=3",
        );
        check("--window=100", "--transfer-batch-size=8189");
        check("--server-arg=--addresses=3000", "chooses the address");
        check("--server-arg=--cluster=3", "see --cluster");
        check("--server-arg=file", "begin with --");
        check(
            "--limit-memory=1GiB --server-arg=--limit-memory=2GiB",
            "there too",
        );
    }

    #[test]
    fn what_needs_an_own_server_does_not_go_with_addresses() {
        for more in [
            "--kill",
            "--server-arg=--network-cores=2",
            "--limit-memory=1GiB",
            "--file=x",
        ] {
            let error = parse(&format!("--addresses=3000 {more}")).unwrap_err();
            assert!(error.to_string().contains("--addresses"), "{error}");
        }
        let error = parse("--two-phase-distance=2").unwrap_err();
        assert!(error.to_string().contains("--two-phase"), "{error}");
        for wrong in [
            "--window=0",
            "--two-phase --two-phase-distance=0",
            "--account-distribution=zipf",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_become_a_workload() {
        let workload = |arguments| parse(arguments).unwrap().workload().unwrap();
        let plain = workload("");
        assert_eq!(
            (plain.account_count_hot, plain.transfer_hot_percent),
            (0, 100)
        );
        assert_eq!(plain.two_phase_distance, None);
        let hot = workload("--account-distribution=hot --account-count=10_000_000");
        assert_eq!(
            (hot.account_count_hot, hot.transfer_hot_percent),
            (100_000, 90)
        );
        let few = workload("--account-distribution=hot --account-count=2");
        assert_eq!(few.account_count_hot, 1);
        let named = workload("--account-count-hot=7 --transfer-hot-percent=50");
        assert_eq!(
            (named.account_count_hot, named.transfer_hot_percent),
            (7, 50)
        );
        assert_eq!(workload("--two-phase").two_phase_distance, Some(1));
        let all = workload("--two-phase --two-phase-distance=all --history");
        assert_eq!(
            (all.two_phase_distance, all.history),
            (Some(u64::MAX), true)
        );
        let passed = parse("--server-arg=--network-cores=2 --server-arg --log-level=info");
        assert_eq!(
            passed.unwrap().server_arg,
            ["--network-cores=2", "--log-level=info"]
        );
    }
}
