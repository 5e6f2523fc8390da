//! The command line of the directed scenarios.

use super::{Arguments, Bug, Failure, Instant, Mutex, commit};
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
fn run(scenario: &Scenario, seed: u64, arguments: &Arguments) -> Option<Failure> {
    let outcome = scenario.run(seed, arguments.bug, arguments.log);
    if arguments.check_determinism {
        let second = std::thread::scope(|scope| {
            let thread = scope.spawn(|| scenario.run(seed, arguments.bug, false));
            thread.join().expect("panics of a seed are caught")
        });
        if second.hash != outcome.hash {
            let event = outcome.hash.first_difference(&second.hash);
            return Some(Failure {
                kind: "nondeterminism",
                what: format!("two runs differ, from event {event} on"),
            });
        }
    }
    outcome.failure
}

/// What is known of a scenario so far.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    failures: Vec<(u64, Failure)>,
}

/// Runs the scenarios that a word names; whether all passed.
pub(super) fn play(word: &str, arguments: &Arguments) -> bool {
    let start = Instant::now();
    let chosen = scenarios::named(word);
    if chosen.is_empty() {
        println!("no scenario is called {word}; see --list");
        return false;
    }
    let (first, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (
            arguments.first_seed.unwrap_or(0),
            arguments.seeds.unwrap_or(scenarios::SEEDS),
        ),
    };
    let seeds = first..first + count;
    let runs = chosen
        .iter()
        .enumerate()
        .flat_map(|(index, _)| seeds.clone().map(move |seed| (index, seed)));
    let runs: Vec<(usize, u64)> = runs.collect();
    let next = AtomicUsize::new(0);
    let tallies: Mutex<BTreeMap<usize, Tally>> = Mutex::default();
    let failed = AtomicUsize::new(0);
    let work = || {
        while let Some((index, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let scenario = chosen[*index];
            let failure = run(scenario, *seed, arguments);
            let mut tallies = tallies
                .lock()
                .expect("no thread panics while it holds them");
            let tally = tallies.entry(*index).or_default();
            tally.runs += 1;
            tally
                .failures
                .extend(failure.map(|failure| (*seed, failure)));
            tally.failures.sort_by_key(|(seed, _)| *seed);
            if tally.runs == count {
                let passed = report(scenario, tally, arguments);
                failed.fetch_add(usize::from(!passed), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..arguments.jobs {
            scope.spawn(work);
        }
        work();
    });
    let failed = failed.into_inner();
    let seconds = start.elapsed().as_secs();
    println!(
        "{} scenarios with {count} seeds each in {seconds} s: {} passed, {failed} failed",
        chosen.len(),
        chosen.len() - failed,
    );
    failed == 0
}

/// Prints what came of a scenario; whether it passed.
fn report(scenario: &Scenario, tally: &Tally, arguments: &Arguments) -> bool {
    let title = scenario.title();
    let Some((seed, failure)) = tally.failures.first() else {
        println!("{title}: passed, {}", scenario.shows);
        return true;
    };
    println!(
        "{title}: {} of {} FAIL, the first kind={} seed={seed:#x} commit={} {}",
        tally.failures.len(),
        tally.runs,
        failure.kind,
        commit(),
        failure.what,
    );
    let bug = arguments.bug;
    let bug = bug.map_or(String::new(), |bug| format!(" --bug {bug:?}"));
    let id = scenario.id;
    println!("repeat it with: cargo vopr --scenario {id} --seed {seed:#x}{bug} --log full");
    false
}

/// Plants each bug that a scenario shows; how many were found, and how many were not.
pub(super) fn mutants(arguments: &Arguments) -> (u64, u64) {
    let (mut found, mut missed) = (0, 0);
    for bug in Bug::OF_SCENARIOS {
        let scenario = scenarios::of_bug(*bug);
        let first = arguments.first_seed.unwrap_or(0);
        let failed = (first..first + scenarios::SEEDS).find_map(|seed| {
            scenario
                .run(seed, Some(*bug), false)
                .failure
                .map(|it| (seed, it))
        });
        let title = scenario.title();
        match failed {
            Some((seed, failure)) => {
                found += 1;
                let (kind, what) = (failure.kind, failure.what);
                println!("{bug:?}: found by {title}, seed {seed:#x}: {kind}: {what}");
            }
            None => {
                missed += 1;
                println!("{bug:?}: NOT FOUND by {title}");
            }
        }
    }
    (found, missed)
}
