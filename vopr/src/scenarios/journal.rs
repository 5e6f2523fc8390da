//! W: journals that are torn or damaged.
//!
//! `a` is the primary at first, `b` the primary of the next view.

use super::Scenario;
use super::script::{Script, check};
use crate::cluster::directed::frames;
use crate::cluster::network::Place;
use crate::cluster::world::with;
use crate::sim::disk::{Survived, Zone};
use crate::sim::platter::slot_offset;
use crate::sim::verdict::{Failure, Verdict};
use daftari::stdx::marks::Mark;
use daftari::wire::header::command::{
    BLOCK, DO_VIEW_CHANGE, HEADERS, PONG, PREPARE, PREPARE_OK, REQUEST_PREPARE, REQUEST_START_VIEW,
    START_VIEW,
};
use storage_format::{PrepareHeader, SECTOR_SIZE};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "W01",
        "right-of-head",
        "the empty slot after the head is damaged: the backup asks for the start of its view first",
        |s| Box::pin(right_of_head(s)),
    ),
    Scenario::new(
        "W02",
        "left-of-head-all",
        "the same committed op is damaged everywhere: no view starts, nothing wrong is executed",
        |s| Box::pin(left_of_head_all(s)),
    ),
    Scenario::new(
        "W03",
        "root-damaged",
        "the slot of op 0 is damaged: nothing needs it, its replica starts, and uses the slot later",
        |s| Box::pin(root_damaged(s)),
    ),
    Scenario::new(
        "W04",
        "checkpoint-to-head-damaged",
        "all prepares above the checkpoint are damaged: they are repaired, and the replica is in \
         the next quorum",
        |s| Box::pin(checkpoint_to_head_damaged(s)),
    ),
    Scenario::new(
        "W05",
        "torn-single",
        "an append is torn: the replica starts as if nothing had been there",
        |s| Box::pin(torn_single(s)),
    ),
    Scenario::new(
        "W06",
        "torn-several",
        "a backup crashes with several appends to do, of which the first is torn (they are written one \
         at a time): it is as if none had been there",
        |s| Box::pin(torn_several(s)),
    )
    .tuned(|options| options.clients = 4),
    Scenario::new(
        "W07",
        "torn-more-than-one",
        "two slots after the head are bad, and only one can have been torn: it counts as damage",
        |s| Box::pin(torn_and_rot(s, Rot::NextSlot)),
    ),
    Scenario::new(
        "W08",
        "torn-plus-rot",
        "a torn append and a damaged header: uncertain only if that lies beyond the head",
        |s| Box::pin(torn_plus_rot(s)),
    ),
    Scenario::new(
        "W09",
        "header-sector-torn",
        "a crash tears a sector of 16 headers: what it had is mended from prepares and peers",
        |s| Box::pin(header_sector_torn(s)),
    ),
    Scenario::new(
        "W10",
        "prepare-durable-header-not",
        "a crash between the two writes of an op: it is whole after the start, and acknowledged",
        |s| Box::pin(prepare_durable_header_not(s)),
    ),
    Scenario::new(
        "W11",
        "misdirected-prepare",
        "a prepare lands in the slot of another: both are repaired, and neither is denied",
        |s| Box::pin(misdirected_prepare(s)),
    ),
    Scenario::new(
        "W12",
        "misdirect-then-checkpoint",
        "the op of a later view is not written over that of an earlier one: the old one is not \
         taken for the log (the write is lost, not misdirected)",
        |s| Box::pin(lost_rewrite(s)),
    ),
    Scenario::new(
        "W13",
        "fault-survives-restart",
        "of two damaged slots of one header sector one is repaired: after a restart the other one \
         is damaged still, and not denied",
        |s| Box::pin(fault_survives_restart(s)),
    ),
    Scenario::new(
        "W14",
        "just-repaired-stays",
        "a repaired slot is whole after a restart: nobody is asked for it again",
        |s| Box::pin(just_repaired_stays(s)),
    ),
    Scenario::new(
        "W15",
        "truncated-op-returns",
        "an op that a view dropped is still in its slot at a restart: it is in no vote",
        |s| Box::pin(truncated_op_returns(s)),
    ),
    Scenario::new(
        "W16",
        "next-checkpoint-ops-cut",
        "a backup makes no checkpoint, and crashes: there is nothing to be cut (it takes no op that its \
         journal has no slot for), and it replays what it has",
        |s| Box::pin(next_checkpoint_ops_cut(s)),
    ),
    Scenario::new(
        "W17",
        "slot-served-while-faulty",
        "a prepare is whole and its header damaged: whoever asks for it gets it",
        |s| Box::pin(slot_served_while_faulty(s)),
    ),
    Scenario::new(
        "W18",
        "repair-old-first",
        "many prepares are damaged: those that are needed first are asked for first, of both peers",
        |s| Box::pin(repair_old_first(s)),
    ),
    Scenario::new(
        "W19",
        "repair-evicted",
        "a prepare is lost, and overwritten everywhere else: its replica goes on from a checkpoint",
        |s| Box::pin(repair_evicted(s)),
    ),
    Scenario::new(
        "W20",
        "hash-chain-break-same-view",
        "a backup misses a prepare, and gets no headers: it takes nothing after it, and goes on \
         when it comes",
        |s| Box::pin(hash_chain_break(s)),
    ),
];

