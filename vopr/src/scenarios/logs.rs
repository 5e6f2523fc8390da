//! V: the log that a view starts with: what is kept of several, what is dropped, and what has to be waited for.
//!
//! In all of them `a` is the primary of the view at first, `b` of the next one, and so on.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::frames;
use crate::cluster::network::Place;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::Zone;
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::{
    COMMIT, DO_VIEW_CHANGE, HEADERS, PREPARE, PREPARE_OK, START_VIEW,
};
use storage_format::PrepareHeader;

/// All of them.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "V03",
        "minority-copy-survives",
        "an op that one backup acknowledged is kept, though nobody knows whether it is committed",
        |s| Box::pin(minority_copy_survives(s)),
    ),
    Scenario::new(
        "V04",
        "minority-copy-outside-quorum",
        "a primary that is cut off has an op alone: the others commit another one, which it takes",
        |s| Box::pin(minority_copy_outside_quorum(s)),
    ),
    Scenario::new(
        "V05",
        "gaps-in-suffix",
        "two logs, each with a hole where the other is whole, make one (holes come from damage: \
         backups take prepares in order only)",
        |s| Box::pin(gaps_in_suffix(s)),
    ),
    Scenario::new(
        "V06",
        "gap-hides-break",
        "a replica with ops of a dropped branch below a hole in its log votes with the chain above \
         the hole only",
        |s| Box::pin(gap_hides_break(s)),
    )
    .tuned(|options| options.geometry.journal_slot_count = 64.into()),
    Scenario::new(
        "V07",
        "nack-older-view",
        "two primaries each have ops alone, of two views: a third view drops both",
        |s| Box::pin(nack_older_view(s)),
    )
    .tuned(|options| options.clients = 3),
    Scenario::new(
        "V08",
        "implicit-nack",
        "a vote with another prepare in the place of an op counts as never having acknowledged it",
        |s| Box::pin(implicit_nack(s)),
    ),
    Scenario::new(
        "V09",
        "corrupt-cannot-nack",
        "a damaged copy of a committed op is no proof against it: the view waits for who has it",
        |s| Box::pin(corrupt_cannot_nack(s)),
    ),
    Scenario::new(
        "V10",
        "two-damaged-stall",
        "both copies of an acknowledged op are damaged: no view starts until one is restored",
        |s| Box::pin(two_damaged_stall(s)),
    ),
    Scenario::new(
        "V11",
        "damaged-plus-nack-quorum",
        "of five, one copy is damaged and three never had the op: it is dropped all the same",
        |s| Box::pin(damaged_plus_nack_quorum(s)),
    )
    .of(&[5]),
    Scenario::new(
        "V12",
        "known-header-bad-body",
        "a committed op that one replica knows by its header only, and whose other copy is \
         damaged, waits for the third",
        |s| Box::pin(known_header_bad_body(s)),
    ),
    Scenario::new(
        "V19",
        "double-view-change",
        "a view's start reached one replica only: the next view takes its log, not longer old ones",
        |s| Box::pin(double_view_change(s)),
    )
    .of(&[5]),
    Scenario::new(
        "V20",
        "log-view-regress",
        "a replica with the newest log crashes at each superblock write of the view after: what \
         its log has is kept",
        |s| Box::pin(log_view_regress(s)),
    ),
    Scenario::new(
        "V25",
        "next-wrap-headers",
        "headers beyond what the journal may hold at its checkpoint are in the votes all the same",
        |s| Box::pin(next_wrap_headers(s)),
    ),
    Scenario::new(
        "V26",
        "stale-vote-content",
        "a vote that is sent again says what is on the disk by then",
        |s| Box::pin(stale_vote_content(s)),
    ),
];

/// The headers of a chain, newest first.
fn is_chain(headers: &[PrepareHeader]) -> bool {
    headers
        .windows(2)
        .all(|pair| pair[0].parent == pair[1].checksum && pair[0].op.get() == pair[1].op.get() + 1)
}

