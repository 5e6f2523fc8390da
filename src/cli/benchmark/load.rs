//! The load itself: accounts, transfers by all clients, queries, each with its latencies.
#![expect(clippy::disallowed_types, reason = "latencies are what is measured")]
#![expect(
    clippy::disallowed_methods,
    reason = "a delay after each batch can be asked for"
)]

use super::Options;
use super::connection::{Connection, Reply};
use super::generator::{Generator, Random};
use super::report::print_batch;
use crate::cli::exit::{Status, failure};
use crate::client::PreparedRequest;
use crate::constants::BATCH_EVENTS_MAX;
use crate::stdx::to_u64;
use crate::wire::types::account_filter_flags;
use crate::wire::{
    AccountFilter, Batches, CreateAccountStatus, CreateResult, CreateTransferStatus, Operation,
};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

/// A histogram goes up to so many nanoseconds.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

/// What a phase took.
#[derive(Debug)]
pub struct Measured {
    /// From the first request to the last reply.
    pub elapsed: Duration,
    /// Of each request, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// Requests.
    pub requests: u64,
    /// Accounts or transfers that were created, or that queries found.
    pub objects: u64,
    /// Those that were refused, by status.
    pub refused: BTreeMap<String, u64>,
}

impl Measured {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Self {
            elapsed: Duration::ZERO,
            latencies: latencies.expect("the bounds are constants that fit"),
            requests: 0,
            objects: 0,
            refused: BTreeMap::new(),
        }
    }

    fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_MAX_NS);
        self.latencies.saturating_record(nanoseconds.max(1));
        self.requests += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.latencies
            .add(&other.latencies)
            .expect("all histograms have the same bounds");
        self.requests += other.requests;
        self.objects += other.objects;
        for (status, count) in &other.refused {
            *self.refused.entry(status.clone()).or_default() += count;
        }
    }

    /// Counts the results of one create request.
    fn count_results(
        &mut self,
        reply: &Reply,
        expected: u64,
        name: impl Fn(u32) -> String,
    ) -> anyhow::Result<()> {
        let malformed = || failure(Status::Server, "the server sent results that make no sense");
        let batches = Batches::decode(size_of::<CreateResult>(), &reply.body);
        let mut batches = batches.map_err(|error| malformed().context(error))?;
        let results = batches
            .next()
            .and_then(|batch| <[CreateResult]>::ref_from_bytes(batch).ok());
        let results = results.ok_or_else(malformed)?;
        if to_u64(results.len()) != expected {
            return Err(malformed());
        }
        for result in results {
            if result.status.get() == CreateTransferStatus::Created.code() {
                self.objects += 1;
            } else {
                *self.refused.entry(name(result.status.get())).or_default() += 1;
            }
        }
        Ok(())
    }

    /// # Errors
    /// When anything was refused.
    pub fn refused_none(&self) -> anyhow::Result<()> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let reasons: Vec<String> = self
            .refused
            .iter()
            .map(|(status, count)| format!("{status} {count}"))
            .collect();
        Err(failure(
            Status::Negative,
            format!(
                "the server refused some events: {}; ids that exist already need another --id-start",
                reasons.join(", ")
            ),
        ))
    }
}

/// Creates all accounts over one connection.
pub fn create_accounts(
    generator: &Generator,
    connection: &mut Connection,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::new();
    let name = |code| {
        CreateAccountStatus::from_code(code).map_or_else(
            || format!("status {code}"),
            |status| status.name().to_owned(),
        )
    };
    let begin = Instant::now();
    let count = generator.workload().account_count;
    let mut first = 0;
    while first < count {
        let last = count.min(first + u64::from(BATCH_EVENTS_MAX));
        let accounts: Vec<_> = (first..last)
            .map(|index| generator.account(index))
            .collect();
        let sent = Instant::now();
        let reply = connection.call(Operation::CreateAccounts, accounts.as_bytes())?;
        measured.record(sent.elapsed());
        measured.count_results(&reply, last - first, name)?;
        first = last;
    }
    measured.elapsed = begin.elapsed();
    measured.refused_none()?;
    Ok(measured)
}

/// Creates all transfers over all connections.
pub fn create_transfers(
    options: &Options,
    generator: &Generator,
    connections: &mut [Connection],
) -> anyhow::Result<Measured> {
    let next = AtomicU64::new(0);
    let begin = Instant::now();
    let parts = std::thread::scope(|scope| {
        let workers: Vec<_> = connections
            .iter_mut()
            .map(|connection| {
                let next = &next;
                scope.spawn(move || run_client(options, generator, connection, next))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .expect("a panic of a client ends the benchmark")
            })
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut measured = Measured::new();
    measured.elapsed = begin.elapsed();
    for part in &parts {
        measured.merge(part);
    }
    Ok(measured)
}

/// A batch that is ready to be sent.
struct Batch {
    number: u64,
    request: PreparedRequest,
}

fn prepare(generator: &Generator, next: &AtomicU64) -> Option<Batch> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    (number < generator.batch_count()).then(|| {
        let transfers = generator.transfers(number);
        let request = PreparedRequest::batch(Operation::CreateTransfers, transfers.as_bytes());
        Batch { number, request }
    })
}

/// One client: while a batch is with the server, the next is made and the last reply is checked.
fn run_client(
    options: &Options,
    generator: &Generator,
    connection: &mut Connection,
    next: &AtomicU64,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::new();
    let name = |code| {
        CreateTransferStatus::from_code(code).map_or_else(
            || format!("status {code}"),
            |status| status.name().to_owned(),
        )
    };
    let mut unchecked: Option<(u64, Reply)> = None;
    let mut ready = prepare(generator, next);
    while let Some(batch) = ready {
        let sent = Instant::now();
        connection.send(batch.request)?;
        ready = prepare(generator, next);
        if let Some((number, reply)) = unchecked.take() {
            measured.count_results(&reply, generator.batch_size(number), name)?;
        }
        let reply = connection.receive()?;
        let latency = sent.elapsed();
        measured.record(latency);
        if options.print_batch_timings {
            print_batch(batch.number, generator.batch_size(batch.number), latency);
        }
        unchecked = Some((batch.number, reply));
        if options.transfer_batch_delay_us > 0 {
            std::thread::sleep(Duration::from_micros(options.transfer_batch_delay_us));
        }
    }
    if let Some((number, reply)) = unchecked {
        measured.count_results(&reply, generator.batch_size(number), name)?;
    }
    Ok(measured)
}

/// Asks for the transfers of accounts chosen at random.
pub fn query(
    count: u64,
    generator: &Generator,
    connection: &mut Connection,
) -> anyhow::Result<Measured> {
    let mut measured = Measured::new();
    let mut random = Random::new(generator.workload().seed, u64::MAX - 1);
    let begin = Instant::now();
    for _ in 0..count {
        let mut filter = AccountFilter::zeroed();
        filter.account_id = generator
            .id(random.below(generator.workload().account_count))
            .into();
        filter.limit = BATCH_EVENTS_MAX.into();
        filter.flags = (account_filter_flags::DEBITS | account_filter_flags::CREDITS).into();
        let sent = Instant::now();
        let reply = connection.call(Operation::GetAccountTransfers, filter.as_bytes())?;
        measured.record(sent.elapsed());
        let result_size = Operation::GetAccountTransfers.result_size();
        let found = Batches::decode(result_size, &reply.body)
            .map_err(|error| failure(Status::Server, format!("the results of a query: {error}")))?;
        measured.objects += to_u64(found.payload().len() / result_size);
    }
    measured.elapsed = begin.elapsed();
    Ok(measured)
}
