//! Three replicas as processes, and official clients that know all of them: whoever is killed, all
//! clients go on, nothing that was acknowledged is lost, and nothing happens twice.

#![expect(
    clippy::print_stderr,
    reason = "a failure has to name its seed, and a long run what it measured"
)]

use crate::util::{
    Cluster, PATIENCE, Random, accounts, block_on, free_port, inspect, number_from_environment,
    run, text,
};
use daftari::stdx::SectorBuf;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tb::CreateTransferStatus;
use tigerbeetle as tb;

const CLIENTS: u64 = 8;
/// Transfers of a request.
const BATCH: u64 = 20;
/// Requests that every client gets answered before a test goes on.
const STEP: u64 = 10;
/// Between two requests of a client: replicas share the processors of a small machine.
const PAUSE: Duration = Duration::from_millis(2);

/// Files with a journal that holds what happens while a replica is away.
const LONG: &[&str] = &["--development", "--journal-slots=512"];
/// Files with one that does not.
const SHORT: &[&str] = &["--development", "--journal-slots=64"];

fn connect(addresses: &str) -> tb::Client {
    tb::Client::new(0, addresses).expect("the addresses are right")
}

fn create_accounts(cluster: &Cluster) {
    let client = connect(&cluster.addresses().join(","));
    let results = block_on(client.create_accounts(&accounts([1, 2])));
    assert_eq!(results.expect("the cluster answers").len(), 2);
    block_on(client.close()).expect("it closes");
}

fn id(client: u64, number: u64) -> u128 {
    u128::from(client + 1) << 64 | u128::from(number + 1)
}

fn transfer(client: u64, number: u64) -> tb::Transfer {
    tb::Transfer {
        id: id(client, number),
        debit_account_id: 1,
        credit_account_id: 2,
        amount: 1,
        user_data_64: number,
        ledger: 1,
        code: 1,
        ..Default::default()
    }
}

/// Clients that send one request after the other.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    /// Requests of each client that were answered.
    answered: [AtomicU64; 8],
}