async fn minority_copy_survives(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let to_c = s.lose(frames(PREPARE).to(c));
    let acks = s.lose(frames(PREPARE_OK).to(a));
    s.issue(0);
    let ack = s.sent(frames(PREPARE_OK).from(b).op(op)).await?;
    check(s.committed() < op && !s.has(c, op), || {
        format!("op {op} should be on {b} only, and not committed")
    })?;
    let mark = s.mark();
    s.crash(a);
    s.end(acks);
    let start = s.new_view(mark).await?;
    s.end(to_c);
    check(
        start.op == op && start.headers()[0].checksum == ack.item,
        || {
            format!(
                "the view starts at op {} without what {b} acknowledged",
                start.op
            )
        },
    )?;
    s.answered(0).await?;
    let committed = s.history(op).map(|header| header.checksum);
    check(committed == Some(ack.item), || {
        "another op was committed".into()
    })?;
    s.start(a);
    s.settle().await
}

async fn minority_copy_outside_quorum(s: Script) -> Verdict {
    let [a, ..] = s.begin::<3>().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    let alone = s.op_of_primary_alone(a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    s.end(rule);
    s.answered(0).await?;
    check(s.history(op).is_some_and(|header| header != alone), || {
        format!("op {op} should be another than that of the old primary")
    })?;
    check(s.prepare(a, op) == Some(alone), || {
        "it lost it too early".into()
    })?;
    s.rejoin(a);
    s.settle().await?;
    check(s.prepare(a, op) == s.history(op), || {
        "it keeps the old one".into()
    })
}

async fn gaps_in_suffix(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let first = s.committed() + 1;
    s.requests(0, 4).await?;
    s.settle().await?;
    for replica in [a, b, c] {
        s.crash(replica);
    }
    s.damage_prepare(b, first + 2);
    s.damage_prepare(c, first + 1);
    let mark = s.mark();
    s.start(b);
    s.start(c);
    let start = s.new_view(mark).await?;
    check(start.op == first + 3, || {
        format!("it starts at op {}", start.op)
    })?;
    s.requests(0, 1).await?;
    s.some_since(mark, &frames(PREPARE).from(c).to(b).op(first + 2), "a hole")?;
    s.some_since(mark, &frames(PREPARE).from(b).to(c).op(first + 1), "a hole")?;
    s.caught_up(b).await?;
    s.caught_up(c).await?;
    check(!s.is_up(a), || "the third should not be needed".into())?;
    s.start(a);
    s.settle().await
}

async fn gap_hides_break(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    let dropped = s.op_of_primary_alone(a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    s.end(rule);
    // More than the start of a view tells.
    s.answered(0).await?;
    s.requests(0, 19).await?;
    let head = s.committed();
    let blind = s.lose(frames(HEADERS).to(a));
    s.rejoin(a);
    s.until("it takes part in the view", || s.view(a) == s.view(b))
        .await?;
    let mark = s.mark();
    s.crash(b);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(a)).await?;
    let log = vote.headers();
    check(vote.op >= head && is_chain(&log), || {
        format!("the vote is no chain from op {head} on: {log:?}")
    })?;
    let lowest = log.last().map_or(0, |header| header.op.get());
    check(lowest > op + 1 && !log.contains(&dropped), || {
        format!("the vote reaches down to op {lowest}, of another branch")
    })?;
    check(s.prepare(a, op) == Some(dropped), || {
        "there is no other branch".into()
    })?;
    s.new_view(mark).await?;
    s.end(blind);
    s.start(b);
    s.settle().await?;
    check(s.prepare(c, op) == s.prepare(a, op), || {
        "the branches stay".into()
    })
}

async fn nack_older_view(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE));
    let of_a = s.op_of_primary_alone(a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    let mark = s.mark();
    let next = s.new_view(mark).await?;
    check(next.from == Place::Replica(b) && next.op < op, || {
        format!("the next view should be of {b}, and without op {op}")
    })?;
    s.until("it works", || s.superblock(c).log_view.get() == next.view)
        .await?;
    // A client asks again, or this one asks first.
    s.issue(1);
    s.until("the second primary has an op alone", || s.has(b, op))
        .await?;
    let of_b = s.prepare(b, op).expect("it is there");
    check(of_b != of_a && !s.has(c, op), || "they are not two".into())?;
    s.isolate(b);
    s.isolate_from_clients(b);
    s.rejoin(a);
    s.cut(a, b);
    let later = frames(START_VIEW).views(next.view + 1..=u32::MAX);
    let start = s.sent(later).await?;
    s.end(rule);
    check(start.from == Place::Replica(c) && start.op < op, || {
        format!("the third view starts at op {}", start.op)
    })?;
    s.answered(0).await?;
    s.rejoin(b);
    s.settle().await?;
    let committed = s.history(op);
    check(committed != Some(of_a) && committed != Some(of_b), || {
        format!("op {op} should be a third one")
    })
}

