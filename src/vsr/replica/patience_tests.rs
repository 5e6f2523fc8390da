//! Who counts as heard, and who is asked meanwhile.

use super::timers::{PATIENCE, RESEND};
use super::{Replica, Status};
use crate::constants::{NANOSECONDS, RELEASE_LOG_MAX};
use crate::vsr::message;
use crate::vsr::testing::{self, Room, next};
use crate::wire::PeerHeader;
use crate::wire::header::command;
use bytes::Bytes;
use storage_format::PrepareHeader;
use zerocopy::IntoBytes;

/// A backup of three replicas in view 0 that knows of so many ops, and lacks all of them.
fn backup(ops: u64) -> (Replica, Vec<PrepareHeader>) {
    let mut backup = testing::start(&testing::superblock(2, 3, 48), 7);
    backup.observe(NANOSECONDS, NANOSECONDS);
    backup.status = Status::Normal;
    let mut prepares = Vec::new();
    for _ in 0..ops {
        let mut header = next(backup.log.head(), 0);
        header.release = RELEASE_LOG_MAX.into();
        header.seal();
        backup.log.append(header);
        prepares.push(header);
    }
    (backup, prepares)
}

fn pass(replica: &mut Replica, time: u64) {
    let now = replica.timers.now + time;
    replica.observe(now, now);
    replica.tick();
}

fn hear(replica: &mut Replica, frame: &[u8]) {
    let frame = Bytes::copy_from_slice(frame);
    replica.handle(testing::incoming(0, &frame), &Room);
}

#[test]
fn what_a_backup_lacks_comes_from_anybody_and_is_no_sign_of_its_primary() {
    let (mut backup, prepares) = backup(20);
    for prepare in &prepares {
        hear(&mut backup, prepare.as_bytes());
        pass(&mut backup, RESEND);
    }
    assert_eq!(backup.asking, Some(1));
    // The next op is one.
    let mut op = next(backup.log.head(), 0);
    op.release = RELEASE_LOG_MAX.into();
    op.seal();
    hear(&mut backup, op.as_bytes());
    assert_eq!(backup.asking, None);
}

#[test]
fn who_is_missed_is_rarely_asked_for_what_is_missing() {
    let (mut backup, _) = backup(1);
    let asked = |backup: &mut Replica| {
        let mut counts = [0; 3];
        (0..100).for_each(|_| counts[usize::from(backup.whom_to_ask())] += 1);
        counts
    };
    let [primary, other, own] = asked(&mut backup);
    assert!(primary > 50 && other > 10 && own == 0);
    pass(&mut backup, PATIENCE / 2);
    let [primary, other, own] = asked(&mut backup);
    assert!(primary < 20 && other > 80 && own == 0, "it may be there");
    let mut heartbeat = PeerHeader::zeroed();
    heartbeat.release = RELEASE_LOG_MAX.into();
    (heartbeat.command, heartbeat.replica_count) = (command::COMMIT, 3);
    hear(&mut backup, &message::frame(heartbeat, &[]));
    assert!(asked(&mut backup)[0] > 50);
}
