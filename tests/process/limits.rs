//! Limits that were set are kept, and reaching one refuses writes and nothing else.

use crate::raw::Raw;
use crate::util::{Directory, Server, accounts, block_on, format, free_port};
use std::path::Path;
use std::time::Duration;
use tb::CreateTransferStatus;
use tigerbeetle as tb;

const BATCH: u128 = 8189;
/// Batches after which a limit has to be reached, whatever a transfer costs.
const BATCHES_MAX: u128 = 400;

fn connect(server: &Server) -> tb::Client {
    tb::Client::new(0, &server.address()).expect("the address is right")
}

fn transfers(batch: u128) -> Vec<tb::Transfer> {
    (batch * BATCH..(batch + 1) * BATCH)
        .map(|number| tb::Transfer {
            id: number + 1,
            debit_account_id: 1 + number % 2,
            credit_account_id: 2 - number % 2,
            amount: 1,
            user_data_64: 5,
            ledger: 1,
            code: 1,
            ..Default::default()
        })
        .collect()
}

/// Creates two accounts, and transfers until the server refuses or there are so many batches; gives
/// their number.
fn fill(server: &Server, most: u128) -> u128 {
    let client = connect(server);
    let accounts = accounts([1, 2]);
    let results = block_on(client.create_accounts(&accounts)).expect("there is room for accounts");
    assert_eq!(results.len(), 2);
    for batch in 0..most {
        match block_on(client.create_transfers(&transfers(batch))) {
            Ok(results) => {
                for result in results {
                    assert_eq!(result.status, CreateTransferStatus::Created);
                }
            }
            Err(error) => {
                assert_eq!(error, tb::Error::ClientEvicted);
                return batch;
            }
        }
    }
    block_on(client.close()).expect("it closes");
    most
}

/// Creates accounts until the server refuses while it is at rest: what an op leaves to do takes memory
/// until it is done, and a new client's registration comes after that.
fn fill_with_accounts(server: &Server) {
    let mut client = connect(server);
    let mut created = 0;
    for batch in 1..=BATCHES_MAX {
        let accounts = accounts(batch * BATCH..(batch + 1) * BATCH);
        match block_on(client.create_accounts(&accounts)) {
            Ok(results) => {
                assert_eq!(results.len(), accounts.len());
                created += 1;
            }
            Err(error) => {
                assert_eq!(error, tb::Error::ClientEvicted);
                if created == 0 {
                    return;
                }
                client = connect(server);
                created = 0;
            }
        }
    }
    panic!("the limit was never reached");
}

/// Everything that was acknowledged is there, and nothing else.
fn verify(server: &Server, batches: u128) {
    let client = connect(server);
    for batch in 0..=batches {
        let ids: Vec<u128> = (batch * BATCH + 1..=(batch + 1) * BATCH).collect();
        let found = block_on(client.lookup_transfers(&ids)).expect("lookups are served");
        assert_eq!(found.len(), if batch < batches { ids.len() } else { 0 });
    }
    let found = block_on(client.lookup_accounts(&[1, 2])).expect("lookups are served");
    let total: u128 = found.iter().map(|account| account.debits_posted).sum();
    assert_eq!(total, batches * BATCH);
    let query = tb::QueryFilter {
        user_data_64: 5,
        limit: 100,
        ..Default::default()
    };
    let found = block_on(client.query_transfers(query)).expect("queries are served");
    assert_eq!(found.len(), 100);
    block_on(client.close()).expect("it closes");
}

/// The process takes no more memory than it said at the start.
fn within_bound(server: &Server) {
    let log = server.log();
    let said = log.split("total=").nth(1).expect("the log has the bound");
    let digits = said.split(|c: char| !c.is_ascii_digit()).next();
    let bound: u64 = digits
        .and_then(|digits| digits.parse().ok())
        .expect("the bound is a number");
    let resident = server.resident();
    assert!(resident > 0 && resident <= bound, "{resident} of {bound}");
}

/// Fills a server of a new file, with `fill`, which gives the number of batches of transfers.
fn refuses_when_full(
    file: &Path,
    start: &[&str],
    word: &str,
    fill: impl FnOnce(&Server) -> u128,
) -> u128 {
    let port = free_port();
    let server = Server::start(file, port, start);
    let batches = fill(&server);
    assert!(batches > 0, "not even one batch fitted");
    assert!(
        server.log().contains(word),
        "the log does not name {word}:\n{}",
        server.log()
    );
    verify(&server, batches);
    within_bound(&server);
    server.kill();
    let server = Server::start(file, port, start);
    verify(&server, batches);
    // Still full.
    let client = connect(&server);
    let refused = block_on(client.create_transfers(&transfers(batches)));
    assert_eq!(refused.err(), Some(tb::Error::ClientEvicted));
    verify(&server, batches);
    within_bound(&server);
    let (status, _) = server.terminate();
    assert!(status.success());
    batches
}

#[test]
fn a_file_at_its_limit_refuses_to_create_and_loses_nothing() {
    let directory = Directory::new("full-file");
    let file = directory.file("0.daftari");
    format(&file, &["--development", "--limit-storage=224MiB"]);
    let start = ["--limit-memory=2GiB"];
    let _batches = refuses_when_full(&file, &start, "--limit-storage", |server| {
        fill(server, BATCHES_MAX)
    });
    let size = std::fs::metadata(&file).expect("it is there").len();
    assert!(size <= 224 << 20, "the file has {size} bytes");
}

