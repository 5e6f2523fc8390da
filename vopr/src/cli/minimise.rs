//! The command line of minimisation: a failure is made small, and what is left of it printed.

use super::arguments::Arguments;
use super::report;
use std::time::Instant;
use vopr::seed::cuts::Cuts;
use vopr::seed::minimise::minimise;
use vopr::seed::{Ended, Setup};
use vopr::sim::verdict::Failure;

/// Faults that are printed at most.
const FAULTS_MAX: usize = 40;

/// Minimises the failure of a seed, and prints the command line that repeats what is left.
pub(super) fn run(seed: u64, (failure, ended): (&Failure, &Ended), arguments: &Arguments) {
    let start = Instant::now();
    let setup = |cuts: &Cuts| Setup {
        cuts: cuts.clone(),
        ..Setup::new(seed, arguments.bug)
    };
    arguments.say(&format!(
        "minimising seed {seed:#x}, for {} minutes at most",
        arguments.minimise_time.as_secs() / 60
    ));
    let found = minimise(
        (arguments.cuts.clone(), ended.clone()),
        failure,
        &mut |cuts| super::run_seed(&setup(cuts), arguments).ended,
        &mut || start.elapsed() < arguments.minimise_time,
    );
    let milliseconds = |ended: &Ended| ended.time / 1_000_000;
    let (before, after) = (ended, &found.ended);
    arguments.say(&format!(
        "minimised in {} s and {} runs{}: replicas {} -> {}, clients {} -> {}, requests {} -> {}, \
         faults {} -> {}, events {} -> {}, simulated {} -> {} ms",
        start.elapsed().as_secs(),
        found.runs,
        if found.complete { "" } else { " (time is up)" },
        before.replicas,
        after.replicas,
        before.clients,
        after.clients,
        before.requests,
        after.requests,
        before.faults.fired().len(),
        after.faults.fired().len(),
        before.hash.events(),
        after.hash.events(),
        milliseconds(before),
        milliseconds(after),
    ));
    // Once more, to know what is left, and that it fails again.
    let again = Setup {
        record: Some(arguments.timeline_events),
        ..setup(&found.cuts)
    };
    let again = super::run_seed(&again, arguments).ended;
    let what = again.failure.as_ref();
    let what = what.map_or("nothing fails: the seed is not deterministic", |it| {
        &it.what
    });
    arguments.say(&format!("  {what}"));
    let recording = again.recording.as_ref();
    let faults = recording
        .into_iter()
        .flat_map(|recording| recording.faults());
    for fault in faults.take(FAULTS_MAX) {
        let (at, text) = (fault.at / 1_000_000, &fault.text);
        arguments.say(&format!("  {at} ms: {text}"));
    }
    let command = report::repeat(seed, &found.cuts, arguments);
    arguments.say(&format!("repeat it with: {command} --log full"));
}
