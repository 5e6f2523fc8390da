//! What the journal holds after a crash: the recovery table.
//!
//! The journal is two rings of slots: prepares (whole messages) and redundant headers. An op goes to
//! slot `op % slot_count`; its prepare is written first, then its header. The two are read
//! independently at start-up, and the table says what each pair means. Rows and rules have the
//! numbers of the project's fault specification (`ARCHITECTURE.md`, "Recovery of the journal").
//!
//! Invariants:
//! * A slot that may hold an acknowledged op is never taken for empty.
//! * With one replica, a decision that needs a second copy stops the process instead.
//! * Nothing is written before every decision is made.

use super::FatalReason;
use super::log::{Body, Entry, Log};
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::to_u64;
use std::ops::Range;
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{PrepareHeader, PrepareKind, Superblock};

/// What was read from one of the two places of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most slots are valid, and they live in one array"
)]
pub enum SlotRead {
    /// Unreadable, damaged, or of another cluster or slot.
    Bad,
    /// The marker of an empty slot.
    Empty,
    /// An intact entry.
    Valid(PrepareHeader),
}

impl SlotRead {
    /// Classifies a header that was read for `slot`.
    #[must_use]
    pub fn classify(header: &PrepareHeader, cluster: u128, slot: u64, slot_count: u64) -> Self {
        if !header.valid(cluster) || header.op.get() % slot_count != slot {
            return Self::Bad;
        }
        match header.kind() {
            PrepareKind::Empty if header.op.get() == slot => Self::Empty,
            PrepareKind::Empty => Self::Bad,
            PrepareKind::Root | PrepareKind::Requests | PrepareKind::Pulse => Self::Valid(*header),
        }
    }

    fn op(&self) -> Option<u64> {
        match self {
            Self::Valid(header) => Some(header.op.get()),
            Self::Bad | Self::Empty => None,
        }
    }
}

/// What is to be done with a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Header and prepare agree.
    Keep,
    /// Never used.
    CleanEmpty,
    /// The prepare is intact and its header has to be written again.
    Fix,
    /// The header was damaged and the slot is empty: its marker has to be written again.
    FixEmpty,
    /// An append that a crash cut off before it was acknowledged.
    Torn,
    /// Accepted ahead of the checkpoint: dropped, and replayed from peers.
    Discard,
    /// May have held an acknowledged op.
    Faulty,
    /// The same, and no rule may excuse it.
    Fatal,
}

/// Bounds that the table needs.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Op of the checkpoint.
    pub checkpoint: u64,
    /// Highest op that may be in the journal: the checkpoint's plus the slots.
    pub limit: u64,
    /// Highest op among all valid entries of both rings.
    pub highest: u64,
    /// Whether the cluster has one replica.
    pub solo: bool,
}

/// The table: the decision for one slot, and the row that made it.
#[must_use]
pub fn decide(header: &SlotRead, prepare: &SlotRead, bounds: &Bounds) -> (Decision, u8) {
    use SlotRead::{Bad, Empty, Valid};
    let ahead = if bounds.solo {
        Decision::Fatal
    } else {
        Decision::Discard
    };
    let beyond = |read: &SlotRead| read.op().is_some_and(|op| op > bounds.limit);
    if beyond(prepare) {
        return (ahead, 1);
    }
    if beyond(header) && *prepare != Bad {
        return (ahead, 2);
    }
    match (header, prepare) {
        (Bad, Bad) => (Decision::Faulty, 3),
        (Empty, Bad) => (Decision::Faulty, 4),
        (Valid(_), Bad) => (Decision::Faulty, 5),
        (Bad, Empty) if bounds.solo => (Decision::FixEmpty, 6),
        (Bad, Empty) => (Decision::Faulty, 6),
        (Bad, Valid(p)) if p.op.get() == bounds.highest => (Decision::Fix, 7),
        (Bad, Valid(_)) if bounds.solo => (Decision::Fix, 8),
        (Bad, Valid(_)) => (Decision::Faulty, 8),
        (Empty, Empty) => (Decision::CleanEmpty, 9),
        (Empty, Valid(_)) => (Decision::Fix, 10),
        (Valid(_), Empty) => (Decision::Faulty, 11),
        (Valid(h), Valid(p)) if h.checksum == p.checksum => (Decision::Keep, 12),
        (Valid(h), Valid(p)) if h.op == p.op && h.view == p.view => (Decision::Fatal, 13),
        (Valid(h), Valid(p)) if h.op == p.op && planted(Bug::TakeOldCopy) => (Decision::Fix, 13),
        (Valid(h), Valid(p)) if h.op == p.op => (Decision::Faulty, 13),
        (Valid(h), Valid(p)) if h.op.get() < p.op.get() => (Decision::Fix, 14),
        (Valid(_), Valid(_)) => (Decision::Faulty, 15),
    }
}

/// The journal after recovery.
#[derive(Debug)]
pub struct Recovered {
    /// One decision a slot.
    pub decisions: Vec<Decision>,
    /// The head: highest op in the log.
    pub head: PrepareHeader,
    /// Prepares above the checkpoint, in the order of their ops.
    pub log: Vec<PrepareHeader>,
}

