//! Arguments, threads that run seeds, and what is printed of them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]
#![expect(
    clippy::disallowed_types,
    reason = "threads share a list of failures, and a time budget needs a clock"
)]

mod marks;
mod scenarios;

use daftari::stdx::planted::Bug;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use vopr::cluster;
use vopr::sim;
use vopr::sim::catch_panics;
use vopr::sim::hash::EventHash;
use vopr::sim::seen::Seen;
use vopr::sim::verdict::Failure;

const HELP: &str = "\
usage: cargo vopr [options]
  --cluster             clusters of several replicas instead of a single one
  --replicas R          clusters of so many (with --cluster)
  --list                print every directed scenario, with what it shows
  --scenario NAME       run one of them, or a family by its letter, or all; with 20 seeds from 0 on
  --seed N              run one seed (decimal, or hexadecimal with 0x)
  --marks               run every scenario, and seeds of both kinds (200 each, or --seeds), and report
                        which rare branches they reached; one that nothing reached is a failure
  --minutes M           fresh seeds for so long; 1 by default
  --seeds N             so many seeds instead
  --first-seed N        count seeds from here instead of the time of day
  --jobs J              threads; as many as processors by default
  --check-determinism   run each seed twice and compare the hashes of all events
  --bug NAME            plant a bug
  --mutants             plant each bug in turn; each has to be found within 200 seeds, or by its
                        scenario (with --cluster)
  --list-bugs           print their names
  --log full            print every event (with --seed)";

/// Seeds within which a planted bug has to be found.
const MUTANT_SEEDS: u64 = 200;

#[derive(Clone, Debug)]
struct Arguments {
    cluster: bool,
    replicas: Option<u8>,
    seed: Option<u64>,
    time: Duration,
    seeds: Option<u64>,
    first_seed: Option<u64>,
    fresh_seed: u64,
    jobs: u64,
    check_determinism: bool,
    bug: Option<Bug>,
    mutants: bool,
    list_bugs: bool,
    list: bool,
    marks: bool,
    scenario: Option<String>,
    log: bool,
}

/// See [`HELP`].
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("{what}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    catch_panics();
    if arguments.list_bugs {
        for bug in all_bugs() {
            println!("{bug:?}");
        }
        return ExitCode::SUCCESS;
    }
    if arguments.list {
        scenarios::list();
        return ExitCode::SUCCESS;
    }
    let passed = if arguments.marks {
        marks::report(&arguments)
    } else if let Some(word) = &arguments.scenario {
        scenarios::play(word, &arguments)
    } else if arguments.mutants {
        mutants(&arguments)
    } else {
        seeds(&arguments)
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = now.map_err(|error| error.to_string())?.as_micros();
    let fresh = u64::try_from(nanoseconds % (1 << 50)).map_err(|error| error.to_string())?;
    let jobs = std::thread::available_parallelism().map_or(1, |count| count.get());
    let mut arguments = Arguments {
        cluster: false,
        replicas: None,
        seed: None,
        time: Duration::from_secs(60),
        seeds: None,
        first_seed: None,
        fresh_seed: fresh << 12,
        jobs: u64::try_from(jobs).map_err(|error| error.to_string())?,
        check_determinism: false,
        bug: None,
        mutants: false,
        list_bugs: false,
        list: false,
        marks: false,
        scenario: None,
        log: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--cluster" => arguments.cluster = true,
            "--replicas" => arguments.replicas = Some(replicas(&value()?)?),
            "--seed" => arguments.seed = Some(number(&value()?)?),
            "--minutes" => arguments.time = Duration::from_secs(60 * number(&value()?)?),
            "--seeds" => arguments.seeds = Some(number(&value()?)?),
            "--first-seed" => arguments.first_seed = Some(number(&value()?)?),
            "--marks" => arguments.marks = true,
            "--list" => arguments.list = true,
            "--scenario" => arguments.scenario = Some(value()?),
            "--jobs" => arguments.jobs = number(&value()?)?.max(1),
            "--check-determinism" => arguments.check_determinism = true,
            "--bug" => arguments.bug = Some(bug(&value()?)?),
            "--mutants" => arguments.mutants = true,
            "--list-bugs" => arguments.list_bugs = true,
            "--log" => arguments.log = value()? == "full",
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(arguments)
}

fn replicas(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ 1..=6) => Ok(count),
        Ok(_) | Err(_) => Err(format!("{text}: a cluster has 1 to 6 replicas")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{text}: {error}"))
}

fn all_bugs() -> impl Iterator<Item = &'static Bug> {
    let clusters = Bug::OF_CLUSTERS.iter().chain(Bug::OF_SCENARIOS);
    Bug::ALL.iter().chain(clusters)
}

fn bug(name: &str) -> Result<Bug, String> {
    let found = all_bugs().find(|bug| format!("{bug:?}") == name);
    found
        .copied()
        .ok_or_else(|| format!("no bug is called {name}; see --list-bugs"))
}

/// The commit that runs, for the report.
fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) | Err(_) => "unknown".into(),
    }
}

