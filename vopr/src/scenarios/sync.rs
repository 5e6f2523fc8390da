//! S: replicas that lag by more than the journals of the others hold.

use super::Scenario;
use super::script::{Script, check, within};
use crate::cluster::directed::{Sent, any_frame, frames};
use crate::cluster::world::with;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::{Survived, Zone};
use crate::sim::options::MS;
use crate::sim::verdict::Verdict;
use daftari::ledger::catalog::table;
use daftari::wire::Operation;
use daftari::wire::header::command::{
    BLOCK, DO_VIEW_CHANGE, PREPARE, PREPARE_OK, REQUEST, REQUEST_BLOCK, REQUEST_START_VIEW,
    START_VIEW,
};
use storage_format::{BlockHeader, BlockKind, BlockReference, SECTOR_SIZE};
use zerocopy::FromBytes;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "S01",
        "lag-one-wrap",
        "a replica lags by more than a journal, under load: it goes on from a checkpoint",
        |s| Box::pin(lag_one_wrap(s)),
    ),
    Scenario::new(
        "S02",
        "lag-idle",
        "the same in a cluster where nothing happens any more",
        |s| Box::pin(lag_idle(s)),
    ),
    Scenario::new(
        "S03",
        "lag-within-wal",
        "a replica lags by a checkpoint, and the journals have all of it: it takes no checkpoint",
        |s| Box::pin(lag_within_journal(s)),
    ),
    Scenario::new(
        "S04",
        "lag-slightly-but-evicted",
        "a replica lacks an op that is damaged everywhere, below the others' checkpoints: it takes \
         one",
        |s| Box::pin(lag_slightly(s)),
    ),
    Scenario::new(
        "S05",
        "sync-during-view-change",
        "the primary is gone, and the only other backup lags by more than a journal: both go on",
        |s| Box::pin(sync_during_view_change(s)),
    ),
    Scenario::new(
        "S06",
        "sync-crash-each-step",
        "a replica crashes again and again while it takes a checkpoint",
        |s| Box::pin(sync_crash_each_step(s)),
    ),
    Scenario::new(
        "S07",
        "sync-new-target",
        "blocks come so slowly that the cluster passes another checkpoint meanwhile",
        |s| Box::pin(sync_new_target(s)),
    ),
    Scenario::new(
        "S08",
        "sync-source-damaged",
        "blocks of a checkpoint are damaged on one source: they come from the other",
        |s| Box::pin(sync_source_damaged(s)),
    )
    .tuned(|options| options.scrub_period = 20_000 * MS),
    Scenario::new(
        "S09",
        "sync-false-durability",
        "a replica tells nobody of a checkpoint before all of its blocks are here",
        |s| Box::pin(sync_false_durability(s)),
    ),
    Scenario::new(
        "S10",
        "sync-other-branch",
        "a replica with an op that was dropped lags by more than a journal: it takes checkpoint \
         and log of the others",
        |s| Box::pin(sync_other_branch(s)),
    ),
    Scenario::new(
        "S11",
        "sync-table-released",
        "a replica uses up blocks of a checkpoint that it took, and crashes before its next one: they are \
         still there, and that others are missing is known until they come (also beyond its next checkpoint)",
        |s| Box::pin(sync_table_released(s)),
    ),
    Scenario::new(
        "S12",
        "truncate-before-fetch",
        "the start of a view is lost, and another view begins: the log is the old one until a new \
         one is durable",
        |s| Box::pin(truncate_before_fetch(s)),
    ),
    Scenario::new(
        "S13",
        "half-lag",
        "two of four are ahead and idle, two lag by more than a journal: both take the checkpoint",
        |s| Box::pin(half_lag(s)),
    )
    .of(&[4]),
];

fn syncs() -> u64 {
    with(|world| world.checker.counts.syncs)
}