/// A crashed backup starts; whether it asks for the start of its view before it takes part.
async fn starts_uncertain(s: Script, replica: u8) -> Result<bool, Failure> {
    let mark = s.mark();
    s.start(replica);
    s.until("it takes part", || {
        let taken_part = frames(PREPARE_OK).from(replica);
        let asked = frames(REQUEST_START_VIEW).from(replica);
        let pongs = frames(PONG).from(replica);
        [taken_part, asked, pongs]
            .iter()
            .any(|filter| s.was_sent(mark, filter))
    })
    .await?;
    let asked = s.was_sent(mark, &frames(REQUEST_START_VIEW).from(replica));
    if asked {
        let told = frames(START_VIEW).to(replica);
        let told = s.sent_since(mark, told).await?;
        let early = s.all_since(mark, &frames(PREPARE_OK).from(replica));
        check(early.iter().all(|ack| ack.at > told.at), || {
            "it acknowledges before it is told of its log".into()
        })?;
    }
    Ok(asked)
}

async fn right_of_head(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    let view = s.newest_view();
    s.crash(b);
    // Ops are written in order: further away there was nothing, if there is nothing right after the head.
    let distance = 1 + s.below(2) * s.below(8);
    let beyond = s.committed() + distance;
    s.damage_prepare(b, beyond);
    s.damage_header(b, beyond);
    let uncertain = starts_uncertain(s, b).await?;
    check(uncertain == (distance == 1), || {
        format!("damage {distance} after its head; uncertain: {uncertain}")
    })?;
    s.requests(0, 2).await?;
    check(s.newest_view() == view, || "the view changed".into())?;
    s.settle().await
}

async fn left_of_head_all(s: Script) -> Verdict {
    let roles: [u8; 3] = s.begin().await?;
    s.requests(0, 3).await?;
    s.settle().await?;
    // One that nobody remembers to be committed.
    let op = s.committed() - 1;
    for replica in roles {
        s.crash(replica);
        s.damage_prepare(replica, op);
    }
    let mark = s.mark();
    for replica in roles {
        s.start(replica);
    }
    for replica in roles {
        s.sent_since(mark, frames(DO_VIEW_CHANGE).from(replica))
            .await?;
    }
    s.stays(15_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    s.restore();
    s.requests(0, 1).await?;
    s.settle().await
}

async fn root_damaged(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 1).await?;
    s.settle().await?;
    s.crash(b);
    s.damage_prepare(b, 0);
    s.damage_header(b, 0);
    check(!starts_uncertain(s, b).await?, || {
        "it needs what it has not".into()
    })?;
    s.log_up_to(s.slots() + 1).await?;
    s.settle().await?;
    check(s.has(b, s.slots()), || {
        "the slot is not in use again".into()
    })
}

