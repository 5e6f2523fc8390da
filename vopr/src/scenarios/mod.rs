//! Directed scenarios: a cluster of real replicas in calm weather, and a script that says what fails when.
//!
//! A script waits for something to happen, acts, and checks what the wire and the platters show; it never
//! asks a replica. It also checks that what it sets up did come about: a scenario whose set-up did not
//! occur fails. When it is through, everything is healed, and the run ends as all runs do: the replicas
//! come to one state, and all that was ever sent is read back, with all checks of [`crate::cluster`].
//!
//! Names and purposes are those of the project's fault specification; where the protocol works in another
//! way than that assumes, the line of the scenario says what it does instead.

mod checkpoint;
mod clocks;
mod duplicates;
mod grid;
mod heads;
mod journal;
mod logs;
mod losses;
mod normal;
mod partitions;
mod queues;
mod rare;
mod releases;
mod replies;
pub mod script;
mod solo;
mod standbys;
mod steps;
mod superblock;
mod sync;
mod views;

use crate::cluster::options::Options;
use crate::cluster::{Outcome, Play, run};
use crate::seed::Setup;
use daftari::stdx::planted::Bug;
use script::Script;

/// Seeds that each scenario is run with, unless told otherwise.
pub const SEEDS: u64 = 20;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its number in the specification.
    pub id: &'static str,
    /// What it is about.
    pub name: &'static str,
    /// What it shows, in a line.
    pub shows: &'static str,
    /// Numbers of replicas, which the seeds take in turn.
    replicas: &'static [u8],
    play: fn(Script) -> Play,
    tune: fn(&mut Options),
}

impl Scenario {
    /// A scenario for three replicas.
    const fn new(
        id: &'static str,
        name: &'static str,
        shows: &'static str,
        play: fn(Script) -> Play,
    ) -> Self {
        Self {
            id,
            name,
            shows,
            replicas: &[3],
            play,
            tune: |_| {},
        }
    }

    /// The same for other numbers of replicas.
    const fn of(mut self, replicas: &'static [u8]) -> Self {
        self.replicas = replicas;
        self
    }

    /// The same with other options.
    const fn tuned(mut self, tune: fn(&mut Options)) -> Self {
        self.tune = tune;
        self
    }

    /// Number and name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}", self.id, self.name)
    }

    /// Runs it with a seed on this thread.
    #[must_use]
    pub fn run(&self, setup: &Setup) -> Outcome {
        let seed = setup.seed;
        let count = u64::try_from(self.replicas.len()).expect("a few");
        let index = usize::try_from(seed % count).expect("a few");
        let mut options = Options::calm(seed, self.replicas[index]);
        (self.tune)(&mut options);
        run(setup, options, Some((self.play)(Script)))
    }
}

/// The scenario that shows a bug of [`Bug::OF_SCENARIOS`].
///
/// # Panics
/// When there is none.
#[must_use]
pub fn of_bug(bug: Bug) -> &'static Scenario {
    let id = MUTANTS.iter().find(|(other, _)| *other == bug);
    let (_, id) = id.expect("each bug of scenarios has one");
    named(id)[0]
}

/// Bugs, and the scenarios that show them.
const MUTANTS: &[(Bug, &str)] = &[
    (Bug::LeaveStaleCopies, "B02"),
    (Bug::TakeOldCopy, "W12"),
    (Bug::ExcuseAllDamage, "W07"),
    (Bug::TellCheckpointEarly, "S09"),
    (Bug::PreferLongerLog, "V19"),
    (Bug::NeverGiveUp, "P10"),
    (Bug::EnterViewAlone, "P02"),
    (Bug::TellUnstartedView, "D05"),
    (Bug::TakeStaleStart, "V14"),
    (Bug::AlwaysCertain, "V13"),
    (Bug::CopiesInOrder, "B03"),
    (Bug::AskPrimaryOnly, "W18"),
    (Bug::ForgetUnread, "V16"),
    (Bug::TrustCopyIndex, "B06"),
    (Bug::CommitAcrossViews, "T03"),
    (Bug::TrustCheckpointId, "K06"),
    (Bug::OpenAnyRelease, "U07"),
    (Bug::HearOwnReleaseOnly, "U03"),
    (Bug::TrustOlderCopy, "F05"),
    (Bug::DenyForgotten, "F05"),
];

/// All of them, by family.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        normal::ALL,
        views::ALL,
        logs::ALL,
        heads::ALL,
        partitions::ALL,
        queues::ALL,
        duplicates::ALL,
        replies::ALL,
        journal::ALL,
        sync::ALL,
        checkpoint::ALL,
        grid::ALL,
        superblock::ALL,
        clocks::ALL,
        releases::ALL,
        solo::ALL,
        losses::ALL,
        rare::ALL,
        standbys::ALL,
    ]
    .into_iter()
    .flatten()
}

/// Those that a word names: a number, a name, the letter of a family, or `all`.
#[must_use]
pub fn named(word: &str) -> Vec<&'static Scenario> {
    let family = |id: &str| word.len() == 1 && id.starts_with(word);
    let meant = |scenario: &&Scenario| {
        word == "all" || word == scenario.id || word == scenario.name || family(scenario.id)
    };
    all().filter(meant).collect()
}
