//! The scrubber finds what rots while the server serves, and says nothing of a file that is whole.

use crate::util::{Directory, Server, accounts, block_on, flip, format, free_port, inspect};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tigerbeetle as tb;

/// Creates transfers for a few checkpoints of 64 slots.
fn load(server: &Server, first: u128) {
    let client = tb::Client::new(0, &server.address()).expect("the address is right");
    let accounts = accounts([1, 2]);
    let _created = block_on(client.create_accounts(&accounts)).expect("the server answers");
    for batch in 0..100 {
        let transfers: Vec<tb::Transfer> = (0..1000)
            .map(|number| tb::Transfer {
                id: first + batch * 1000 + number,
                debit_account_id: 1,
                credit_account_id: 2,
                amount: 1,
                ledger: 1,
                code: 1,
                ..Default::default()
            })
            .collect();
        let results = block_on(client.create_transfers(&transfers)).expect("the server answers");
        assert_eq!(results.len(), 1000);
    }
}

/// Waits until the log of all servers of the file has a text; gives how long it took.
fn wait_for(server: &Server, text: &str) -> Duration {
    let started = Instant::now();
    while !server.log().contains(text) {
        assert!(
            started.elapsed() < Duration::from_secs(15),
            "no '{text}' in time:\n{}",
            server.log()
        );
        thread::sleep(Duration::from_millis(20));
    }
    started.elapsed()
}

/// The first full block of events: the start does not read it, and nobody asks for them.
fn cold_block(file: &Path) -> u64 {
    let manifest = inspect(file, "manifest");
    let rows = manifest["manifest"].as_array().expect("a table");
    let block = rows.iter().find(|row| row["name"] == "events");
    block.expect("there are events")["address"]
        .as_u64()
        .expect("a number")
}

#[test]
fn a_flipped_bit_is_reported_within_the_period_and_the_server_goes_on() {
    let directory = Directory::new("scrub");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let server = Server::start(&file, free_port(), &["--limit-memory=1GiB"]);
    load(&server, 1);
    assert!(server.terminate().0.success());
    let address = cold_block(&file);
    flip(&file, address, 3 * 4096 + 100);

    let start = ["--limit-memory=1GiB", "--scrub-period=5s"];
    let server = Server::start(&file, free_port(), &start);
    let took = wait_for(&server, "scrub: a block is damaged: page 3 is damaged");
    assert!(took < Duration::from_secs(6), "{took:?}");
    let log = server.log();
    let line = log.lines().find(|line| line.contains("scrub: a block"));
    let line = line.expect("it is there");
    for part in [format!("block={address} "), "name=\"events\"".into()] {
        assert!(line.contains(&part), "{line}");
    }
    wait_for(&server, "damaged=1");
    load(&server, 1 << 40);
    assert!(server.terminate().0.success());
}

#[test]
fn a_whole_file_under_load_is_toured_without_a_report() {
    let directory = Directory::new("scrub-whole");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    let start = ["--limit-memory=1GiB", "--scrub-period=500ms"];
    let server = Server::start(&file, free_port(), &start);
    for round in 0..5 {
        load(&server, 1 + (round << 40));
    }
    wait_for(&server, "scrub: a tour");
    let log = server.log();
    assert!(!log.contains("is damaged"), "{log}");
    let tours = log.lines().filter(|line| line.contains("scrub: a tour"));
    assert!(tours.count() > 1, "{log}");
    assert!(server.terminate().0.success());
}
