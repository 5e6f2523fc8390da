//! The command line.

use daftari::stdx::planted::Bug;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use vopr::seed::Setup;
use vopr::seed::cuts::Cuts;

/// What `--help` prints.
pub(super) const HELP: &str = "\
usage: cargo vopr [options]

What is run:
  --cluster             clusters of several replicas instead of a single one
  --seed N              one seed (decimal, or hexadecimal with 0x)
  --minutes M           fresh seeds for so long; 1 by default
  --seeds N             so many seeds instead
  --first-seed N        count seeds from here instead of the time of day
  --marks               every scenario, and seeds of both kinds (200 each, or --seeds): which rare branches
                        they reach, and by what; one that nothing reaches is a failure
  --lite                a few short seeds, to see that all is in place
  --scenario NAME       a directed scenario, or a family by its letter, or all; with 20 seeds from 0 on
  --list                print every directed scenario, with what it shows
  --jobs J              threads; as many as processors by default
  --check-determinism   run each seed twice and compare the hashes of all events
  --bug NAME            plant a bug
  --mutants             plant each bug in turn; each has to be found within 200 seeds, or by its
                        scenario (with --cluster)
  --list-bugs           print their names

What is left out of a seed:
  --replicas R          clusters of so many (with --cluster)
  --clients N           at most so many clients
  --requests N          at most so many requests
  --without FAMILIES    no faults of these families: crash, tear, disk-loss, disk-stall, disk-spell, rot,
                        rot-block, misread, astray, pause, freeze, clock, partition, frame-lost,
                        frame-replayed, garbage, client-crash
  --skip LIST           veto faults by their index in the run: 3,17-20,40-

What comes of it:
  --minimise            look for less of the seed that fails in the same way (with --seed; what fails
                        first of many seeds is minimised anyway)
  --minimise-minutes M  for so long at most; 10 by default, 0 for not at all
  --timeline FILE       write a page that shows what happened (with --seed or one --scenario)
  --timeline-events N   keep the newest N messages for it; 250000 by default
  --json                one line of JSON for each run and one for all on stdout; the rest on stderr
  --log full            print every event (with --seed)
  --until EVENT         stop before this event, and look no further (with --seed or one --scenario)

Exit status, of the first failure:
  0  all passed
  1  an invariant does not hold (I01 to I28, scrub)
  2  the command line is wrong, or a file cannot be written
  3  liveness: something does not happen in time
  4  panic: an assertion of the server or of the simulator
  5  fatal: a replica stopped by itself
  6  nondeterminism: two runs of a seed differ
  7  scenario: what a directed scenario sets up or expects does not come about
  8  a planted bug was not found
  9  a rare branch was not reached
  10 more than 2 % of the clusters had to stand still, with a proof

Examples:
  cargo vopr --cluster --minutes 10
  cargo vopr --cluster --seed 0x2a --timeline seed.html
  cargo vopr --scenario V13 --seed 3 --timeline V13.html
  cargo vopr --cluster --bug NackLost --seeds 50
  cargo vopr --cluster --seed 0x2a --bug NackLost --minimise
  cargo vopr --cluster --lite --json | tail -1";

/// See [`HELP`].
#[derive(Clone, Debug)]
pub(super) struct Arguments {
    pub(super) cluster: bool,
    pub(super) seed: Option<u64>,
    pub(super) time: Duration,
    pub(super) seeds: Option<u64>,
    pub(super) first_seed: Option<u64>,
    pub(super) fresh_seed: u64,
    pub(super) jobs: u64,
    pub(super) check_determinism: bool,
    pub(super) bug: Option<Bug>,
    pub(super) mutants: bool,
    pub(super) list_bugs: bool,
    pub(super) list: bool,
    pub(super) marks: bool,
    pub(super) help: bool,
    pub(super) scenario: Option<String>,
    pub(super) log: bool,
    pub(super) until: Option<u64>,
    pub(super) cuts: Cuts,
    pub(super) minimise: bool,
    pub(super) minimise_time: Duration,
    pub(super) timeline: Option<String>,
    pub(super) timeline_events: usize,
    pub(super) json: bool,
}

/// Seeds of `--lite`, and requests and clients of each.
const LITE: (u64, u64, usize) = (8, 40, 3);

