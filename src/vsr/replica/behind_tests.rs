//! A backup that is behind: what it asks for, what it executes, and when it has caught up.

use super::catch_up::CatchUp;
use super::repair::WANTED_MAX;
use super::{Effect, Event, Op, Outcome, Prepare, Replica, Status};
use crate::constants::{NANOSECONDS, PIPELINE_PREPARES_MAX, RELEASE_LOG_MAX};
use crate::stdx::u64_to_usize;
use crate::vsr::log::Body;
use crate::vsr::testing::{self, Room, next};
use crate::wire::PeerHeader;
use crate::wire::header::command;
use bytes::Bytes;
use storage_format::PrepareHeader;
use zerocopy::{FromBytes, IntoBytes};

const SLOTS: u64 = 48;
const OPS: u64 = 40;

/// A backup of three whose state is loaded, and that lacks all of a log; with the ops, op 1 first.
fn backup() -> (Replica, Vec<PrepareHeader>) {
    let mut backup = testing::start(&testing::superblock(2, 3, SLOTS), 7);
    backup.observe(NANOSECONDS, NANOSECONDS);
    (backup.status, backup.loaded) = (Status::Normal, true);
    let mut ops = Vec::new();
    for _ in 0..OPS {
        let op = after(backup.log.head());
        backup.log.append(op);
        ops.push(op);
    }
    backup.commit_max = OPS;
    (backup, ops)
}

fn after(parent: &PrepareHeader) -> PrepareHeader {
    let mut header = next(parent, 0);
    header.release = RELEASE_LOG_MAX.into();
    header.seal();
    header
}

fn hear(backup: &mut Replica, prepare: &PrepareHeader) {
    let frame = Bytes::copy_from_slice(prepare.as_bytes());
    backup.handle(testing::incoming(0, &frame), &Room);
}

/// What a backup wants, but for views.
#[derive(Debug, Default)]
struct Wants {
    asks: Vec<u64>,
    acknowledges: Vec<u64>,
    executes: Vec<Prepare>,
    writes: Vec<Prepare>,
}

fn wants(backup: &mut Replica) -> Wants {
    let mut wants = Wants::default();
    while let Some(effect) = backup.poll_effect() {
        match effect {
            Effect::Execute(Op::Written(prepare)) => wants.executes.push(prepare),
            Effect::WritePrepare(prepare) => wants.writes.push(prepare),
            Effect::Send { frame, .. } => {
                let (header, _) = PeerHeader::read_from_prefix(&frame).unwrap();
                match header.command {
                    command::REQUEST_PREPARE if header.op_last.get() == 0 => {
                        wants.asks.push(header.op.get());
                    }
                    command::PREPARE_OK => wants.acknowledges.push(header.op.get()),
                    _ => {}
                }
            }
            Effect::Execute(Op::Ahead(..)) => panic!("a backup runs ahead of its journal"),
            Effect::WriteHeaders(_)
            | Effect::WriteView(_)
            | Effect::Sync(_)
            | Effect::ReadPrepare(_)
            | Effect::Stop(_) => {}
        }
    }
    wants
}

fn executed(backup: &mut Replica, prepare: Prepare) {
    let outcome = Outcome {
        replies: Vec::new(),
        pulse_next: u64::MAX,
    };
    backup.handle(Event::Executed(Op::Written(prepare), outcome), &Room);
}

fn ops(prepares: &[Prepare]) -> Vec<u64> {
    let ops = prepares.iter().map(|prepare| prepare.header.op.get());
    ops.collect()
}

