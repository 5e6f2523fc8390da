//! Arguments, threads that run seeds, and what is printed of them.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]
#![expect(
    clippy::disallowed_types,
    reason = "threads share a list of failures, and a time budget needs a clock"
)]

mod arguments;
mod marks;
mod minimise;
mod output;
mod report;
mod scenarios;

use arguments::{Arguments, HELP, all_bugs, parse};
use daftari::stdx::planted::Bug;
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vopr::cluster;
use vopr::seed::{Ended, Setup};
use vopr::sim;
use vopr::sim::catch_panics;
use vopr::sim::seen::Seen;
use vopr::sim::verdict::Failure;

/// Seeds within which a planted bug has to be found.
const MUTANT_SEEDS: u64 = 200;

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
    if arguments.help {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
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
    let status = if arguments.marks {
        Ok(marks::report(&arguments))
    } else if let Some(word) = &arguments.scenario {
        scenarios::play(word, &arguments)
    } else if arguments.mutants {
        Ok(mutants(&arguments))
    } else {
        seeds(&arguments)
    };
    match status {
        Ok(status) => ExitCode::from(status),
        Err(what) => {
            eprintln!("{what}");
            ExitCode::from(2)
        }
    }
}

/// What a seed came to, of whichever simulator.
#[derive(Debug)]
struct Outcome {
    ended: Ended,
    seen: Seen,
    counts: Counts,
}

/// What only one of the simulators counts.
#[derive(Debug)]
enum Counts {
    Solo(sim::world::Counts),
    Cluster(cluster::counts::Counts),
}

fn run_seed(setup: &Setup, arguments: &Arguments) -> Outcome {
    if arguments.cluster {
        let outcome = cluster::run_seed(setup);
        Outcome {
            ended: outcome.ended,
            seen: outcome.seen,
            counts: Counts::Cluster(outcome.counts),
        }
    } else {
        let outcome = sim::run_seed(setup);
        Outcome {
            ended: outcome.ended,
            seen: outcome.seen,
            counts: Counts::Solo(outcome.counts),
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
        let ended = &outcome.ended;
        if ended.failure.is_some() {
            self.failed += 1;
        } else {
            self.passed += 1;
        }
        self.time += ended.time;
        self.events += ended.hash.events();
        self.seen.add(&outcome.seen);
        match &outcome.counts {
            Counts::Solo(counts) => self.solo.get_or_insert_default().add(counts),
            Counts::Cluster(counts) => {
                self.cluster.get_or_insert_default().add(counts);
                let (seeds, failed) = &mut self.by_replicas[usize::from(ended.replicas)];
                *seeds += 1;
                *failed += u64::from(ended.failure.is_some());
            }
        }
    }

    /// Clusters that had to stand still, with a proof.
    fn unavailable(&self) -> u64 {
        self.cluster.map_or(0, |counts| counts.unavailable)
    }

    /// Whether more than one seed of fifty ended without an answer. Of few seeds that would say nothing.
    fn stands_still_too_often(&self) -> bool {
        let seeds = self.passed + self.failed;
        seeds >= 500 && self.unavailable() * 50 > seeds
    }

    /// How fast the simulation was: events a second, and thousandths of real time, on each of the cores that
    /// it had.
    fn speed(&self, elapsed: Duration, jobs: u64) -> (u64, u64) {
        let milliseconds = milliseconds(elapsed) * jobs;
        let events = self.events.saturating_mul(1000) / milliseconds;
        let simulated = self.time / 1_000 / milliseconds;
        (events, simulated)
    }

    /// All runs as JSON.
    fn json(&self, first: u64, elapsed: Duration, jobs: u64) -> Value {
        let (events, simulated) = self.speed(elapsed, jobs);
        json!({
            "type": "summary",
            "first_seed": format!("{first:#x}"),
            "passed": self.passed,
            "failed": self.failed,
            "unavailable": self.unavailable(),
            "events": self.events,
            "ops": self.seen.ops,
            "simulated_seconds": report::thousandths(self.time / 1_000_000),
            "seconds": report::thousandths(milliseconds(elapsed)),
            "jobs": jobs,
            "events_per_second_and_job": events,
            "times_real_time_per_job": report::thousandths(simulated),
        })
    }

    fn print(&self, elapsed: Duration, arguments: &Arguments) {
        let seeds = self.passed + self.failed;
        let per_second = seeds * 10_000 / milliseconds(elapsed);
        arguments.say(&format!(
            "vopr: {seeds} seeds, {}.{}/s, {} events, {} s simulated, {} ops",
            per_second / 10,
            per_second % 10,
            self.events,
            self.time / 1_000_000_000,
            self.seen.ops,
        ));
        arguments.say(&format!("  {}", self.seen));
        if let Some(counts) = self.solo {
            arguments.say(&format!("  {counts}"));
        }
        if let Some(counts) = self.cluster {
            arguments.say(&format!("  {counts}"));
            let sizes = self.by_replicas.iter().enumerate();
            let sizes = sizes.filter(|(_, (seeds, _))| *seeds > 0);
            let sizes = sizes.map(|(replicas, (seeds, failed))| {
                format!("{replicas}: {seeds} seeds, {failed} failed")
            });
            let sizes: Vec<String> = sizes.collect();
            arguments.say(&format!("  by replicas: {}", sizes.join("; ")));
        }
    }
}

fn milliseconds(elapsed: Duration) -> u64 {
    let count = u64::try_from(elapsed.as_millis());
    count.expect("some days").max(1)
}

/// What is known while seeds are run.
struct Progress {
    totals: Totals,
    printed: Instant,
    first_failure: Option<(u64, Failure, Ended)>,
    /// Why a file could not be written.
    error: Option<String>,
}

/// Runs seeds as the arguments say; gives the exit status.
fn seeds(arguments: &Arguments) -> Result<u8, String> {
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
    let progress = Mutex::new(Progress {
        totals: Totals::default(),
        printed: start,
        first_failure: None,
        error: None,
    });
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
            let mut progress = progress
                .lock()
                .expect("no thread panics while it holds the totals");
            progress.add(seed, outcome, arguments);
            stop.store(progress.totals.failed >= 10, Ordering::Relaxed);
            if progress.printed.elapsed() >= Duration::from_secs(10) {
                progress.printed = Instant::now();
                progress.totals.print(start.elapsed(), arguments);
            }
        }
    };
    let jobs = arguments.jobs.min(count.unwrap_or(u64::MAX)).max(1);
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            scope.spawn(work);
        }
        work();
    });
    let progress = progress.into_inner().expect("all threads are done");
    let (totals, elapsed) = (progress.totals, start.elapsed());
    totals.print(elapsed, arguments);
    if arguments.seed.is_none() {
        arguments.say(&format!("first seed {first:#x}"));
    }
    let (events, simulated) = totals.speed(elapsed, jobs);
    arguments.say(&format!(
        "{} passed, {} failed, {} unavailable with a proof; {events} events a second and {} times real time \
         on each of {jobs} cores",
        totals.passed,
        totals.failed,
        totals.unavailable(),
        simulated / 1000,
    ));
    arguments.say_json(|| totals.json(first, elapsed, jobs));
    let Some((seed, failure, ended)) = &progress.first_failure else {
        let status = if totals.stands_still_too_often() {
            arguments.say("too many clusters had to stand still: damage, or its limits, are wrong");
            report::UNAVAILABLE
        } else {
            0
        };
        return progress.error.map_or(Ok(status), Err);
    };
    let wanted = arguments.minimise || arguments.seed.is_none();
    if wanted && failure.kind != "nondeterminism" && !arguments.minimise_time.is_zero() {
        minimise::run(*seed, (failure, ended), arguments);
    }
    progress.error.map_or(Ok(report::status(failure.kind)), Err)
}

