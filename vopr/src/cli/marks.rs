//! Which rare branches the simulator reaches, and by what.

use super::{Arguments, Failure, Instant, Mutex, report as report_seed};
use daftari::stdx::marks::{Mark, Marks};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use vopr::scenarios::{self, Scenario};
use vopr::{cluster, sim};

/// Seeds of each kind, unless told otherwise.
const SEEDS: u64 = 200;

/// One run of the simulator.
#[derive(Clone, Copy)]
enum Run {
    Scenario(&'static Scenario, u64),
    Cluster(u64),
    Solo(u64),
}

impl Run {
    fn run(self) -> (Marks, Option<Failure>) {
        match self {
            Self::Scenario(scenario, seed) => {
                let outcome = scenario.run(seed, None, false);
                (outcome.marks, outcome.failure)
            }
            Self::Cluster(seed) => {
                let outcome = cluster::run_seed(seed, None, None, false);
                (outcome.marks, outcome.failure)
            }
            Self::Solo(seed) => {
                let outcome = sim::run_seed(seed, None, false);
                (outcome.marks, outcome.failure)
            }
        }
    }
}

/// What reached a mark.
#[derive(Clone, Debug, Default)]
struct Reached {
    scenarios: BTreeSet<&'static str>,
    clusters: u64,
    solo: u64,
    /// The lowest seed that did, when no scenario does.
    seed: Option<u64>,
}

impl Reached {
    fn add(&mut self, run: Run) {
        let seed = match run {
            Run::Scenario(scenario, _) => {
                let _ = self.scenarios.insert(scenario.id);
                return;
            }
            Run::Cluster(seed) => {
                self.clusters += 1;
                seed
            }
            Run::Solo(seed) => {
                self.solo += 1;
                seed
            }
        };
        self.seed = Some(self.seed.map_or(seed, |before| before.min(seed)));
    }

    fn is_nothing(&self) -> bool {
        self.scenarios.is_empty() && self.clusters + self.solo == 0
    }

    /// By what, in a line; seeds as so many of a thousand.
    fn by(&self, seeds: u64) -> String {
        let per_thousand = |count: u64| count * 1000 / seeds.max(1);
        let (clusters, solo) = (per_thousand(self.clusters), per_thousand(self.solo));
        let mut by = format!("of 1000 seeds {clusters} of clusters, {solo} alone");
        let scenarios: Vec<&str> = self.scenarios.iter().copied().collect();
        match (scenarios.as_slice(), self.seed) {
            ([], Some(seed)) => by += &format!("; the first is {seed:#x}; no scenario"),
            ([], None) => {}
            (few, _) => {
                by += &format!(
                    "; {} scenarios: {}",
                    few.len(),
                    few[..few.len().min(6)].join(" ")
                );
            }
        }
        by
    }
}

/// Runs everything and prints what reached each mark; whether all passed and every mark was reached.
pub(super) fn report(arguments: &Arguments) -> bool {
    let start = Instant::now();
    let first = arguments.first_seed.unwrap_or(arguments.fresh_seed);
    let count = arguments.seeds.unwrap_or(SEEDS);
    let directed = scenarios::all()
        .flat_map(|scenario| (0..scenarios::SEEDS).map(move |seed| Run::Scenario(scenario, seed)));
    let seeds = first..first + count;
    let runs: Vec<Run> = directed
        .chain(seeds.clone().map(Run::Cluster))
        .chain(seeds.map(Run::Solo))
        .collect();
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    let reached: Mutex<Vec<Reached>> = Mutex::new(vec![Reached::default(); Mark::ALL.len()]);
    let work = || {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (marks, failure) = run.run();
            if let Some(failure) = failure {
                failed.fetch_add(1, Ordering::Relaxed);
                print_failure(*run, &failure, arguments);
            }
            let mut reached = reached
                .lock()
                .expect("no thread panics while it holds them");
            let found = Mark::ALL.iter().zip(reached.iter_mut());
            found
                .filter(|(mark, _)| marks.has(**mark))
                .for_each(|(_, reached)| reached.add(*run));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..arguments.jobs {
            scope.spawn(work);
        }
        work();
    });
    let reached = reached.into_inner().expect("all threads are done");
    let mut never = 0;
    for (mark, reached) in Mark::ALL.iter().zip(&reached) {
        if reached.is_nothing() {
            never += 1;
            println!("{mark:?}: NEVER REACHED. {}", mark.shows());
        } else {
            println!("{mark:?}: {}. {}", reached.by(count), mark.shows());
        }
    }
    let failed = failed.into_inner();
    println!(
        "{} runs in {} s, {failed} failed; {} of {} marks reached; first seed {first:#x}",
        runs.len(),
        start.elapsed().as_secs(),
        reached.len() - never,
        reached.len(),
    );
    failed == 0 && never == 0
}

fn print_failure(run: Run, failure: &Failure, arguments: &Arguments) {
    let mut arguments = arguments.clone();
    match run {
        Run::Scenario(scenario, seed) => {
            let (kind, what) = (failure.kind, &failure.what);
            println!(
                "{}: FAIL kind={kind} seed={seed:#x} {what}",
                scenario.title()
            );
        }
        Run::Cluster(seed) => {
            arguments.cluster = true;
            report_seed(seed, failure, &arguments);
        }
        Run::Solo(seed) => {
            arguments.cluster = false;
            report_seed(seed, failure, &arguments);
        }
    }
}
