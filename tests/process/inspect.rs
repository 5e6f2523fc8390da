//! `daftari inspect` on files that a server wrote: whole, after SIGKILL, and damaged on purpose.

use crate::util::{
    Directory, Server, accounts, block_on, flip, format, free_port, inspect, run, text,
};
use daftari::ledger::catalog::tree;
use std::path::Path;
use tigerbeetle as tb;

const BATCH: u128 = 8189;

/// Creates accounts, and so many batches of transfers with ids in no order.
fn load(server: &Server, batches: u128) {
    let client = tb::Client::new(0, &server.address()).expect("the address is right");
    let accounts = accounts(1..=100);
    let results = block_on(client.create_accounts(&accounts)).expect("the server answers");
    assert_eq!(results.len(), 100);
    for batch in 0..batches {
        let transfers: Vec<tb::Transfer> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|number| tb::Transfer {
                id: 1 + (number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 1),
                debit_account_id: 1 + number % 100,
                credit_account_id: 1 + (number + 1) % 100,
                amount: 1,
                user_data_64: u64::try_from(number % 977).expect("small"),
                ledger: 1,
                code: 1,
                ..Default::default()
            })
            .collect();
        let results = block_on(client.create_transfers(&transfers)).expect("the server answers");
        assert_eq!(results.len(), transfers.len());
    }
}

fn whole(file: &Path) {
    let output = run(&["inspect", "integrity", file.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("whole"), "{}", text(&output));
}

#[test]
fn a_file_that_was_killed_is_whole_and_a_damaged_run_is_named() {
    let directory = Directory::new("inspect");
    let file = directory.file("0.daftari");
    // A checkpoint every 24 ops: the last one has a run that eight bars made.
    format(&file, &["--development", "--journal-slots=48"]);
    let server = Server::start(&file, free_port(), &["--limit-memory=1GiB"]);
    load(&server, 75);
    server.kill();
    whole(&file);

    let trees = inspect(&file, "trees");
    let ids = &trees["trees"][11];
    assert_eq!(ids["name"], "transfer_ids");
    assert!(ids["entries"].as_u64().expect("a number") > 0, "{trees}");
    let tables = inspect(&file, "tables");
    let transfers = tables["tables"][1]["records"].as_u64().expect("a number");
    assert!(transfers > 200_000, "{tables}");

    let manifest = inspect(&file, "manifest");
    let rows = manifest["manifest"].as_array().expect("a table");
    let block = rows
        .iter()
        .find(|row| row["kind"] == "run_block" && row["number"] == tree::TRANSFER_IDS)
        .expect("so many ids make runs");
    let address = block["address"].as_u64().expect("a number");
    flip(&file, address, 2 * 4096 + 5);
    let output = run(&["inspect", "integrity", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let expected = format!("block {address}: page 2 is damaged (transfer_ids)");
    assert!(text(&output).contains(&expected), "{}", text(&output));
}
