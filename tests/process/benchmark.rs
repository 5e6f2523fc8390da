//! `daftari benchmark` on a server of its own: what it prints, and what it refuses.

use crate::util::{Directory, Server, format, free_port, run, text};
use std::process::Output;

/// The value of the line `name = value unit`, as a number without its decimals.
fn value(output: &Output, name: &str) -> u64 {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let rest = stdout
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    let Some(rest) = rest else {
        panic!("no line '{name}' in:\n{stdout}")
    };
    let whole = rest.split(['.', ' ']).next().expect("split gives a part");
    whole
        .parse()
        .unwrap_or_else(|_| panic!("{name} = {rest} in:\n{stdout}"))
}

#[test]
fn two_phases_a_crash_and_queries_are_measured() {
    let directory = Directory::new("benchmark");
    let file = directory.file("0.daftari");
    let file_option = format!("--file={}", file.display());
    let output = run(&[
        "benchmark",
        &file_option,
        "--account-count=500",
        "--account-distribution=hot",
        "--transfer-count=21_000",
        "--transfer-batch-size=20",
        "--clients=2",
        "--window=10_000",
        "--two-phase",
        "--two-phase-distance=3",
        "--query-count=20",
        "--history",
        "--kill",
        "--validate",
        "--limit-memory=1GiB",
        "--server-arg=--network-cores=1",
    ]);
    assert!(output.status.success(), "{}", text(&output));
    let stdout = text(&output);
    // As many that post as are pending, and ops enough for a checkpoint of the default journal.
    assert!(stdout.contains("2100 batches in "), "{stdout}");
    assert!(stdout.contains("validated 42000 transfers"), "{stdout}");
    assert!(stdout.contains("20 queries in "), "{stdout}");
    assert_eq!(value(&output, "windows"), 4);
    for name in [
        "load accepted",
        "window second",
        "window last",
        "window last / second",
        "batch latency p100 / p50",
        "load memory peak",
        "load memory sampled",
        "start after a crash",
        "start after a stop",
        "rss",
        "datafile growth per transfer",
    ] {
        assert!(value(&output, name) > 0, "{name}: {stdout}");
    }
    for series in [
        "account history, cold",
        "account history, warm",
        "account balances, cold",
        "account balances, warm",
    ] {
        let p50 = value(&output, &format!("{series} p50"));
        let p99 = value(&output, &format!("{series} p99"));
        assert!(p50 <= p99 && p99 <= value(&output, &format!("{series} max")));
        assert!(value(&output, &format!("{series} results")) > 0, "{stdout}");
    }
    // Each transfer is a record of 128 bytes at least, in the journal and in the end in the grid.
    assert!(value(&output, "bytes written per transfer") >= 128);
    assert!(value(&output, "transfers in the checkpoint") > 0);
    assert!(value(&output, "live bytes per transfer") >= 128);
    assert!(file.exists(), "--file keeps it");
}

#[test]
fn a_server_that_runs_already_is_loaded_without_restarts() {
    let directory = Directory::new("benchmark-remote");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let server = Server::start(&file, free_port(), &["--limit-memory=1GiB"]);
    let addresses = format!("--addresses={}", server.address());
    let output = run(&[
        "benchmark",
        &addresses,
        "--account-count=10",
        "--transfer-count=1000",
        "--two-phase",
        "--two-phase-distance=all",
        "--query-count=5",
    ]);
    assert!(output.status.success(), "{}", text(&output));
    // Each account takes part in a fifth of the transfers, and of those that post them.
    assert!(value(&output, "account history results") > 100);
    let stdout = text(&output);
    assert!(stdout.contains("window second = unknown"), "{stdout}");
    for absent in ["cold", "start after", "bytes written", "balances"] {
        assert!(!stdout.contains(absent), "{absent}: {stdout}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (arguments, word) in [
        (&["--kill", "--addresses=3000"][..], "--kill"),
        (
            &["--two-phase", "--transfer-pending"],
            "leaves transfers pending",
        ),
        (&["--two-phase-distance=2"], "--two-phase"),
        (&["--window=5"], "has to hold a batch"),
        (&["--server-arg=--addresses=1"], "chooses the address"),
    ] {
        let output = run(&[&["benchmark"], arguments].concat());
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(word), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    // What only the server knows to be wrong.
    let directory = Directory::new("benchmark-refused");
    let file = format!("--file={}", directory.file("0.daftari").display());
    let output = run(&["benchmark", &file, "--server-arg=--no-such-option"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("check --server-arg"), "{text}");
}
