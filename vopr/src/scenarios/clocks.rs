//! C: wall clocks that step, replicas that stand still, and time that passes in an idle cluster.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::{any_frame, frames};
use crate::cluster::world::with;
use crate::model::layout::{Layout, Transfer};
use crate::sim::verdict::Verdict;
use daftari::wire::header::command::{COMMIT, PREPARE, REPLY};
use storage_format::{PrepareHeader, PrepareKind};
use zerocopy::FromBytes;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "C04",
        "clock-steps-back",
        "the primary's wall clock steps back: timestamps go on to increase",
        |s| Box::pin(clock_steps_back(s)),
    ),
    Scenario::new(
        "C05",
        "far-future-then-failover",
        "the next primary's clock is behind: it goes on above the last timestamp of the old one",
        |s| Box::pin(ahead_then_failover(s)),
    ),
    Scenario::new(
        "C06",
        "primary-stands-still",
        "the primary stands still for a minute: another takes over, and it prepares nothing when it \
         goes on",
        |s| Box::pin(primary_stands_still(s)),
    ),
    Scenario::new(
        "C07",
        "pulse-idle",
        "a pending transfer expires in an idle cluster, without a request",
        |s| Box::pin(pulse_idle(s)),
    ),
];

fn timestamp(s: Script, op: u64) -> u64 {
    s.history(op).map_or(0, |header| header.timestamp.get())
}

async fn clock_steps_back(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    s.requests(0, 2).await?;
    let before = timestamp(s, s.committed());
    let step = 200 + s.below(2_000);
    s.step_clock(a, -i64::try_from(step).expect("small"));
    s.requests(0, 2).await?;
    let after = timestamp(s, s.committed());
    check(with(|world| world.clocks(a).realtime()) < after, || {
        "the clock is not behind the timestamps".into()
    })?;
    check(after > before && s.primary() == a, || {
        format!("timestamp {after} after {before}")
    })?;
    s.settle().await
}

async fn ahead_then_failover(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    for other in s.others(a) {
        s.step_clock(other, -3_000);
    }
    s.requests(0, 2).await?;
    let before = timestamp(s, s.committed());
    let mark = s.mark();
    s.crash(a);
    let start = s.new_view(mark).await?;
    s.requests(0, 1).await?;
    let after = timestamp(s, s.committed());
    let replica = s.primary();
    check(
        start.view > 0 && with(|world| world.clocks(replica).realtime()) < before + 3_000_000_000,
        || "its clock is not behind".into(),
    )?;
    check(after > before, || {
        format!("timestamp {after} after {before}")
    })?;
    s.start(a);
    s.settle().await
}

async fn primary_stands_still(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let view = s.newest_view();
    s.issue(0);
    s.wait(s.below(20)).await;
    s.pause(a);
    let mark = s.mark();
    s.requests(1, 2).await?;
    s.wait(60_000).await;
    check(s.newest_view() > view && s.primary() != a, || {
        "nobody took over".into()
    })?;
    s.none_since(mark, &any_frame().from(a), "it stands still")?;
    let mark = s.mark();
    s.resume(a);
    s.answered(0).await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    // What it says of its old view is of no use to anybody; it makes nothing new in it.
    let old = s.all_since(mark, &frames(PREPARE).from(a).view(view));
    let head = s.all_since(mark, &frames(COMMIT).from(a).view(view));
    let most = head.iter().map(|commit| commit.op).max().unwrap_or(0);
    check(old.iter().all(|prepare| prepare.op <= most.max(8)), || {
        "it went on to prepare".into()
    })?;
    s.none_since(
        mark,
        &frames(REPLY).from(a).view(view),
        "it commits nothing",
    )
}

async fn pulse_idle(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    s.create_accounts(0, 5_000_001..5_000_003);
    s.create_transfer(
        0,
        &Transfer {
            id: 7_000_001,
            debit_account_id: 5_000_001,
            credit_account_id: 5_000_002,
            amount: 10,
            timeout: 2,
            ledger: 1,
            code: 1,
            // Pending.
            flags: 2,
            ..Transfer::zeroed()
        },
    );
    s.answered(0).await?;
    s.settle().await?;
    let head = s.committed();
    s.wait(1_000).await;
    check(s.committed() == head, || "it expires too early".into())?;
    let mark = s.mark();
    let pulse = s.sent_since(mark, frames(PREPARE).op(head + 1)).await?;
    let (header, _) = PrepareHeader::read_from_prefix(&pulse.bytes).expect("a whole frame");
    check(header.kind() == PrepareKind::Pulse, || {
        "it is a request".into()
    })?;
    s.until("it is committed", || s.committed() == head + 1)
        .await?;
    s.settle().await
}