async fn implicit_nack(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    let of_a = s.op_of_primary_alone(a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    // The next primary's op reaches the third replica, which cannot write it.
    s.stall(c, Zone::Prepares);
    let lost = s.lose(frames(PREPARE_OK).from(c));
    let mark = s.mark();
    let next = s.new_view(mark).await?;
    s.until("it works", || s.superblock(c).log_view.get() == next.view)
        .await?;
    s.issue(1);
    s.sent_since(mark, frames(PREPARE).from(b).to(c).op(op).arrived())
        .await?;
    s.wait(300).await;
    let of_b = s.prepare(b, op);
    check(
        of_b.is_some_and(|of_b| of_b != of_a) && !s.has(c, op),
        || format!("op {op} should be on {b} and in the memory of {c}"),
    )?;
    let mark = s.mark();
    s.isolate(b);
    s.isolate_from_clients(b);
    s.rejoin(a);
    s.cut(a, b);
    let start = s
        .sent_since(mark, frames(START_VIEW).views(next.view + 1..=u32::MAX))
        .await?;
    s.unstall(c, Zone::Prepares);
    s.end(lost);
    let vote = |replica| frames(DO_VIEW_CHANGE).from(replica).view(start.view);
    let of_c = s.sent_since(mark, vote(c)).await?;
    let at = of_c.headers().iter().position(|known| Some(*known) == of_b);
    let denied = at.is_some_and(|at| of_c.peer().nacks.get() >> at & 1 == 1);
    check(denied, || {
        format!("{c} should know op {op}, and say that it never acknowledged it")
    })?;
    let other = s.sent_since(mark, vote(a)).await?.headers();
    check(other.contains(&of_a), || {
        "the other vote has no other op".into()
    })?;
    check(start.op < op, || {
        format!("the view starts at op {}", start.op)
    })?;
    s.end(rule);
    s.answered(0).await?;
    s.rejoin(b);
    s.settle().await
}

async fn corrupt_cannot_nack(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).to(c));
    s.requests(0, 1).await?;
    let committed = s.history(op);
    check(committed.is_some() && !s.has(c, op), || {
        format!("op {op} should be committed without {c}")
    })?;
    s.crash(a);
    s.crash(b);
    s.damage_prepare(b, op);
    if s.below(2) == 0 {
        s.damage_header(b, op);
    }
    let mark = s.mark();
    s.start(b);
    for replica in [b, c] {
        s.sent_since(mark, frames(DO_VIEW_CHANGE).from(replica))
            .await?;
    }
    s.stays(10_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    s.start(a);
    let start = s.new_view(mark).await?;
    s.end(rule);
    check(start.op >= op, || {
        format!("the view starts at op {}", start.op)
    })?;
    s.settle().await?;
    check(s.prepare(b, op) == committed, || {
        "it was not repaired".into()
    })
}