async fn checkpoint_to_head_damaged(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.log_up_to(25).await?;
    s.settle().await?;
    let (first, head) = (s.checkpoint(c) + 1, s.committed());
    s.crash(c);
    for op in first..=head {
        s.damage_prepare(c, op);
    }
    s.start(c);
    s.caught_up(c).await?;
    s.crash(a);
    s.requests(0, 2).await?;
    check(s.is_up(b) && s.is_up(c), || "it should be the two".into())?;
    s.start(a);
    s.settle().await
}

async fn torn_single(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let op = s.committed() + 1;
    s.stall(b, Zone::Prepares);
    s.issue(0);
    let waits = || with(|world| world.disks[usize::from(b)].writes().next().is_some());
    s.until("it is being written", waits).await?;
    s.crash_with(b, Survived::Torn);
    s.unstall(b, Zone::Prepares);
    check(!s.has(b, op), || "nothing is torn".into())?;
    // What it hears meanwhile is not what it starts from.
    s.answered(0).await?;
    check(!starts_uncertain(s, b).await?, || {
        "it takes it for damage".into()
    })?;
    check(s.primary() == a, || "the view changed".into())?;
    s.settle().await
}

async fn torn_several(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    if s.below(2) == 0 {
        // The slots have ops of an earlier lap then.
        s.log_up_to(s.slots() + 2).await?;
        s.settle().await?;
    }
    let first = s.committed() + 1;
    let deaf = s.lose(frames(PREPARE).to(c));
    s.stall(b, Zone::Prepares);
    let mark = s.mark();
    for (op, client) in (first..).zip(0..4) {
        s.issue(client);
        s.sent_since(mark, frames(PREPARE).from(a).to(b).op(op).arrived())
            .await?;
    }
    s.wait(100).await;
    let ops = first..first + 4;
    let slot = slot_offset(&s.geometry(), first);
    check(s.writing(b, Zone::Prepares) == [slot], || {
        "the first of them should be under way, and no other".into()
    })?;
    let alone = ops.clone().map(|op| (op, s.prepare(a, op)));
    let alone: Vec<(u64, Option<PrepareHeader>)> = alone.collect();
    check(alone.iter().all(|(_, found)| found.is_some()), || {
        "the primary should have all of them".into()
    })?;
    s.crash_with(b, Survived::Torn);
    s.unstall(b, Zone::Prepares);
    s.crash(a);
    s.end(deaf);
    check(ops.into_iter().all(|op| !s.has(b, op)), || {
        "nothing is torn".into()
    })?;
    let mark = s.mark();
    s.start(b);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
    check(vote.op == first - 1 && vote.peer().uncertain == 0, || {
        format!("it votes with op {}, and may be uncertain", vote.op)
    })?;
    let start = s.new_view(mark).await?;
    check(start.op == first - 1, || {
        format!("it starts at op {}", start.op)
    })?;
    s.idle().await?;
    s.start(a);
    s.settle().await?;
    check(
        alone.iter().all(|(op, found)| s.history(*op) != *found),
        || "an op of the old primary alone is committed".into(),
    )
}

/// What rots beside a torn append.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rot {
    /// The slot after it, as if it had been torn as well.
    NextSlot,
    /// A header beyond the head.
    HeaderBeyond,
    /// The header of an op of the log.
    HeaderBelow,
}

async fn torn_plus_rot(s: Script) -> Verdict {
    match s.below(2) {
        0 => torn_and_rot(s, Rot::HeaderBeyond).await,
        _ => torn_and_rot(s, Rot::HeaderBelow).await,
    }
}

