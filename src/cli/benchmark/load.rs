//! The load itself: accounts, transfers by all clients, queries, each with its latencies.
#![expect(clippy::disallowed_types, reason = "latencies are what is measured")]
#![expect(
    clippy::disallowed_methods,
    reason = "a delay after each batch can be asked for"
)]

use super::Options;
use super::connection::{Connection, Reply};
use super::generator::Generator;
use super::process::Process;
use super::progress::Progress;
use super::report::print_batch;
use super::windows::{Counter, Mark};
use crate::cli::exit::{Status, failure};
use crate::client::PreparedRequest;
use crate::constants::BATCH_EVENTS_MAX;
use crate::stdx::to_u64;
use crate::wire::{Batches, CreateAccountStatus, CreateResult, CreateTransferStatus, Operation};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

/// A histogram goes up to so many nanoseconds.
const LATENCY_MAX_NS: u64 = 600_000_000_000;
/// How often the load is looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Timestamps are kept of every so many transfers.
const CREATED_STEP: u64 = 1000;

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
    /// Moments when windows were full; of a load.
    pub marks: Vec<Mark>,
    /// What was created when; of a load.
    pub created: Vec<Created>,
    /// The most memory of the server in samples once a second; of a load.
    pub memory_sampled: Option<u64>,
}

/// Some transfers of one client.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    count: u64,
    /// The server's, of the last of them.
    timestamp: u64,
}

impl Measured {
    pub fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Self {
            elapsed: Duration::ZERO,
            latencies: latencies.expect("the bounds are constants that fit"),
            requests: 0,
            objects: 0,
            refused: BTreeMap::new(),
            marks: Vec::new(),
            created: Vec::new(),
            memory_sampled: None,
        }
    }

    /// Objects that were there at the server's time `timestamp`, to within [`CREATED_STEP`] or a
    /// batch of each client.
    pub fn created_until(&self, timestamp: u64) -> u64 {
        let until = self.created.iter();
        until
            .filter(|created| created.timestamp <= timestamp)
            .map(|created| created.count)
            .sum()
    }

    fn note_created(&mut self, count: u64, timestamp: u64) {
        match self.created.last_mut() {
            Some(last) if last.count < CREATED_STEP => {
                last.count += count;
                last.timestamp = timestamp;
            }
            Some(_) | None => self.created.push(Created { count, timestamp }),
        }
    }

    /// Counts a request that was answered just now.
    pub fn record(&mut self, latency: Duration) {
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
        self.marks.extend_from_slice(&other.marks);
        self.created.extend_from_slice(&other.created);
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
        let last = results.last().map_or(0, |result| result.timestamp.get());
        self.note_created(expected, last);
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
    let mut progress = Progress::new("accounts", count);
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
        progress.advance(last);
    }
    drop(progress);
    measured.elapsed = begin.elapsed();
    measured.refused_none()?;
    Ok(measured)
}

/// Creates all transfers over all connections; `process` is the server, if it is on this machine.
pub fn create_transfers(
    options: &Options,
    generator: &Generator,
    connections: &mut [Connection],
    process: Option<Process>,
) -> anyhow::Result<Measured> {
    let load = Load {
        options,
        generator,
        next: AtomicU64::new(0),
        counter: Counter::new(options.window),
        done: AtomicBool::new(false),
        begin: Instant::now(),
    };
    let mut measured = Measured::new();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| load.watch(process));
        let clients: Vec<_> = connections
            .iter_mut()
            .map(|connection| scope.spawn(|| load.run_client(connection)))
            .collect();
        let parts: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        measured.elapsed = load.begin.elapsed();
        load.done.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        measured.memory_sampled = watcher.join().expect("it only reads and prints");
        for part in parts {
            measured.merge(&part.expect("a panic of a client ends the benchmark")?);
        }
        anyhow::Ok(())
    })?;
    Ok(measured)
}

