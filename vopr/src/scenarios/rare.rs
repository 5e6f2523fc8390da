//! M: branches that nothing else reaches, as the report of coverage marks says (`cargo vopr --marks`).

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::{any_frame, frames};
use crate::sim::disk::Zone;
use crate::sim::options::MS;
use crate::sim::verdict::Verdict;
use daftari::constants::{BATCH_EVENTS_MAX, PIPELINE_PREPARES_MAX};
use daftari::stdx::marks::Mark;
use daftari::stdx::to_u64;
use daftari::wire::header::command::{
    DO_VIEW_CHANGE, EVICTION, PREPARE, PREPARE_OK, REQUEST_HEADERS, START_VIEW,
};
use daftari::wire::{Evicted, Operation, build};
use storage_format::SECTOR_SIZE;
use storage_format::geometry::SUPERBLOCK_COPY_SIZE;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "M01",
        "end-of-log-lost",
        "one voter knows of a commit and has not got the op, the other has lost it: the view waits \
         for the third",
        |s| Box::pin(end_of_log_lost(s)),
    ),
    Scenario::new(
        "M02",
        "hole-filled",
        "the longest log has a hole that another voter's log fills",
        |s| Box::pin(hole_filled(s)),
    ),
    Scenario::new(
        "M03",
        "hole-unknown",
        "no voter knows an op that may be committed: the view waits for the third",
        |s| Box::pin(hole_unknown(s)),
    ),
    Scenario::new(
        "M04",
        "two-pairs-of-clocks",
        "two pairs of clocks an hour apart: no timestamp is given out until they agree",
        |s| Box::pin(two_pairs_of_clocks(s)),
    )
    .of(&[4]),
    Scenario::new(
        "M05",
        "scrubbed-copy",
        "a copy of the superblock rots: the scrubber finds it, and the next one is written there first",
        |s| Box::pin(scrubbed_copy(s)),
    )
    .tuned(|options| options.scrub_period = 5_000 * MS),
    Scenario::new(
        "M06",
        "lost-prepare-of-second-lap",
        "a write is lost in a slot that holds an older op: the newer one is not denied, and repaired",
        |s| Box::pin(lost_prepare_of_second_lap(s)),
    ),
    Scenario::new(
        "M07",
        "own-checkpoint-stalls",
        "the primary's checkpoint stalls: it prepares as long as it has buffers, and another one goes on",
        |s| Box::pin(own_checkpoint_stalls(s)),
    )
    .tuned(|options| {
        options.clients = 20;
        options.geometry.session_count_max = 21.into();
    }),
    Scenario::new(
        "M08",
        "prepare-full",
        "two of the largest batches wait: they go into two prepares",
        |s| Box::pin(prepare_full(s)),
    )
    .tuned(|options| {
        options.clients = 3;
        options.geometry.file_size_max = (1024 * 1024 * 1024).into();
    }),
    Scenario::new(
        "M09",
        "request-of-other-release",
        "a request names another release than its session: it is refused, and the session goes on",
        |s| Box::pin(request_of_other_release(s)),
    ),
    Scenario::new(
        "M10",
        "denied-by-older-log",
        "a backup that may have lost the end of its log denies an op of a later view all the same",
        |s| Box::pin(denied_by_older_log(s)),
    ),
    Scenario::new(
        "M11",
        "sync-outrun",
        "a view is left while a checkpoint of it is on its way to the superblock",
        |s| Box::pin(sync_outrun(s)),
    ),
];

