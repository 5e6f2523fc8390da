//! The command line as a whole: arguments, help texts, exit statuses.

use super::exit::{self, Status, failure, status_of};
use super::format::Owner;
use super::{Cli, Command, format, start};
use clap::{CommandFactory, Parser};

fn parse(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
}

fn start_options(line: &str) -> start::Options {
    match parse(line).unwrap() {
        Command::Start(options) => options,
        Command::Format(_)
        | Command::Recover(_)
        | Command::Version(_)
        | Command::Inspect(_)
        | Command::Benchmark(_) => {
            panic!("not start")
        }
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn format_takes_what_operators_type() {
    let line = "daftari format --cluster=0 --replica=0 --replica-count=1 --sessions=1_000 \
                --limit-storage=512GiB file";
    let Command::Format(options) = parse(line).unwrap() else {
        panic!("not format")
    };
    assert_eq!(
        (options.cluster, options.owner, options.replica_count),
        (0, Owner::replica(0), 1)
    );
    assert_eq!(options.sizes.sessions, Some(1000));
    assert_eq!(options.sizes.limit_storage, Some(512 << 30));
    assert!(
        parse("daftari format --cluster=0 --replica=0 file").is_err(),
        "count is missing"
    );
    let members = |members: &str| {
        parse(&format!(
            "daftari format --cluster=0 {members} --replica-count=3 file"
        ))
    };
    assert!(members("--standby=3").is_ok());
    assert!(members("").is_err() && members("--replica=0 --standby=3").is_err());
    assert!(parse("daftari format --cluster=x --replica=0 --replica-count=1 file").is_err());
}

#[test]
fn start_takes_the_addresses_of_a_cluster_in_their_short_forms() {
    let options =
        |addresses: &str| start_options(&format!("daftari start --addresses={addresses} file"));
    let given = |addresses| {
        let addresses = options(addresses).addresses.0;
        addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(given("3001"), ["127.0.0.1:3001"]);
    assert_eq!(given("0.0.0.0:9,9"), ["0.0.0.0:9", "127.0.0.1:9"]);
    let check = |addresses: &str, words: &str| match options(addresses).check_addresses() {
        Ok(()) => assert!(words.is_empty(), "{addresses} passes"),
        Err(error) => {
            assert_eq!(status_of(&error), Status::Usage);
            assert!(error.to_string().contains(words), "{error}");
        }
    };
    check("0", "");
    check("1,2,3,4,5,6,7,8,9,10,11,12", "");
    check("1,2,3,4,5,6,7,8,9,10,11,12,13", "names 13 members");
    check("3001,0,3002", "127.0.0.1:0 takes any free port");
    assert!(
        parse("daftari start file").is_err(),
        "--addresses is missing"
    );
    assert!(parse("daftari start --addresses=1,2,1 file").is_err());
}

#[test]
fn development_makes_no_cluster_of_several() {
    let line = "daftari start --development --addresses=1,2 /nonexistent/file";
    let error = start::run(&start_options(line)).unwrap_err();
    assert_eq!(status_of(&error), Status::Usage);
    assert!(error.to_string().contains("--addresses names 2"), "{error}");
}

#[test]
fn the_cluster_of_start_goes_with_development_only() {
    assert!(parse("daftari start --addresses=3000 --cluster=7 file").is_err());
    let options = start_options("daftari start --addresses=3000 --development --cluster=7 file");
    assert_eq!(options.cluster, Some(7));
    let options =
        start_options("daftari start --addresses=1 --limit-memory=4GiB --log-format=json f");
    assert_eq!(options.limit_memory, Some(4 << 30));
}

#[test]
fn a_file_that_is_absent_is_not_made_without_development() {
    let error = start::run(&start_options(
        "daftari start --addresses=1 /nonexistent/file",
    ));
    let error = error.unwrap_err();
    assert_eq!(status_of(&error), Status::InputOutput);
    assert!(error.to_string().contains("daftari format"), "{error}");
}

#[test]
fn format_does_not_overwrite() {
    let file = std::env::current_exe().unwrap();
    let error = format::run(&format::Options::development(0, file)).unwrap_err();
    assert_eq!(status_of(&error), Status::FileUnusable);
    assert!(error.to_string().contains("exists already"), "{error}");
}

#[test]
fn every_help_text_has_examples() {
    let mut command = Cli::command();
    command.build();
    check_examples(&mut command, 0);
}

fn check_examples(command: &mut clap::Command, depth: usize) {
    let name = command.get_name().to_owned();
    let help = command.render_long_help().to_string();
    assert!(help.contains("Examples:\n  daftari"), "{name}:\n{help}");
    let children = command
        .get_subcommands_mut()
        .filter(|child| child.get_name() != "help");
    let mut seen = 0;
    for child in children {
        check_examples(child, depth + 1);
        seen += 1;
    }
    if depth == 0 {
        assert_eq!(seen, 6);
    }
}

#[test]
fn statuses_do_not_change() {
    let all = [
        Status::Negative,
        Status::Usage,
        Status::InputOutput,
        Status::FileInUse,
        Status::FileUnusable,
        Status::Server,
        Status::Other,
    ];
    assert_eq!(all.map(|status| status as u8), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        status_of(&failure(Status::Server, "gone").context("more")),
        Status::Server
    );
    let io = anyhow::Error::from(std::io::Error::other("disk")).context("reading");
    assert_eq!(status_of(&io), Status::InputOutput);
    assert_eq!(status_of(&anyhow::anyhow!("else")), Status::Other);
    let wrong = parse("daftari start").unwrap_err();
    assert!(wrong.use_stderr());
    assert_eq!(exit::report(Ok(())), std::process::ExitCode::SUCCESS);
}
