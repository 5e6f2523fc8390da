//! How runs are reported: a line for a failure, a line of JSON for a run, and the exit status.

use super::arguments::Arguments;
use serde_json::{Value, json};
use vopr::seed::Ended;
use vopr::seed::cuts::Cuts;
use vopr::sim::verdict::Failure;

/// The commit that the source of this binary is at, with `-dirty` if it has changed since.
pub(super) fn commit() -> String {
    let output = std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(_) | Err(_) => "unknown".into(),
    }
}

/// The exit status of a kind of failure.
pub(super) fn status(kind: &str) -> u8 {
    match kind {
        "liveness" => 3,
        "panic" => 4,
        "fatal" => 5,
        "nondeterminism" => 6,
        "scenario" => 7,
        _ => 1,
    }
}

/// The exit status when a planted bug was not found.
pub(super) const NOT_FOUND: u8 = 8;

/// The exit status when a rare branch was not reached.
pub(super) const NOT_REACHED: u8 = 9;
/// The exit status when too many clusters had to stand still.
pub(super) const UNAVAILABLE: u8 = 10;

/// Nanoseconds as seconds, to the microsecond.
fn seconds(time: u64) -> String {
    format!("{}.{:06}", time / 1_000_000_000, time / 1_000 % 1_000_000)
}

/// The failure of a run in a line, and what was seen in another.
pub(super) fn failure(seed: u64, failure: &Failure, ended: &Ended) -> String {
    format!(
        "vopr FAIL kind={} seed={seed:#x} commit={} config={:08x} op={} time={} event={}\n  {}",
        failure.kind,
        commit(),
        ended.config,
        ended.op,
        seconds(ended.time),
        ended.hash.events(),
        failure.what,
    )
}

/// The command line that repeats a seed.
pub(super) fn repeat(seed: u64, cuts: &Cuts, arguments: &Arguments) -> String {
    let cluster = if arguments.cluster { " --cluster" } else { "" };
    let bug = arguments.bug;
    let bug = bug.map_or(String::new(), |bug| format!(" --bug {bug:?}"));
    format!("cargo vopr{cluster} --seed {seed:#x}{bug}{cuts}")
}

/// The same of a scenario.
pub(super) fn repeat_scenario(id: &str, seed: u64, arguments: &Arguments) -> String {
    let bug = arguments.bug;
    let bug = bug.map_or(String::new(), |bug| format!(" --bug {bug:?}"));
    format!("cargo vopr --scenario {id} --seed {seed:#x}{bug}")
}

/// A decimal number of JSON: so many thousandths.
pub(super) fn thousandths(number: u64) -> Value {
    let text = format!("{}.{:03}", number / 1000, number % 1000);
    json!(text.parse::<f64>().ok())
}

/// A run as JSON, of a seed or of a scenario with a seed.
pub(super) fn json(seed: u64, scenario: Option<&str>, repeat: &str, ended: &Ended) -> Value {
    let faults = ended.faults.by_family();
    let faults = faults.filter(|(_, count)| *count > 0);
    let faults: serde_json::Map<String, Value> = faults
        .map(|(family, count)| (family.name().to_owned(), json!(count)))
        .collect();
    let failure = ended.failure.as_ref().map(|failure| {
        json!({
            "kind": failure.kind,
            "what": failure.what,
            "status": status(failure.kind),
        })
    });
    json!({
        "type": if scenario.is_some() { "scenario" } else { "seed" },
        "scenario": scenario,
        "seed": format!("{seed:#x}"),
        "outcome": if failure.is_some() { "failed" } else { "passed" },
        "failure": failure,
        "unavailable": ended.unavailable,
        "replicas": ended.replicas,
        "standbys": ended.standbys,
        "clients": ended.clients,
        "requests": ended.requests,
        "ops": ended.op,
        "events": ended.hash.events(),
        "hash": format!("{:032x}", ended.hash.value()),
        "config": format!("{:08x}", ended.config),
        "simulated_seconds": thousandths(ended.time / 1_000_000),
        "faults": faults,
        "repeat": repeat,
    })
}