async fn torn_and_rot(s: Script, rot: Rot) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let op = s.committed() + 1;
    s.stall(b, Zone::Prepares);
    s.issue(0);
    let waits = || with(|world| world.disks[usize::from(b)].writes().next().is_some());
    s.until("it is being written", waits).await?;
    s.crash_with(b, Survived::Torn);
    s.unstall(b, Zone::Prepares);
    check(!s.has(b, op), || "nothing is torn".into())?;
    match rot {
        Rot::NextSlot => s.damage_prepare(b, op + 1),
        Rot::HeaderBeyond => s.damage_header(b, op + 1 + s.below(5)),
        Rot::HeaderBelow => s.damage_header(b, op - 2),
    }
    s.answered(0).await?;
    let uncertain = starts_uncertain(s, b).await?;
    check(uncertain == (rot != Rot::HeaderBelow), || {
        format!("with {rot:?} it is uncertain: {uncertain}")
    })?;
    s.settle().await
}

async fn header_sector_torn(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 3).await?;
    s.settle().await?;
    let op = s.committed() + 1;
    s.stall(b, Zone::Headers);
    s.issue(0);
    s.until("its prepare is written", || s.has(b, op)).await?;
    let waits = || with(|world| world.disks[usize::from(b)].writes().next().is_some());
    s.until("its header is being written", waits).await?;
    s.crash_with(b, Survived::Torn);
    s.unstall(b, Zone::Headers);
    s.answered(0).await?;
    s.start(b);
    s.settle().await
}

async fn prepare_durable_header_not(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).to(c));
    s.stall(b, Zone::Headers);
    let mark = s.mark();
    s.issue(0);
    s.until("its prepare is written", || s.has(b, op)).await?;
    s.wait(100).await;
    s.none_since(
        mark,
        &frames(PREPARE_OK).from(b).op(op),
        "its header is not",
    )?;
    s.crash_with(b, Survived::None);
    s.unstall(b, Zone::Headers);
    check(s.has(b, op) && s.committed() < op, || {
        "it is not as it should be".into()
    })?;
    let mark = s.mark();
    s.start(b);
    s.sent_since(mark, frames(PREPARE_OK).from(b).to(a).op(op))
        .await?;
    s.answered(0).await?;
    s.end(rule);
    s.settle().await
}

async fn misdirected_prepare(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let op = s.committed() + 1;
    let victim = op - 1 - s.below(2);
    let mark = s.mark();
    s.misdirect_write(b, Zone::Prepares, slot_offset(&s.geometry(), victim));
    s.requests(0, 1).await?;
    s.sent_since(mark, frames(PREPARE_OK).from(b).op(op))
        .await?;
    check(!s.has(b, op) && !s.has(b, victim), || {
        "it went where it should".into()
    })?;
    s.crash(b);
    let mark = s.mark();
    s.start(b);
    s.crash(a);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
    let headers = vote.headers();
    let denied = headers.iter().enumerate().filter(|(at, header)| {
        let touched = [op, victim].contains(&header.op.get());
        touched && vote.peer().nacks.get() >> at & 1 == 1
    });
    check(denied.count() == 0, || {
        "it denies what it acknowledged".into()
    })?;
    s.caught_up(b).await?;
    check(s.has(b, op) && s.has(b, victim), || {
        "they are not repaired".into()
    })?;
    s.start(a);
    s.settle().await
}

/// The primary has an op alone, which the next view drops, and takes part in that: the op is in its slot
/// still. Clients are cut off from all. Gives the op and the view.
async fn dropped_in_its_slot(
    s: Script,
    (a, b, c): (u8, u8, u8),
) -> Result<(PrepareHeader, u32), Failure> {
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    s.issue(0);
    s.until("the primary has it alone", || s.has(a, op)).await?;
    let dropped = s.prepare(a, op).expect("it is there");
    for replica in [a, b, c] {
        s.isolate_from_clients(replica);
    }
    let mark = s.mark();
    s.isolate(a);
    let first = s.new_view(mark).await?;
    s.end(rule);
    for other in [b, c] {
        s.join(a, other);
    }
    s.until("it is in the view", || {
        s.superblock(a).log_view.get() == first.view
    })
    .await?;
    check(first.op < op && s.prepare(a, op) == Some(dropped), || {
        "the op is not in its slot".into()
    })?;
    Ok((dropped, first.view))
}