impl Load {
    /// One client: each of its requests is executed once, whoever answers it.
    fn client(&self, index: u64, addresses: &str) {
        let client = connect(addresses);
        let answered = &self.answered[usize::try_from(index).expect("64 bits")];
        while !self.stop.load(Ordering::Relaxed) {
            let first = answered.load(Ordering::Relaxed) * BATCH;
            let transfers: Vec<_> = (first..first + BATCH)
                .map(|number| transfer(index, number))
                .collect();
            let results = block_on(client.create_transfers(&transfers)).expect("it is answered");
            assert_eq!(results.len(), transfers.len());
            for result in results {
                assert_eq!(result.status, CreateTransferStatus::Created);
            }
            let _before = answered.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
        block_on(client.close()).expect("it closes");
    }

    /// How long it takes until every client has got an answer to a request that it sent after this.
    fn silence(&self) -> Duration {
        let started = Instant::now();
        let before = self.answers();
        while !before
            .iter()
            .zip(self.answers())
            .all(|(then, now)| now >= then + 2)
        {
            assert!(started.elapsed() < PATIENCE, "{before:?}");
            thread::sleep(Duration::from_millis(1));
        }
        started.elapsed()
    }

    /// Waits until every client has got some more answers.
    fn goes_on(&self) {
        let started = Instant::now();
        let before = self.answers();
        let goal = |(before, now)| now >= before + STEP;
        while !before.iter().copied().zip(self.answers()).all(goal) {
            let now = self.answers();
            assert!(started.elapsed() < PATIENCE, "{before:?}, and then {now:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a short journal was written all over. Requests of all clients may share a prepare.
    fn laps(&self) {
        (0..64 / STEP + 10).for_each(|_| self.goes_on());
    }

    fn answers(&self) -> Vec<u64> {
        let answered = self.answered.iter();
        answered
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }
}

/// Ends the load, also when the test fails.
struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs `test` while clients load a new cluster of three; then reads everything back.
fn under_load(name: &str, format: &[&str], test: impl FnOnce(&mut Cluster, &Load)) {
    load_cluster(Cluster::start(name, 3, format), test);
}

fn load_cluster(mut cluster: Cluster, test: impl FnOnce(&mut Cluster, &Load)) {
    create_accounts(&cluster);
    let load = Load::default();
    let addresses = cluster.addresses().join(",");
    thread::scope(|scope| {
        let _stop = Stop(&load);
        for index in 0..CLIENTS {
            let (load, addresses) = (&load, &addresses);
            let _thread = scope.spawn(move || load.client(index, addresses));
        }
        load.goes_on();
        test(&mut cluster, &load);
    });
    verify(&addresses, &load.answers());
    cluster.terminate();
}

/// All that was acknowledged is there, and nothing else.
fn verify(addresses: &str, answers: &[u64]) {
    let client = connect(addresses);
    for (index, answers) in (0..).zip(answers) {
        let count = answers * BATCH;
        // The one after the last was never sent.
        let numbers: Vec<u64> = (0..=count).collect();
        let mut timestamp = 0;
        let mut found_count = 0;
        for numbers in numbers.chunks(8000) {
            let ids: Vec<u128> = numbers.iter().map(|number| id(index, *number)).collect();
            let found = block_on(client.lookup_transfers(&ids)).expect("it is answered");
            for found in found {
                assert_eq!((found.id, found.amount), (id(index, found_count), 1));
                assert_eq!(found.user_data_64, found_count);
                assert!(found.timestamp > timestamp);
                timestamp = found.timestamp;
                found_count += 1;
            }
        }
        assert_eq!(found_count, count, "of client {index}");
    }
    let total = u128::from(answers.iter().sum::<u64>() * BATCH);
    let found = block_on(client.lookup_accounts(&[1, 2])).expect("it is answered");
    let posted = found
        .iter()
        .map(|found| (found.debits_posted, found.credits_posted));
    assert!(posted.eq([(total, 0), (0, total)]), "{total}: {found:?}");
    block_on(client.close()).expect("it closes");
}

#[test]
fn three_replicas_serve_whichever_a_client_knows() {
    let cluster = Cluster::start("cluster-serves", 3, SHORT);
    create_accounts(&cluster);
    let mut ways = cluster.addresses();
    ways.push(cluster.addresses().join(","));
    for (index, addresses) in (0..).zip(&ways) {
        let client = connect(addresses);
        let transfers: Vec<_> = (0..BATCH).map(|number| transfer(index, number)).collect();
        let results = block_on(client.create_transfers(&transfers)).expect("it is answered");
        let created =
            |result: &tb::CreateTransferResult| result.status == CreateTransferStatus::Created;
        assert!(results.iter().all(created), "{results:?}");
        block_on(client.close()).expect("it closes");
    }
    for addresses in &ways {
        verify(addresses, &[1; 4]);
    }
    cluster.terminate();
}

/// `DAFTARI_KILLS` has it done more often; it prints for how long clients got no reply.
#[test]
fn clients_go_on_when_the_primary_is_killed() {
    let rounds = number_from_environment("DAFTARI_KILLS").unwrap_or(3);
    let mut silences = Vec::new();
    under_load("cluster-primary", LONG, |cluster, load| {
        for _ in 0..rounds {
            let primary = cluster.primary();
            cluster.kill(primary);
            silences.push(load.silence());
            load.goes_on();
            assert_ne!(cluster.primary(), primary);
            cluster.restore();
            load.goes_on();
        }
    });
    silences.sort_unstable();
    let (median, longest) = (silences[silences.len() / 2], silences[silences.len() - 1]);
    eprintln!("{rounds} kills: clients waited {median:?} (median), {longest:?} (longest)");
}

/// Kills a backup, and starts it again after `meanwhile`; then the primary.
fn without_a_backup(cluster: &mut Cluster, load: &Load, meanwhile: impl FnOnce()) {
    let primary = cluster.primary();
    let backup = (primary + 1) % cluster.count();
    cluster.kill(backup);
    meanwhile();
    cluster.restart();
    load.goes_on();
    // Without the one that came back there is no quorum now.
    cluster.kill(primary);
    load.goes_on();
    cluster.restart();
}

#[test]
fn a_backup_that_was_killed_comes_back_and_is_of_use() {
    under_load("cluster-backup", LONG, |cluster, load| {
        without_a_backup(cluster, load, || load.goes_on());
    });
}

#[test]
fn a_backup_that_missed_more_than_the_journal_holds_catches_up() {
    under_load("cluster-behind", SHORT, |cluster, load| {
        without_a_backup(cluster, load, || load.laps());
    });
}

#[test]
fn all_replicas_are_killed_and_clients_go_on_when_they_are_back() {
    under_load("cluster-all", SHORT, |cluster, load| {
        for _ in 0..2 {
            (0..cluster.count()).for_each(|replica| cluster.kill(replica));
            cluster.restart();
            load.goes_on();
        }
    });
}

#[test]
fn whoever_is_cut_off_from_the_others_does_not_stop_them() {
    under_load("cluster-cut", LONG, |cluster, load| {
        for backup in [false, true] {
            for (sends, receives) in [(true, true), (true, false), (false, true)] {
                let alone = (cluster.primary() + usize::from(backup)) % cluster.count();
                for other in (0..cluster.count()).filter(|other| *other != alone) {
                    if sends {
                        cluster.links.cut(alone, other);
                    }
                    if receives {
                        cluster.links.cut(other, alone);
                    }
                }
                load.goes_on();
                cluster.links.heal();
                load.goes_on();
            }
        }
    });
}

#[test]
fn a_primary_that_stands_still_is_replaced_and_does_no_harm_when_it_goes_on() {
    under_load("cluster-pause", LONG, |cluster, load| {
        for _ in 0..2 {
            let primary = cluster.primary();
            cluster.signal(primary, "STOP");
            load.goes_on();
            cluster.signal(primary, "CONT");
            load.goes_on();
        }
    });
}

#[test]
fn replicas_that_are_far_from_each_other_serve() {
    under_load("cluster-far", LONG, |cluster, load| {
        for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2)] {
            cluster.links.delay(from, to, Duration::from_millis(20));
        }
        load.goes_on();
        cluster.kill(cluster.primary());
        load.goes_on();
        cluster.restart();
    });
}

/// The index of the standby of three replicas.
const STANDBY: usize = 3;

#[test]
fn a_standby_follows_and_nobody_needs_it() {
    let cluster = Cluster::start_with_standby("cluster-standby", LONG);
    load_cluster(cluster, |cluster, load| {
        cluster.kill(STANDBY);
        load.goes_on();
        cluster.restart();
        load.goes_on();
        // It knows of the next view, too.
        let primary = cluster.primary();
        cluster.kill(primary);
        load.goes_on();
        cluster.restart();
        load.goes_on();
        let superblock = &inspect(&cluster.file(STANDBY), "superblock")["superblock"];
        assert_eq!(superblock["standby"], true, "{superblock}");
        assert_eq!(superblock["replica_count"], 3);
        // The end compares the checkpoints of all four.
    });
}

#[test]
fn a_standby_whose_file_is_made_anew_catches_up() {
    let cluster = Cluster::start_with_standby("cluster-standby-anew", SHORT);
    load_cluster(cluster, |cluster, load| {
        load.laps();
        cluster.lose(STANDBY);
        load.goes_on();
        cluster.format(STANDBY, SHORT);
        cluster.restart();
        cluster.wait_logged(STANDBY, "going on from another checkpoint");
        cluster.wait_logged(STANDBY, "all blocks of the checkpoint are here");
        load.goes_on();
    });
}

#[test]
fn clients_are_served_through_a_standby() {
    let cluster = Cluster::start_with_standby("cluster-standby-serves", SHORT);
    create_accounts(&cluster);
    let standby = cluster.address(STANDBY);
    let client = connect(&standby);
    let transfers: Vec<_> = (0..BATCH).map(|number| transfer(0, number)).collect();
    let results = block_on(client.create_transfers(&transfers)).expect("it is answered");
    assert_eq!(results.len(), transfers.len());
    block_on(client.close()).expect("it closes");
    verify(&standby, &[1]);
    cluster.terminate();
}

/// A file is lost under load and replaced; then another replica is killed for good, and what is left has to
/// answer from the new file.
fn replace_a_lost_file(name: &str, format: &[&str], lost: impl Fn(usize) -> usize) {
    under_load(name, format, |cluster, load| {
        let lost = lost(cluster.primary()) % cluster.count();
        cluster.lose(lost);
        load.goes_on();
        let output = cluster.recover(lost, format);
        assert!(output.status.success(), "{}", text(&output));
        cluster.restart();
        load.goes_on();
        cluster.wait_logged(lost, "recovering: 2 of 2 answers");
        cluster.wait_logged(lost, "recovered: this replica has all that was lost");
        load.goes_on();
        let other = cluster.primary();
        let other = if other == lost {
            (lost + 1) % cluster.count()
        } else {
            other
        };
        cluster.kill(other);
        load.goes_on();
        // The third has had everything all the time: it is not asked.
        while cluster.primary() != lost {
            let third = 3 - lost - other;
            cluster.kill(third);
            let restarted = cluster.restart_one(third);
            assert!(restarted, "it is down");
            load.goes_on();
        }
    });
}

#[test]
fn an_older_copy_of_a_file_is_noticed() {
    under_load("cluster-older-copy", LONG, |cluster, load| {
        // There is a checkpoint.
        (0..2).for_each(|_| load.laps());
        let backup = (cluster.primary() + 1) % cluster.count();
        let file = cluster.file(backup);
        let copy = file.with_extension("copy");
        cluster.kill(backup);
        std::fs::copy(&file, &copy).expect("there is room for it");
        cluster.restore();
        load.laps();
        // The others take it for what the file has once they have heard it for a while.
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            load.goes_on();
        }
        cluster.kill(backup);
        std::fs::rename(&copy, &file).expect("both are there");
        let (status, log) = cluster.start_refused(backup);
        assert_eq!(status.code(), Some(30), "{log}");
        load.goes_on();
        cluster.lose(backup);
        let output = cluster.recover(backup, LONG);
        assert!(output.status.success(), "{}", text(&output));
        cluster.restart();
        cluster.wait_logged(backup, "recovered: this replica has all that was lost");
    });
}

#[test]
fn a_thousand_flipped_bits_are_found_and_mended() {
    let arguments = &["--limit-memory=1GiB", "--scrub-period=2s"];
    let cluster = Cluster::start_with("cluster-bits", 3, SHORT, arguments);
    load_cluster(cluster, |cluster, load| {
        load.laps();
        let backup = (cluster.primary() + 1) % cluster.count();
        let before = cluster.log(backup).len();
        flip_bits(&cluster.file(backup), 1000);
        // The scrubber comes around until it finds nothing more.
        let started = Instant::now();
        let clean = |log: &str| {
            let tours = log[before..]
                .lines()
                .filter(|line| line.contains("a tour of"));
            // The first one may have begun before.
            tours
                .skip(1)
                .last()
                .is_some_and(|tour| tour.contains("damaged=0"))
        };
        while !clean(&cluster.log(backup)) {
            assert!(started.elapsed() < PATIENCE, "{}", cluster.log(backup));
            load.goes_on();
        }
        // Headers and old prepares are written all over.
        load.laps();
        let log = cluster.log(backup);
        assert!(log.contains("scrub: a block is damaged"), "{log}");
        assert!(log.contains("block repaired"), "{log}");
    });
}

/// Flips random bits of a file that a server has open: half of them anywhere, the others in blocks that the
/// checkpoint references. The copies of the superblock are left out: writing a whole sector of one beside
/// the server could bring an old copy back.
fn flip_bits(file: &Path, count: u64) {
    const SECTOR: u64 = 4096;
    let mut random = Random::from_environment("DAFTARI_BITS_SEED");
    eprintln!("DAFTARI_BITS_SEED={}", random.0);
    let superblock = inspect(file, "superblock");
    let geometry = &superblock["geometry"];
    let number = |name: &str| geometry[name].as_u64().expect("it is a number");
    let blocks = inspect(file, "checkpoint")["blocks"].clone();
    let blocks = blocks.as_array().expect("a table");
    let direct = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(file)
        .expect("it is there");
    let end = direct.metadata().expect("it is there").len();
    let mut sector = SectorBuf::zeroed(4096);
    for flip in 0..count {
        let at = if flip % 2 == 0 {
            let first = number("headers_offset");
            first + random.below(end - first)
        } else {
            let block =
                &blocks[usize::try_from(random.below(blocks.len() as u64)).expect("64 bits")];
            let address = block["address"].as_u64().expect("it is a number");
            let size = SECTOR + block["size"].as_u64().unwrap_or(0);
            number("grid_offset") + (address - 1) * number("block_size") + random.below(size)
        };
        let offset = at / SECTOR * SECTOR;
        direct
            .read_exact_at(&mut sector, offset)
            .expect("it is read");
        sector[usize::try_from(at - offset).expect("64 bits")] ^= 1 << random.below(8);
        direct.write_all_at(&sector, offset).expect("it is written");
    }
}

#[test]
fn a_lost_file_is_replaced_with_what_the_journals_of_others_hold() {
    replace_a_lost_file("cluster-recover-journal", LONG, |primary| primary + 1);
}

#[test]
fn a_lost_file_is_replaced_with_a_checkpoint_of_others() {
    replace_a_lost_file("cluster-recover-checkpoint", SHORT, |primary| primary);
}

#[test]
fn a_file_is_not_replaced_when_that_is_not_safe() {
    let mut cluster = Cluster::start("cluster-recover-refused", 3, SHORT);
    create_accounts(&cluster);
    let refused = |arguments: &[&str], status: i32, words: &str| {
        let output = run(arguments);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(status), "{text}");
        assert!(text.contains(words), "'{words}' is not in: {text}");
    };
    let one = format!("--addresses=127.0.0.1:{}", free_port());
    let two = format!("{one},127.0.0.1:{}", free_port());
    let recover = |addresses| {
        [
            "recover",
            "--cluster=0",
            "--replica=0",
            addresses,
            "no-file",
        ]
    };
    refused(&recover(&one), 2, "nobody else has what its file had");
    refused(&recover(&two), 2, "one alone cannot prove");