fn report(seed: u64, failure: &Failure, arguments: &Arguments) {
    let commit = commit();
    println!(
        "vopr FAIL kind={} seed={seed:#x} commit={commit} {}",
        failure.kind, failure.what
    );
    let cluster = if arguments.cluster { " --cluster" } else { "" };
    let replicas = arguments.replicas;
    let replicas = replicas.map_or(String::new(), |count| format!(" --replicas {count}"));
    let bug = arguments.bug;
    let bug = bug.map_or(String::new(), |bug| format!(" --bug {bug:?}"));
    println!("repeat it with: cargo vopr{cluster}{replicas} --seed {seed:#x}{bug} --log full");
}

/// What a seed came to, of whichever simulator.
#[derive(Debug)]
struct Outcome {
    failure: Option<Failure>,
    hash: EventHash,
    seen: Seen,
    time: u64,
    counts: Counts,
    /// The proof that a cluster had to stand still, if it did.
    unavailable: Option<String>,
}

/// What only one of the simulators counts.
#[derive(Debug)]
enum Counts {
    Solo(sim::world::Counts),
    Cluster(u8, cluster::counts::Counts),
}

fn run_seed(seed: u64, arguments: &Arguments, bug: Option<Bug>, log: bool) -> Outcome {
    if arguments.cluster {
        let outcome = cluster::run_seed(seed, arguments.replicas, bug, log);
        Outcome {
            failure: outcome.failure,
            hash: outcome.hash,
            seen: outcome.seen,
            time: outcome.time,
            counts: Counts::Cluster(outcome.replicas, outcome.counts),
            unavailable: outcome.unavailable,
        }
    } else {
        let outcome = sim::run_seed(seed, bug, log);
        Outcome {
            failure: outcome.failure,
            hash: outcome.hash,
            seen: outcome.seen,
            time: outcome.time,
            counts: Counts::Solo(outcome.counts),
            unavailable: None,
        }
    }
}

/// Sums over all seeds.
#[derive(Debug, Default)]
struct Totals {
    passed: u64,
    failed: u64,
    time: u64,
    events: u64,
    seen: Seen,
    solo: Option<sim::world::Counts>,
    cluster: Option<cluster::counts::Counts>,
    /// Seeds by the number of replicas, and those of them that failed.
    by_replicas: [(u64, u64); 7],
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        if outcome.failure.is_some() {
            self.failed += 1;
        } else {
            self.passed += 1;
        }
        self.time += outcome.time;
        self.events += outcome.hash.events();
        self.seen.add(&outcome.seen);
        match &outcome.counts {
            Counts::Solo(counts) => self.solo.get_or_insert_default().add(counts),
            Counts::Cluster(replicas, counts) => {
                self.cluster.get_or_insert_default().add(counts);
                let (seeds, failed) = &mut self.by_replicas[usize::from(*replicas)];
                *seeds += 1;
                *failed += u64::from(outcome.failure.is_some());
            }
        }
    }

    /// How fast the simulation was, on each of the cores that it had.
    fn speed(&self, elapsed: Duration, jobs: u64) -> String {
        let milliseconds = u64::try_from(elapsed.as_millis())
            .expect("some days")
            .max(1)
            * jobs;
        let events = self.events.saturating_mul(1000) / milliseconds;
        let simulated = self.time / 1_000_000 / milliseconds;
        format!("{events} events a second and {simulated} times real time on each of {jobs} cores")
    }

    fn print(&self, elapsed: Duration) {
        let seeds = self.passed + self.failed;
        let milliseconds = elapsed.as_millis().max(1);
        let per_second = u128::from(seeds) * 10_000 / milliseconds;
        println!(
            "vopr: {seeds} seeds, {}.{}/s, {} events, {} s simulated, {} ops",
            per_second / 10,
            per_second % 10,
            self.events,
            self.time / 1_000_000_000,
            self.seen.ops,
        );
        println!("  {}", self.seen);
        if let Some(counts) = self.solo {
            println!("  {counts}");
        }
        if let Some(counts) = self.cluster {
            println!("  {counts}");
            let sizes = self.by_replicas.iter().enumerate();
            let sizes = sizes.filter(|(_, (seeds, _))| *seeds > 0);
            let sizes = sizes.map(|(replicas, (seeds, failed))| {
                format!("{replicas}: {seeds} seeds, {failed} failed")
            });
            let sizes: Vec<String> = sizes.collect();
            println!("  by replicas: {}", sizes.join("; "));
        }
    }
}