/// Cuts a replica off until the others have overwritten what it lacks.
async fn leave_behind(s: Script, replica: u8) -> Verdict {
    let op = s.committed() + 1;
    s.isolate(replica);
    s.log_up_to(op + s.slots() + 3).await?;
    for other in s.others(replica).filter(|other| s.is_up(*other)) {
        s.caught_up(other).await?;
        check(!s.has(other, op), || format!("{other} still has op {op}"))?;
    }
    Ok(())
}

async fn lag_one_wrap(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    leave_behind(s, c).await?;
    s.rejoin(c);
    s.load(30);
    s.until("it takes a checkpoint", || syncs() > 0).await?;
    s.settle().await
}

async fn lag_idle(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    leave_behind(s, c).await?;
    let mark = s.mark();
    s.rejoin(c);
    s.until("it takes a checkpoint", || syncs() > 0).await?;
    s.caught_up(c).await?;
    s.none_since(mark, &frames(REQUEST), "nothing happens any more")?;
    s.settle().await
}

async fn lag_within_journal(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    s.isolate(c);
    let head = s.committed();
    s.log_up_to(28).await?;
    check(s.checkpoint(a) > head && s.has(a, head + 1), || {
        "the primary should have a checkpoint, and the journal".into()
    })?;
    let mark = s.mark();
    s.rejoin(c);
    s.caught_up(c).await?;
    s.settle().await?;
    s.some_since(mark, &frames(PREPARE).to(c).op(head + 1), "from a journal")?;
    check(syncs() == 0, || "it took a checkpoint".into())
}

async fn lag_slightly(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.isolate(c);
    let op = s.committed() + 3;
    s.log_up_to(26).await?;
    for replica in [a, b] {
        s.caught_up(replica).await?;
        check(s.checkpoint(replica) > op && s.has(replica, op), || {
            format!("{replica} should have a checkpoint, and the journal")
        })?;
        s.damage_prepare(replica, op);
    }
    s.rejoin(c);
    s.until("it takes a checkpoint", || syncs() > 0).await?;
    // Two of three with one damaged slot may not know where their log ended: it is written anew.
    s.log_up_to(op + s.slots() + 1).await?;
    s.settle().await
}

async fn sync_during_view_change(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    leave_behind(s, c).await?;
    // So far that not even the headers of the log have room.
    s.log_up_to(2 * s.slots() + 2).await?;
    let mark = s.mark();
    s.crash(a);
    s.rejoin(c);
    s.requests(0, 2).await?;
    s.new_view(mark).await?;
    check(syncs() > 0 && !s.is_up(a), || {
        "it took no checkpoint".into()
    })?;
    s.start(a);
    s.settle().await
}

async fn sync_crash_each_step(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    leave_behind(s, c).await?;
    s.rejoin(c);
    for _ in 0..4 {
        let plan = match s.below(3) {
            0 => CrashPlan::AfterAccess(1 + s.below(80)),
            1 => CrashPlan::AtWrite(1 + s.below(30)),
            _ => CrashPlan::Superblock(1 + s.below(8)),
        };
        s.plan_crash(c, plan);
        // Something has to be written, sooner or later.
        s.load(10);
        let down = within(8_000, "it is down", || !s.is_up(c)).await;
        if down.is_err() {
            s.crash(c);
        }
        s.idle().await?;
        s.start(c);
    }
    check(syncs() > 0, || "it took no checkpoint".into())?;
    s.settle().await
}

async fn sync_new_target(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    leave_behind(s, c).await?;
    let rule = s.delay(frames(BLOCK).to(c), 400);
    s.rejoin(c);
    s.until("it takes a checkpoint", || syncs() > 0).await?;
    let first = s.checkpoint(c);
    while s.checkpoint(a) <= first + 20 {
        s.requests(0, 1).await?;
    }
    s.end(rule);
    s.caught_up(c).await?;
    s.settle().await?;
    check(s.checkpoint(c) > first, || {
        "it stays at its first one".into()
    })
}

