//! What a server does not start on: each reason has its sentence and its exit status, and the file
//! stays as it was.

use crate::raw::{Answer, Raw};
use crate::util::{Directory, PATIENCE, Server, format, free_port, run, text};
use daftari::constants::{RELEASE_LOG_MAX, RELEASE_LOG_MIN};
use daftari::wire::Operation;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use storage_format::{Checksum, Superblock};
use zerocopy::{FromBytes, IntoBytes};

/// Starts a server that has to refuse, and gives what it said.
fn start(file: &Path, more: &[&str]) -> Output {
    let mut child = Command::new(crate::util::BINARY)
        .arg("start")
        .arg(format!("--addresses=127.0.0.1:{}", free_port()))
        .args(more)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be run");
    let started = Instant::now();
    while child.try_wait().expect("it is our child").is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().expect("it is our child");
            panic!(
                "it starts: {}",
                text(&child.wait_with_output().expect("it is our child"))
            );
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.wait_with_output().expect("it is our child")
}

fn check(file: &Path, more: &[&str], status: i32, words: &str) {
    let before = fs::read(file).unwrap_or_default();
    let output = start(file, more);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(text.contains(words), "'{words}' is not in: {text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(
        fs::read(file).unwrap_or_default() == before,
        "the file was changed"
    );
}

fn formatted(directory: &Directory) -> PathBuf {
    let file = directory.file("0.daftari");
    format(&file, &["--development", "--sessions=16"]);
    file
}

/// Changes the bytes of a file in place.
fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("it is there");
    change(&mut bytes);
    fs::write(file, bytes).expect("the directory is writable");
}

fn change_superblock(file: &Path, edit: impl Fn(&mut Superblock)) {
    change(file, |bytes| {
        let copies = bytes
            .chunks_exact_mut(SUPERBLOCK_COPY_SIZE)
            .take(SUPERBLOCK_COPY_COUNT);
        for copy in copies {
            let mut superblock = Superblock::read_from_bytes(copy).expect("it has the size");
            edit(&mut superblock);
            superblock.seal();
            copy.copy_from_slice(superblock.as_bytes());
        }
    });
}

#[test]
fn an_absent_or_foreign_file() {
    let directory = Directory::new("foreign");
    check(&directory.file("absent.daftari"), &[], 3, "does not exist");
    let foreign = directory.file("foreign.daftari");
    fs::write(&foreign, vec![0x5a; 1 << 20]).expect("the directory is writable");
    check(&foreign, &[], 10, "not a daftari data file");
    check(&foreign, &["--development"], 10, "not a daftari data file");
    let empty = directory.file("empty.daftari");
    fs::write(&empty, b"").expect("the directory is writable");
    check(&empty, &[], 10, "not a daftari data file");
}

#[test]
fn a_file_of_another_layout_or_a_newer_release() {
    let directory = Directory::new("version");
    let file = formatted(&directory);
    change_superblock(&file, |superblock| superblock.version = 9.into());
    check(&file, &[], 11, "layout version 9");
    change_superblock(&file, |superblock| superblock.version = 1.into());
    check(&file, &[], 11, "layout version 1");
    change_superblock(&file, |superblock| {
        superblock.version = storage_format::FORMAT_VERSION.into();
        superblock.release = (RELEASE_LOG_MAX + 1).into();
    });
    check(&file, &[], 19, "at release 0.17.11");
    check(&file, &["--development"], 19, "start the newer binary");
    change_superblock(&file, |superblock| {
        superblock.release = (RELEASE_LOG_MIN - 1).into();
    });
    check(&file, &[], 28, "start the older binary");
}

