//! `daftari start`: serves a data file.

use super::exit::{Status, failure};
use super::parse::{self, Addresses};
use super::{format, logging};
use crate::constants::{self, REPLICA_COUNT_MAX, STANDBY_COUNT_MAX};
use crate::driver::scrub::ScrubOptions;
use crate::driver::{self, RunOptions};
use crate::server::{self, DataFile, ServerOptions};
use crate::stdx::to_u64;
use crate::vsr::members::Members;
use crate::vsr::{FatalReason, Releases};
use clap::Args;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use storage_format::Superblock;

const EXAMPLES: &str = "\
Examples:
  daftari start --development --addresses=3000 ledger.daftari
  daftari start --addresses=127.0.0.1:3000 ledger.daftari
  daftari start --addresses=0.0.0.0:3000 --limit-memory=8GiB --log-format=json /data/ledger

  daftari start --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000 /data/ledger
      One of three replicas, and the same line for each of them: which one it is says its file, which
      `daftari format --replica=I --replica-count=3` has made. Clients get the same addresses.
  daftari start --addresses=10.0.0.1:3000,10.0.0.2:3000,10.0.0.3:3000,10.0.0.9:3000 /data/ledger
      The same with a standby, which follows and does not vote: its file is made by
      `daftari format --standby=3 --replica-count=3`.

SIGINT or SIGTERM stops it; so does a power failure, without harm.";

/// What `start` is asked for.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Where clients connect: IP:PORT, or PORT on 127.0.0.1; port 0 takes a free one. Of a cluster of
    /// several replicas, the addresses of all, in the order of their indexes, and then those of standbys.
    #[arg(long, value_name = "ADDRESSES", value_parser = parse::addresses)]
    pub addresses: Addresses,
    /// Makes the file when it is absent, small, for cluster 0; not for production.
    #[arg(long)]
    pub development: bool,
    /// Cluster of the file that --development makes.
    #[arg(long, requires = "development", value_parser = parse::number_u128)]
    pub cluster: Option<u128>,
    /// Memory for the ledger, its cache included, as in 4GiB.
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub limit_memory: Option<u64>,
    /// How much of that caches blocks of the data file: unless said otherwise, half of what there is
    /// beyond 512MiB, or a quarter.
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub cache_size: Option<u64>,
    /// How much of it caches accounts: unless said otherwise, a quarter of what is not for blocks. An
    /// account takes 208 bytes; one that is not in the cache costs reads of the file.
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    pub account_cache_size: Option<u64>,
    /// How long reading all of the file in the background takes, to find damage, as in 7d or 12h;
    /// 0 turns it off.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse::duration)]
    pub scrub_period: u64,
    /// Cores for the network; the ledger has one of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub network_cores: u16,
    /// Threads that sort, merge and checksum beside the ledger's core: unless said otherwise, one if the host
    /// has more than one core. The file is the same with any number.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(0..=64))]
    pub compaction_threads: Option<u16>,
    /// How the log on stderr looks.
    #[command(flatten)]
    pub log: logging::Options,
    /// The data file.
    pub file: PathBuf,
}

impl Options {
    /// Whether the addresses can be those of a cluster.
    ///
    /// # Errors
    /// When they cannot, whatever the file says.
    pub fn check_addresses(&self) -> anyhow::Result<()> {
        let addresses = &self.addresses.0;
        let usage = |sentence: String| Err(failure(Status::Usage, sentence));
        if addresses.len() > usize::from(REPLICA_COUNT_MAX + STANDBY_COUNT_MAX) {
            return usage(format!(
                "--addresses names {} members: a cluster has {REPLICA_COUNT_MAX} replicas and \
                 {STANDBY_COUNT_MAX} standbys at most",
                addresses.len()
            ));
        }
        check_ports(&self.addresses)
    }

    /// Where the member of the file listens, and where those do whom it sends to.
    ///
    /// # Errors
    /// When there are not as many addresses as the cluster can have members.
    fn places(
        &self,
        superblock: &Superblock,
    ) -> Result<(SocketAddr, Vec<(u8, SocketAddr)>), FatalReason> {
        let addresses = &self.addresses.0;
        let members = Members::of_count(superblock, addresses.len())?;
        let own = superblock.replica;
        let others = (0..).zip(addresses.iter().copied());
        let others = others.filter(|(index, _)| *index != own && members.hears(*index));
        Ok((addresses[usize::from(own)], others.collect()))
    }
}