    let output = cluster.recover(1, SHORT);
    assert!(
        text(&output).contains("exists already"),
        "{}",
        text(&output)
    );
    assert_eq!(output.status.code(), Some(5));
    // A file that nobody has, for a replica that runs.
    let file = std::env::temp_dir().join(format!("daftari-recover-{}", std::process::id()));
    let addresses = format!("--addresses={}", cluster.addresses().join(","));
    let path = file.to_str().expect("the path is UTF-8");
    let running = ["recover", "--cluster=0", "--replica=1", &addresses, path];
    refused(&running, 5, "its file is not lost while it runs");
    assert!(!file.exists());

    // Other sizes than those of the cluster.
    cluster.lose(1);
    let output = cluster.recover(1, &["--development", "--journal-slots=128"]);
    assert!(output.status.success(), "{}", text(&output));
    let (status, log) = cluster.start_refused(1);
    assert_eq!(status.code(), Some(25), "{log}");
    assert!(log.contains("--journal-slots=64 --sessions=64"), "{log}");

    // With two lost of three, the new file waits; with one of them back, it does not any more.
    cluster.lose(1);
    let output = cluster.recover(1, SHORT);
    assert!(output.status.success(), "{}", text(&output));
    cluster.kill(2);
    assert!(cluster.restart_one(1));
    cluster.wait_logged(1, "recovering: 1 of 2 answers; without them nothing proves");
    assert!(cluster.restart_one(2));
    cluster.wait_logged(1, "recovered: this replica has all that was lost");
    create_nothing_twice(&cluster);
    cluster.terminate();
}

/// The accounts are there already.
fn create_nothing_twice(cluster: &Cluster) {
    let client = connect(&cluster.addresses().join(","));
    let results = block_on(client.create_accounts(&accounts([1, 2]))).expect("it is answered");
    let exists =
        |result: &tb::CreateAccountResult| result.status == tb::CreateAccountStatus::Exists;
    assert!(results.iter().all(exists), "{results:?}");
    block_on(client.close()).expect("it closes");
}