async fn sync_source_damaged(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    leave_behind(s, c).await?;
    let blocks = s.blocks(a);
    for block in blocks.iter().filter(|block| *block % 2 == 0) {
        s.damage_block(a, *block);
    }
    let mark = s.mark();
    s.rejoin(c);
    s.until("it takes a checkpoint", || syncs() > 0).await?;
    s.until("they are here", || s.superblock(c).content_missing == 0)
        .await?;
    let from_b = s.all_since(mark, &frames(BLOCK).from(b).to(c));
    check(from_b.iter().any(|block| block.op % 2 == 0), || {
        "the other source sent none of them".into()
    })?;
    s.settle().await
}

async fn sync_false_durability(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    leave_behind(s, c).await?;
    let rule = s.hold(frames(BLOCK).to(c));
    s.rejoin(c);
    s.until("its blocks are missing", || {
        s.superblock(c).content_missing == 1
    })
    .await?;
    let mark = s.mark();
    // The other backup makes none either: its checkpoints are all that there are beside the primary's.
    s.crash(b);
    s.wait(3_000).await;
    check(s.superblock(c).content_missing == 1, || "they came".into())?;
    let mut told = s.all_since(mark, &any_frame().from(c));
    told.retain(|frame| frame.client == 0 && frame.command != PREPARE);
    check(!told.is_empty(), || "it says nothing at all".into())?;
    check(
        told.iter().all(|frame| frame.peer().checkpoint_op == 0),
        || "it tells of a checkpoint that it does not have".into(),
    )?;
    s.end(rule);
    s.until("they are here", || s.superblock(c).content_missing == 0)
        .await?;
    let mark = s.mark();
    s.requests(0, 3).await?;
    s.some_since(mark, &frames(PREPARE_OK).from(c).to(a), "it takes part")?;
    s.start(b);
    s.settle().await
}

async fn sync_other_branch(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    s.issue(0);
    s.until("the primary has it alone", || s.has(a, op)).await?;
    let dropped = s.prepare(a, op);
    s.isolate_from_clients(a);
    s.isolate(a);
    s.end(rule);
    s.answered(0).await?;
    leave_behind(s, a).await?;
    check(
        s.prepare(a, op) == dropped && s.history(op) != dropped,
        || "there is one branch only".into(),
    )?;
    s.rejoin(a);
    s.until("it takes a checkpoint", || syncs() > 0).await?;
    s.settle().await
}

/// The blocks of the checkpoint of a replica.
fn references(replica: u8) -> Vec<BlockReference> {
    with(|world| {
        let protected = &world.checker.platter(replica).protected;
        protected.references().copied().collect()
    })
}

/// Creates accounts until so many ops are committed: each fills blocks, and reads no account.
async fn create_up_to(s: Script, op: u64) -> Verdict {
    while s.committed() < op {
        let first = 1_000_000 + 100 * u128::from(s.committed());
        s.create_accounts(0, first..first + 100);
        s.answered(0).await?;
    }
    Ok(())
}

