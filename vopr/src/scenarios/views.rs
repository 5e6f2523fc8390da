//! V: view changes.
//!
//! In all of them `a` is the primary of the view at first, `b` of the next one, and so on.

use super::Scenario;
use super::script::{Mark, Script, check, within};
use crate::cluster::directed::{Sent, any_frame, frames};
use crate::cluster::network::Place;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::Zone;
use crate::sim::options::MS;
use crate::sim::verdict::{Failure, Verdict};
use daftari::wire::header::command::{
    COMMIT, DO_VIEW_CHANGE, HEADERS, PREPARE, PREPARE_OK, REQUEST_START_VIEW, START_VIEW,
    START_VIEW_CHANGE,
};
use storage_format::PrepareHeader;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "V01",
        "primary-crash-idle",
        "the primary crashes with nothing under way: another view is at work within 10 s",
        |s| Box::pin(primary_crash_idle(s)),
    ),
    Scenario::new(
        "V02",
        "primary-crash-full-pipeline",
        "the primary crashes with a pipeline of ops that only it has: they are dropped, their \
         clients ask again",
        |s| Box::pin(primary_crash_full_pipeline(s)),
    )
    .tuned(|options| options.clients = 4),
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
        "V13",
        "head-damaged-primary",
        "a primary that restarts with a damaged head says in its votes that it is not certain \
         (instead of not voting), and acknowledges nothing before a view starts",
        |s| Box::pin(head_damaged_primary(s)),
    ),
    Scenario::new(
        "V14",
        "recovering-head-stale-start",
        "a backup that lost its head ignores an old start of its view, and takes a fresh one",
        |s| Box::pin(recovering_head_stale_start(s)),
    ),
    Scenario::new(
        "V15",
        "recovering-head-idle-cluster",
        "a backup that lost its head asks for the start of its view, without any traffic",
        |s| Box::pin(recovering_head_idle_cluster(s)),
    ),
    Scenario::new(
        "V16",
        "all-recovering-head",
        "all heads are damaged: no view starts until they are restored",
        |s| Box::pin(all_recovering_head(s)),
    ),
    Scenario::new(
        "V17",
        "crash-before-view-durable",
        "a new primary crashes at each superblock write of its view: it votes again as it did",
        |s| Box::pin(crash_before_view_durable(s)),
    ),
    Scenario::new(
        "V18",
        "old-vote-then-old-primary",
        "a replica that has voted, and crashes, never acknowledges to the old primary again",
        |s| Box::pin(old_vote_then_old_primary(s)),
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
        "V21",
        "duel-of-primaries",
        "two replicas are primaries of two views, the third is cut off: the later view wins",
        |s| Box::pin(duel_of_primaries(s)),
    ),
    Scenario::new(
        "V22",
        "forfeit-lagging-primary",
        "the next primary lacks ops that nobody has any more: it gives the view up (after 3 s \
         without a commit) to one with the newest checkpoint",
        |s| Box::pin(forfeit_lagging_primary(s)),
    ),
    Scenario::new(
        "V23",
        "forfeit-then-must-serve",
        "the only replica that is up to date has no intact block: the one that lags catches up \
         from its journal, and serves",
        |s| Box::pin(forfeit_then_must_serve(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
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
    Scenario::new(
        "V27",
        "reordered-view-frames",
        "frames of three view changes come again, late and in another order: nothing comes of it",
        |s| Box::pin(reordered_view_frames(s)),
    ),
    Scenario::new(
        "V28",
        "view-change-under-load",
        "the primary crashes under load: one of the next views stays",
        |s| Box::pin(view_change_under_load(s)),
    )
    .of(&[3, 4, 5, 6]),
];

/// The first start of a view after a mark.
pub(super) async fn new_view(s: Script, mark: Mark) -> Result<Sent, Failure> {
    s.sent_since(mark, frames(START_VIEW)).await
}

/// A client's request becomes an op that only the primary has; gives its prepare.
async fn op_of_primary_alone(
    s: Script,
    primary: u8,
    op: u64,
    client: usize,
) -> Result<PrepareHeader, Failure> {
    s.issue(client);
    s.until(format!("{primary} has op {op}"), || s.has(primary, op))
        .await?;
    for other in s.others(primary) {
        check(!s.has(other, op), || {
            format!("replica {other} has op {op}, too")
        })?;
    }
    Ok(s.prepare(primary, op).expect("it is there"))
}

/// The headers of a chain, newest first.
fn is_chain(headers: &[PrepareHeader]) -> bool {
    headers
        .windows(2)
        .all(|pair| pair[0].parent == pair[1].checksum && pair[0].op.get() == pair[1].op.get() + 1)
}

/// Both copies of what the journal says of an op rot: its replica cannot know that it was there.
fn damage_slot(s: Script, replica: u8, op: u64) {
    s.damage_prepare(replica, op);
    s.damage_header(replica, op);
}

async fn primary_crash_idle(s: Script) -> Verdict {
    let [a, ..] = s.begin::<3>().await?;
    let view = s.newest_view();
    let mark = s.mark();
    s.crash(a);
    within(10_000, "another view starts", || {
        s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    check(s.newest_view() > view, || "the view is the same".into())?;
    s.requests(0, 1).await?;
    s.start(a);
    s.settle().await
}

async fn primary_crash_full_pipeline(s: Script) -> Verdict {
    let [a, ..] = s.begin::<3>().await?;
    let first = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    let mut alone = Vec::new();
    for (op, client) in (first..).zip(0..4) {
        alone.push(op_of_primary_alone(s, a, op, client).await?);
    }
    let mark = s.mark();
    s.crash(a);
    s.end(rule);
    let start = new_view(s, mark).await?;
    check(start.op == first - 1, || {
        format!("the view starts at op {}, not before {first}", start.op)
    })?;
    s.idle().await?;
    s.start(a);
    s.settle().await?;
    for header in alone {
        check(s.history(header.op.get()) != Some(header), || {
            format!("op {} of the primary alone is committed", header.op)
        })?;
    }
    Ok(())
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
    let start = new_view(s, mark).await?;
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
    let alone = op_of_primary_alone(s, a, op, 0).await?;
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
    let start = new_view(s, mark).await?;
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
    let dropped = op_of_primary_alone(s, a, op, 0).await?;
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
    new_view(s, mark).await?;
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
    let of_a = op_of_primary_alone(s, a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    let mark = s.mark();
    let next = new_view(s, mark).await?;
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
    let of_a = op_of_primary_alone(s, a, op, 0).await?;
    s.isolate(a);
    s.isolate_from_clients(a);
    // The next primary's op reaches the third replica, which cannot write it.
    s.stall(c, Zone::Prepares);
    let lost = s.lose(frames(PREPARE_OK).from(c));
    let mark = s.mark();
    let next = new_view(s, mark).await?;
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
    let start = new_view(s, mark).await?;
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
    restore(s);
    let start = new_view(s, mark).await?;
    check(start.op >= op, || format!("it starts at op {}", start.op))?;
    s.settle().await
}

/// All replicas stop, their damage is undone, and they start again.
pub(super) fn restore(s: Script) {
    for replica in 0..s.replicas() {
        s.crash(replica);
    }
    s.undo_damage();
    for replica in 0..s.replicas() {
        s.start(replica);
    }
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
    let start = new_view(s, mark).await?;
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
    let next = new_view(s, s.mark()).await?;
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

async fn head_damaged_primary(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let head = s.committed();
    s.crash(a);
    damage_slot(s, a, head);
    // The others cannot do without it.
    s.cut(b, c);
    let mark = s.mark();
    s.start(a);
    s.sent_since(mark, frames(DO_VIEW_CHANGE).from(a)).await?;
    s.join(b, c);
    let start = new_view(s, mark).await?;
    check(start.op == head, || {
        format!("the view starts at op {}", start.op)
    })?;
    let votes = s.all_since(mark, &frames(DO_VIEW_CHANGE).from(a));

    let before = votes.iter().filter(|vote| vote.view <= start.view);
    check({ before }.all(|vote| vote.peer().uncertain == 1), || {
        "it votes as if it were certain".into()
    })?;
    let early = s.all_since(mark, &frames(PREPARE_OK).from(a));
    check(early.iter().all(|ack| ack.view >= start.view), || {
        "it acknowledges before it knows its log".into()
    })?;
    s.settle().await
}

async fn recovering_head_stale_start(s: Script) -> Verdict {
    let first = s.mark();
    let [a, b, _] = s.begin().await?;
    let old = s
        .sent_since(first, frames(START_VIEW).from(a).to(b))
        .await?;
    let op = s.committed() + 1;
    s.requests(0, 1).await?;
    s.settle().await?;
    s.some_since(first, &frames(PREPARE_OK).from(b).op(op), "it promised")?;
    s.crash(b);
    damage_slot(s, b, op);
    s.isolate(b);
    let mark = s.mark();
    s.start(b);
    let asked = s
        .sent_since(mark, frames(REQUEST_START_VIEW).from(b))
        .await?;
    check(old.view == s.view(b) && old.op < op, || {
        "the old start should be of its view, and shorter".into()
    })?;
    s.replay(&old);
    s.wait(3_000).await;
    s.none_since(
        mark,
        &frames(PREPARE_OK).from(b),
        "it does not know its log",
    )?;
    s.rejoin(b);
    let mark = s.mark();
    let fresh = s.sent_since(mark, frames(START_VIEW).from(a).to(b)).await?;
    let answers = fresh.peer().nonce == asked.peer().nonce || s.view(b) > old.view;
    check(answers && fresh.op >= op, || "no fresh start came".into())?;
    s.settle().await
}

async fn recovering_head_idle_cluster(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.requests(0, 1).await?;
    s.settle().await?;
    let (view, head) = (s.newest_view(), s.committed());
    s.crash(b);
    damage_slot(s, b, head);
    let mark = s.mark();
    s.start(b);
    let asked = s
        .sent_since(mark, frames(REQUEST_START_VIEW).from(b).to(a))
        .await?;
    let told = s.sent_since(mark, frames(START_VIEW).from(a).to(b)).await?;
    check(
        told.peer().nonce == asked.peer().nonce && told.op == head,
        || "the answer is not to what it asked".into(),
    )?;
    s.settle().await?;
    check(s.newest_view() == view && s.committed() == head, || {
        "the view, or the log, is another".into()
    })
}

async fn all_recovering_head(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let head = s.committed();
    for replica in [a, b, c] {
        s.crash(replica);
        damage_slot(s, replica, head);
    }
    let mark = s.mark();
    for replica in [a, b, c] {
        s.start(replica);
    }
    for replica in [a, b, c] {
        let vote = s
            .sent_since(mark, frames(DO_VIEW_CHANGE).from(replica))
            .await?;
        check(vote.peer().uncertain == 1, || {
            format!("{replica} is certain")
        })?;
    }
    s.stays(20_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    restore(s);
    let start = new_view(s, mark).await?;
    check(start.op == head, || format!("it starts at op {}", start.op))?;
    s.settle().await
}

async fn crash_before_view_durable(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.requests(0, 1).await?;
    s.settle().await?;
    let mark = s.mark();
    // Four copies for the view, four for its log; one of eight accesses is the last.
    s.plan_crash(b, CrashPlan::Superblock(1 + s.below(8)));
    s.crash(a);
    s.down(b).await?;
    s.none_since(
        mark,
        &frames(START_VIEW).from(b),
        "its log view is not durable",
    )?;
    s.none_since(mark, &frames(PREPARE).from(b), "the view has not started")?;
    s.wait(500).await;
    s.start(b);
    new_view(s, mark).await?;
    s.requests(0, 1).await?;
    s.start(a);
    s.settle().await
}

async fn old_vote_then_old_primary(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let view = s.newest_view();
    let op = s.committed() + 1;
    let starts = s.lose(frames(START_VIEW));
    let deaf = s.lose(any_frame().to(a).views(view + 1..=u32::MAX));
    s.isolate(a);
    let mark = s.mark();
    let after = s.below(2) == 0;
    if after {
        s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
        s.crash(b);
    } else {
        s.plan_crash(b, CrashPlan::Superblock(1 + s.below(4)));
        s.down(b).await?;
        s.none_since(mark, &frames(DO_VIEW_CHANGE).from(b), "not durable")?;
    }
    let left = s.view(b) > view;
    check(left || !after, || {
        "it voted, and the view is not durable".into()
    })?;
    // The old primary goes on, with an op that it wants acknowledged.
    s.issue(0);
    let mark = s.mark();
    s.start(b);
    s.rejoin(a);
    s.sent_since(mark, frames(PREPARE).from(a).to(b).op(op).view(view))
        .await?;
    s.wait(2_000).await;
    if left {
        let old = frames(PREPARE_OK).from(b).view(view);
        s.none_since(mark, &old, "it has left the view")?;
    }
    s.end(starts);
    s.end(deaf);
    s.answered(0).await?;
    s.settle().await
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
    let old = op_of_primary_alone(s, a, op, 0).await?;
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
    new_view(s, mark).await?;
    s.start(b);
    s.settle().await?;
    check(s.history(op) == kept && s.prepare(a, op) == kept, || {
        "the newest log did not win".into()
    })
}

async fn duel_of_primaries(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let view = s.newest_view();
    s.isolate(a);
    let next = new_view(s, s.mark()).await?;
    s.requests(0, 1).await?;
    s.isolate(c);
    let mark = s.mark();
    s.join(a, b);
    s.some_since(Mark::START, &frames(COMMIT).from(a).view(view), "a primary")?;
    s.sent_since(mark, frames(COMMIT).from(b).view(next.view))
        .await?;
    within(10_000, "the old primary follows the new one", || {
        s.view(a) >= next.view
    })
    .await?;
    s.requests(0, 2).await?;
    check(s.view(a) == next.view && s.primary() == b, || {
        "the later view should have won".into()
    })?;
    s.rejoin(c);
    s.settle().await
}

/// Brings the log to an op, with requests of one client.
pub(super) async fn log_up_to(s: Script, op: u64) -> Verdict {
    while s.committed() < op {
        s.requests(0, 1).await?;
    }
    Ok(())
}

async fn forfeit_lagging_primary(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let head = s.committed();
    s.isolate(b);
    // The slots of the ops that it lacks are taken again.
    log_up_to(s, head + s.slots() + 3).await?;
    s.caught_up(c).await?;
    check(s.checkpoint(b) == 0 && s.checkpoint(c) > head, || {
        "it should be a checkpoint behind".into()
    })?;
    let mark = s.mark();
    s.crash(a);
    s.rejoin(b);
    s.issue(0);
    let of_c = s.sent_since(mark, frames(START_VIEW).from(c)).await?;
    s.answered(0).await?;
    let of_b = s.all_since(mark, &frames(COMMIT).from(b));
    check(
        of_b.iter()
            .all(|commit| commit.view < of_c.view || s.checkpoint(b) > 0),
        || "it goes on as a primary that cannot execute".into(),
    )?;
    check(s.checkpoint(b) > head, || {
        "it has no newer checkpoint".into()
    })?;
    s.start(a);
    s.settle().await
}

async fn forfeit_then_must_serve(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let head = s.committed();
    s.isolate(b);
    log_up_to(s, 24).await?;
    s.caught_up(c).await?;
    check(s.checkpoint(c) > head && !s.has(b, head + 1), || {
        "it should lack a checkpoint".into()
    })?;
    s.crash(a);
    s.crash(c);
    for block in s.blocks(c) {
        s.damage_block(c, block);
    }
    let mark = s.mark();
    s.start(c);
    s.rejoin(b);
    s.requests(0, 1).await?;
    s.some_since(
        mark,
        &frames(PREPARE).from(c).to(b).op(head + 1),
        "its journal",
    )?;
    check(s.checkpoint(b) > head && !s.is_up(a), || {
        "the one that lagged should have caught up".into()
    })?;
    s.start(a);
    s.settle().await
}

async fn next_wrap_headers(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.isolate(b);
    log_up_to(s, s.slots() + 3).await?;
    s.caught_up(c).await?;
    let head = s.committed();
    let rule = s.lose(frames(PREPARE).to(b));
    s.crash(a);
    s.rejoin(b);
    let mark = s.mark();
    let first = new_view(s, mark).await?;
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
    let start = new_view(s, mark).await?;
    check(start.op == op, || {
        format!("the view starts at op {}", start.op)
    })?;
    s.end(to_b);
    s.end(acks);
    s.start(a);
    s.settle().await
}

async fn reordered_view_frames(s: Script) -> Verdict {
    let first = s.mark();
    let roles: [u8; 3] = s.begin().await?;
    for primary in roles.into_iter().take(2) {
        let mark = s.mark();
        s.crash(primary);
        new_view(s, mark).await?;
        s.requests(0, 1).await?;
        s.start(primary);
        s.settle().await?;
    }
    let view = s.newest_view();
    let kinds = [
        START_VIEW_CHANGE,
        DO_VIEW_CHANGE,
        START_VIEW,
        REQUEST_START_VIEW,
    ];
    let old = kinds
        .iter()
        .flat_map(|kind| s.all_since(first, &frames(*kind)));
    let mut old: Vec<Sent> = old.collect();
    check(old.iter().any(|frame| frame.view < view), || {
        "nothing is old".into()
    })?;
    s.load(40);
    let mark = s.mark();
    for _ in 0..200 {
        let index = usize::try_from(s.below(old.len().try_into().expect("few"))).expect("few");
        s.replay(&old[index]);
        old.rotate_left(1);
        s.wait(s.below(20)).await;
    }
    s.settle().await?;
    check(s.newest_view() == view, || "the view changes".into())?;
    let votes = any_frame().views(view + 1..=u32::MAX);
    s.none_since(mark, &votes, "no later view was asked for by a quorum")
}

async fn view_change_under_load(s: Script) -> Verdict {
    let [a, ..] = s.begin::<3>().await?;
    let view = s.newest_view();
    s.load(60);
    s.wait(100).await;
    let mark = s.mark();
    s.crash(a);
    new_view(s, mark).await?;
    s.idle().await?;
    let most = 2 * u32::from(s.replicas());
    check(s.newest_view() <= view + most, || {
        format!("view {} after {view}", s.newest_view())
    })?;
    s.start(a);
    s.settle().await
}
