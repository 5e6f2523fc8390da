//! The command line as a user meets it.

use crate::util::{Directory, Server, format, free_port, run, text};

#[test]
fn every_command_explains_itself() {
    for arguments in [
        &["--help"][..],
        &["help", "format"],
        &["format", "--help"],
        &["start", "--help"],
        &["inspect", "--help"],
        &["benchmark", "--help"],
        &["version", "--help"],
        &["version"],
        &["version", "--verbose"],
        &["--version"],
    ] {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, word) in [
        (&[][..], "Usage"),
        (&["serve"], "serve"),
        (&["format", "x.daftari"], "--cluster"),
        (&["start", "x.daftari"], "--addresses"),
        (
            &["start", "--addresses=localhost:3000", "x.daftari"],
            "localhost",
        ),
        (
            &[
                "start",
                "--addresses=1,2,3,4,5,6,7,8,9,10,11,12,13",
                "x.daftari",
            ],
            "--addresses",
        ),
        (
            &["start", "--addresses=3000,3001,3000", "x.daftari"],
            "twice",
        ),
        (
            &[
                "start",
                "--addresses=3000",
                "--limit-memory=4G",
                "x.daftari",
            ],
            "4GiB",
        ),
        (
            &[
                "format",
                "--cluster=0",
                "--replica=0",
                "--replica-count=7",
                "x.daftari",
            ],
            "count=7",
        ),
        (
            &[
                "format",
                "--cluster=0",
                "--replica=1",
                "--replica-count=1",
                "x.daftari",
            ],
            "replica=1",
        ),
    ] {
        let output = run(arguments);
        let text = text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(word), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn format_keeps_its_hands_off_a_file_that_exists() {
    let directory = Directory::new("exists");
    let file = directory.file("0.daftari");
    std::fs::write(&file, b"precious").expect("the directory is writable");
    let name = file.to_str().expect("the path is UTF-8");
    let output = run(&[
        "format",
        "--cluster=0",
        "--replica=0",
        "--replica-count=1",
        name,
    ]);
    assert!(!output.status.success());
    assert!(text(&output).contains("exists"), "{}", text(&output));
    assert_eq!(std::fs::read(&file).expect("it is there"), b"precious");
}

#[test]
fn inspect_reads_a_file_and_finds_damage() {
    let directory = Directory::new("inspect");
    let file = directory.file("0.daftari");
    format(&file, &["--development", "--sessions=16"]);
    let server = Server::start(&file, free_port(), &[]);
    let (status, _) = server.terminate();
    assert!(status.success());
    let name = file.to_str().expect("the path is UTF-8");
    let output = run(&["inspect", "integrity", name]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    // A bit of the journal's header ring.
    let mut bytes = std::fs::read(&file).expect("it is there");
    bytes[4 * 8192 + 100] ^= 1;
    std::fs::write(&file, bytes).expect("the directory is writable");
    let output = run(&["inspect", "integrity", name]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
}
