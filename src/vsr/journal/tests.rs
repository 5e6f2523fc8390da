//! The table row by row, and a randomised model of one replica that crashes at any moment.

use super::{Bounds, Decision, SlotRead, decide, recover_cluster, recover_solo};
use crate::stdx::u64_to_usize;
use crate::vsr::FatalReason;
use storage_format::{Checksum, PrepareHeader, PrepareKind, Superblock};

const CLUSTER: u128 = 9;

fn entry(op: u64, view: u32, parent: Checksum) -> PrepareHeader {
    let mut header = PrepareHeader::empty(CLUSTER, op);
    header.kind = PrepareKind::Requests.code();
    header.view = view.into();
    header.parent = parent;
    header.seal();
    header
}

/// A slot's content from text: `-` bad, `e` empty, `OP.VIEW` valid; `!` makes another checksum.
fn read(text: &str) -> SlotRead {
    match text {
        "-" => SlotRead::Bad,
        "e" => SlotRead::Empty,
        _ => {
            let other = text.ends_with('!');
            let (op, view) = text.trim_end_matches('!').split_once('.').unwrap();
            let parent = if other {
                Checksum([1; 16])
            } else {
                Checksum::ZERO
            };
            SlotRead::Valid(entry(op.parse().unwrap(), view.parse().unwrap(), parent))
        }
    }
}

/// The rows, with 16 slots, checkpoint 40 (so the limit is 56) and highest op 50:
/// `row: header, prepare => several replicas / one replica`.
#[test]
fn the_table_row_by_row() {
    let rows = "
        1: e, 57.1 => Discard / Fatal
        1: 50.1, 57.1 => Discard / Fatal
        2: 57.1, e => Discard / Fatal
        2: 57.1, 41.1 => Discard / Fatal
        3: -, - => Faulty / Faulty
        4: e, - => Faulty / Faulty
        5: 41.1, - => Faulty / Faulty
        5: 57.1, - => Faulty / Faulty
        6: -, e => Faulty / FixEmpty
        7: -, 50.1 => Fix / Fix
        8: -, 49.1 => Faulty / Fix
        9: e, e => CleanEmpty / CleanEmpty
        10: e, 45.1 => Fix / Fix
        11: 45.1, e => Faulty / Faulty
        12: 45.1, 45.1 => Keep / Keep
        13: 45.1, 45.2 => Faulty / Faulty
        13: 45.1, 45.1! => Fatal / Fatal
        14: 29.1, 45.1 => Fix / Fix
        15: 45.1, 29.1 => Faulty / Faulty
    ";
    for line in rows.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (row, rest) = line.split_once(": ").unwrap();
        let (slots, decisions) = rest.split_once(" => ").unwrap();
        let (header, prepare) = slots.split_once(", ").unwrap();
        for (solo, expected) in [false, true].into_iter().zip(decisions.split(" / ")) {
            let bounds = Bounds {
                checkpoint: 40,
                limit: 56,
                highest: 50,
                solo,
            };
            let (decision, found) = decide(&read(header), &read(prepare), &bounds);
            assert_eq!(format!("{decision:?}"), expected, "{line}, solo {solo}");
            assert_eq!(found.to_string(), row, "{line}, solo {solo}");
        }
    }
}

/// A journal of 16 slots that holds ops 0 to `head`, whole.
fn journal(head: u64) -> (Vec<SlotRead>, Vec<PrepareHeader>) {
    let mut log = vec![PrepareHeader::root(CLUSTER)];
    for op in 1..=head {
        log.push(entry(op, 1, log.last().unwrap().checksum));
    }
    let mut slots = vec![SlotRead::Empty; 16];
    for header in &log {
        slots[usize::try_from(header.op.get() % 16).unwrap()] = SlotRead::Valid(*header);
    }
    (slots, log)
}

fn recover(
    headers: &[SlotRead],
    prepares: &[SlotRead],
    log: &[PrepareHeader],
    checkpoint: usize,
) -> Result<u64, FatalReason> {
    recover_solo(headers, prepares, &log[checkpoint]).map(|recovered| recovered.head.op.get())
}

#[test]
fn a_torn_append_is_dropped_in_the_first_wrap_and_in_later_ones() {
    for (head, checkpoint) in [(5, 0), (20, 10), (36, 30)] {
        let (slots, log) = journal(head);
        let mut prepares = slots.clone();
        prepares[usize::try_from((head + 1) % 16).unwrap()] = SlotRead::Bad;
        assert_eq!(
            recover(&slots, &prepares, &log, checkpoint),
            Ok(head),
            "head {head}"
        );
    }
}