async fn end_of_log_lost(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let op = s.committed() + 1;
    let deaf = s.lose(frames(PREPARE).to(c));
    let mark = s.mark();
    s.requests(0, 1).await?;
    let knows = any_frame().from(c);
    s.until("the third knows that it is committed", || {
        let told = s.all_since(mark, &knows);
        told.iter().any(|frame| frame.commit >= op)
    })
    .await?;
    check(!s.has(c, op), || format!("{c} has op {op}"))?;
    s.crash(a);
    s.crash(b);
    s.damage_slot(b, op);
    s.end(deaf);
    let mark = s.mark();
    s.start(b);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
    check(vote.op < op, || format!("{b} has op {op}"))?;
    s.stays(10_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    s.reached(Mark::VotesLackEnd)?;
    s.start(a);
    let start = s.new_view(mark).await?;
    check(start.op == op, || format!("it starts at op {}", start.op))?;
    s.settle().await
}

async fn denied_by_older_log(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    s.crash(c);
    let op = s.committed() + 1;
    s.damage_slot(c, op);
    let mark = s.mark();
    s.crash(a);
    s.start(a);
    s.new_view(mark).await?;
    // Only the new primary has an op of its view, and loses it.
    let deaf = s.lose(frames(PREPARE).to(a));
    s.issue(0);
    s.until("it is prepared", || s.has(b, op)).await?;
    // Its header as well.
    s.wait(100).await;
    s.crash(a);
    s.crash(b);
    s.damage_prepare(b, op);
    s.end(deaf);
    let mark = s.mark();
    s.start(b);
    s.start(c);
    s.until("the one that was away denies it", || {
        s.has_reached(Mark::DeniedByOlderLogView)
    })
    .await?;
    s.none_since(mark, &frames(START_VIEW), "one is not enough")?;
    s.start(a);
    let start = s.new_view(mark).await?;
    check(start.op < op, || format!("it starts at op {}", start.op))?;
    s.answered(0).await?;
    s.settle().await
}

async fn sync_outrun(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    s.crash(c);
    s.log_up_to(s.committed() + 2 * s.slots()).await?;
    let mark = s.mark();
    s.start(c);
    s.stall(c, Zone::Superblock);
    s.sent_since(mark, frames(START_VIEW).to(c)).await?;
    s.wait(100).await;
    let mark = s.mark();
    s.crash(a);
    s.start(a);
    s.new_view(mark).await?;
    s.unstall(c, Zone::Superblock);
    s.until("the checkpoint is that of an older view", || {
        s.has_reached(Mark::SyncOutrun)
    })
    .await?;
    s.settle().await
}

async fn hole_filled(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 3).await?;
    s.settle().await?;
    let op = s.committed() + 1;
    let deaf = s.lose(frames(PREPARE).to(c));
    s.requests(0, 1).await?;
    check(s.has(b, op) && !s.has(c, op), || {
        format!("op {op} should be at {b} alone")
    })?;
    for replica in [a, b, c] {
        s.crash(replica);
    }
    s.damage_slot(b, op - 1);
    s.end(deaf);
    // It would be told before it votes.
    let mute = s.lose(frames(REQUEST_HEADERS).from(b));
    let mark = s.mark();
    s.start(b);
    s.start(c);
    let start = s.new_view(mark).await?;
    s.reached(Mark::HoleFilled)?;
    s.end(mute);
    check(start.op == op, || format!("it starts at op {}", start.op))?;
    s.requests(0, 1).await?;
    s.start(a);
    s.settle().await
}

async fn hole_unknown(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 3).await?;
    s.settle().await?;
    let op = s.committed();
    for replica in [a, b, c] {
        s.crash(replica);
    }
    s.damage_slot(b, op - 1);
    s.damage_slot(c, op - 1);
    let mark = s.mark();
    s.start(b);
    s.start(c);
    for replica in [b, c] {
        s.sent_since(mark, frames(DO_VIEW_CHANGE).from(replica))
            .await?;
    }
    s.stays(10_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    s.reached(Mark::VotesHaveHole)?;
    s.start(a);
    let start = s.new_view(mark).await?;
    check(start.op == op, || format!("it starts at op {}", start.op))?;
    s.settle().await
}

async fn two_pairs_of_clocks(s: Script) -> Verdict {
    let [_, _, c, d] = s.begin().await?;
    s.requests(0, 1).await?;
    for replica in [c, d] {
        s.step_clock(replica, 3_600_000);
    }
    // What was learned of clocks before is used for a while.
    s.wait(15_000).await;
    let mark = s.mark();
    s.issue(0);
    s.until("it is sent", || s.waits(0)).await?;
    s.stays(15_000, "the request waits", || s.waits(0)).await?;
    s.none_since(mark, &frames(PREPARE), "there is no time of day")?;
    s.reached(Mark::ClocksInGroups)?;
    for replica in [c, d] {
        s.step_clock(replica, -3_600_000);
    }
    s.answered(0).await?;
    s.settle().await
}