async fn lost_rewrite(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let (old, view) = dropped_in_its_slot(s, (a, b, c)).await?;
    let op = old.op.get();
    s.lose_write(a, Zone::Prepares);
    let mark = s.mark();
    for replica in [a, b, c] {
        s.rejoin(replica);
    }
    s.sent_since(mark, frames(PREPARE_OK).from(a).op(op).view(view))
        .await?;
    s.answered(0).await?;
    check(
        s.prepare(a, op) == Some(old) && s.history(op) != Some(old),
        || "the write is not lost".into(),
    )?;
    s.crash(a);
    let mark = s.mark();
    s.start(a);
    s.crash(b);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(a)).await?;
    check(vote.op >= op && !vote.headers().contains(&old), || {
        format!("it votes with op {}, and acknowledged {op}", vote.op)
    })?;
    s.caught_up(a).await?;
    check(s.prepare(a, op) == s.history(op), || {
        "it keeps the old one".into()
    })?;
    s.start(b);
    s.settle().await
}

async fn fault_survives_restart(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let head = s.committed();
    s.crash(b);
    for op in [head - 1, head - 2] {
        s.damage_prepare(b, op);
        s.damage_header(b, op);
    }
    let rule = s.lose(frames(PREPARE).to(b).op(head - 2));
    s.start(b);
    s.until("one is repaired", || s.has(b, head - 1)).await?;
    s.wait(100).await;
    s.crash(b);
    check(!s.has(b, head - 2), || "the other one as well".into())?;
    let mark = s.mark();
    s.start(b);
    s.crash(a);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
    let at = vote
        .headers()
        .iter()
        .position(|header| header.op.get() == head - 2);
    let denied = at.is_some_and(|at| vote.peer().nacks.get() >> at & 1 == 1);
    check(!denied && vote.op == head, || {
        "it denies what is damaged".into()
    })?;
    s.new_view(mark).await?;
    s.end(rule);
    s.caught_up(b).await?;
    s.start(a);
    s.settle().await
}

async fn just_repaired_stays(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let op = s.committed() - s.below(2);
    s.crash(b);
    s.damage_prepare(b, op);
    let mark = s.mark();
    s.start(b);
    s.caught_up(b).await?;
    s.some_since(
        mark,
        &frames(REQUEST_PREPARE).from(b).op(op),
        "it was damaged",
    )?;
    // Its header may be on its way.
    s.wait(500).await;
    s.crash(b);
    let mark = s.mark();
    s.start(b);
    s.wait(3_000).await;
    s.none_since(
        mark,
        &frames(REQUEST_PREPARE).from(b).op(op),
        "it was repaired",
    )?;
    s.settle().await
}

async fn truncated_op_returns(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let (dropped, _) = dropped_in_its_slot(s, (a, b, c)).await?;
    let op = dropped.op.get();
    s.crash(a);
    let mark = s.mark();
    s.start(a);
    s.crash(b);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(a)).await?;
    check(vote.op == op - 1, || {
        format!("it votes with op {}", vote.op)
    })?;
    let start = s.new_view(mark).await?;
    check(start.op == op - 1, || {
        format!("it starts at op {}", start.op)
    })?;
    s.start(b);
    for replica in [a, b, c] {
        s.rejoin(replica);
    }
    s.answered(0).await?;
    s.settle().await
}

