//! V: a replica whose journal may have lost the end of its log.
//!
//! In all of them `a` is the primary of the view at first, `b` of the next one, and so on.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::frames;
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::{DO_VIEW_CHANGE, PREPARE_OK, REQUEST_START_VIEW, START_VIEW};

/// All of them.
pub(super) const ALL: &[Scenario] = &[
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
];

async fn head_damaged_primary(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let head = s.committed();
    s.crash(a);
    s.damage_slot(a, head);
    // The others cannot do without it.
    s.cut(b, c);
    let mark = s.mark();
    s.start(a);
    s.sent_since(mark, frames(DO_VIEW_CHANGE).from(a)).await?;
    s.join(b, c);
    let start = s.new_view(mark).await?;
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
    s.damage_slot(b, op);
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
    s.damage_slot(b, head);
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
        s.damage_slot(replica, head);
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
    s.restore();
    let start = s.new_view(mark).await?;
    check(start.op == head, || format!("it starts at op {}", start.op))?;
    s.settle().await
}