async fn scrubbed_copy(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let offset = s.below(4) * to_u64(SUPERBLOCK_COPY_SIZE);
    s.overwrite(b, offset, &[0xa5; SECTOR_SIZE], Zone::Superblock);
    s.until("the scrubber finds it", || {
        s.has_reached(Mark::ScrubbedCopy)
    })
    .await?;
    let mark = s.mark();
    s.crash(a);
    s.new_view(mark).await?;
    s.reached(Mark::CopyRotted)?;
    s.start(a);
    s.settle().await
}

async fn lost_prepare_of_second_lap(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.log_up_to(s.slots() + 1 + s.below(4)).await?;
    s.settle().await?;
    let op = s.committed() + 1;
    let mark = s.mark();
    s.lose_write(b, Zone::Prepares);
    s.requests(0, 1).await?;
    s.sent_since(mark, frames(PREPARE_OK).from(b).op(op))
        .await?;
    check(!s.has(b, op), || "the write is not lost".into())?;
    s.crash(b);
    s.start(b);
    s.caught_up(b).await?;
    s.reached(Mark::Row15)?;
    check(s.has(b, op), || "it is not repaired".into())?;
    s.settle().await
}

async fn own_checkpoint_stalls(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    s.log_up_to(19).await?;
    s.settle().await?;
    s.stall(a, Zone::Superblock);
    let mark = s.mark();
    let last = 20 + 2 * PIPELINE_PREPARES_MAX;
    for (op, client) in (20..=last).zip(2..) {
        s.issue(client);
        s.sent_since(mark, frames(PREPARE).from(a).op(op)).await?;
    }
    s.issue(0);
    s.wait(500).await;
    s.reached(Mark::PrimaryWithoutBuffer)?;
    s.none_since(
        mark,
        &frames(PREPARE).from(a).ops(last + 1..=u64::MAX),
        "it has no buffer",
    )?;
    check(s.checkpoint(a) == 0, || "it has its checkpoint".into())?;
    s.idle().await?;
    check(s.primary() != a, || "nobody took over".into())?;
    s.unstall(a, Zone::Superblock);
    s.settle().await
}

async fn prepare_full(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    s.requests(2, 1).await?;
    let events = usize::try_from(BATCH_EVENTS_MAX).expect("32 bits");
    let op = s.committed() + 1;
    s.stall(a, Zone::Prepares);
    s.issue(2);
    let prepared = frames(PREPARE).from(a).op(op);
    s.sent(prepared).await?;
    for client in [0, 1] {
        let body = vec![0; events * 128];
        s.issue_this(client, Operation::CreateTransfersUnbatched, body);
    }
    // Both are in the queue by then.
    s.wait(300).await;
    s.unstall(a, Zone::Prepares);
    s.idle().await?;
    s.reached(Mark::PrepareFull)?;
    check(s.committed() >= op + 2, || "both are in one prepare".into())?;
    s.settle().await
}

async fn request_of_other_release(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    s.requests(0, 1).await?;
    let mut state = s.client_state(0);
    state.release = daftari::constants::RELEASE_CLIENT_MIN;
    let frame = build::request(&state, Operation::LookupAccountsUnbatched, &[7; 16]);
    let head = s.committed();
    s.provoke(0, Evicted::SessionReleaseMismatch);
    let mark = s.mark();
    s.send_raw(0, a, &frame);
    let refused = s.sent_since(mark, frames(EVICTION).to_client(0)).await?;
    s.reached(Mark::RequestOfOtherRelease)?;
    check(
        refused.client == state.client && s.committed() == head,
        || "it is executed".into(),
    )?;
    check(!s.has(a, head + 1), || "something was prepared".into())?;
    s.requests(1, 1).await?;
    s.settle().await
}
