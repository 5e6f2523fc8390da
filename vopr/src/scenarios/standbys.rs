//! T: standbys, which follow the replicas and have no say.

use super::Scenario;
use super::script::{Mark, Script, check};
use crate::cluster::directed::{any_frame, frames};
use crate::cluster::world::with;
use crate::sim::disk::{Survived, Zone};
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::{COMMIT, PREPARE, START_VIEW};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "T01",
        "standby-follows",
        "a standby gets its prepares from backups, through changes of the view, and is no help when \
         a quorum is missing",
        |s| Box::pin(follows(s)),
    )
    .of(&[3, 5])
    .tuned(|options| options.add_standbys(2)),
    Scenario::new(
        "T02",
        "standby-behind-wrap",
        "a standby lags by more than a journal: nobody waits for it, and it goes on from a checkpoint",
        |s| Box::pin(behind_wrap(s)),
    )
    .of(&[1, 2, 3])
    .tuned(|options| options.add_standbys(1)),
    Scenario::new(
        "T03",
        "standby-has-more-than-solo",
        "the append of the only replica is torn, and a standby has the op: it drops that, and never \
         executes it",
        |s| Box::pin(has_more_than_solo(s)),
    )
    .of(&[1])
    .tuned(|options| options.add_standbys(1)),
];

/// Prepares that a member got from another one.
fn prepares(s: Script, mark: Mark, from: u8, to: u8) -> usize {
    s.all_since(mark, &frames(PREPARE).from(from).to(to)).len()
}

async fn follows(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let first = s.replicas();
    let mark = s.mark();
    s.log_up_to(30).await?;
    s.settle().await?;
    check(s.checkpoint(first) > 0, || "there is no checkpoint".into())?;
    // One has the first backup, the other the second.
    for (backup, standby) in [(b, first), (c, first + 1)] {
        let (fed, of_primary) = (
            prepares(s, mark, backup, standby),
            prepares(s, mark, a, standby),
        );
        check(fed >= 20 && of_primary < fed, || {
            format!("{standby} got {fed} prepares from {backup}, and {of_primary} from the primary")
        })?;
    }
    // Without its backup, a standby gets them from the primary.
    s.crash(b);
    s.wait(2_000).await;
    let mark = s.mark();
    s.requests(0, 5).await?;
    check(prepares(s, mark, a, first) >= 5, || {
        format!("the primary does not feed {first}")
    })?;
    s.start(b);
    s.settle().await?;
    let mark = s.mark();
    s.crash(a);
    s.new_view(mark).await?;
    s.requests(0, 3).await?;
    s.some_since(mark, &frames(START_VIEW).to(first), "it hears of the view")?;
    // One replica and two standbys are no quorum of three, nor two of five.
    for replica in s.others(a).take(s.quorum() - 1) {
        s.crash(replica);
    }
    let committed = s.committed();
    s.issue(0);
    s.stays(5_000, "nothing is committed", || s.committed() == committed)
        .await?;
    for replica in 0..s.replicas() {
        s.start(replica);
    }
    s.answered(0).await?;
    s.settle().await
}

async fn behind_wrap(s: Script) -> Verdict {
    let _replicas: [u8; 1] = s.begin().await?;
    let standby = s.replicas();
    let op = s.committed() + 1;
    s.isolate(standby);
    // Were it waited for, the log would not get there.
    s.log_up_to(op + s.slots() + 3).await?;
    for replica in 0..s.replicas() {
        s.caught_up(replica).await?;
        check(!s.has(replica, op), || {
            format!("{replica} still has op {op}")
        })?;
    }
    check(!s.has(standby, op), || "it is not behind".into())?;
    let mark = s.mark();
    s.rejoin(standby);
    s.until("it takes a checkpoint", || {
        with(|world| world.checker.counts.syncs) > 0
    })
    .await?;
    s.caught_up(standby).await?;
    s.some_since(
        mark,
        &frames(START_VIEW).to(standby),
        "it asks for the checkpoint",
    )?;
    s.requests(0, 3).await?;
    s.settle().await
}

async fn has_more_than_solo(s: Script) -> Verdict {
    let [a] = s.begin().await?;
    s.log_up_to(5 + s.below(30)).await?;
    s.settle().await?;
    let standby = s.replicas();
    let op = s.committed() + 1;
    s.stall(a, Zone::Prepares);
    s.issue(0);
    s.until("the standby has it alone", || s.has(standby, op))
        .await?;
    let dropped = s.prepare(standby, op);
    check(!s.has(a, op), || "the replica has it, too".into())?;
    s.crash_with(a, Survived::Torn);
    s.unstall(a, Zone::Prepares);
    if s.below(2) == 0 {
        s.crash(standby);
        s.start(standby);
    }
    let view = s.view(a);
    let rule = s.hold(frames(START_VIEW).to(standby));
    let mark = s.mark();
    s.start(a);
    s.answered(0).await?;
    check(s.view(a) > view && s.history(op) != dropped, || {
        "the replica has not dropped it".into()
    })?;
    // It hears that the op is committed, and knows of another one.
    s.until("it is told so", || {
        let told = s.all_since(mark, &frames(COMMIT).from(a).to(standby));
        told.iter().any(|frame| frame.commit >= op)
    })
    .await?;
    s.wait(2_500).await;
    check(s.prepare(standby, op) == dropped, || "it is gone".into())?;
    let said = s.all_since(mark, &any_frame().from(standby).to(a));
    check(said.iter().all(|frame| frame.commit < op), || {
        "the standby takes it as committed".into()
    })?;
    s.end(rule);
    s.caught_up(standby).await?;
    check(s.prepare(standby, op) == s.history(op), || {
        "it has the wrong op".into()
    })?;
    s.requests(0, 3).await?;
    s.settle().await
}