impl Progress {
    fn add(&mut self, seed: u64, outcome: Outcome, arguments: &Arguments) {
        self.totals.add(&outcome);
        let ended = outcome.ended;
        let repeat = report::repeat(seed, &arguments.cuts, arguments);
        if let Some(failure) = &ended.failure {
            arguments.say(&report::failure(seed, failure, &ended));
            arguments.say(&format!("repeat it with: {repeat} --log full"));
        }
        if let Some(proof) = &ended.unavailable {
            arguments.say(&format!(
                "seed {seed:#x} stands still, with a proof: {proof}"
            ));
        }
        arguments.say_json(|| report::json(seed, None, &repeat, &ended));
        if arguments.seed.is_some() {
            let (hash, events) = (ended.hash.value(), ended.hash.events());
            arguments.say(&format!(
                "seed {seed:#x}: hash {hash:032x} of {events} events"
            ));
            if arguments.until.is_some_and(|until| until <= events) {
                arguments.say("stopped there: whether the rest holds was not looked at");
            }
        }
        let title = format!("seed {seed:#x}");
        self.error = arguments.write_timeline(&title, &repeat, &ended).err();
        if let (Some(failure), None) = (&ended.failure, &self.first_failure) {
            self.first_failure = Some((seed, failure.clone(), ended));
        }
    }
}

/// Runs a seed, and once more in a thread of its own if that is asked for.
fn run_checked(seed: u64, arguments: &Arguments) -> Outcome {
    let setup = arguments.setup(seed);
    let mut outcome = run_seed(&setup, arguments);
    if arguments.check_determinism {
        let second = std::thread::scope(|scope| {
            let setup = setup.quiet();
            let thread = scope.spawn(move || run_seed(&setup, arguments));
            thread.join().expect("panics of a seed are caught")
        });
        let (hash, second) = (&outcome.ended.hash, second.ended.hash);
        if second != *hash {
            let what = format!(
                "two runs differ, from event {} on: {:032x} and {:032x}",
                hash.first_difference(&second),
                hash.value(),
                second.value(),
            );
            outcome.ended.failure.get_or_insert(Failure {
                kind: "nondeterminism",
                what,
            });
        }
    }
    outcome
}

/// Plants each bug; gives the exit status.
fn mutants(arguments: &Arguments) -> u8 {
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
                let setup = Setup::new(first + index, Some(*bug));
                let outcome = run_seed(&setup, arguments);
                if let Some(failure) = outcome.ended.failure {
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
                arguments.say(&format!(
                    "{bug:?}: found after {needed} seeds in {seconds} s, seed {seed:#x}: {}: {}",
                    failure.kind, failure.what
                ));
            }
            None => {
                missed += 1;
                arguments.say(&format!(
                    "{bug:?}: NOT FOUND in {MUTANT_SEEDS} seeds, {seconds} s"
                ));
            }
        }
    }
    if arguments.cluster {
        let (more, fewer) = scenarios::mutants(arguments);
        (found, missed) = (found + more, missed + fewer);
    }
    arguments.say(&format!("{found} passed, {missed} failed"));
    arguments.say_json(|| json!({ "type": "summary", "passed": found, "failed": missed }));
    if missed == 0 { 0 } else { report::NOT_FOUND }
}
