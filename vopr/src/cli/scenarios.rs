//! The command line of the directed scenarios.

use super::{Arguments, Bug, Ended, Failure, Instant, Mutex, Setup, json, milliseconds, report};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use vopr::scenarios::{self, Scenario};

/// Prints each scenario with what it shows.
pub(super) fn list() {
    for scenario in scenarios::all() {
        println!("{}: {}", scenario.title(), scenario.shows);
    }
    println!("{} scenarios", scenarios::all().count());
}

/// Runs a scenario with a seed, and once more if that is asked for.
fn run(scenario: &Scenario, seed: u64, arguments: &Arguments) -> Ended {
    let setup = arguments.setup(seed);
    let mut ended = scenario.run(&setup).ended;
    if arguments.check_determinism {
        let second = std::thread::scope(|scope| {
            let setup = setup.quiet();
            let thread = scope.spawn(move || scenario.run(&setup));
            thread.join().expect("panics of a seed are caught")
        });
        if second.ended.hash != ended.hash {
            let event = ended.hash.first_difference(&second.ended.hash);
            ended.failure.get_or_insert(Failure {
                kind: "nondeterminism",
                what: format!("two runs differ, from event {event} on"),
            });
        }
    }
    ended
}

/// What is known of a scenario so far.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    failures: Vec<(u64, Failure, Ended)>,
}

/// What is known of all.
#[derive(Debug, Default)]
struct Progress {
    tallies: BTreeMap<usize, Tally>,
    failed: u64,
    /// Of the first failure.
    status: Option<u8>,
    /// Why a file could not be written.
    error: Option<String>,
    events: u64,
    time: u64,
}

/// Runs the scenarios that a word names; gives the exit status.
pub(super) fn play(word: &str, arguments: &Arguments) -> Result<u8, String> {
    let start = Instant::now();
    let chosen = scenarios::named(word);
    if chosen.is_empty() {
        return Err(format!("no scenario is called {word}; see --list"));
    }
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        // A page shows one run.
        None if arguments.timeline.is_some() => (arguments.first_seed.unwrap_or(0), 1),
        None => (
            arguments.first_seed.unwrap_or(0),
            arguments.seeds.unwrap_or(scenarios::SEEDS),
        ),
    };
    if arguments.timeline.is_some() && chosen.len() > 1 {
        return Err("a timeline shows one scenario".into());
    }
    let seeds = first..first + count;
    let runs = chosen
        .iter()
        .enumerate()
        .flat_map(|(index, _)| seeds.clone().map(move |seed| (index, seed)));
    let runs: Vec<(usize, u64)> = runs.collect();
    let next = AtomicUsize::new(0);
    let progress: Mutex<Progress> = Mutex::default();
    let work = || {
        while let Some((index, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let scenario = chosen[*index];
            let ended = run(scenario, *seed, arguments);
            let mut progress = progress
                .lock()
                .expect("no thread panics while it holds them");
            progress.add(scenario, *seed, &ended, arguments);
            let tally = progress.tallies.entry(*index).or_default();
            tally.runs += 1;
            if let Some(failure) = ended.failure.clone() {
                tally.failures.push((*seed, failure, ended));
                tally.failures.sort_by_key(|(seed, _, _)| *seed);
            }
            if tally.runs == count {
                let passed = print(scenario, tally, arguments);
                progress.failed += u64::from(!passed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..arguments.jobs {
            scope.spawn(work);
        }
        work();
    });
    let progress = progress.into_inner().expect("all threads are done");
    let (elapsed, failed) = (start.elapsed(), progress.failed);
    let passed = daftari::stdx::to_u64(chosen.len()) - failed;
    arguments.say(&format!(
        "{} scenarios with {count} seeds each in {} s: {passed} passed, {failed} failed",
        chosen.len(),
        elapsed.as_secs(),
    ));
    arguments.say_json(|| {
        let per_job = milliseconds(elapsed) * arguments.jobs;
        json!({
            "type": "summary",
            "passed": passed,
            "failed": failed,
            "events": progress.events,
            "simulated_seconds": report::thousandths(progress.time / 1_000_000),
            "seconds": report::thousandths(milliseconds(elapsed)),
            "jobs": arguments.jobs,
            "events_per_second_and_job": progress.events.saturating_mul(1000) / per_job,
            "times_real_time_per_job": report::thousandths(progress.time / 1_000 / per_job),
        })
    });
    progress.error.map_or(Ok(progress.status.unwrap_or(0)), Err)
}

impl Progress {
    fn add(&mut self, scenario: &Scenario, seed: u64, ended: &Ended, arguments: &Arguments) {
        self.events += ended.hash.events();
        self.time += ended.time;
        let repeat = report::repeat_scenario(scenario.id, seed, arguments);
        arguments.say_json(|| report::json(seed, Some(scenario.id), &repeat, ended));
        let title = format!("{}, seed {seed:#x}", scenario.title());
        self.error = arguments.write_timeline(&title, &repeat, ended).err();
        if let Some(failure) = &ended.failure {
            self.status.get_or_insert(report::status(failure.kind));
        }
    }
}

/// Prints what came of a scenario; whether it passed.
fn print(scenario: &Scenario, tally: &Tally, arguments: &Arguments) -> bool {
    let title = scenario.title();
    let Some((seed, failure, ended)) = tally.failures.first() else {
        arguments.say(&format!("{title}: passed, {}", scenario.shows));
        return true;
    };
    let (failed, runs) = (tally.failures.len(), tally.runs);
    arguments.say(&format!("{title}: {failed} of {runs} FAIL, the first:"));
    arguments.say(&report::failure(*seed, failure, ended));
    let repeat = report::repeat_scenario(scenario.id, *seed, arguments);
    arguments.say(&format!("repeat it with: {repeat} --log full"));
    false
}

/// Plants each bug that a scenario shows; how many were found, and how many were not.
pub(super) fn mutants(arguments: &Arguments) -> (u64, u64) {
    let (mut found, mut missed) = (0, 0);
    for bug in Bug::OF_SCENARIOS {
        let scenario = scenarios::of_bug(*bug);
        let first = arguments.first_seed.unwrap_or(0);
        let failed = (first..first + scenarios::SEEDS).find_map(|seed| {
            let ended = scenario.run(&Setup::new(seed, Some(*bug))).ended;
            ended.failure.map(|it| (seed, it))
        });
        let title = scenario.title();
        match failed {
            Some((seed, failure)) => {
                found += 1;
                let (kind, what) = (failure.kind, failure.what);
                arguments.say(&format!(
                    "{bug:?}: found by {title}, seed {seed:#x}: {kind}: {what}"
                ));
            }
            None => {
                missed += 1;
                arguments.say(&format!("{bug:?}: NOT FOUND by {title}"));
            }
        }
    }
    (found, missed)
}