#[test]
fn a_file_at_an_older_release_is_served_and_stays_at_it() {
    let directory = Directory::new("older-release");
    let file = formatted(&directory);
    let log = RELEASE_LOG_MIN.into();
    change_superblock(&file, |superblock| superblock.release = log);
    for client in [7, 8] {
        let server = Server::start(&file, free_port(), &[]);
        let mut client = Raw::registered(server.port, client);
        for _ in 0..100 {
            // More than the journal of a development file holds, so there are checkpoints.
            let answer = client.call(Operation::LookupAccounts, 16, &[0; 16]);
            assert!(matches!(answer, Ok(Answer::Reply(_))), "{answer:?}");
        }
        server.kill();
        let bytes = fs::read(&file).expect("it is there");
        let (superblock, _) = Superblock::read_from_prefix(&bytes).expect("it has the size");
        let checkpoint = superblock.checkpoint;
        assert!(superblock.valid() && checkpoint.op > 0);
        assert_eq!((superblock.release, checkpoint.release), (log, log));
        assert_eq!(checkpoint.checkpoint_id, Checksum::ZERO);
    }
}

#[test]
fn a_file_of_another_cluster_or_a_larger_one() {
    let directory = Directory::new("cluster-of-file");
    let file = formatted(&directory);
    check(
        &file,
        &["--development", "--cluster=5"],
        12,
        "belongs to cluster 0, not 5",
    );
    change_superblock(&file, |superblock| superblock.replica_count = 3);
    check(&file, &[], 24, "3 replicas");
    change_superblock(&file, |superblock| {
        (superblock.replica, superblock.replica_count) = (1, 1);
    });
    check(&file, &[], 24, "belongs to standby 1");
}

#[test]
fn a_file_that_was_cut_off() {
    let directory = Directory::new("truncated");
    let file = formatted(&directory);
    change(&file, |bytes| bytes.truncate(1 << 20));
    check(&file, &[], 14, "cut off");
    change(&file, |bytes| bytes.truncate(SUPERBLOCK_COPY_SIZE));
    // One copy of four is no quorum.
    check(&file, &[], 15, "superblock");
}

#[test]
fn a_superblock_beyond_repair() {
    let directory = Directory::new("superblock");
    let file = formatted(&directory);
    // Two damaged copies are survived, three are not.
    let damage = |copy: usize| {
        change(&file, |bytes| bytes[copy * SUPERBLOCK_COPY_SIZE + 200] ^= 1);
    };
    damage(0);
    damage(3);
    let server = Server::start(&file, free_port(), &[]);
    assert!(server.terminate().0.success());
    damage(0);
    damage(1);
    damage(2);
    check(&file, &[], 15, "superblock");
}

#[test]
fn an_acknowledged_request_that_was_damaged() {
    let directory = Directory::new("journal");
    let file = formatted(&directory);
    let server = Server::start(&file, free_port(), &[]);
    let mut client = Raw::registered(server.port, 7);
    for _ in 0..3 {
        let answer = client.call(Operation::LookupAccounts, 16, &[0; 16]);
        assert!(matches!(answer, Ok(Answer::Reply(_))), "{answer:?}");
    }
    server.kill();
    let bytes = fs::read(&file).expect("it is there");
    let superblock = Superblock::read_from_bytes(&bytes[..SUPERBLOCK_COPY_SIZE]);
    let geometry = superblock.expect("it has the size").geometry;
    let prepare = |op: u64| {
        let at = geometry.prepares_offset() + op * u64::from(geometry.journal_slot_size.get());
        usize::try_from(at).expect("64 bits")
    };
    // A bit in the body of the second request; it is not the last, so it was not torn.
    change(&file, |bytes| bytes[prepare(2) + 300] ^= 1);
    check(&file, &[], 16, "journal slot 2 is damaged");
    let name = file.to_str().expect("the path is UTF-8");
    assert_eq!(run(&["inspect", "integrity", name]).status.code(), Some(1));
}