impl Arguments {
    fn new() -> Result<Self, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let microseconds = now.map_err(|error| error.to_string())?.as_micros();
        let fresh = u64::try_from(microseconds % (1 << 50)).map_err(|error| error.to_string())?;
        let jobs = std::thread::available_parallelism().map_or(1, |count| count.get());
        Ok(Self {
            cluster: false,
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
            help: false,
            scenario: None,
            log: false,
            until: None,
            cuts: Cuts::default(),
            minimise: false,
            minimise_time: Duration::from_secs(600),
            timeline: None,
            timeline_events: 250_000,
            json: false,
        })
    }

    /// How a seed is run, as far as the command line says.
    pub(super) fn setup(&self, seed: u64) -> Setup {
        Setup {
            seed,
            bug: self.bug,
            log: self.log,
            until: self.until,
            record: self.timeline.as_ref().map(|_| self.timeline_events),
            cuts: self.cuts.clone(),
        }
    }

    fn check(self) -> Result<Self, String> {
        let one = self.seed.is_some() || self.scenario.is_some();
        for (given, name) in [
            (self.timeline.is_some(), "--timeline"),
            (self.minimise, "--minimise"),
            (self.until.is_some(), "--until"),
        ] {
            if given && (!one || self.mutants) {
                return Err(format!("{name} needs --seed"));
            }
        }
        if self.marks && (self.bug.is_some() || self.cuts != Cuts::default()) {
            return Err("--marks runs everything as it is".into());
        }
        if self.minimise && self.scenario.is_some() {
            return Err("--minimise is for seeds: a scenario is small as it is".into());
        }
        if self.scenario.is_some() && self.cuts != Cuts::default() {
            return Err("nothing is left out of a scenario".into());
        }
        Ok(self)
    }
}

/// Reads a command line.
pub(super) fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments::new()?;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let cuts = &mut arguments.cuts;
        match word.as_str() {
            "--help" | "-h" => arguments.help = true,
            "--cluster" => arguments.cluster = true,
            "--replicas" => cuts.replicas = Some(replicas(&value()?)?),
            "--clients" => cuts.clients = Some(at_least_one(&value()?)?),
            "--requests" => cuts.requests = Some(at_least_one(&value()?)?),
            "--without" => {
                for name in value()?.split(',') {
                    cuts.without.insert(name.parse()?);
                }
            }
            "--skip" => cuts.skip = value()?.parse()?,
            "--seed" => arguments.seed = Some(number(&value()?)?),
            "--minutes" => arguments.time = Duration::from_secs(60 * number(&value()?)?),
            "--seeds" => arguments.seeds = Some(number(&value()?)?),
            "--first-seed" => arguments.first_seed = Some(number(&value()?)?),
            "--lite" => {
                let (seeds, requests, clients) = LITE;
                arguments.seeds.get_or_insert(seeds);
                cuts.requests.get_or_insert(requests);
                cuts.clients.get_or_insert(clients);
            }
            "--marks" => arguments.marks = true,
            "--list" => arguments.list = true,
            "--scenario" => arguments.scenario = Some(value()?),
            "--jobs" => arguments.jobs = number(&value()?)?.max(1),
            "--check-determinism" => arguments.check_determinism = true,
            "--bug" => arguments.bug = Some(bug(&value()?)?),
            "--mutants" => arguments.mutants = true,
            "--list-bugs" => arguments.list_bugs = true,
            "--minimise" => arguments.minimise = true,
            "--minimise-minutes" => {
                arguments.minimise_time = Duration::from_secs(60 * number(&value()?)?);
            }
            "--timeline" => arguments.timeline = Some(value()?),
            "--timeline-events" => arguments.timeline_events = at_least_one(&value()?)?,
            "--json" => arguments.json = true,
            "--log" => arguments.log = value()? == "full",
            "--until" => arguments.until = Some(at_least_one(&value()?)?),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    arguments.check()
}

fn replicas(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ 1..=6) => Ok(count),
        Ok(_) | Err(_) => Err(format!("{text}: a cluster has 1 to 6 replicas")),
    }
}

fn at_least_one<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(count) if count >= T::from(1) => Ok(count),
        Ok(_) | Err(_) => Err(format!("{text}: a number from 1 on is needed")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("{text}: {error}"))
}

/// Every bug that can be planted.
pub(super) fn all_bugs() -> impl Iterator<Item = &'static Bug> {
    let clusters = Bug::OF_CLUSTERS.iter().chain(Bug::OF_SCENARIOS);
    Bug::ALL.iter().chain(clusters)
}

fn bug(name: &str) -> Result<Bug, String> {
    let found = all_bugs().find(|bug| format!("{bug:?}") == name);
    found
        .copied()
        .ok_or_else(|| format!("no bug is called {name}; see --list-bugs"))
}