/// A filesystem of its own in a file, so that it can be filled; `None` where that is not allowed.
struct Filesystem(std::path::PathBuf);

impl Filesystem {
    fn new(directory: &Directory, size: u64) -> Option<Self> {
        let image = directory.file("image");
        let mounted = directory.file("mounted");
        std::fs::create_dir(&mounted).expect("the directory is writable");
        let file = std::fs::File::create(&image).expect("the directory is writable");
        file.set_len(size).expect("a file may have holes");
        let done = |program: &str, arguments: &[&std::ffi::OsStr]| {
            let output = std::process::Command::new(program).args(arguments).output();
            output.is_ok_and(|output| output.status.success())
        };
        let made = done(
            "mkfs.ext4",
            &["-q".as_ref(), "-m0".as_ref(), image.as_ref()],
        );
        let options = [
            "-o".as_ref(),
            "loop".as_ref(),
            image.as_ref(),
            mounted.as_ref(),
        ];
        (made && done("mount", &options)).then_some(Self(mounted))
    }
}

impl Drop for Filesystem {
    fn drop(&mut self) {
        drop(
            std::process::Command::new("umount")
                .arg("-l")
                .arg(&self.0)
                .status(),
        );
    }
}

/// Needs to mount a filesystem; where that is not allowed, it says so and passes.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is left out has to say so")]
fn a_full_disk_refuses_to_create_until_there_is_room_and_loses_nothing() {
    let directory = Directory::new("full-disk");
    let Some(filesystem) = Filesystem::new(&directory, 400 << 20) else {
        eprintln!("skipped: no permission to mount a filesystem, or no mkfs.ext4");
        return;
    };
    let file = filesystem.0.join("0.daftari");
    let ballast = filesystem.0.join("ballast");
    std::fs::write(&ballast, vec![1; 96 << 20]).expect("there is room yet");
    format(&file, &["--development"]);
    let start = ["--limit-memory=1GiB"];
    let word = "the disk is full: requests that create are refused";
    let batches = refuses_when_full(&file, &start, word, |server| fill(server, BATCHES_MAX));
    let inspected = crate::util::run(&["inspect", "integrity", file.to_str().expect("UTF-8")]);
    assert!(
        inspected.status.success(),
        "{}",
        crate::util::text(&inspected)
    );

    // With room again it goes on, without a restart.
    let server = Server::start(&file, free_port(), &start);
    let refused = block_on(connect(&server).create_transfers(&transfers(batches)));
    assert_eq!(refused.err(), Some(tb::Error::ClientEvicted));
    std::fs::remove_file(&ballast).expect("it is there");
    let started = std::time::Instant::now();
    let results = loop {
        match block_on(connect(&server).create_transfers(&transfers(batches))) {
            Ok(results) => break results,
            Err(error) => assert_eq!(error, tb::Error::ClientEvicted),
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{}",
            server.log()
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(results.len(), 8189);
    verify(&server, batches + 1);
    server.kill();
    let server = Server::start(&file, free_port(), &start);
    verify(&server, batches + 1);
    let (status, _) = server.terminate();
    assert!(status.success());
}

#[test]
fn a_ledger_at_its_memory_limit_refuses_to_create_and_loses_nothing() {
    let directory = Directory::new("full-memory");
    let file = directory.file("0.daftari");
    format(&file, &["--development"]);
    // Of each account there are a few bytes in memory, whatever the caches hold.
    let start = [
        "--limit-memory=512MiB",
        "--cache-size=64MiB",
        "--account-cache-size=24MiB",
    ];
    let batches = refuses_when_full(&file, &start, "--limit-memory", |server| {
        let batches = fill(server, 10);
        fill_with_accounts(server);
        batches
    });
    // With more memory, it goes on where it stopped.
    let server = Server::start(&file, free_port(), &["--limit-memory=1GiB"]);
    let client = connect(&server);
    let results = block_on(client.create_transfers(&transfers(batches))).expect("there is room");
    assert!(
        results
            .iter()
            .all(|result| result.status == CreateTransferStatus::Created)
    );
    block_on(client.close()).expect("it closes");
    verify(&server, batches + 1);
}

#[test]
fn a_server_for_development_is_small() {
    let directory = Directory::new("memory");
    let file = directory.file("0.daftari");
    let server = Server::start(&file, free_port(), &["--development"]);
    let _raw = Raw::registered(server.port, 7);
    let resident = server.resident();
    assert!(resident < 300 << 20, "{} MiB", resident >> 20);
}

#[test]
fn sigterm_ends_the_server_and_a_restart_finds_everything() {
    let directory = Directory::new("sigterm");
    let file = directory.file("0.daftari");
    let port = free_port();
    let server = Server::start(&file, port, &["--development"]);
    let client = connect(&server);
    let accounts = accounts([1, 2]);
    let _created = block_on(client.create_accounts(&accounts)).expect("the server answers");
    for batch in 0..10 {
        let results = block_on(client.create_transfers(&transfers(batch)));
        assert_eq!(results.expect("the server answers").len(), 8189);
    }
    let (status, took) = server.terminate();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let server = Server::start(&file, port, &["--development"]);
    verify(&server, 10);
    // The client of before has kept its session, and goes on.
    let results = block_on(client.create_transfers(&transfers(10))).expect("the server answers");
    assert!(
        results
            .iter()
            .all(|result| result.status == CreateTransferStatus::Created)
    );
    block_on(client.close()).expect("it closes");
}
