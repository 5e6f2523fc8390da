//! O: a cluster of one replica, which nobody can help.

use super::Scenario;
use super::script::{Mark, Script, check};
use crate::cluster::directed::frames;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::Zone;
use crate::sim::platter::slot_offset;
use crate::sim::verdict::Verdict;
use daftari::stdx::to_u64;
use daftari::vsr::FatalReason;
use daftari::wire::header::command::REPLY;
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{PrepareHeader, SECTOR_SIZE};
use zerocopy::IntoBytes;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "O01",
        "solo-crash-every-io",
        "it crashes at any access, again and again, from the first lap of the journal on: nothing \
         that was answered is lost",
        |s| Box::pin(crash_every_io(s)),
    )
    .of(&[1]),
    Scenario::new(
        "O02",
        "solo-header-rot",
        "the header of a committed op rots: it is mended from the prepare",
        |s| Box::pin(header_rot(s)),
    )
    .of(&[1]),
    Scenario::new(
        "O03",
        "solo-prepare-rot",
        "a committed prepare rots: it refuses to start",
        |s| Box::pin(prepare_rot(s)),
    )
    .of(&[1]),
    Scenario::new(
        "O04",
        "solo-view-bump",
        "it starts again: a later view is durable before it answers anybody",
        |s| Box::pin(view_bump(s)),
    )
    .of(&[1]),
    Scenario::new(
        "O05",
        "solo-stray-old-header",
        "header and prepare of an op below the head are as before its writes: it refuses to start",
        |s| Box::pin(lost_writes(s)),
    )
    .of(&[1]),
];

async fn crash_every_io(s: Script) -> Verdict {
    let [a] = s.begin().await?;
    for _ in 0..8 {
        let plan = match s.below(3) {
            0 => CrashPlan::AfterAccess(1 + s.below(40)),
            1 => CrashPlan::Superblock(1 + s.below(5)),
            _ => CrashPlan::AtWrite(1 + s.below(20)),
        };
        s.plan_crash(a, plan);
        s.load(12);
        let down = super::script::within(5_000, "it crashes", || !s.is_up(a)).await;
        if down.is_err() {
            s.crash(a);
        }
        s.wait(s.below(200)).await;
        // Also while it recovers.
        if s.below(2) == 0 {
            s.start(a);
            s.plan_crash(a, CrashPlan::AfterAccess(1 + s.below(60)));
            s.wait(s.below(500)).await;
            s.crash(a);
        }
        s.start(a);
        s.idle().await?;
    }
    s.settle().await
}

async fn header_rot(s: Script) -> Verdict {
    let [a] = s.begin().await?;
    s.log_up_to(25).await?;
    s.settle().await?;
    let head = s.committed();
    s.wait(1_000).await;
    s.crash(a);
    s.damage_header(a, head - s.below(4));
    if s.below(2) == 0 {
        s.damage_header_sector(a, head);
    }
    s.start(a);
    s.requests(0, 2).await?;
    s.settle().await?;
    check(s.committed() >= head + 2, || "ops are lost".into())
}

async fn prepare_rot(s: Script) -> Verdict {
    let [a] = s.begin().await?;
    s.log_up_to(25).await?;
    s.settle().await?;
    let op = s.committed() - s.below(4);
    // All headers are written by then.
    s.wait(1_000).await;
    s.crash(a);
    s.damage_prepare(a, op);
    s.may_exit(a);
    s.start(a);
    let reason = s.exited(a).await?;
    let slot = op % s.slots();
    let refused = matches!(reason, FatalReason::JournalSlot { slot: found, .. } if found == slot);
    check(refused, || format!("it stops for another reason: {reason}"))?;
    s.undo_damage();
    s.start(a);
    s.requests(0, 1).await?;
    s.settle().await
}

async fn view_bump(s: Script) -> Verdict {
    let [a] = s.begin().await?;
    for _ in 0..3 {
        let view = s.view(a);
        s.crash(a);
        let mark = s.mark();
        s.start(a);
        s.issue(0);
        let reply = s.sent_since(mark, frames(REPLY).from(a)).await?;
        check(reply.view > view && s.view(a) > view, || {
            format!("it answers in view {} after {view}", reply.view)
        })?;
        s.answered(0).await?;
    }
    s.some_since(Mark::START, &frames(REPLY).from(a), "it answers")?;
    s.settle().await
}

async fn lost_writes(s: Script) -> Verdict {
    let [a] = s.begin().await?;
    s.requests(0, 4).await?;
    s.settle().await?;
    s.wait(1_000).await;
    let op = s.committed() - 1 - s.below(2);
    s.crash(a);
    // In the first lap, a slot has its marker before.
    let cluster = s.superblock(a).cluster.get();
    let marker = PrepareHeader::empty(cluster, op);
    let mut sector = [0; SECTOR_SIZE];
    sector[..256].copy_from_slice(marker.as_bytes());
    s.overwrite(a, slot_offset(&s.geometry(), op), &sector, Zone::Prepares);
    let first = op / to_u64(HEADERS_PER_SECTOR) * to_u64(HEADERS_PER_SECTOR);
    let offset = s.geometry().headers_offset() + first * 256;
    let mut headers = s.bytes(a, offset, SECTOR_SIZE);
    let at = usize::try_from((op - first) * 256).expect("in a sector");
    headers[at..at + 256].copy_from_slice(marker.as_bytes());
    s.overwrite(a, offset, &headers, Zone::Prepares);
    s.may_exit(a);
    s.start(a);
    let reason = s.exited(a).await?;
    let refused = matches!(reason, FatalReason::JournalGap { op: found } if found == op);
    check(refused, || format!("it stops for another reason: {reason}"))?;
    s.undo_damage();
    s.start(a);
    s.requests(0, 1).await?;
    s.settle().await
}
