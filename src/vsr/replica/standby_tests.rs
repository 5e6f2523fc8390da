//! What a standby says counts for nothing, and it says next to nothing.

use super::{Effect, InFlight, Replica, Status, Way};
use crate::constants::RELEASE_LOG_MAX;
use crate::vsr::FatalReason;
use crate::vsr::log::Body;
use crate::vsr::message::{self, RecoveryAnswer};
use crate::vsr::testing::{self, Room, geometry, incoming, next};
use crate::wire::PeerHeader;
use crate::wire::header::command;
use storage_format::{Checksum, PrepareHeader};
use zerocopy::{FromBytes, IntoBytes};

const SECOND: u64 = 1_000_000_000;
const NONCE: u128 = 77;
/// The index of the standby of three replicas.
const STANDBY: u8 = 3;

/// One of three replicas, or their standby, in view 0.
fn member(own: u8, recovering: bool) -> Replica {
    let mut superblock = testing::superblock(own, 3, 32);
    superblock.recovering = u8::from(recovering);
    let mut replica = testing::start(&superblock, NONCE);
    replica.observe(SECOND, SECOND);
    if !recovering {
        replica.status = Status::Normal;
    }
    let peers = replica.peers.iter_mut();
    peers.for_each(|peer| peer.heard_no_more = true);
    replica
}

fn header(from: u8, command: u8) -> PeerHeader {
    let mut header = PeerHeader::zeroed();
    header.release = RELEASE_LOG_MAX.into();
    (header.command, header.replica) = (command, from);
    header.nonce = NONCE.into();
    header
}

fn say(replica: &mut Replica, header: PeerHeader, body: &[u8]) {
    let frame = message::frame(header, body);
    replica.handle(incoming(0, &frame), &Room);
}

/// The commands that a member sends to others, in order; everything else that it wants is left out.
fn sent(replica: &mut Replica) -> Vec<(u8, u8)> {
    let mut sent = Vec::new();
    while let Some(effect) = replica.poll_effect() {
        if let Effect::Send {
            to: Way::Peer(to),
            frame,
        } = effect
        {
            let (header, _) = PeerHeader::read_from_prefix(&frame).unwrap();
            sent.push((header.command, to));
        }
    }
    sent
}

/// The log gets an op whose body is durable here.
fn append(replica: &mut Replica) -> PrepareHeader {
    let op = next(replica.log.head(), 0);
    replica.log.append(op);
    assert!(replica.log.set_body(&op, Body::Durable));
    op
}

#[test]
fn its_acknowledgement_does_not_count() {
    let mut primary = member(0, false);
    let op = append(&mut primary);
    primary.pipeline.push_back(InFlight::new(1));
    primary.acknowledge(&op);
    let mut ok = header(STANDBY, command::PREPARE_OK);
    (ok.op, ok.checksum_item) = (op.op, op.checksum);
    say(&mut primary, ok, &[]);
    assert_eq!(primary.commit_max, 0);
    ok.replica = 2;
    say(&mut primary, ok, &[]);
    assert_eq!(primary.commit_max, 1);
}

#[test]
fn nobody_changes_the_view_for_it() {
    let mut backup = member(1, false);
    backup.asking = Some(1);
    let mut ask = header(STANDBY, command::START_VIEW_CHANGE);
    ask.view_next = 1.into();
    say(&mut backup, ask, &[]);
    let mut vote = header(STANDBY, command::DO_VIEW_CHANGE);
    vote.view = 1.into();
    let root = PrepareHeader::root(0);
    say(&mut backup, vote, root.as_bytes());
    assert_eq!(backup.view, 0);
    ask.replica = 2;
    say(&mut backup, ask, &[]);
    assert_eq!(backup.view, 1);
}

#[test]
fn its_vote_does_not_count() {
    let mut primary = member(1, false);
    (primary.view, primary.status) = (1, Status::ViewChange);
    primary.view_durable = (1, 0);
    let mut vote = header(STANDBY, command::DO_VIEW_CHANGE);
    vote.view = 1.into();
    let root = PrepareHeader::root(0);
    say(&mut primary, vote, root.as_bytes());
    assert_eq!(primary.log_view, 0);
    vote.replica = 2;
    say(&mut primary, vote, root.as_bytes());
    assert_eq!(primary.log_view, 1);
}