/// Runs seeds as the arguments say; whether all passed.
fn seeds(arguments: &Arguments) -> bool {
    let start = Instant::now();
    let first = arguments.first_seed.unwrap_or(arguments.fresh_seed);
    let first = arguments.seed.unwrap_or(first);
    let count = if arguments.seed.is_some() {
        Some(1)
    } else {
        arguments.seeds
    };
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new((Totals::default(), start));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let over = match count {
                Some(count) => index >= count,
                None => start.elapsed() >= arguments.time,
            };
            if over || stop.load(Ordering::Relaxed) {
                return;
            }
            let seed = first + index;
            let outcome = run_checked(seed, arguments);
            let mut totals = totals
                .lock()
                .expect("no thread panics while it holds the totals");
            totals.0.add(&outcome);
            if let Some(failure) = &outcome.failure {
                report(seed, failure, arguments);
                stop.store(totals.0.failed >= 10, Ordering::Relaxed);
            }
            if let Some(proof) = &outcome.unavailable {
                println!("seed {seed:#x} stands still with a proof: {proof}");
            }
            if arguments.seed.is_some() {
                println!("seed {seed:#x}: hash {:032x}", outcome.hash.value());
            }
            if totals.1.elapsed() >= Duration::from_secs(10) {
                totals.1 = Instant::now();
                totals.0.print(start.elapsed());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..arguments.jobs.min(count.unwrap_or(u64::MAX)) {
            scope.spawn(work);
        }
        work();
    });
    let totals = totals.into_inner().expect("all threads are done").0;
    totals.print(start.elapsed());
    if arguments.seed.is_none() {
        println!("first seed {first:#x}");
    }
    println!(
        "{} passed, {} failed; {}",
        totals.passed,
        totals.failed,
        totals.speed(
            start.elapsed(),
            arguments.jobs.min(count.unwrap_or(u64::MAX))
        )
    );
    totals.failed == 0
}

/// Runs a seed, and once more in a thread of its own if that is asked for.
fn run_checked(seed: u64, arguments: &Arguments) -> Outcome {
    let mut outcome = run_seed(seed, arguments, arguments.bug, arguments.log);
    if arguments.check_determinism {
        let second = std::thread::scope(|scope| {
            let thread = scope.spawn(|| run_seed(seed, arguments, arguments.bug, false));
            thread.join().expect("panics of a seed are caught")
        });
        if second.hash != outcome.hash {
            let what = format!(
                "two runs differ, from event {} on: {:032x} and {:032x}",
                outcome.hash.first_difference(&second.hash),
                outcome.hash.value(),
                second.hash.value(),
            );
            outcome.failure.get_or_insert(Failure {
                kind: "nondeterminism",
                what,
            });
        }
    }
    outcome
}

/// Plants each bug; whether every one was found.
fn mutants(arguments: &Arguments) -> bool {
    let first = arguments.first_seed.unwrap_or(arguments.fresh_seed);
    let mut missed = 0;
    let mut found = 0;
    let bugs = if arguments.cluster {
        Bug::OF_CLUSTERS
    } else {
        Bug::ALL
    };
    for bug in bugs {
        let start = Instant::now();
        let next = AtomicU64::new(0);
        let caught: Mutex<Option<(u64, Failure)>> = Mutex::new(None);
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= MUTANT_SEEDS || caught.lock().is_ok_and(|caught| caught.is_some()) {
                    return;
                }
                let outcome = run_seed(first + index, arguments, Some(*bug), false);
                if let Some(failure) = outcome.failure {
                    let mut caught = caught.lock().expect("no thread panics while it holds it");
                    caught.get_or_insert((first + index, failure));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..arguments.jobs {
                scope.spawn(work);
            }
            work();
        });
        let seconds = start.elapsed().as_secs();
        match caught.into_inner().expect("all threads are done") {
            Some((seed, failure)) => {
                found += 1;
                let needed = seed - first + 1;
                println!(
                    "{bug:?}: found after {needed} seeds in {seconds} s, seed {seed:#x}: {}: {}",
                    failure.kind, failure.what
                );
            }
            None => {
                missed += 1;
                println!("{bug:?}: NOT FOUND in {MUTANT_SEEDS} seeds, {seconds} s");
            }
        }
    }
    if arguments.cluster {
        let (more, fewer) = scenarios::mutants(arguments);
        (found, missed) = (found + more, missed + fewer);
    }
    println!("{found} passed, {missed} failed");
    missed == 0
}