/// What the clients of a load have in common.
struct Load<'a> {
    options: &'a Options,
    generator: &'a Generator,
    /// The first batch that no client has taken.
    next: AtomicU64,
    counter: Counter,
    done: AtomicBool,
    begin: Instant,
}

/// A batch that is ready to be sent.
struct Batch {
    number: u64,
    posting: bool,
    request: PreparedRequest,
}

impl Load<'_> {
    /// Until all is done: says how far it is, and gives the most memory that the server had.
    fn watch(&self, process: Option<Process>) -> Option<u64> {
        let mut progress = Progress::new("transfers", self.generator.created_count());
        let mut most = None;
        while !self.done.load(Ordering::Relaxed) {
            most = most.max(process.and_then(Process::memory));
            progress.advance(self.counter.created());
            std::thread::park_timeout(WATCH_INTERVAL);
        }
        most.max(process.and_then(Process::memory))
    }

    /// The next batch of a client that has the batches `open` pending. It posts its own only: those
    /// are there, because it waits for each reply.
    fn prepare(&self, open: &mut VecDeque<u64>) -> Option<Batch> {
        let distance = self.generator.workload().two_phase_distance;
        let full = distance.is_some_and(|distance| to_u64(open.len()) >= distance);
        let taken = if full { None } else { self.take() };
        let (number, posting) = match taken {
            Some(number) => (number, false),
            None => (open.pop_front()?, true),
        };
        let transfers = if posting {
            self.generator.postings(number)
        } else {
            self.generator.transfers(number)
        };
        if distance.is_some() && !posting {
            open.push_back(number);
        }
        Some(Batch {
            number,
            posting,
            request: PreparedRequest::batch(Operation::CreateTransfers, transfers.as_bytes()),
        })
    }

    fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.generator.batch_count()).then_some(number)
    }

    /// One client: while a batch is with the server, the next is made and the last reply is checked.
    fn run_client(&self, connection: &mut Connection) -> anyhow::Result<Measured> {
        let mut measured = Measured::new();
        let name = |code| {
            CreateTransferStatus::from_code(code).map_or_else(
                || format!("status {code}"),
                |status| status.name().to_owned(),
            )
        };
        let mut open = VecDeque::new();
        let mut unchecked: Option<(u64, Reply)> = None;
        let mut ready = self.prepare(&mut open);
        while let Some(batch) = ready {
            let size = self.generator.batch_size(batch.number);
            let sent = Instant::now();
            connection.send(batch.request)?;
            ready = self.prepare(&mut open);
            if let Some((size, reply)) = unchecked.take() {
                measured.count_results(&reply, size, name)?;
            }
            let reply = connection.receive()?;
            let latency = sent.elapsed();
            measured.record(latency);
            if let Some(created) = self.counter.add(size) {
                let at = self.begin.elapsed();
                measured.marks.push(Mark { created, at });
            }
            if self.options.print_batch_timings {
                print_batch(batch.number, batch.posting, size, latency);
            }
            unchecked = Some((size, reply));
            if self.options.transfer_batch_delay_us > 0 {
                std::thread::sleep(Duration::from_micros(self.options.transfer_batch_delay_us));
            }
        }
        if let Some((size, reply)) = unchecked {
            measured.count_results(&reply, size, name)?;
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::Measured;

    #[test]
    fn what_was_there_at_a_checkpoint_is_told_by_timestamps() {
        let mut measured = Measured::new();
        for batch in 1..=10 {
            measured.note_created(600, batch * 1000);
        }
        // Steps of two batches each.
        assert_eq!(measured.created.len(), 5);
        assert_eq!(measured.created_until(1999), 0);
        assert_eq!(measured.created_until(2000), 1200);
        assert_eq!(measured.created_until(9999), 4800);
        assert_eq!(measured.created_until(10_000), 6000);
        let mut both = Measured::new();
        both.merge(&measured);
        both.merge(&measured);
        assert_eq!(both.created_until(2000), 2400);
    }
}
