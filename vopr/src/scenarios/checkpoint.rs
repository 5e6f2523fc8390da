//! K: checkpoints, and what may be overwritten when.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::{Sent, frames};
use crate::cluster::network::Place;
use crate::cluster::world::with;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::Zone;
use crate::sim::options::MS;
use crate::sim::verdict::Verdict;
use bytes::Bytes;
use daftari::vsr::FatalReason;
use daftari::wire::header::command::{BLOCK, COMMIT, PREPARE, PREPARE_OK};
use storage_format::{Checksum, PrepareHeader, SECTOR_SIZE};
use zerocopy::{FromBytes, IntoBytes};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "K01",
        "crash-at-checkpoint",
        "each replica crashes at some write of a checkpoint, and makes the same one again",
        |s| Box::pin(crash_at_checkpoint(s)),
    )
    .of(&[1, 2, 3]),
    Scenario::new(
        "K02",
        "primary-checkpoints-backup-not",
        "a backup is down before a checkpoint, and its first op rots: nobody has overwritten it yet",
        |s| Box::pin(primary_checkpoints_backup_not(s)),
    )
    .of(&[3, 5]),
    Scenario::new(
        "K03",
        "slot-reuse-gate",
        "backups make no checkpoint: the primary prepares nothing that would overwrite what they \
         need (it stops before that, when their buffers are full), and goes on when they do",
        |s| Box::pin(slot_reuse_gate(s)),
    ),
    Scenario::new(
        "K04",
        "free-gate",
        "a block that a checkpoint releases is used again when that is durable here (whatever others have): \
         where it is not, a replica finds it that needs it",
        |s| Box::pin(free_gate(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "K06",
        "checkpoint-id-in-prepare",
        "a prepare names another checkpoint than its receiver has: it is neither kept nor acknowledged, \
         and the replica stops if the op is committed",
        |s| Box::pin(checkpoint_id_in_prepare(s)),
    ),
];

async fn crash_at_checkpoint(s: Script) -> Verdict {
    let [_] = s.begin().await?;
    for replica in 0..s.replicas() {
        let before = s.checkpoint(replica);
        let last = before + 20;
        // Those of the journal, of blocks, and of the superblock.
        while s.committed() < last - 1 {
            s.requests(0, 1).await?;
        }
        s.plan_crash(replica, CrashPlan::AtWrite(1 + s.below(24)));
        s.load(8);
        s.down(replica).await?;
        s.wait(s.below(1_000)).await;
        s.start(replica);
        s.settle().await?;
        s.log_up_to(last).await?;
        s.settle().await?;
        check(s.checkpoint(replica) >= last, || {
            format!("replica {replica} has not made checkpoint {last}")
        })?;
    }
    Ok(())
}

async fn primary_checkpoints_backup_not(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let op = s.committed() + 1;
    s.requests(0, 3).await?;
    s.settle().await?;
    s.crash(b);
    s.damage_prepare(b, op);
    s.log_up_to(30).await?;
    s.until("the primary makes one", || s.checkpoint(a) == 20)
        .await?;
    check(s.has(a, op), || {
        format!("the primary has overwritten op {op}")
    })?;
    let mark = s.mark();
    s.start(b);
    s.caught_up(b).await?;
    s.settle().await?;
    s.some_since(mark, &frames(PREPARE).to(b).op(op), "it had lost it")?;
    check(s.checkpoint(b) == 20, || "it has not made it".into())?;
    check(with(|world| world.checker.counts.syncs) == 0, || {
        "it took a checkpoint of another".into()
    })
}

async fn slot_reuse_gate(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.stall(b, Zone::Grid);
    s.stall(c, Zone::Grid);
    s.load(150);
    s.until("the primary makes one", || s.checkpoint(a) >= 20)
        .await?;
    s.wait(10_000).await;
    check(s.checkpoint(b) == 0 && s.checkpoint(c) == 0, || {
        "the others make one".into()
    })?;
    let most = s.slots();
    let beyond = frames(PREPARE).ops(most + 1..=u64::MAX);
    s.none_since(
        super::script::Mark::START,
        &beyond,
        "nobody has a later checkpoint",
    )?;
    let head = s.committed();
    s.stays(3_000, "nothing is committed", || s.committed() == head)
        .await?;
    check(s.waits(0) && head > 20, || "there is no load".into())?;
    s.unstall(b, Zone::Grid);
    s.unstall(c, Zone::Grid);
    s.settle().await
}

async fn free_gate(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.log_up_to(22).await?;
    s.settle().await?;
    let blocks = s.blocks(c);
    s.crash(c);
    for block in &blocks {
        s.damage_block(c, *block);
    }
    s.stall(b, Zone::Superblock);
    // Each fills blocks.
    for first in (0..).step_by(100).take(24) {
        s.create_accounts(0, 1_000_000 + first..1_000_100 + first);
        s.answered(0).await?;
    }
    s.until("the backup has all but its superblock", || {
        !s.writing(b, Zone::Superblock).is_empty()
    })
    .await?;
    check(s.checkpoint(a) == 40 && s.checkpoint(b) == 20, || {
        format!("only {a} should have the next checkpoint")
    })?;
    let first_page = |replica, block| {
        let offset = s.geometry().block_offset(block);
        s.bytes(replica, offset, SECTOR_SIZE)
    };
    let mut reused = blocks;
    reused.retain(|block| first_page(a, *block) != first_page(b, *block));
    check(!reused.is_empty(), || {
        "the primary should have used blocks again".into()
    })?;
    let mark = s.mark();
    s.start(c);
    s.until("the third makes the next checkpoint", || {
        s.checkpoint(c) == 40
    })
    .await?;
    let sent = s.all_since(mark, &frames(BLOCK).to(c));
    let mut old = sent.iter().filter(|sent| reused.contains(&sent.op));
    check(old.clone().count() > 0, || "it needed none of those".into())?;
    check(old.all(|sent| sent.from == Place::Replica(b)), || {
        format!("{a} should not have them any more")
    })?;
    check(
        s.checkpoint(b) == 20 && with(|world| world.checker.counts.syncs) == 0,
        || "it took a checkpoint of another".into(),
    )?;
    s.unstall(b, Zone::Superblock);
    s.settle().await
}

/// The prepare as a primary with another checkpoint would have made it.
fn of_another_history(sent: &Sent) -> Sent {
    let (mut header, body) = PrepareHeader::read_from_prefix(&sent.bytes).expect("a whole frame");
    header.checkpoint_id = Checksum([0x5a; 16]);
    header.seal();
    Sent {
        bytes: Bytes::from([header.as_bytes(), body].concat()),
        ..sent.clone()
    }
}

async fn checkpoint_id_in_prepare(s: Script) -> Verdict {
    let [_, b, c] = s.begin().await?;
    // From op 32 on all build on the checkpoint of op 20.
    s.log_up_to(32 + s.below(10)).await?;
    s.settle().await?;
    let held = s.hold(frames(PREPARE).to(c));
    let silent = s.lose(frames(PREPARE_OK).from(b));
    let (mark, op) = (s.mark(), s.committed() + 1);
    s.issue(0);
    let sent = s.sent_since(mark, frames(PREPARE).to(c).op(op)).await?;
    let forged = of_another_history(&sent);
    s.replay(&forged);
    s.stays(300, "the replica has not got it, and goes on", || {
        s.is_up(c) && !s.has(c, op)
    })
    .await?;
    s.end(silent);
    s.until("the replica hears that the op is committed", || {
        let heard = s.all_since(mark, &frames(COMMIT).to(c).arrived());
        heard.iter().any(|commit| commit.commit >= op)
    })
    .await?;
    s.wait(100).await;
    s.may_exit(c);
    s.replay(&forged);
    let reason = s.exited(c).await?;
    check(reason == FatalReason::Diverged { op: 20 }, || {
        format!("it exits: {reason:?}")
    })?;
    check(!s.has(c, op), || format!("it has op {op}"))?;
    let ok = frames(PREPARE_OK).from(c).op(op);
    s.none_since(mark, &ok, "its checkpoint is another")?;
    s.end(held);
    s.start(c);
    s.settle().await
}
