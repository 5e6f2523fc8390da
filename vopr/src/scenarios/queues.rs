//! Q: load, and slow replicas.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::frames;
use crate::cluster::world::with;
use crate::sim::verdict::Verdict;
use daftari::constants::PIPELINE_PREPARES_MAX;
use daftari::wire::header::command::{PREPARE, PREPARE_OK};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "Q01",
        "pipeline-full",
        "acknowledgements are slow: no more is prepared than the pipeline holds, all is answered",
        |s| Box::pin(pipeline_full(s)),
    )
    .tuned(|options| options.clients = 6),
    Scenario::new(
        "Q02",
        "prepare-timeout-reset",
        "a backup misses a prepare while the pipeline is always full: it asks for it, and gets it",
        |s| Box::pin(lost_prepare_under_load(s)),
    )
    .tuned(|options| options.clients = 6),
    Scenario::new(
        "Q03",
        "slow-backup-backpressure",
        "a backup has a disk ten times as slow: nobody waits for it, it comes on, the view stays",
        |s| Box::pin(slow_backup(s)),
    )
    .tuned(|options| options.clients = 4),
    Scenario::new(
        "Q04",
        "io-slots-exhausted",
        "more prepares wait than the journal writes at a time: none is lost, alone or with others",
        |s| Box::pin(one_journal_write(s)),
    )
    .of(&[1, 2, 3])
    .tuned(|options| options.clients = 6),
];

async fn pipeline_full(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let view = s.newest_view();
    let mark = s.mark();
    let rule = s.delay(frames(PREPARE_OK).to(a), 200);
    s.load(60);
    s.idle().await?;
    s.end(rule);
    let prepares = s.all_since(mark, &frames(PREPARE).from(a).view(view));
    let ahead = prepares.iter().map(|it| it.op - it.commit).max();
    check(ahead == Some(PIPELINE_PREPARES_MAX), || {
        format!("{ahead:?} ops ahead of what is committed")
    })?;
    s.settle().await
}

async fn lost_prepare_under_load(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    let op = s.committed() + 3;
    let lost = s.lose(frames(PREPARE).to(c).op(op));
    s.load(80);
    s.until("it is lost", || s.hits(lost) > 0).await?;
    s.end(lost);
    let mark = s.mark();
    s.sent_since(mark, frames(PREPARE).to(c).op(op).arrived())
        .await?;
    s.sent_since(mark, frames(PREPARE_OK).from(c).to(a).op(op))
        .await?;
    check(
        with(|world| world.phases.issued() < world.options.requests),
        || "it came when all was over".into(),
    )?;
    s.settle().await
}

async fn slow_backup(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    let view = s.newest_view();
    s.slow(b, 10);
    s.load(80);
    s.idle().await?;
    check(s.newest_view() == view, || "the view changed".into())?;
    s.caught_up(b).await?;
    s.slow(b, 1);
    s.settle().await
}

async fn one_journal_write(s: Script) -> Verdict {
    let [_] = s.begin().await?;
    for replica in 0..s.replicas() {
        s.slow(replica, 8);
    }
    s.load(60);
    s.idle().await?;
    for replica in 0..s.replicas() {
        s.slow(replica, 1);
    }
    s.settle().await
}
