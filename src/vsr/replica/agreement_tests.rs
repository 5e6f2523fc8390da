//! Prepares that build on another checkpoint, and members whose files name another number of replicas.

use super::{Effect, Event, Replica, Status};
use crate::constants::{NANOSECONDS, RELEASE_LOG_MAX};
use crate::vsr::message::{self, CheckpointState};
use crate::vsr::testing::{self, Room, next};
use crate::wire::PeerHeader;
use crate::wire::header::command;
use bytes::Bytes;
use storage_format::{Checksum, PrepareHeader};
use zerocopy::IntoBytes;

/// One of three replicas, with a journal of 48 slots.
fn member(own: u8) -> Replica {
    let superblock = testing::superblock(own, 3, 48);
    let mut replica = testing::start(&superblock, 7);
    replica.observe(NANOSECONDS, NANOSECONDS);
    replica.status = Status::Normal;
    replica
}

fn prepare(parent: &PrepareHeader, view: u32, base: u8) -> PrepareHeader {
    let mut header = next(parent, view);
    header.release = RELEASE_LOG_MAX.into();
    header.replica = u8::try_from(view % 3).unwrap();
    header.checkpoint_id = Checksum([base; 16]);
    header.seal();
    header
}

fn hear(replica: &mut Replica, header: &PrepareHeader) {
    let frame = Bytes::copy_from_slice(header.as_bytes());
    replica.handle(testing::incoming(0, &frame), &Room);
}

fn stops(replica: &mut Replica) -> Vec<String> {
    let mut stops = Vec::new();
    while let Some(effect) = replica.effects.pop_front() {
        if let Effect::Stop(reason) = effect {
            stops.push(reason.to_string());
        }
    }
    stops
}

fn chain_to(replica: &mut Replica, view: u32, to: u64) {
    while replica.log.head().op.get() < to {
        let header = prepare(&replica.log.head().clone(), view, 0);
        replica.log.append(header);
    }
}

fn checkpoint(replica: &mut Replica, op: u64) -> Checksum {
    let mut state = CheckpointState::none(0);
    state.header = *replica.log.header(op).unwrap();
    replica.executed = (op, state.header.checksum);
    replica.executing = op;
    replica.handle(Event::Checkpointed(Box::new(state)), &Room);
    replica.checkpoint_id
}

#[test]
fn a_late_prepare_of_a_former_primary_that_is_wrong_stops_nobody() {
    let mut backup = member(2);
    chain_to(&mut backup, 3, 47);
    let right = checkpoint(&mut backup, 24);
    // View 4 has started, and committed another op 48 that names what this replica has.
    (backup.view, backup.log_view, backup.view_durable) = (4, 4, (4, 4));
    let parent = *backup.log.head();
    let mut committed = prepare(&parent, 4, 0);
    committed.checkpoint_id = right;
    committed.seal();
    backup.log.append(committed);
    backup.commit_max = 48;
    assert!(stops(&mut backup).is_empty());
    let late = prepare(&parent, 3, 9);
    hear(&mut backup, &late);
    assert_eq!(stops(&mut backup), Vec::<String>::new());
    // The committed one that names another is of this view.
    backup.commit_max = 49;
    let wrong = prepare(&committed, 4, 9);
    hear(&mut backup, &wrong);
    assert_eq!(stops(&mut backup).len(), 1);
}

#[test]
fn a_prepare_that_waited_for_its_turn_is_compared_when_it_comes() {
    let mut backup = member(2);
    (backup.view, backup.log_view, backup.view_durable) = (3, 3, (3, 3));
    chain_to(&mut backup, 3, 46);
    let op47 = prepare(&backup.log.head().clone(), 3, 0);
    let op48 = prepare(&op47, 3, 9);
    hear(&mut backup, &op48);
    assert!(backup.early.contains_key(&48));
    let right = checkpoint(&mut backup, 24);
    assert_ne!(right, op48.checkpoint_id);
    hear(&mut backup, &op47);
    assert_eq!(
        backup.log.head().op.get(),
        47,
        "op 48 builds on another checkpoint"
    );
}

/// Another member says something every 200 ms for so long, at a file that names `count` replicas.
fn says(own: &mut Replica, members: &[u8], count: u8, seconds: u64) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..seconds * 5 {
        let now = own.timers.now + NANOSECONDS / 5;
        own.observe(now, now);
        for member in members {
            let mut header = PeerHeader::zeroed();
            header.release = RELEASE_LOG_MAX.into();
            header.command = command::PING;
            header.replica = *member;
            header.replica_count = count;
            let frame = message::frame(header, &[]);
            own.handle(testing::incoming(0, &frame), &Room);
        }
        found.append(&mut stops(own));
    }
    found
}

#[test]
fn who_names_another_number_of_replicas_is_not_heard_and_many_stop_this_one() {
    let mut own = member(0);
    assert!(says(&mut own, &[1, 2], 3, 5).is_empty());
    let heard = own.peers[1].heard;
    assert!(heard.is_some());
    assert!(
        says(&mut own, &[1], 2, 20).is_empty(),
        "the other two go on"
    );
    assert_eq!(own.peers[1].heard, heard);
    assert!(says(&mut own, &[1, 2], 2, 1).is_empty(), "not at once");
    assert!(!says(&mut own, &[1, 2], 2, 3).is_empty());
}
