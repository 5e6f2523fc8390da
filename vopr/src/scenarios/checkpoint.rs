//! K: checkpoints, and what may be overwritten when.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::frames;
use crate::cluster::world::with;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::Zone;
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::PREPARE;

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