async fn next_checkpoint_ops_cut(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.log_up_to(22).await?;
    s.settle().await?;
    s.crash(b);
    // Without the first block of its checkpoint it executes nothing, and makes no other.
    let index = s.superblock(b).checkpoint_index.address.get();
    let whole = s.bytes(b, s.geometry().block_offset(index), SECTOR_SIZE);
    s.damage_block(b, index);
    let rule = s.lose(frames(BLOCK).to(b));
    s.start(b);
    let (first, limit) = (s.checkpoint(b) + 1, s.checkpoint(b) + s.slots() - 1);
    let mark = s.mark();
    s.log_up_to(limit + 1).await?;
    let beyond = limit + 1..=u64::MAX;
    let next = frames(PREPARE).to(b).op(limit + 1).arrived();
    s.sent_since(mark, next).await?;
    s.until("it has all that it has slots for", || s.has(b, limit))
        .await?;
    s.wait(200).await;
    s.crash(b);
    s.none_since(
        mark,
        &frames(PREPARE_OK).from(b).ops(beyond),
        "they have no slot",
    )?;
    s.reached(Mark::BackupAtLimit)?;
    check(s.checkpoint(b) + 1 == first, || {
        "it has another checkpoint".into()
    })?;
    check(
        (first..=limit).all(|op| s.prepare(b, op) == s.history(op)),
        || "an op is in the slot of another".into(),
    )?;
    s.end(rule);
    s.heal_block(b, index, &whole);
    let mark = s.mark();
    s.start(b);
    s.settle().await?;
    let asks = frames(REQUEST_PREPARE).from(b).ops(first..=limit);
    s.none_since(mark, &asks, "it has them")?;
    check(with(|world| world.checker.counts.syncs) == 0, || {
        "it went on from the checkpoint of another".into()
    })
}

async fn slot_served_while_faulty(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).to(b));
    s.requests(0, 3).await?;
    check(!s.has(b, op) && s.has(c, op), || "it should lack it".into())?;
    s.crash(a);
    s.crash(c);
    s.damage_header(c, op);
    s.end(rule);
    let mark = s.mark();
    s.start(c);
    s.sent_since(mark, frames(PREPARE).from(c).to(b).op(op))
        .await?;
    s.caught_up(b).await?;
    check(!s.is_up(a), || "the third is not needed".into())?;
    s.start(a);
    s.settle().await
}

async fn repair_old_first(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.requests(0, 14).await?;
    s.settle().await?;
    let head = s.committed();
    let first = head - 13;
    s.crash(b);
    for op in first..=head {
        s.damage_prepare(b, op);
    }
    let mark = s.mark();
    // The head is asked for on its own: only the primary knows what it is.
    let below = || first..=head - 1;
    // One of four asks goes to the other backup: it might never be asked if the primary answered.
    let rule = s.lose(frames(PREPARE).from(a).to(b).ops(below()));
    s.start(b);
    s.caught_up(b).await?;
    s.end(rule);
    let asks = s.all_since(mark, &frames(REQUEST_PREPARE).from(b).ops(below()));
    let mut order: Vec<u64> = Vec::new();
    for ask in &asks {
        if !order.contains(&ask.op) {
            order.push(ask.op);
        }
    }
    check(order.is_sorted() && order.len() == 13, || {
        format!("they are asked for in the order {order:?}")
    })?;
    for peer in [a, c] {
        check(
            asks.iter().any(|ask| ask.to == Place::Replica(peer)),
            || format!("{peer} was never asked"),
        )?;
    }
    s.settle().await
}

async fn repair_evicted(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    s.requests(0, 2).await?;
    s.settle().await?;
    let op = s.committed();
    s.crash(b);
    s.damage_prepare(b, op);
    s.log_up_to(op + s.slots() + 2).await?;
    let syncs = with(|world| world.checker.counts.syncs);
    s.start(b);
    s.caught_up(b).await?;
    check(with(|world| world.checker.counts.syncs) > syncs, || {
        "it did not go on from a checkpoint".into()
    })?;
    s.settle().await
}

async fn hash_chain_break(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    let op = s.committed() + 1;
    let mark = s.mark();
    let rules = [
        s.lose(frames(PREPARE).to(b).op(op)),
        s.lose(frames(HEADERS).to(b)),
    ];
    s.requests(0, 6).await?;
    let head = s.committed();
    let acks = frames(PREPARE_OK).from(b).ops(op..=head);
    s.none_since(mark, &acks, "it lacks what they follow")?;
    check(!s.has(b, op + 1), || "it has taken what follows".into())?;
    for rule in rules {
        s.end(rule);
    }
    s.sent_since(mark, acks.op(head)).await?;
    s.settle().await
}