async fn two_damaged_stall(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    s.stall(a, Zone::Prepares);
    let mark = s.mark();
    s.issue(0);
    for backup in [b, c] {
        s.sent_since(mark, frames(PREPARE_OK).from(backup).op(op))
            .await?;
    }
    s.crash_with(a, crate::sim::disk::Survived::None);
    s.unstall(a, Zone::Prepares);
    s.crash(b);
    s.crash(c);
    check(!s.has(a, op) && s.has(b, op) && s.has(c, op), || {
        format!("op {op} should be on the backups")
    })?;
    s.damage_prepare(b, op);
    s.damage_prepare(c, op);
    let mark = s.mark();
    for replica in [a, b, c] {
        s.start(replica);
    }
    for replica in [a, b, c] {
        s.sent_since(mark, frames(DO_VIEW_CHANGE).from(replica))
            .await?;
    }
    s.stays(20_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    s.restore();
    let start = s.new_view(mark).await?;
    check(start.op >= op, || format!("it starts at op {}", start.op))?;
    s.settle().await
}

async fn damaged_plus_nack_quorum(s: Script) -> Verdict {
    let [a, b, c, d, e] = s.begin().await?;
    let op = s.committed() + 1;
    let rules = [c, d, e].map(|other| s.lose(frames(PREPARE).to(other)));
    s.issue(0);
    s.sent(frames(PREPARE_OK).from(b).op(op)).await?;
    let dropped = s.prepare(b, op);
    s.crash(a);
    s.crash(b);
    check(s.committed() < op, || "it is committed".into())?;
    s.damage_prepare(b, op);
    for rule in rules {
        s.end(rule);
    }
    let mark = s.mark();
    s.start(b);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
    check(vote.op == op && vote.peer().nacks.get() & 1 == 0, || {
        format!("{b} should know op {op}, and not deny it")
    })?;
    let start = s.new_view(mark).await?;
    check(start.op < op, || {
        format!("the view starts at op {}", start.op)
    })?;
    s.answered(0).await?;
    s.start(a);
    s.settle().await?;
    check(s.history(op) != dropped, || {
        "it is committed after all".into()
    })
}

async fn known_header_bad_body(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).to(b));
    // Nobody knows that it is committed.
    let heartbeats = s.lose(frames(COMMIT).from(a));
    s.requests(0, 1).await?;
    let committed = s.history(op);
    check(committed.is_some() && s.has(c, op), || {
        format!("op {op} should be committed by {a} and {c}")
    })?;
    s.crash(a);
    let next = s.new_view(s.mark()).await?;
    check(next.from == Place::Replica(b) && next.op == op, || {
        format!("{b} should know op {op} from the vote of {c}")
    })?;
    s.crash(c);
    s.damage_prepare(c, op);
    check(!s.has(b, op), || format!("{b} should not have op {op}"))?;
    let mark = s.mark();
    s.start(c);
    for replica in [b, c] {
        s.sent_since(mark, frames(DO_VIEW_CHANGE).from(replica))
            .await?;
    }
    let later = frames(START_VIEW).views(next.view + 1..=u32::MAX);
    s.stays(10_000, "no view starts", || !s.was_sent(mark, &later))
        .await?;
    s.end(heartbeats);
    s.start(a);
    let start = s.sent_since(mark, later).await?;
    s.end(rule);
    check(start.op >= op, || {
        format!("the view starts at op {}", start.op)
    })?;
    s.settle().await?;
    check(s.prepare(b, op) == committed, || {
        "it was not repaired".into()
    })
}

async fn double_view_change(s: Script) -> Verdict {
    let [a, b, c, d, e] = s.begin().await?;
    let op = s.committed() + 1;
    let rules = [b, c, e].map(|other| s.lose(frames(PREPARE).from(a).to(other)));
    s.issue(0);
    s.sent(frames(PREPARE_OK).from(d).op(op)).await?;
    let dropped = s.prepare(d, op);
    for (one, other) in [(a, b), (a, c), (a, e), (d, b), (d, c), (d, e)] {
        s.cut(one, other);
    }
    s.isolate_from_clients(a);
    let mark = s.mark();
    let starts = s.lose(frames(START_VIEW).from(b).to(e));
    let first = s.sent_since(mark, frames(START_VIEW).from(b)).await?;
    check(first.op < op, || "the op is in the next view".into())?;
    s.until("one has installed the log", || {
        s.superblock(c).log_view.get() == first.view
    })
    .await?;
    s.crash(b);
    check(s.superblock(e).log_view.get() < first.view, || {
        format!("the start should not have reached {e}")
    })?;
    s.end(starts);
    for rule in rules {
        s.end(rule);
    }
    s.rejoin(d);
    s.rejoin(a);
    let later = frames(START_VIEW).views(first.view + 1..=u32::MAX);
    let second = s.sent_since(mark, later).await?;
    // The next primary may have prepared the request again.
    let old = second.headers().iter().any(|known| Some(*known) == dropped);
    check(!old, || {
        format!("the view starts at op {}, from older logs", second.op)
    })?;
    s.answered(0).await?;
    s.start(b);
    s.settle().await?;
    check(s.history(op) != dropped, || {
        "the old op is committed".into()
    })
}