#[test]
fn who_is_far_behind_executes_what_comes_and_writes_it_later() {
    let (mut backup, prepares) = backup();
    backup.repair();
    let all: Vec<u64> = (1..=WANTED_MAX).collect();
    assert_eq!(wants(&mut backup).asks, all);
    // Far behind until op 24 is executed.
    for op in 1..=OPS - WANTED_MAX {
        hear(&mut backup, &prepares[u64_to_usize(op - 1)]);
        let mut wanted = wants(&mut backup);
        assert_eq!(ops(&wanted.executes), [op]);
        assert!(wanted.writes.is_empty() && wanted.acknowledges.is_empty());
        executed(&mut backup, wanted.executes.remove(0));
    }
    assert!(
        (1..=OPS - WANTED_MAX).all(|op| {
            let entry = backup.log.entry(op).unwrap();
            (entry.body, entry.promised) == (Body::Missing, false)
        }),
        "nothing of that is in the journal"
    );
    // The rest is written first.
    for op in OPS - WANTED_MAX + 1..=OPS {
        hear(&mut backup, &prepares[u64_to_usize(op - 1)]);
        let mut wanted = wants(&mut backup);
        assert_eq!(ops(&wanted.writes), [op]);
        assert!(wanted.executes.is_empty());
        backup.handle(Event::PrepareDurable(wanted.writes.remove(0)), &Room);
        let mut wanted = wants(&mut backup);
        assert_eq!(ops(&wanted.executes), [op]);
        executed(&mut backup, wanted.executes.remove(0));
        backup.handle(Event::HeadersDurable, &Room);
    }
    // Then the journal gets what it lacks.
    backup.wanted.clear();
    let before = wants(&mut backup);
    backup.repair();
    let asks = [before.asks, wants(&mut backup).asks].concat();
    assert!(asks.contains(&1), "{asks:?}");
    hear(&mut backup, &prepares[0]);
    let wanted = wants(&mut backup);
    assert_eq!(ops(&wanted.writes), [1]);
    assert!(wanted.executes.is_empty());
}

#[test]
fn what_is_being_executed_is_not_asked_for_again() {
    let (mut backup, prepares) = backup();
    backup.repair();
    hear(&mut backup, &prepares[0]);
    assert_eq!(ops(&wants(&mut backup).executes), [1]);
    hear(&mut backup, &prepares[1]);
    let wanted = wants(&mut backup);
    assert_eq!(ops(&wanted.executes), [2]);
    assert!(!wanted.asks.contains(&1), "{:?}", wanted.asks);
}

#[test]
fn no_more_is_asked_for_than_there_are_buffers_for() {
    let (mut backup, prepares) = backup();
    // So everything is written.
    backup.loaded = false;
    let (mut written, mut writes) = (Vec::new(), Vec::new());
    backup.repair();
    let mut asked: Vec<u64> = Vec::new();
    let mut turns = 0;
    while written.len() < prepares.len() {
        turns += 1;
        assert!(turns < 100 * OPS, "only {written:?} came");
        let wanted = wants(&mut backup);
        asked.extend(wanted.asks);
        writes.extend(wanted.writes);
        if let Some(op) = asked.pop() {
            hear(&mut backup, &prepares[u64_to_usize(op - 1)]);
            let entry = backup.log.entry(op).unwrap();
            assert_eq!(entry.body, Body::Writing, "op {op} had no buffer");
        } else if let Some(prepare) = writes.pop() {
            written.push(prepare.header.op.get());
            backup.handle(Event::PrepareDurable(prepare), &Room);
        } else {
            // Only what goes on by itself counts, not what a timer has asked for again.
            backup.handle(Event::HeadersDurable, &Room);
        }
    }
    written.sort_unstable();
    assert_eq!(written, (1..=OPS).collect::<Vec<_>>());
}

#[test]
fn a_new_op_that_finds_no_buffer_is_taken_when_there_is_one() {
    let (mut backup, _) = backup();
    let new = after(backup.log.head());
    let buffers = std::mem::take(&mut backup.buffers);
    hear(&mut backup, &new);
    assert_eq!(backup.log.head().op.get(), OPS);
    assert!(backup.early.contains_key(&(OPS + 1)));
    backup.buffers = buffers;
    backup.repair_more();
    assert_eq!(backup.log.head().op.get(), OPS + 1);
}

#[test]
fn who_has_caught_up_has_what_came_meanwhile() {
    let (mut backup, prepares) = backup();
    backup.catch_up = Some(CatchUp::since_start());
    backup.hear_commit(OPS / 2);
    backup.executed.0 = OPS / 2;
    backup.say_progress();
    assert!(backup.catch_up.is_some(), "others are at the end");
    backup.executed.0 = OPS - PIPELINE_PREPARES_MAX;
    backup.content_missing = true;
    backup.say_progress();
    assert!(backup.catch_up.is_some(), "blocks are missing");
    backup.content_missing = false;
    backup.say_progress();
    assert!(
        backup.catch_up.is_some(),
        "its journal lacks what is executed"
    );
    for header in &prepares {
        assert!(backup.log.set_body(header, Body::Durable));
    }
    backup.say_progress();
    assert!(backup.catch_up.is_none());
}
