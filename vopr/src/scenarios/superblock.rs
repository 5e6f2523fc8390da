//! B: superblocks, and data files of others.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::world::with;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::{Survived, Zone};
use crate::sim::verdict::Verdict;
use daftari::stdx::to_u64;
use daftari::vsr::FatalReason;
use storage_format::geometry::SUPERBLOCK_COPY_SIZE;
use storage_format::{Superblock, SuperblockError};
use zerocopy::{FromBytes, IntoBytes};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "B01",
        "sb-torn-copy",
        "each copy in turn is torn while a view is written: the file opens with the old or the new",
        |s| Box::pin(torn_copy(s)),
    ),
    Scenario::new(
        "B02",
        "sb-misdirected-copy",
        "a copy is written over another one, and a crash follows: the file opens",
        |s| Box::pin(misdirected_copy(s)),
    ),
    Scenario::new(
        "B03",
        "sb-one-rotted-plus-torn",
        "one copy has rotted, and a crash tears another one: the file opens",
        |s| Box::pin(rotted_and_torn(s)),
    ),
    Scenario::new(
        "B04",
        "superblock-copies-of-two",
        "a crash after one new copy leaves the old superblock, one after two the new one",
        |s| Box::pin(copies_of_two(s)),
    ),
    Scenario::new(
        "B05",
        "superblock-fork",
        "two superblocks of one sequence number: the file is refused; a foreign copy is ignored",
        |s| Box::pin(fork(s)),
    ),
    Scenario::new(
        "B06",
        "sb-copy-index-flip",
        "the index of a copy, which no checksum covers, is wrong: the copy counts once all the same",
        |s| Box::pin(copy_index_flip(s)),
    ),
    Scenario::new(
        "B07",
        "sb-view-and-checkpoint-race",
        "a view and a checkpoint wait for the superblock at the same time: it gets both",
        |s| Box::pin(view_and_checkpoint(s)),
    ),
    Scenario::new(
        "F03",
        "wrong-file",
        "a replica is started with the data file of another one: it refuses",
        |s| Box::pin(wrong_file(s)),
    ),
];

/// A backup crashes at a write of its superblock, in the change to another view: it is its next primary.
async fn crash_in_view_change(
    s: Script,
    (a, b): (u8, u8),
    (write, survived): (u64, Survived),
) -> Verdict {
    with(|world| world.disks[usize::from(b)].at_crash = Some(survived));
    s.plan_crash(b, CrashPlan::AtWrite(write));
    s.crash(a);
    s.down(b).await
}

async fn torn_copy(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let (view, write) = (s.newest_view(), 1 + s.below(8));
    crash_in_view_change(s, (a, b), (write, Survived::Torn)).await?;
    let found = s.superblock(b);
    // Two copies make it.
    let expected = if write > 2 { view + 1 } else { view };
    check(found.view.get() == expected, || {
        format!("view {} after write {write}", found.view)
    })?;
    s.goes_on_with(b, a).await
}

async fn misdirected_copy(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let other = to_u64(SUPERBLOCK_COPY_SIZE) * (1 + s.below(3));
    s.misdirect_write(b, Zone::Superblock, other);
    let write = 2 + s.below(7);
    crash_in_view_change(s, (a, b), (write, Survived::Torn)).await?;
    s.goes_on_with(b, a).await
}

async fn rotted_and_torn(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.damage_copy(b, usize::try_from(s.below(4)).expect("below 4"));
    crash_in_view_change(s, (a, b), (1 + s.below(8), Survived::Torn)).await?;
    s.goes_on_with(b, a).await
}

async fn copies_of_two(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let (view, new) = (s.newest_view(), 1 + s.below(2));
    crash_in_view_change(s, (a, b), (new + 1, Survived::None)).await?;
    let expected = if new == 2 { view + 1 } else { view };
    check(s.view(b) == expected, || {
        format!("view {} with {new} new copies", s.view(b))
    })?;
    let mark = s.mark();
    s.start(b);
    s.new_view(mark).await?;
    s.start(a);
    s.settle().await
}

async fn fork(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.requests(0, 1).await?;
    s.settle().await?;
    s.crash(b);
    let copy = |index: u64| index * to_u64(SUPERBLOCK_COPY_SIZE);
    let foreign = s.bytes(a, copy(0), SUPERBLOCK_COPY_SIZE);
    let mut forked = s.superblock(b);
    forked.commit_max = (forked.commit_max.get() + 1).into();
    forked.seal();
    s.overwrite(b, copy(3), forked.as_bytes(), Zone::Superblock);
    s.may_exit(b);
    s.start(b);
    let reason = s.exited(b).await?;
    let refused = matches!(
        reason,
        FatalReason::Superblock(SuperblockError::Fork { .. })
    );
    check(refused, || format!("it stops for another reason: {reason}"))?;
    s.undo_damage();
    // A copy of another replica is none of this one's.
    let mut foreign = Superblock::read_from_bytes(&foreign).expect("a whole copy");
    foreign.sequence = (forked.sequence.get() - 1).into();
    foreign.seal();
    s.overwrite(b, copy(2), foreign.as_bytes(), Zone::Superblock);
    s.start(b);
    s.caught_up(b).await?;
    s.settle().await
}

async fn copy_index_flip(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 1).await?;
    s.settle().await?;
    s.crash(b);
    // One copy is all that may be lost beside it.
    let (flipped, lost) = (s.below(2), 2 + s.below(2));
    let offset = flipped * to_u64(SUPERBLOCK_COPY_SIZE);
    let mut bytes = s.bytes(b, offset, SUPERBLOCK_COPY_SIZE);
    bytes[16] ^= 1 << s.below(2);
    s.overwrite(b, offset, &bytes, Zone::Superblock);
    s.damage_copy(b, usize::try_from(lost).expect("below 4"));
    s.start(b);
    s.requests(0, 1).await?;
    s.caught_up(b).await?;
    s.settle().await
}

async fn view_and_checkpoint(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let view = s.newest_view();
    s.log_up_to(19).await?;
    s.settle().await?;
    s.stall(b, Zone::Superblock);
    s.requests(0, 1).await?;
    let writes = || with(|world| world.disks[usize::from(b)].writes().count());
    s.until("its checkpoint is being written", || writes() > 0)
        .await?;
    s.wait(500).await;
    check(s.checkpoint(b) == 0, || "the checkpoint is durable".into())?;
    s.crash(a);
    s.wait(3_000).await;
    check(s.view(b) == view, || "the view is durable".into())?;
    s.unstall(b, Zone::Superblock);
    let both = || s.checkpoint(b) == 20 && s.view(b) > view;
    s.until("it has both", both).await?;
    s.requests(0, 1).await?;
    s.start(a);
    s.settle().await
}

async fn wrong_file(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.requests(0, 1).await?;
    s.settle().await?;
    s.crash(b);
    let swap = || {
        with(|world| {
            let size = world.disks[usize::from(b)].size();
            let own = world.disks[usize::from(b)].snapshot(0, size);
            let other = world.disks[usize::from(a)].snapshot(0, size);
            world.disks[usize::from(b)].restore(0, &other);
            own
        })
    };
    let own = swap();
    s.may_exit(b);
    s.start(b);
    let reason = s.exited(b).await?;
    let refused = matches!(reason, FatalReason::Replica { expected, found }
        if expected == b && found == a);
    check(refused, || format!("it stops for another reason: {reason}"))?;
    with(|world| world.disks[usize::from(b)].restore(0, &own));
    s.start(b);
    s.requests(0, 1).await?;
    s.settle().await
}