async fn log_view_regress(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    let old = s.op_of_primary_alone(a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    s.end(rule);
    s.answered(0).await?;
    let kept = s.history(op);
    check(kept.is_some_and(|kept| kept != old), || {
        "not two ops".into()
    })?;
    let view = s.newest_view();
    s.crash(b);
    s.plan_crash(c, CrashPlan::Superblock(1 + s.below(8)));
    s.rejoin(a);
    s.down(c).await?;
    let log_view = s.superblock(c).log_view.get();
    check(log_view >= view, || {
        format!("log view {log_view} after {view}")
    })?;
    let mark = s.mark();
    s.start(c);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(c)).await?;
    check(vote.log_view >= view && vote.op >= op, || {
        format!(
            "it votes with log view {} and op {}",
            vote.log_view, vote.op
        )
    })?;
    s.new_view(mark).await?;
    s.start(b);
    s.settle().await?;
    check(s.history(op) == kept && s.prepare(a, op) == kept, || {
        "the newest log did not win".into()
    })
}

async fn next_wrap_headers(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.isolate(b);
    s.log_up_to(s.slots() + 3).await?;
    s.caught_up(c).await?;
    let head = s.committed();
    let rule = s.lose(frames(PREPARE).to(b));
    s.crash(a);
    s.rejoin(b);
    let mark = s.mark();
    let first = s.new_view(mark).await?;
    s.until("it has the log of the view", || {
        s.superblock(b).log_view.get() == first.view
    })
    .await?;
    check(s.checkpoint(b) == 0 && head >= s.slots(), || {
        "the head should be beyond its journal".into()
    })?;
    let later = frames(DO_VIEW_CHANGE)
        .from(b)
        .views(first.view + 1..=u32::MAX);
    let vote = s.sent_since(mark, later).await?;
    let top = vote.headers().first().map(|header| header.op.get());
    check(
        vote.op == head && top == Some(head) && is_chain(&vote.headers()),
        || format!("it votes with op {}, the head is {head}", vote.op),
    )?;
    check(!s.has(b, head), || "it has the prepare".into())?;
    s.end(rule);
    s.start(a);
    s.settle().await
}

async fn stale_vote_content(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    let op = s.committed() + 1;
    s.stall(c, Zone::Prepares);
    let acks = s.lose(frames(PREPARE_OK).to(a));
    let to_b = s.lose(frames(PREPARE).to(s.others(a).find(|it| *it != c).expect("b")));
    s.issue(0);
    s.sent(frames(PREPARE).from(a).to(c).op(op).arrived())
        .await?;
    s.wait(100).await;
    let votes = s.lose(frames(DO_VIEW_CHANGE).from(c));
    let mark = s.mark();
    s.crash(a);
    let first = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(c)).await?;
    check(first.op == op && first.peer().nacks.get() & 1 == 1, || {
        format!("it should know op {op}, and not have it")
    })?;
    s.unstall(c, Zone::Prepares);
    s.until("it has it", || s.has(c, op)).await?;
    s.wait(300).await;
    let mark = s.mark();
    let again = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(c)).await?;
    check(
        again.op == op && again.peer().present.get() & 1 == 1,
        || "the vote does not say what is on the disk by now".into(),
    )?;
    s.end(votes);
    let start = s.new_view(mark).await?;
    check(start.op == op, || {
        format!("the view starts at op {}", start.op)
    })?;
    s.end(to_b);
    s.end(acks);
    s.start(a);
    s.settle().await
}