#[test]
fn a_damaged_prepare_above_the_checkpoint_stops_the_replica() {
    for op in 11..=20_usize {
        let (slots, log) = journal(20);
        let mut prepares = slots.clone();
        prepares[op % 16] = SlotRead::Bad;
        let expected = FatalReason::JournalSlot {
            slot: u64::try_from(op % 16).unwrap(),
            row: 5,
        };
        assert_eq!(
            recover(&slots, &prepares, &log, 10),
            Err(expected),
            "op {op}"
        );
    }
}

#[test]
fn damage_beside_the_next_slot_is_not_taken_for_a_torn_append() {
    let (slots, log) = journal(20);
    for also in [6_usize, 7, 9] {
        let mut prepares = slots.clone();
        prepares[21 % 16] = SlotRead::Bad;
        prepares[also] = SlotRead::Bad;
        let result = recover(&slots, &prepares, &log, 10);
        assert!(
            matches!(result, Err(FatalReason::JournalSlot { .. })),
            "slot {also}: {result:?}"
        );
    }
    let mut both = slots.clone();
    both[21 % 16] = SlotRead::Bad;
    let result = recover(&both, &both, &log, 10);
    assert_eq!(result, Err(FatalReason::JournalSlot { slot: 5, row: 3 }));
}

#[test]
fn a_lost_prepare_write_stops_the_replica() {
    let (slots, log) = journal(20);
    let mut prepares = slots.clone();
    // The slot of op 18 still holds op 2, and its header names op 18.
    prepares[2] = SlotRead::Valid(log[2]);
    let result = recover(&slots, &prepares, &log, 10);
    assert_eq!(result, Err(FatalReason::JournalSlot { slot: 2, row: 15 }));
}

/// Rule K: neither ring knows that op 15 was there, only its neighbours do.
#[test]
fn an_op_missing_from_both_rings_stops_the_replica() {
    let (mut slots, log) = journal(14);
    let head = entry(16, 1, Checksum([3; 16]));
    slots[0] = SlotRead::Valid(head);
    let result = recover(&slots, &slots, &log, 3);
    assert_eq!(result, Err(FatalReason::JournalGap { op: 15 }));
}

#[test]
fn an_entry_of_another_history_stops_the_replica() {
    let (mut slots, log) = journal(14);
    slots[12] = SlotRead::Valid(entry(12, 2, Checksum([7; 16])));
    let result = recover(&slots, &slots, &log, 3);
    assert_eq!(result, Err(FatalReason::JournalGap { op: 12 }));
}

#[test]
fn a_damaged_header_sector_is_mended_from_the_prepares() {
    let (slots, log) = journal(20);
    let headers = vec![SlotRead::Bad; 16];
    let recovered = recover_solo(&headers, &slots, &log[10]).unwrap();
    assert_eq!(recovered.head.op.get(), 20);
    assert!(
        recovered
            .decisions
            .iter()
            .all(|decision| *decision == Decision::Fix)
    );
    assert_eq!(recovered.log.len(), 10);
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn slot(&mut self) -> usize {
        usize::try_from(self.below(16)).unwrap()
    }
}

/// One replica with 16 slots: appends, checkpoints and crashes; its two rings as the disk has them.
struct Solo {
    random: Random,
    headers: Vec<SlotRead>,
    prepares: Vec<SlotRead>,
    log: Vec<PrepareHeader>,
    checkpoint: usize,
}

impl Solo {
    fn new(seed: u64) -> Self {
        let (slots, log) = journal(0);
        Self {
            random: Random(seed),
            headers: slots.clone(),
            prepares: slots,
            log,
            checkpoint: 0,
        }
    }

    /// Appends ops, then crashes in the middle of one: the prepare or the header of it, and only
    /// one of them, is under way. Returns the ops that were acknowledged.
    fn live(&mut self, view: u32) -> u64 {
        for _ in 0..self.random.below(30) {
            let head = self.log.len() - 1;
            if self.random.below(4) == 0 {
                let behind = usize::try_from(self.random.below(3)).unwrap();
                self.checkpoint = self.checkpoint.max(head.saturating_sub(behind));
            }
            if head + 1 >= self.checkpoint + 16 {
                continue;
            }
            let next = entry(self.log[head].op.get() + 1, view, self.log[head].checksum);
            let slot = (head + 1) % 16;
            let whole = SlotRead::Valid(next);
            match self.random.below(12) {
                // The prepare is cut off: old, torn or whole; nobody was told.
                0 => {
                    match self.random.below(3) {
                        0 => {}
                        1 => self.prepares[slot] = SlotRead::Bad,
                        _ => self.prepares[slot] = whole,
                    }
                    return self.log[head].op.get();
                }
                // The header sector is cut off: old, new or unreadable; the op is acknowledged.
                1 => {
                    self.prepares[slot] = whole;
                    self.log.push(next);
                    match self.random.below(3) {
                        0 => {}
                        1 => self.headers[slot] = whole,
                        _ => self.headers.fill(SlotRead::Bad),
                    }
                    return next.op.get();
                }
                _ => {
                    self.prepares[slot] = whole;
                    self.headers[slot] = whole;
                    self.log.push(next);
                }
            }
        }
        self.log.last().unwrap().op.get()
    }

