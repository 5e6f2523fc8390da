//! V: view changes: when there is one, who leads then, and what of it is durable when.
//!
//! In all of them `a` is the primary of the view at first, `b` of the next one, and so on.

use super::Scenario;
use super::script::{Mark, Script, check, within};
use crate::cluster::directed::{Sent, any_frame, frames};
use crate::cluster::world::with;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::options::MS;
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::{
    BLOCK, COMMIT, DO_VIEW_CHANGE, HEADERS, PREPARE, PREPARE_OK, REQUEST_BLOCK, REQUEST_START_VIEW,
    START_VIEW, START_VIEW_CHANGE,
};

/// All of them.
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
        "V17",
        "ack-then-crash-before-view-durable",
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
        "V24",
        "lagging-repairs-from-potential-primary",
        "the next primary has the log, and cannot execute: it starts a view all the same (and falls silent \
         after 2.5 s), and the one that lags has all from it, and takes over",
        |s| Box::pin(lagging_repairs_from_potential_primary(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "V27",
        "reordered-view-frames",
        "frames of three view changes come again, late and in another order: nothing comes of it",
        |s| Box::pin(reordered_view_frames(s)),
    ),
    Scenario::new(
        "V28",
        "view-change-under-load-timeout",
        "the primary crashes under load: one of the next views stays",
        |s| Box::pin(view_change_under_load(s)),
    )
    .of(&[3, 4, 5, 6]),
];

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
        alone.push(s.op_of_primary_alone(a, op, client).await?);
    }
    let mark = s.mark();
    s.crash(a);
    s.end(rule);
    let start = s.new_view(mark).await?;
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
    s.new_view(mark).await?;
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

async fn duel_of_primaries(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let view = s.newest_view();
    s.isolate(a);
    let next = s.new_view(s.mark()).await?;
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

async fn forfeit_lagging_primary(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let head = s.committed();
    s.isolate(b);
    // The slots of the ops that it lacks are taken again.
    s.log_up_to(head + s.slots() + 3).await?;
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
    s.log_up_to(24).await?;
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

async fn lagging_repairs_from_potential_primary(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let first = s.committed() + 1;
    s.isolate(c);
    // More than the start of a view tells, and a checkpoint.
    s.log_up_to(26).await?;
    s.caught_up(b).await?;
    let head = s.committed();
    check(s.checkpoint(b) == 20 && !s.has(c, first), || {
        format!("{c} should lack what {b} has a checkpoint of")
    })?;
    s.crash(a);
    s.crash(b);
    for block in s.blocks(b) {
        s.damage_block(b, block);
    }
    let rule = s.lose(frames(BLOCK).to(b));
    let mark = s.mark();
    s.start(b);
    s.rejoin(c);
    let told = s.sent_since(mark, frames(START_VIEW).from(b).to(c)).await?;
    check(told.op == head, || {
        format!("the view starts at op {}", told.op)
    })?;
    s.issue(0);
    let later = told.view + 1..=u32::MAX;
    s.sent_since(mark, frames(START_VIEW).from(c).views(later))
        .await?;
    s.answered(0).await?;
    for item in [frames(HEADERS), frames(PREPARE).op(first)] {
        s.some_since(mark, &item.from(b).to(c), "it lacked that")?;
    }
    s.some_since(mark, &frames(REQUEST_BLOCK).from(b), "it has no block")?;
    let new = frames(PREPARE).from(b).view(told.view);
    s.none_since(mark, &new, "it cannot execute what its view began with")?;
    check(s.checkpoint(c) == 20 && !s.is_up(a), || {
        "the one that lagged should have caught up".into()
    })?;
    check(with(|world| world.checker.counts.syncs) == 0, || {
        "it took a checkpoint whose blocks nobody has".into()
    })?;
    s.end(rule);
    s.start(a);
    s.settle().await
}

async fn reordered_view_frames(s: Script) -> Verdict {
    let first = s.mark();
    let roles: [u8; 3] = s.begin().await?;
    for primary in roles.into_iter().take(2) {
        let mark = s.mark();
        s.crash(primary);
        s.new_view(mark).await?;
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
    s.new_view(mark).await?;
    s.idle().await?;
    let most = 2 * u32::from(s.replicas());
    check(s.newest_view() <= view + most, || {
        format!("view {} after {view}", s.newest_view())
    })?;
    s.start(a);
    s.settle().await
}
