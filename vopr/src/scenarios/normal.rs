//! N: a view at work, with slow disks and lost frames.

use super::Scenario;
use super::script::{Mark, Script, check};
use crate::cluster::directed::{any_frame, frames};
use crate::sim::disk::Zone;
use crate::sim::verdict::Verdict;
use daftari::constants::BATCH_EVENTS_MAX;
use daftari::wire::header::command::{COMMIT, EVICTION, PREPARE, PREPARE_OK, REPLY, START_VIEW};
use daftari::wire::{Evicted, Operation};

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
        "N02",
        "ack-order",
        "prepares come out of order: backups acknowledge in the order of the ops",
        |s| Box::pin(ack_order(s)),
    )
    .tuned(|options| options.clients = 3),
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
    Scenario::new(
        "N06",
        "re-ack-committed",
        "the old primary has executed an op that the new one does not know to be committed: its \
         vote says so (instead of a second acknowledgement), and the two go on without the third",
        |s| Box::pin(commit_of_executed(s)),
    ),
    Scenario::new(
        "N07",
        "batch-bounds",
        "an empty and the largest batch are executed, a larger one is refused by the primary",
        |s| Box::pin(batch_bounds(s)),
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
        let highest = || {
            let told = s.all_since(mark, &knows);
            told.iter().map(|frame| frame.commit).max()
        };
        s.until("it knows of the first", || highest() >= Some(first))
            .await?;
        let highest = highest();
        check(highest < Some(last), || {
            format!("{backup} knows of commit {highest:?}, {first} to {last} were sent")
        })?;
    }
    s.some_since(mark, &frames(PREPARE).op(last), "it carries the commit")?;
    s.end(rule);
    s.settle().await?;
    check(s.primary() == a, || "the view changed".into())
}

async fn ack_order(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let first = s.committed() + 1;
    let rules = [b, c].map(|backup| s.hold(frames(PREPARE).to(backup).op(first + 1)));
    let mark = s.mark();
    for (op, client) in (first..first + 3).zip(0..3) {
        s.issue(client);
        s.until("it is prepared", || {
            s.was_sent(mark, &frames(PREPARE).op(op))
        })
        .await?;
        s.until("the primary is ready for the next", || s.has(a, op))
            .await?;
    }
    for backup in [b, c] {
        s.sent_since(mark, frames(PREPARE).to(backup).op(first + 2).arrived())
            .await?;
    }
    s.wait(200).await;
    let late = frames(PREPARE_OK).ops(first + 1..=u64::MAX);
    s.none_since(mark, &late, "the op before is missing")?;
    for rule in rules {
        s.end(rule);
    }
    s.idle().await?;
    for backup in [b, c] {
        let acks = s.all_since(mark, &frames(PREPARE_OK).from(backup));
        let firsts: Vec<u64> = (first..first + 3)
            .filter_map(|op| acks.iter().find(|ack| ack.op == op).map(|ack| ack.at))
            .collect();
        check(firsts.len() == 3 && firsts.is_sorted(), || {
            format!("{backup} acknowledges at {firsts:?}")
        })?;
    }
    s.settle().await
}

async fn commit_of_executed(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    s.isolate(c);
    let deaf = s.lose(frames(COMMIT).from(a));
    s.requests(0, 1).await?;
    // The next one is not acknowledged: the primary falls silent, and has executed the first.
    let acks = s.lose(frames(PREPARE_OK).to(a));
    let prepares = s.lose(frames(PREPARE).from(a));
    let mark = s.mark();
    s.issue(1);
    let start = s.sent_since(mark, frames(START_VIEW).from(b)).await?;
    let known = s.all_since(Mark::START, &any_frame().from(b));
    let before = known.iter().filter(|frame| frame.at < start.at);
    check({ before }.all(|frame| frame.commit < op), || {
        format!("{b} knew that op {op} is committed")
    })?;
    check(s.committed() >= op && start.op >= op, || {
        format!("op {op} should be committed, and in the view")
    })?;
    for rule in [deaf, acks, prepares] {
        s.end(rule);
    }
    s.idle().await?;
    s.some_since(
        mark,
        &frames(PREPARE_OK).from(a).to(b),
        "the old primary takes part",
    )?;
    check(!s.has(c, op), || "the third should not be needed".into())?;
    s.rejoin(c);
    s.settle().await
}

async fn batch_bounds(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let events = usize::try_from(BATCH_EVENTS_MAX).expect("32 bits");
    s.issue_this(0, Operation::CreateTransfersUnbatched, Vec::new());
    s.answered(0).await?;
    s.issue_this(
        0,
        Operation::CreateTransfersUnbatched,
        vec![0; events * 128],
    );
    s.answered(0).await?;
    let head = s.committed();
    s.provoke(1, Evicted::InvalidBodySize);
    s.provoke(1, Evicted::InvalidBody);
    // Its answer would not fit a message.
    let body = vec![7; 2 * events * 16];
    let state = s.client_state(1);
    let frame = daftari::wire::build::request(&state, Operation::LookupAccountsUnbatched, &body);
    let mark = s.mark();
    s.send_raw(1, a, &frame);
    s.sent_since(mark, frames(EVICTION).to_client(1)).await?;
    s.wait(1_000).await;
    s.none_since(mark, &frames(PREPARE), "it is refused")?;
    check(s.committed() == head, || "something was prepared".into())?;
    s.requests(0, 1).await?;
    s.settle().await
}