/// Applies table, rule T (torn append) and rule K (contiguity) to the journal of one replica.
///
/// # Errors
/// When a slot or an op that may have been acknowledged is missing.
///
/// # Panics
/// When the two rings do not have the same number of slots.
pub fn recover_solo(
    headers: &[SlotRead],
    prepares: &[SlotRead],
    checkpoint: &PrepareHeader,
) -> Result<Recovered, FatalReason> {
    let slot_count = to_u64(headers.len());
    let checkpoint_op = checkpoint.op.get();
    let (bounds, decisions) = judge(headers, prepares, checkpoint_op, true)?;
    let mut log: Vec<PrepareHeader> = Vec::new();
    for op in checkpoint_op + 1..=bounds.highest {
        let slot = slot_of(op, slot_count);
        let kept = matches!(decisions[slot], Decision::Keep | Decision::Fix);
        let previous = log.last().unwrap_or(checkpoint);
        match &prepares[slot] {
            SlotRead::Valid(header)
                if kept && header.op.get() == op && header.parent == previous.checksum =>
            {
                log.push(*header);
            }
            SlotRead::Valid(_) | SlotRead::Bad | SlotRead::Empty => {
                if planted(Bug::DropRuleK) {
                    break;
                }
                return Err(FatalReason::JournalGap { op });
            }
        }
    }
    let head = *log.last().unwrap_or(checkpoint);
    Ok(Recovered {
        decisions,
        head,
        log,
    })
}

/// The journal of a replica of several, after recovery.
#[derive(Debug)]
pub struct RecoveredLog {
    /// One decision a slot.
    pub decisions: Vec<Decision>,
    /// The log; what is missing can come from peers.
    pub log: Log,
    /// Whether nothing can have been in the log beyond its head.
    pub certain: bool,
}

/// Applies table and rule T to the journal of one of several replicas. Where the log ends, the
/// superblock says: it has the newest headers as of the last view change, and what was prepared in the
/// view since then follows them.
///
/// # Errors
/// When two prepares of one view have the same op.
///
/// # Panics
/// When the two rings do not have the same number of slots.
pub fn recover_cluster(
    headers: &[SlotRead],
    prepares: &[SlotRead],
    superblock: &Superblock,
) -> Result<RecoveredLog, FatalReason> {
    let slot_count = to_u64(headers.len());
    let checkpoint = &superblock.checkpoint;
    let (bounds, decisions) = judge(headers, prepares, checkpoint.op.get(), false)?;
    let slots = headers.iter().zip(prepares);
    let mut entries: Vec<Entry> = slots
        .zip(&decisions)
        .map(|((header, prepare), decision)| hint(header, prepare, *decision, &bounds))
        .collect();
    if let Some(torn) = decisions.iter().position(|of| *of == Decision::Torn) {
        // The header sector of a torn append is not mended yet.
        let first = torn - torn % HEADERS_PER_SECTOR;
        let sector = first..(first + HEADERS_PER_SECTOR).min(decisions.len());
        for slot in sector.filter(|slot| decisions[*slot] == Decision::Fix) {
            entries[slot].body = Body::Written;
        }
    }

    let mut log = Log::new(&entries, checkpoint);
    let known = superblock.view_headers.iter();
    let known = known.take_while(|header| header.kind > PrepareKind::Empty.code());
    let known: Vec<PrepareHeader> = known.copied().collect();
    if known
        .first()
        .is_some_and(|head| head.op.get() > bounds.checkpoint)
    {
        log.install(&known);
    }
    // Also when a later view is durable: the superblock lacks what could not be read when that was written,
    // and may have been acknowledged. A view that is left takes no more prepares.
    if superblock.log_view == superblock.view || !planted(Bug::ForgetUnread) {
        log.follow(superblock.log_view.get(), bounds.limit - 1);
    }
    // The prepares of a view are written one at a time, in the order of their ops: if the next one was not
    // here, none after it was. Rule T holds for the slot after this head, too: what the journal has beyond that
    // may be of views that were left.
    let next = log.head().op.get() + 1;
    let beyond = next..bounds.limit;
    let certain = beyond.is_empty()
        || decisions[slot_of(next, slot_count)] != Decision::Faulty
        || is_torn(headers, prepares, &decisions, beyond)
        || planted(Bug::AlwaysCertain);
    if !certain {
        mark(Mark::HeadUncertain);
    }
    Ok(RecoveredLog {
        decisions,
        log,
        certain,
    })
}

fn slot_of(op: u64, slot_count: u64) -> usize {
    crate::stdx::u64_to_usize(op % slot_count)
}