    /// What recovery leaves on the disk, and the log that goes on.
    fn recover(&mut self) -> Result<u64, FatalReason> {
        let checkpoint = self.log[self.checkpoint];
        let recovered = recover_solo(&self.headers, &self.prepares, &checkpoint)?;
        for (slot, decision) in recovered.decisions.iter().enumerate() {
            match decision {
                Decision::Keep | Decision::CleanEmpty => {}
                Decision::Fix => self.headers[slot] = self.prepares[slot],
                Decision::FixEmpty | Decision::Torn | Decision::Discard => {
                    self.headers[slot] = SlotRead::Empty;
                }
                Decision::Faulty | Decision::Fatal => unreachable!("these are errors"),
            }
        }
        self.log.truncate(self.checkpoint + 1);
        self.log.extend(recovered.log);
        Ok(recovered.head.op.get())
    }
}

#[test]
fn crashes_alone_never_lose_an_acknowledged_op_and_never_stop_the_replica() {
    let mut recoveries = 0;
    for seed in 0..20_000 {
        let mut solo = Solo::new(seed);
        for life in 1..6 {
            let acknowledged = solo.live(life);
            let before = solo.log.clone();
            let head = solo.recover();
            let Ok(head) = head else {
                panic!("seed {seed}, life {life}: {head:?}");
            };
            assert!(
                head == acknowledged || head == acknowledged + 1,
                "seed {seed}, life {life}"
            );
            let known = before.len().min(solo.log.len());
            assert_eq!(
                before[..known],
                solo.log[..known],
                "seed {seed}, life {life}"
            );
            recoveries += 1;
        }
    }
    assert_eq!(recoveries, 100_000);
}

/// With damage at rest too, an acknowledged op is there or the replica stops; but for the one case
/// that no single copy can tell from a torn append: the newest op, whose header was not durable.
#[test]
fn damage_is_noticed_or_harmless() {
    let (mut stopped, mut whole) = (0, 0);
    for seed in 0..20_000 {
        let mut solo = Solo::new(seed);
        let _ = solo.live(1);
        let newest = solo.log.len() - 1;
        let header_durable = solo.headers[newest % 16] == SlotRead::Valid(solo.log[newest]);
        let acknowledged = solo.log[newest].op.get();
        let slot = solo.random.slot();
        match solo.random.below(3) {
            0 => solo.prepares[slot] = SlotRead::Bad,
            1 => solo.headers[slot] = SlotRead::Bad,
            // A lost or misdirected write: the older entry of the slot, or none.
            _ => {
                solo.prepares[slot] = match slot {
                    0 => SlotRead::Bad,
                    _ => SlotRead::Empty,
                }
            }
        }
        match solo.recover() {
            Err(_) => stopped += 1,
            Ok(head) => {
                whole += 1;
                let undetectable = slot == newest % 16 && !header_durable;
                assert!(head >= acknowledged || undetectable, "seed {seed}");
            }
        }
    }
    assert!(stopped > 1000 && whole > 1000, "{stopped} {whole}");
}

/// One of several replicas, whatever is damaged: what was acknowledged is in its log, or it says that it does not
/// know the end of that.
#[test]
fn a_log_that_is_certain_has_all_that_was_acknowledged() {
    let (mut certain, mut lost) = (0, 0);
    for seed in 0..20_000 {
        let mut replica = Solo::new(seed);
        let _ = replica.live(1);
        // Told of with its header only.
        let durable = replica.log.iter().rev();
        let mut durable = durable.filter(|header| {
            let slot = u64_to_usize(header.op.get() % 16);
            replica.headers[slot] == SlotRead::Valid(**header)
        });
        let acknowledged = durable.next().map_or(0, |header| header.op.get());
        for _ in 0..replica.random.below(6) {
            let slot = replica.random.slot();
            match replica.random.below(4) {
                0 => replica.headers[slot] = SlotRead::Bad,
                1 => replica.prepares[slot] = SlotRead::Bad,
                _ => {
                    replica.headers[slot] = SlotRead::Bad;
                    replica.prepares[slot] = SlotRead::Bad;
                }
            }
        }
        let mut superblock = Superblock::zeroed();
        superblock.checkpoint = replica.log[replica.checkpoint];
        (superblock.view, superblock.log_view) = (1.into(), 1.into());
        let recovered = recover_cluster(&replica.headers, &replica.prepares, &superblock);
        let recovered = recovered.expect("others have what is missing");
        let head = recovered.log.head().op.get();
        lost += u64::from(head < acknowledged);
        if recovered.certain {
            certain += 1;
            assert!(head >= acknowledged, "seed {seed}");
        }
    }
    assert!(certain > 5000 && lost > 500, "{certain} {lost}");
}
