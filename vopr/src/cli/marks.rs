//! Which rare branches the simulator reaches, and by what.

use super::{Arguments, Ended, Instant, Mutex, Setup, json, report};
use daftari::stdx::marks::Mark;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use vopr::scenarios::{self, Scenario};
use vopr::seed::cuts::Cuts;
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
    fn run(self) -> Ended {
        match self {
            Self::Scenario(scenario, seed) => scenario.run(&Setup::new(seed, None)).ended,
            Self::Cluster(seed) => cluster::run_seed(&Setup::new(seed, None)).ended,
            Self::Solo(seed) => sim::run_seed(&Setup::new(seed, None)).ended,
        }
    }

    /// Its seed, and the command line that repeats it.
    fn repeat(self, arguments: &Arguments) -> (u64, String) {
        let cluster = matches!(self, Self::Cluster(_));
        match self {
            Self::Scenario(scenario, seed) => {
                let repeat = report::repeat_scenario(scenario.id, seed, arguments);
                (seed, repeat)
            }
            Self::Cluster(seed) | Self::Solo(seed) => {
                let arguments = Arguments {
                    cluster,
                    ..arguments.clone()
                };
                (seed, report::repeat(seed, &Cuts::default(), &arguments))
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

/// Runs everything and prints what reached each mark; gives the exit status.
pub(super) fn report(arguments: &Arguments) -> u8 {
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
    let failed: Mutex<Option<u8>> = Mutex::default();
    let reached: Mutex<Vec<Reached>> = Mutex::new(vec![Reached::default(); Mark::ALL.len()]);
    let work = || {
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ended = run.run();
            if let Some(failure) = &ended.failure {
                let status = report::status(failure.kind);
                let mut failed = failed.lock().expect("no thread panics while it holds it");
                failed.get_or_insert(status);
                let (seed, repeat) = run.repeat(arguments);
                arguments.say(&report::failure(seed, failure, &ended));
                arguments.say(&format!("repeat it with: {repeat} --log full"));
            }
            let mut reached = reached
                .lock()
                .expect("no thread panics while it holds them");
            let found = Mark::ALL.iter().zip(reached.iter_mut());
            found
                .filter(|(mark, _)| ended.marks.has(**mark))
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
    let mut never: u64 = 0;
    for (mark, reached) in Mark::ALL.iter().zip(&reached) {
        let (nothing, shows) = (reached.is_nothing(), mark.shows());
        never += u64::from(nothing);
        if nothing {
            arguments.say(&format!("{mark:?}: NEVER REACHED. {shows}"));
        } else {
            arguments.say(&format!("{mark:?}: {}. {shows}", reached.by(count)));
        }
        arguments.say_json(|| {
            json!({
                "type": "mark",
                "mark": format!("{mark:?}"),
                "shows": shows,
                "scenarios": reached.scenarios,
                "cluster_seeds": reached.clusters,
                "solo_seeds": reached.solo,
            })
        });
    }
    let failed = failed.into_inner().expect("all threads are done");
    let outcome = failed.map_or("all passed", |_| "some FAILED");
    let marks = Mark::ALL.len();
    arguments.say(&format!(
        "{} runs in {} s, {outcome}; {never} of {marks} marks never reached; first seed {first:#x}",
        runs.len(),
        start.elapsed().as_secs(),
    ));
    let missed = if never == 0 { 0 } else { report::NOT_REACHED };
    failed.unwrap_or(missed)
}