async fn sync_table_released(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    let op = s.committed() + 1;
    s.isolate(c);
    // After so many ops the checkpoint comes while eight runs on disk are being merged.
    for _ in 0..3 {
        s.issue_this(0, Operation::LookupAccountsUnbatched, vec![7; 16]);
        s.answered(0).await?;
    }
    create_up_to(s, 82).await?;
    check(s.checkpoint(a) == 80 && !s.has(a, op), || {
        format!("{c} should need a checkpoint")
    })?;
    // Records that are old enough are needed by nobody.
    let oldest = |block: &BlockReference| {
        let offset = s.geometry().block_offset(block.address.get());
        let page = s.bytes(a, offset, SECTOR_SIZE);
        let (header, _) = BlockHeader::read_from_prefix(&page).expect("a sector");
        header.position.get()
    };
    let mut accounts = references(a);
    accounts.retain(|block| block.table == table::ACCOUNTS);
    let unused = accounts.into_iter().min_by_key(oldest);
    let unused = unused.expect("there are accounts").address.get();
    let rule = s.hold(frames(BLOCK).to(c).op(unused));
    let mark = s.mark();
    s.rejoin(c);
    s.sent_since(mark, frames(BLOCK).to(c)).await?;
    check(s.superblock(c).content_missing == 1, || {
        "it should have taken the checkpoint".into()
    })?;
    // It looks for all of them when it has loaded what it needs.
    s.sent_since(mark, frames(REQUEST_BLOCK).from(c).op(unused))
        .await?;
    let loaded = s.mark();
    s.stall(c, Zone::Superblock);
    create_up_to(s, 101).await?;
    s.until("its next checkpoint wants for its superblock only", || {
        !s.writing(c, Zone::Superblock).is_empty()
    })
    .await?;
    s.crash_with(c, Survived::None);
    s.unstall(c, Zone::Superblock);
    check(s.checkpoint(c) == 80 && s.checkpoint(a) == 100, || {
        "it should have the first one still".into()
    })?;
    let next = references(a);
    let released = |sent: &Sent| {
        let (header, _) = BlockHeader::read_from_prefix(&sent.bytes[256..]).expect("a block");
        let kept = next.iter().any(|block| block.checksum == sent.item);
        header.kind == BlockKind::Run.code() && !kept
    };
    let sent = s.all_since(mark, &frames(BLOCK).to(c).arrived());
    check(sent.iter().any(released), || {
        "it should have used up some of the blocks that came".into()
    })?;
    let none = s.lose(frames(BLOCK).to(c));
    s.start(c);
    s.until("it makes the checkpoint from what it has", || {
        s.checkpoint(c) == 100
    })
    .await?;
    s.stays(1_000, "it knows that a block is missing", || {
        s.superblock(c).content_missing == 1
    })
    .await?;
    let asks = frames(REQUEST_START_VIEW).from(c);
    s.none_since(loaded, &asks, "it needs no other checkpoint")?;
    s.end(none);
    s.end(rule);
    s.until("all are here", || s.superblock(c).content_missing == 0)
        .await?;
    s.settle().await
}

async fn truncate_before_fetch(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    // An op that a backup acknowledged, and that nobody knows to be committed.
    let op = s.committed() + 1;
    let rules = [
        s.lose(frames(PREPARE).to(c)),
        s.lose(frames(PREPARE_OK).to(a)),
    ];
    s.issue(0);
    let ack = s.sent(frames(PREPARE_OK).from(b).op(op)).await?;
    // The primary acknowledges it as well, so it is committed, and nobody knows.
    s.until("the primary has it", || s.has(a, op)).await?;
    s.wait(200).await;
    for rule in rules {
        s.end(rule);
    }
    let starts = s.lose(frames(START_VIEW));
    let mark = s.mark();
    s.crash(a);
    let first = s.new_view(mark).await?;
    check(first.op == op, || format!("it starts at op {}", first.op))?;
    // The third has asked for it, and not heard of it, when its primary goes.
    s.crash(b);
    s.start(a);
    s.end(starts);
    let later = frames(DO_VIEW_CHANGE)
        .from(c)
        .views(first.view + 1..=u32::MAX);
    let vote = s.sent_since(mark, later).await?;
    check(vote.log_view < first.view && vote.op == op - 1, || {
        format!(
            "it votes with log view {} and op {}",
            vote.log_view, vote.op
        )
    })?;
    s.sent_since(mark, frames(START_VIEW).views(first.view + 1..=u32::MAX))
        .await?;
    s.start(b);
    s.answered(0).await?;
    s.settle().await?;
    let kept = s.history(op).map(|header| header.checksum);
    check(kept == Some(ack.item), || "another op was committed".into())
}

async fn half_lag(s: Script) -> Verdict {
    let [a, b, c, d] = s.begin().await?;
    let op = s.committed() + 1;
    for replica in [c, d] {
        s.isolate(replica);
    }
    s.cut(c, d);
    s.log_up_to(op + s.slots() + 3).await?;
    for replica in [a, b] {
        s.caught_up(replica).await?;
        check(!s.has(replica, op), || format!("{replica} has op {op}"))?;
    }
    for replica in [c, d] {
        s.rejoin(replica);
    }
    s.until("both take a checkpoint", || syncs() >= 2).await?;
    s.settle().await
}