#[test]
fn a_block_that_was_damaged() {
    let directory = Directory::new("block");
    let file = formatted(&directory);
    let server = Server::start(&file, free_port(), &[]);
    let mut client = Raw::registered(server.port, 7);
    for _ in 0..100 {
        // More than the journal of a development file holds, so there is a checkpoint.
        let answer = client.call(Operation::LookupAccounts, 16, &[0; 16]);
        assert!(matches!(answer, Ok(Answer::Reply(_))), "{answer:?}");
    }
    assert!(server.terminate().0.success());
    let bytes = fs::read(&file).expect("it is there");
    let superblock = Superblock::read_from_bytes(&bytes[..SUPERBLOCK_COPY_SIZE]);
    let superblock = superblock.expect("it has the size");
    let address = superblock.checkpoint_index.address.get();
    assert!(address > 0, "there is no checkpoint");
    let at = usize::try_from(superblock.geometry.block_offset(address)).expect("64 bits");
    change(&file, |bytes| bytes[at + 5000] ^= 1);
    check(&file, &[], 17, "of the checkpoint");
    change(&file, |bytes| bytes[at + 5000] ^= 1);
    let server = Server::start(&file, free_port(), &[]);
    assert!(server.terminate().0.success());
}

#[test]
fn a_file_or_a_port_in_use() {
    let directory = Directory::new("in-use");
    let file = formatted(&directory);
    let server = Server::start(&file, free_port(), &[]);
    let output = start(&file, &[]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(
        text(&output).contains("another process"),
        "{}",
        text(&output)
    );
    // The first one has not noticed.
    let mut client = Raw::registered(server.port, 7);
    assert_eq!(client.ping().expect("the server answers"), Answer::Pong);
    assert!(server.terminate().0.success());

    let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("the port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let mut server = Server::spawn(&file, port, &[]);
    let status = server.wait();
    assert_eq!(status.code(), Some(3), "{}", server.log());
    assert!(server.log().contains(&port.to_string()), "{}", server.log());
}

#[test]
fn a_place_that_takes_no_files() {
    let arguments = ["format", "--cluster=0", "--replica=0", "--replica-count=1"];
    for place in ["/proc/ledger.daftari", "/no/such/directory/ledger.daftari"] {
        let output = run(&[&arguments[..], &[place]].concat());
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains(place), "{}", text(&output));
        assert!(!text(&output).contains("panicked"), "{}", text(&output));
    }
    let output = run(&[
        "start",
        "--development",
        "--addresses=0",
        "/proc/ledger.daftari",
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
}

/// tmpfs takes `O_DIRECT` since Linux 6.6, and refuses it before.
#[test]
fn a_file_in_memory_works_or_is_refused() {
    let name = format!("/dev/shm/daftari-test-{}.daftari", std::process::id());
    let file = PathBuf::from(&name);
    let arguments = [
        "format",
        "--cluster=0",
        "--replica=0",
        "--replica-count=1",
        "--development",
    ];
    let output = run(&[&arguments[..], &[&name]].concat());
    if output.status.success() {
        let server = Server::start(&file, free_port(), &[]);
        let mut client = Raw::registered(server.port, 7);
        assert_eq!(client.ping().expect("the server answers"), Answer::Pong);
        assert!(server.terminate().0.success());
    } else {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        assert!(text(&output).contains("O_DIRECT"), "{}", text(&output));
        assert!(!file.exists(), "a file that is of no use was left behind");
    }
    drop(fs::remove_file(&file));
    drop(fs::remove_file(file.with_extension("log")));
}

#[test]
fn caches_that_do_not_fit_the_memory_are_refused() {
    let directory = Directory::new("refusal-caches");
    let file = formatted(&directory);
    for (option, words) in [
        ("--cache-size=1MiB", "--cache-size=1048576: a cache has"),
        ("--cache-size=2GiB", "leaves nothing beside a cache"),
        ("--account-cache-size=1MiB", "for the accounts of a batch"),
        ("--account-cache-size=900MiB", "beside the cache of blocks"),
    ] {
        check(&file, &["--limit-memory=1GiB", option], 2, words);
    }
}
