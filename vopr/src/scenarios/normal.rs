//! N: a view at work, with slow disks and lost frames.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::{any_frame, frames};
use crate::sim::disk::Zone;
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::{COMMIT, PREPARE, PREPARE_OK, REPLY};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "N01",
        "smoke",
        "1 to 6 replicas go through two checkpoints, and all have the same",
        |s| Box::pin(smoke(s)),
    )
    .of(&[1, 2, 3, 4, 5, 6]),
    Scenario::new(
        "N03",
        "ack-before-disk",
        "a backup whose journal stalls acknowledges nothing; the others commit, and it catches up",
        |s| Box::pin(ack_before_disk(s)),
    ),
    Scenario::new(
        "N04",
        "primary-slow-disk",
        "the primary's own journal stalls: two backups are a quorum, and it answers nothing that it has \
         not executed; since it cannot go on, another does after some seconds",
        |s| Box::pin(primary_slow_disk(s)),
    ),
    Scenario::new(
        "N05",
        "commit-without-heartbeat",
        "heartbeats are lost: backups learn of commits from later prepares, of the last when one \
         gets through",
        |s| Box::pin(commit_without_heartbeat(s)),
    ),
];

async fn smoke(s: Script) -> Verdict {
    let [_] = s.begin().await?;
    s.load(60);
    s.settle().await?;
    for replica in 0..s.replicas() {
        check(s.checkpoint(replica) >= 40, || {
            format!("replica {replica} has not made two checkpoints")
        })?;
    }
    Ok(())
}

async fn ack_before_disk(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let mark = s.mark();
    s.stall(b, Zone::Prepares);
    let first = s.committed() + 1;
    s.requests(0, 5).await?;
    s.wait(10_000).await;
    let last = s.committed();
    check(s.view(a) == s.view(c) && s.primary() == a, || {
        "the view changed".into()
    })?;
    let acks = frames(PREPARE_OK).ops(first..=last);
    s.none_since(mark, &acks.clone().from(b), "its journal stalls")?;
    s.some_since(mark, &acks.clone().from(c).op(last), "it has it")?;
    check(!s.has(b, first), || "the prepare is on its platter".into())?;
    s.unstall(b, Zone::Prepares);
    s.sent(acks.from(b).op(last)).await?;
    s.settle().await
}

async fn primary_slow_disk(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let mark = s.mark();
    s.stall(a, Zone::Prepares);
    let op = s.committed() + 1;
    s.issue(0);
    let commit = frames(COMMIT).from(a).to(b);
    let committed = || s.committed() == op;
    s.until("two backups are enough", committed).await?;
    s.some_since(mark, &frames(PREPARE_OK).from(b).to(a).op(op), "a quorum")?;
    s.some_since(mark, &frames(PREPARE_OK).from(c).to(a).op(op), "a quorum")?;
    s.some_since(mark, &commit, "the primary knows of it")?;
    check(!s.has(a, op), || "the primary should be without it".into())?;
    // It has nothing to execute from, and falls silent after a while.
    s.answered(0).await?;
    check(s.primary() != a, || "the primary is the same".into())?;
    s.none_since(
        mark,
        &frames(REPLY).from(a).op(op),
        "it has not executed the op",
    )?;
    s.unstall(a, Zone::Prepares);
    s.settle().await
}

async fn commit_without_heartbeat(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let rule = s.lose(frames(COMMIT).from(a));
    let mark = s.mark();
    let first = s.committed() + 1;
    s.requests(0, 3).await?;
    let last = s.committed();
    for backup in [b, c] {
        // The last prepare says that the one before is committed.
        let knows = any_frame().from(backup);
        let told = s.all_since(mark, &knows);
        let highest = told.iter().map(|frame| frame.commit).max();
        check(highest >= Some(first) && highest < Some(last), || {
            format!("{backup} knows of commit {highest:?}, {first} to {last} were sent")
        })?;
    }
    s.some_since(mark, &frames(PREPARE).op(last), "it carries the commit")?;
    s.end(rule);
    s.settle().await?;
    check(s.primary() == a, || "the view changed".into())
}