/// Applies the table and rule T to all slots.
///
/// # Errors
/// When a slot stops the process.
fn judge(
    headers: &[SlotRead],
    prepares: &[SlotRead],
    checkpoint: u64,
    solo: bool,
) -> Result<(Bounds, Vec<Decision>), FatalReason> {
    assert_eq!(headers.len(), prepares.len());
    let ops = headers.iter().chain(prepares).filter_map(SlotRead::op);
    let bounds = Bounds {
        checkpoint,
        limit: checkpoint + to_u64(headers.len()),
        highest: ops.fold(checkpoint, u64::max),
        solo,
    };
    let slots = headers.iter().zip(prepares);
    let (mut decisions, rows): (Vec<_>, Vec<_>) = slots
        .map(|(header, prepare)| decide(header, prepare, &bounds))
        .unzip();
    excuse_torn_append(headers, prepares, &bounds, &mut decisions);
    rows.iter().for_each(|row| mark_row(*row, solo));
    // With others, what is faulty comes from them.
    let stops = |decision: &Decision| match decision {
        Decision::Fatal => true,
        Decision::Faulty => solo,
        Decision::Keep
        | Decision::CleanEmpty
        | Decision::Fix
        | Decision::FixEmpty
        | Decision::Torn
        | Decision::Discard => false,
    };
    match decisions.iter().position(stops) {
        Some(slot) => Err(FatalReason::JournalSlot {
            slot: to_u64(slot),
            row: rows[slot],
        }),
        None => Ok((bounds, decisions)),
    }
}

/// Notes the row of the table that decided; the trivial ones are not worth it.
fn mark_row(row: u8, solo: bool) {
    match (row, solo) {
        (3, false) => mark(Mark::Row3),
        (4, false) => mark(Mark::Row4),
        (5, false) => mark(Mark::Row5),
        (6, false) => mark(Mark::Row6),
        (6, true) => mark(Mark::Row6Alone),
        (7, _) => mark(Mark::Row7),
        (8, false) => mark(Mark::Row8),
        (8, true) => mark(Mark::Row8Alone),
        (10, _) => mark(Mark::Row10),
        (11, false) => mark(Mark::Row11),
        (13, false) => mark(Mark::Row13),
        (14, _) => mark(Mark::Row14),
        (15, false) => mark(Mark::Row15),
        _ => {}
    }
}

/// What a slot may hold of the log. It counts only if the chain of checksums leads to it.
fn hint(header: &SlotRead, prepare: &SlotRead, decision: Decision, bounds: &Bounds) -> Entry {
    use SlotRead::{Bad, Empty, Valid};
    let within = |read: &PrepareHeader| read.op.get() <= bounds.limit;
    match (header, prepare) {
        _ if decision == Decision::Torn => Entry::empty(),
        (Valid(_) | Empty | Bad, Valid(p))
            if matches!(decision, Decision::Keep | Decision::Fix) =>
        {
            Entry::durable(p)
        }
        // The header's write is missing, or the header is damaged.
        (Valid(h), Valid(p)) if h.op == p.op && h.view.get() < p.view.get() => Entry {
            body: Body::Written,
            ..Entry::durable(p)
        },
        (Bad, Valid(p)) if within(p) => Entry {
            body: Body::Written,
            ..Entry::durable(p)
        },
        // The prepare's write was lost, or the prepare is damaged.
        (Valid(h), _) if within(h) => Entry {
            header: *h,
            ..Entry::unreadable()
        },
        (Empty, Empty) => Entry::empty(),
        _ => Entry::unreadable(),
    }
}

/// Rule T: one journal write is under way at a time, so of these ops only the first can have been in flight. It
/// is torn if its prepare is damaged and its header is of an older wrap or empty, and none of the others is
/// faulty.
fn is_torn(
    headers: &[SlotRead],
    prepares: &[SlotRead],
    decisions: &[Decision],
    mut ops: Range<u64>,
) -> bool {
    let slot_count = to_u64(headers.len());
    let faulty = |op: u64| decisions[slot_of(op, slot_count)] == Decision::Faulty;
    let Some(next) = ops.next().filter(|next| faulty(*next)) else {
        return false;
    };
    let slot = slot_of(next, slot_count);
    let older = match &headers[slot] {
        SlotRead::Empty => true,
        SlotRead::Valid(header) => header.op.get() < next,
        SlotRead::Bad => false,
    };
    older && prepares[slot] == SlotRead::Bad && !ops.any(faulty)
}

/// Applies rule T to the slot after the highest op.
fn excuse_torn_append(
    headers: &[SlotRead],
    prepares: &[SlotRead],
    bounds: &Bounds,
    decisions: &mut [Decision],
) {
    let slot_count = to_u64(headers.len());
    let beyond = bounds.highest + 1..bounds.limit + 1;
    if beyond.is_empty() {
        return;
    }
    if planted(Bug::ExcuseAllDamage) {
        for slot in beyond.clone().map(|op| slot_of(op, slot_count)) {
            if decisions[slot] == Decision::Faulty {
                decisions[slot] = Decision::Torn;
            }
        }
    }
    let next = slot_of(beyond.start, slot_count);
    if is_torn(headers, prepares, decisions, beyond) {
        mark(Mark::TornExcused);
        decisions[next] = Decision::Torn;
    } else if decisions[next] == Decision::Faulty {
        mark(Mark::TornNotExcused);
    }
}

#[cfg(test)]
mod tests;