/// Whether replicas can find each other.
///
/// # Errors
/// When an address of several has no port.
pub(super) fn check_ports(addresses: &Addresses) -> anyhow::Result<()> {
    let addresses = &addresses.0;
    match addresses.iter().find(|address| address.port() == 0) {
        Some(address) if addresses.len() > 1 => Err(failure(
            Status::Usage,
            format!(
                "--addresses: {address} takes any free port, and the other replicas have to know \
                 which; write the port"
            ),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Serves the file until it is told to stop.
///
/// # Errors
/// When the options do not fit together, or the file cannot be served.
pub fn run(options: &Options) -> anyhow::Result<()> {
    options.check_addresses()?;
    logging::init(&options.log);
    if !options.file.exists() {
        if !options.development {
            return Err(failure(
                Status::InputOutput,
                format!(
                    "{} does not exist; make it with `daftari format`, or let --development do it",
                    options.file.display()
                ),
            ));
        }
        if options.addresses.0.len() > 1 {
            return Err(failure(
                Status::Usage,
                format!(
                    "--development makes the file of a cluster of one replica, and --addresses names \
                     {}; make {} with `daftari format`, or write one address",
                    options.addresses.0.len(),
                    options.file.display()
                ),
            ));
        }
        let cluster = options.cluster.unwrap_or(0);
        tracing::info!(file = %options.file.display(), cluster, "formatting for development");
        format::run(&format::Options::development(cluster, options.file.clone()))?;
    }
    serve(options)
}

/// Serves the file, which exists.
fn serve(options: &Options) -> anyhow::Result<()> {
    let file = DataFile::open(&options.file)?;
    let superblock = server::block_on_file(file, |storage| async move {
        driver::read_superblock(&storage).await
    })??;
    let (address, peers) = options.places(&superblock)?;
    if superblock.is_standby() {
        tracing::info!(
            standby = superblock.replica,
            replicas = superblock.replica_count,
            "this is a standby: it follows the replicas, and does not count as one"
        );
    }
    if superblock.recovering == 1 {
        tracing::info!(
            replica = superblock.replica,
            "recovering: the file takes the place of one that was lost; until the others have told what \
             it promised, this replica takes part in nothing"
        );
    }
    let sessions = u64::from(superblock.geometry.session_count_max.get());
    let ledger = options
        .limit_memory
        .unwrap_or_else(|| memory_default(options.development));
    let cache_size = cache_size(options, ledger)?;
    let account_cache_size = account_cache_size(options, ledger - cache_size)?;
    let serving = ServerOptions {
        listen: vec![address],
        peers,
        cluster: superblock.cluster.get(),
        network_cores: usize::from(options.network_cores),
        state_memory: ledger,
        compaction_threads: compaction_threads(options),
        ..ServerOptions::default()
    };
    let bound = MemoryBound {
        ledger,
        network: server::memory_bound(&serving),
        replies: sessions * to_u64(constants::MESSAGE_SIZE_MAX),
        journal: driver::buffers_memory(&superblock, cache_size),
        ahead: server::memory::AHEAD.min(ledger),
    };
    tracing::info!(
        total = bound.total(),
        ledger = bound.ledger,
        network = bound.network,
        replies = bound.replies,
        journal = bound.journal,
        ahead = bound.ahead,
        "memory: at most so many bytes, whatever clients do"
    );
    let run = RunOptions {
        cluster: options.cluster,
        replica: None,
        member_count: options.addresses.0.len(),
        memory_limit: ledger - cache_size,
        account_cache_size,
        cache_size,
        scrub: (options.scrub_period > 0).then_some(ScrubOptions {
            period: options.scrub_period,
            report: driver::scrub::log,
        }),
        releases: Releases::OF_BINARY,
    };
    let file = DataFile::open(&options.file)?;
    server::run(&serving, file, move |io| async move {
        Box::pin(driver::run(&*io, &run)).await
    })??;
    tracing::info!("stopped");
    Ok(())
}

/// The threads that `--compaction-threads` asks for, or what suits the host.
fn compaction_threads(options: &Options) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let suits = usize::from(cores > 1);
    options.compaction_threads.map_or(suits, usize::from)
}

/// The cache that `--cache-size` asks for, or what suits the memory.
fn cache_size(options: &Options, ledger: u64) -> anyhow::Result<u64> {
    const CACHE_DEFAULT_MAX: u64 = 16 << 30;
    const ENGINE: u64 = 512 << 20;
    let suits = (ledger.saturating_sub(ENGINE) / 2).max(ledger / 4);
    let suits = suits.clamp(driver::CACHE_SIZE_MIN, CACHE_DEFAULT_MAX);
    let size = options.cache_size.unwrap_or(suits);
    if size < driver::CACHE_SIZE_MIN {
        let sentence = format!(
            "--cache-size={size}: a cache has {} bytes at least",
            driver::CACHE_SIZE_MIN
        );
        return Err(failure(Status::Usage, sentence));
    }
    if size >= ledger {
        let sentence = format!(
            "--limit-memory={ledger} leaves nothing beside a cache of {size} bytes; give more \
             memory, or a smaller --cache-size"
        );
        return Err(failure(Status::Usage, sentence));
    }
    Ok(size)
}

/// The cache that `--account-cache-size` asks for, or what suits the memory.
fn account_cache_size(options: &Options, ledger: u64) -> anyhow::Result<u64> {
    let suits = (ledger / 4).max(driver::ACCOUNT_CACHE_SIZE_MIN);
    let size = options.account_cache_size.unwrap_or(suits);
    if size < driver::ACCOUNT_CACHE_SIZE_MIN {
        let sentence = format!(
            "--account-cache-size={size}: a cache has {} bytes at least, for the accounts of a batch",
            driver::ACCOUNT_CACHE_SIZE_MIN
        );
        return Err(failure(Status::Usage, sentence));
    }
    if size >= ledger {
        let sentence = format!(
            "--account-cache-size={size}: beside the cache of blocks there are {ledger} bytes; give \
             a greater --limit-memory, or a smaller cache"
        );
        return Err(failure(Status::Usage, sentence));
    }
    Ok(size)
}

/// What each part of the process may take.
struct MemoryBound {
    ledger: u64,
    network: u64,
    replies: u64,
    journal: u64,
    /// Touched for the ledger, and not used yet.
    ahead: u64,
}

impl MemoryBound {
    /// Code, stacks, and what the allocator does not give back.
    const PROCESS: u64 = 128 << 20;

    fn total(&self) -> u64 {
        self.ledger + self.network + self.replies + self.journal + self.ahead + Self::PROCESS
    }
}

/// Memory for the ledger when nobody says: 1 GiB in development, else most of what is available.
fn memory_default(development: bool) -> u64 {
    const DEVELOPMENT: u64 = 1 << 30;
    let available = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("MemAvailable:"))?;
            let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kibibytes * 1024)
        });
    match available {
        Some(available) if !development => (available / 4 * 3).max(DEVELOPMENT),
        Some(_) | None => DEVELOPMENT,
    }
}