#[test]
fn it_answers_no_replica_that_recovers() {
    let mut lost = member(2, true);
    let answer = RecoveryAnswer {
        geometry: geometry(32),
        impostor: 0,
        replica_count: 3,
        reserved: [0; 6],
    };
    for from in [STANDBY, 0] {
        say(
            &mut lost,
            header(from, command::RECOVERY),
            answer.as_bytes(),
        );
    }
    assert!(!lost.may_join(100), "one of two has answered");
    say(&mut lost, header(1, command::RECOVERY), answer.as_bytes());
    assert!(lost.may_join(100));
}

#[test]
fn a_replica_that_recovers_finds_out_that_it_takes_standbys_for_replicas() {
    let mut lost = member(2, true);
    let answer = RecoveryAnswer {
        geometry: geometry(32),
        impostor: 0,
        replica_count: 2,
        reserved: [0; 6],
    };
    say(&mut lost, header(0, command::RECOVERY), answer.as_bytes());
    let stop = FatalReason::RecoveryReplicas { own: 3, others: 2 };
    assert!(matches!(lost.poll_effect(), Some(Effect::Stop(reason)) if reason == stop));
}

#[test]
fn its_clock_and_its_checkpoint_do_not_count() {
    let mut primary = member(0, false);
    let limit = primary.limit_of_quorum();
    let mut pong = header(STANDBY, command::PONG);
    pong.monotonic = SECOND.into();
    pong.realtime = SECOND.into();
    pong.checkpoint_op = 20.into();
    say(&mut primary, pong, &[]);
    assert_eq!(primary.time_of_day(), None);
    pong.command = command::PING;
    say(&mut primary, pong, &[]);
    assert_eq!(primary.limit_of_quorum(), limit);
    assert_eq!(sent(&mut primary), [(command::PONG, STANDBY)]);
    (pong.command, pong.replica) = (command::PONG, 1);
    say(&mut primary, pong, &[]);
    assert_eq!(primary.time_of_day(), Some(SECOND));
}

#[test]
fn it_promises_nothing_and_answers_nothing() {
    let mut standby = member(STANDBY, false);
    let op = append(&mut standby);
    standby.acknowledge(&op);
    for command in [
        command::START_VIEW_CHANGE,
        command::DO_VIEW_CHANGE,
        command::RECOVER,
        command::PING,
        command::REQUEST_HEADERS,
        command::REQUEST_START_VIEW,
    ] {
        let mut asked = header(2, command);
        (asked.view, asked.view_next) = (1.into(), 2.into());
        say(&mut standby, asked, PrepareHeader::root(0).as_bytes());
    }
    assert_eq!(sent(&mut standby), []);
    assert_eq!((standby.view, standby.status), (0, Status::Normal));
}

#[test]
fn it_waits_for_a_primary_that_is_gone_and_follows_the_next() {
    let mut standby = member(STANDBY, false);
    for second in 2..30 {
        standby.observe(second * SECOND, SECOND);
        standby.tick();
        let pings = sent(&mut standby);
        assert!(pings.iter().all(|(command, _)| *command == command::PING));
    }
    assert_eq!((standby.view, standby.status), (0, Status::Normal));
    let mut commit = header(2, command::COMMIT);
    commit.view = 5.into();
    commit.commit = 1.into();
    let _op = append(&mut standby);
    say(&mut standby, commit, &[]);
    assert_eq!(sent(&mut standby), [(command::REQUEST_START_VIEW, 2)]);
    assert_eq!(standby.commit_max, 0, "it is committed in a log of view 5");
}

#[test]
fn it_stops_when_its_checkpoint_is_another_than_that_of_replicas() {
    let with_checkpoint = |own| {
        let mut this = member(own, false);
        this.checkpoint.header.op = 10.into();
        this.checkpoint_id = Checksum([1; 16]);
        this
    };
    let mut ping = header(0, command::PONG);
    ping.checkpoint_op = 10.into();
    ping.checksum_item = Checksum([2; 16]);
    let mut standby = with_checkpoint(STANDBY);
    say(&mut standby, ping, &[]);
    let stop = FatalReason::Diverged { op: 10 };
    assert!(matches!(standby.poll_effect(), Some(Effect::Stop(reason)) if reason == stop));
    // That of a standby is nobody's business.
    (ping.command, ping.replica) = (command::PING, STANDBY);
    let mut replica = with_checkpoint(1);
    say(&mut replica, ping, &[]);
    assert_eq!(sent(&mut replica), [(command::PONG, STANDBY)]);
}
