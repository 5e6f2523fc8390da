//! F: data files that are lost, and replicas that come back without them.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::frames;
use crate::sim::verdict::Verdict;
use daftari::stdx::marks::Mark;
use daftari::vsr::FatalReason;
use daftari::wire::header::command::{
    DO_VIEW_CHANGE, PREPARE_OK, RECOVER, RECOVERY, START_VIEW, START_VIEW_CHANGE,
};

/// All of the family but F03, which is with the superblocks.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "F01",
        "reformat",
        "a replica whose file was lost promises nothing until it joins a view that is two above all \
         that the others know",
        |s| Box::pin(reformat(s)),
    )
    .of(&[3, 4, 5, 6]),
    Scenario::new(
        "F02",
        "reformat-too-many",
        "two of three files are lost: nobody promises anything, until one of them is found again",
        |s| Box::pin(reformat_too_many(s)),
    ),
    Scenario::new(
        "F04",
        "recovery-begun-again",
        "a replica that recovers crashes: answers to its earlier question mean nothing",
        |s| Box::pin(recovery_begun_again(s)),
    ),
    Scenario::new(
        "F05",
        "older-copy",
        "a file is put back from an older copy: others have heard its replica tell of more, so it counts for \
         nothing, and stops",
        |s| Box::pin(older_copy(s)),
    )
    .of(&[3, 5]),
];

/// Frames with which a replica promises something.
const PROMISES: [u8; 3] = [PREPARE_OK, DO_VIEW_CHANGE, START_VIEW_CHANGE];

async fn reformat(s: Script) -> Verdict {
    let [_, b] = s.begin().await?;
    s.requests(0, 5).await?;
    s.settle().await?;
    let view = s.newest_view();
    s.crash(b);
    s.lose_disk(b);
    let mark = s.mark();
    s.start(b);
    s.requests(0, 1).await?;
    let start = s.sent_since(mark, frames(START_VIEW).to(b)).await?;
    check(start.view >= view + 2, || {
        format!("it is told of view {} after {view}", start.view)
    })?;
    s.caught_up(b).await?;
    for promise in PROMISES {
        let sent = s.all_since(mark, &frames(promise).from(b));
        check(sent.iter().all(|frame| frame.view >= start.view), || {
            "it promises before it has joined".into()
        })?;
    }
    s.settle().await
}

async fn reformat_too_many(s: Script) -> Verdict {
    let [_, b, c] = s.begin().await?;
    s.requests(0, 3).await?;
    s.settle().await?;
    s.crash(b);
    s.crash(c);
    let kept = s.keep_disk(c);
    s.lose_disk(b);
    s.lose_disk(c);
    let mark = s.mark();
    s.start(b);
    s.start(c);
    s.sent_since(mark, frames(RECOVER).from(b)).await?;
    s.wait(20_000).await;
    for promise in PROMISES {
        for lost in [b, c] {
            s.none_since(mark, &frames(promise).from(lost), "it remembers nothing")?;
        }
    }
    s.none_since(mark, &frames(START_VIEW), "nobody can decide")?;
    s.crash(c);
    s.find_disk(c, &kept);
    s.start(c);
    s.requests(0, 1).await?;
    s.caught_up(b).await?;
    s.settle().await
}

async fn older_copy(s: Script) -> Verdict {
    let [a, b] = s.begin().await?;
    s.log_up_to(s.below(60)).await?;
    s.settle().await?;
    s.crash(b);
    let copy = s.keep_disk(b);
    let (view, checkpoint) = (s.view(b), s.checkpoint(b));
    s.start(b);
    let newer_view = s.below(2) == 0;
    let mark = s.mark();
    if newer_view {
        s.crash(a);
        s.new_view(mark).await?;
        s.start(a);
    } else {
        s.log_up_to(s.committed() + 40).await?;
    }
    s.settle().await?;
    // One frame proves nothing.
    s.wait(10_000).await;
    check(s.view(b) > view || s.checkpoint(b) > checkpoint, || {
        "the copy is not older".into()
    })?;
    s.crash(b);
    s.lose_disk(b);
    s.find_disk(b, &copy);
    s.may_exit(b);
    let mark = s.mark();
    s.start(b);
    let reason = s.exited(b).await?;
    check(matches!(reason, FatalReason::OlderCopy { .. }), || {
        format!("it exits: {reason:?}")
    })?;
    s.none_since(mark, &frames(DO_VIEW_CHANGE), "nobody listens to it")?;
    s.requests(0, 3).await?;
    s.lose_disk(b);
    s.start(b);
    s.caught_up(b).await?;
    s.settle().await
}

async fn recovery_begun_again(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 3).await?;
    s.settle().await?;
    s.crash(b);
    s.lose_disk(b);
    let rule = s.hold(frames(RECOVERY).to(b));
    let mark = s.mark();
    s.start(b);
    s.sent_since(mark, frames(RECOVERY).to(b)).await?;
    s.crash(b);
    s.start(b);
    s.end(rule);
    s.until("answers of the earlier life come", || {
        s.has_reached(Mark::AnswerOfEarlierLife)
    })
    .await?;
    s.caught_up(b).await?;
    s.settle().await
}
