//! The log as a replica knows it: a header for each slot of the journal, and what is there of its body.
//!
//! What is known for certain is the *chain*: from the head down to `tail`, each header names the
//! checksum of the one before. What lies below is what the journal happened to hold; a header there
//! counts only once the chain reaches it, since nothing else tells it from one that a view change
//! dropped.
//!
//! Invariants:
//! * The chain is never empty, and only a view change moves the head back.
//! * A body that may have been acknowledged is never taken for one that was not.

use crate::stdx::{to_u64, u64_to_usize};
use storage_format::{Checksum, PrepareHeader, PrepareKind};

/// What the journal has of a prepare.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// Nothing intact.
    Missing,
    /// A write of it waits or is under way.
    Writing,
    /// The prepare is on stable storage, its redundant header is not.
    Written,
    /// Both are.
    Durable,
}

/// What is known of a slot.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The header; the marker of an empty slot when there is none.
    pub header: PrepareHeader,
    /// The body.
    pub body: Body,
    /// Whether this replica may have acknowledged it, in this process or an earlier one.
    pub promised: bool,
}

impl Entry {
    /// A slot with nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            header: PrepareHeader::zeroed(),
            body: Body::Missing,
            promised: false,
        }
    }

    /// A slot that may have held anything.
    #[must_use]
    pub fn unreadable() -> Self {
        Self {
            promised: true,
            ..Self::empty()
        }
    }

    /// A slot that is whole on stable storage.
    #[must_use]
    pub fn durable(header: &PrepareHeader) -> Self {
        Self {
            header: *header,
            body: Body::Durable,
            promised: true,
        }
    }

    /// The slot of `op` gets another prepare.
    fn overwrite(&mut self, op: u64) {
        let whole = matches!(self.body, Body::Written | Body::Durable);
        if whole && self.header.op.get() == op {
            // So whatever has this entry next was not in the slot yet.
            self.promised = false;
        }
        self.body = Body::Missing;
    }

    /// Puts a prepare that is certain in the place of what was known before.
    pub fn replace(&mut self, header: &PrepareHeader) {
        if self.header.checksum == header.checksum {
            return;
        }
        // A slot that cannot be read, or could not, may have held this very prepare.
        let unread = matches!(self.body, Body::Missing | Body::Writing);
        *self = Self {
            header: *header,
            body: Body::Missing,
            promised: self.promised && unread,
        };
    }
}

/// See the module. It has twice as many entries as the journal has slots: a view may start with ops whose
/// slots are needed here until the next checkpoint.
#[derive(Debug)]
pub struct Log {
    entries: Vec<Entry>,
    slots: u64,
    head: u64,
    tail: u64,
}

/// Neither the marker of an empty slot nor zeros.
fn is_op(header: &PrepareHeader) -> bool {
    header.kind > PrepareKind::Empty.code()
}

impl Log {
    /// A log of what the slots of a journal hold, that ends with `head`.
    #[must_use]
    pub fn new(slots: &[Entry], head: &PrepareHeader) -> Self {
        let count = slots.len();
        let mut entries: Vec<Entry> = slots
            .iter()
            .chain(slots)
            // What is damaged may have been of either lap: also if that is only the header, which may have
            // been newer.
            .map(|slot| match slot.body {
                Body::Missing | Body::Written if slot.promised => Entry::unreadable(),
                Body::Missing | Body::Writing | Body::Written | Body::Durable => Entry::empty(),
            })
            .collect();
        for slot in slots.iter().filter(|slot| is_op(&slot.header)) {
            entries[u64_to_usize(slot.header.op.get() % to_u64(2 * count))] = *slot;
        }
        let mut this = Self {
            entries,
            slots: to_u64(count),
            head: head.op.get(),
            tail: head.op.get(),
        };
        this.install(&[*head]);
        this
    }

    /// Adds what was prepared in `view`, and follows the head. It was appended in order, so whatever lies
    /// between was there as well.
    pub fn follow(&mut self, view: u32, limit: u64) {
        let newer = self.entries.iter().map(|entry| &entry.header);
        let newer = newer.filter(|header| {
            header.kind > PrepareKind::Root.code()
                && header.view.get() == view
                && header.op.get() <= limit
        });
        self.head = newer
            .map(|header| header.op.get())
            .fold(self.head, u64::max);
        self.tail = self.head;
        self.descend();
    }

    fn at(&self, op: u64) -> usize {
        u64_to_usize(op % to_u64(self.entries.len()))
    }

    /// The newest header.
    #[must_use]
    pub fn head(&self) -> &PrepareHeader {
        &self.entries[self.at(self.head)].header
    }

    /// The lowest op of the chain.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// The checksum of the op below the chain.
    #[must_use]
    pub fn below_tail(&self) -> Checksum {
        self.entries[self.at(self.tail)].header.parent
    }

    /// A header of `op`, in the chain or not.
    #[must_use]
    pub fn header(&self, op: u64) -> Option<&PrepareHeader> {
        let header = &self.entries[self.at(op)].header;
        (header.op.get() == op && is_op(header)).then_some(header)
    }

    /// The entry of `op`, if that is in the chain.
    #[must_use]
    pub fn entry(&self, op: u64) -> Option<&Entry> {
        (self.tail..=self.head)
            .contains(&op)
            .then(|| &self.entries[self.at(op)])
    }

    /// Whether the log has this prepare, on stable storage; its redundant header may be missing.
    #[must_use]
    pub fn is_written(&self, header: &PrepareHeader) -> bool {
        let entry = &self.entries[self.at(header.op.get())];
        entry.header.checksum == header.checksum
            && matches!(entry.body, Body::Written | Body::Durable)
    }

    /// The header of the prepare with this identity, if the journal has that, in the chain or not.
    #[must_use]
    pub fn held(&self, op: u64, checksum: Checksum) -> Option<PrepareHeader> {
        let header = self.header(op)?;
        (header.checksum == checksum && self.is_written(header)).then_some(*header)
    }

    /// Whether a newer op has the slot of `op`, or is about to be written there.
    fn is_overwritten(&self, op: u64) -> bool {
        let newer = &self.entries[self.at(op + self.slots)];
        newer.header.op.get() == op + self.slots
            && matches!(newer.body, Body::Writing | Body::Written | Body::Durable)
    }

    /// Notes what became of a body; `false` if the log has another prepare there by now, or if a newer one has its
    /// slot.
    pub fn set_body(&mut self, header: &PrepareHeader, body: Body) -> bool {
        let op = header.op.get();
        let overwritten = self.is_overwritten(op);
        let at = self.at(op);
        let entry = &mut self.entries[at];
        let mut same = entry.header.checksum == header.checksum;
        if overwritten && matches!(body, Body::Written | Body::Durable) {
            // Its write was under way when the newer one was taken.
            same = false;
        }
        if same {
            entry.body = body;
            // It may be acknowledged from now on.
            entry.promised |= body == Body::Durable;
        }
        if same && body == Body::Writing {
            assert!(!overwritten, "a newer op has the slot of op {op}");
            if op >= self.slots {
                let at = self.at(op - self.slots);
                self.entries[at].overwrite(op - self.slots);
            }
        }
        same
    }

    /// A body that was on stable storage is not intact any more.
    pub fn lose(&mut self, header: &PrepareHeader) {
        let at = self.at(header.op.get());
        let entry = &mut self.entries[at];
        if entry.header.checksum == header.checksum {
            entry.body = Body::Missing;
            entry.promised = true;
        }
    }

    /// Adds the next op.
    ///
    /// # Panics
    /// When it is not the next.
    pub fn append(&mut self, header: PrepareHeader) {
        assert_eq!(header.op.get(), self.head + 1);
        assert_eq!(header.parent, self.head().checksum);
        let at = self.at(header.op.get());
        self.entries[at].replace(&header);
        self.head += 1;
        self.tail = self.tail.max(self.lowest());
    }

    /// Takes the header below the chain; `false` if it is not the one that the chain names.
    pub fn extend(&mut self, header: &PrepareHeader) -> bool {
        let next = self.tail > self.lowest()
            && header.op.get() + 1 == self.tail
            && header.checksum == self.below_tail();
        if next {
            self.replace(header);
            self.tail -= 1;
            self.descend();
        }
        next
    }

    /// Makes `headers` the top of the log: newest first, all of one chain.
    ///
    /// # Panics
    /// When there are none.
    pub fn install(&mut self, headers: &[PrepareHeader]) {
        self.head = headers[0].op.get();
        self.tail = self.head;
        for header in headers {
            if header.op.get() >= self.lowest() {
                self.replace(header);
            }
        }
        self.descend();
    }

    /// The newest headers of the chain, newest first.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<PrepareHeader> {
        let ops = (self.tail..=self.head).rev().take(count);
        ops.map(|op| self.entries[self.at(op)].header).collect()
    }

    /// The lowest op that there are entries for.
    fn lowest(&self) -> u64 {
        (self.head + 1).saturating_sub(to_u64(self.entries.len()))
    }

    fn replace(&mut self, header: &PrepareHeader) {
        let at = self.at(header.op.get());
        self.entries[at].replace(header);
    }

    /// Extends the chain by what the slots hold.
    fn descend(&mut self) {
        while self.tail > self.lowest() {
            let below = self.header(self.tail - 1);
            if below.is_none_or(|header| header.checksum != self.below_tail()) {
                return;
            }
            self.tail -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Body, Entry, Log};
    use crate::vsr::testing::{chain, next};
    use storage_format::PrepareHeader;

    /// What is there of a body, and whether it may have been acknowledged.
    fn state(log: &Log, op: u64) -> (Body, bool) {
        let entry = log.entry(op).unwrap();
        (entry.body, entry.promised)
    }

    fn slots(count: u64) -> Vec<Entry> {
        let marker = |slot| match slot {
            0 => PrepareHeader::root(0),
            _ => PrepareHeader::empty(0, slot),
        };
        (0..count)
            .map(|slot| Entry::durable(&marker(slot)))
            .collect()
    }

    fn log(count: u64) -> Log {
        Log::new(&slots(count), &PrepareHeader::root(0))
    }

    #[test]
    fn the_chain_moves_with_the_ring() {
        let mut log = log(2);
        let headers = chain(&[1; 9]);
        for header in &headers[1..] {
            log.append(*header);
            assert!(log.set_body(header, Body::Writing));
            assert!(log.set_body(header, Body::Durable));
        }
        assert_eq!((log.tail(), log.head().op.get()), (6, 9));
        assert!(log.entry(5).is_none() && log.header(5).is_none());
        assert_eq!(log.newest(2), [headers[9], headers[8]]);
        assert!(
            !log.set_body(&headers[5], Body::Written),
            "op 9 has its entry"
        );
        assert_eq!(
            log.entry(7).unwrap().body,
            Body::Missing,
            "op 9 has its slot"
        );
        assert_eq!(log.entry(8).unwrap().body, Body::Durable);
    }

    #[test]
    fn a_write_means_nothing_once_a_newer_op_was_taken_for_its_slot() {
        let mut log = log(2);
        let headers = chain(&[1; 3]);
        for header in &headers[1..] {
            log.append(*header);
        }
        assert!(log.set_body(&headers[1], Body::Writing));
        assert!(log.set_body(&headers[3], Body::Writing));
        assert!(!log.set_body(&headers[1], Body::Written));
        assert_eq!(state(&log, 1).0, Body::Missing);
        assert!(log.set_body(&headers[3], Body::Written));
        assert!(!log.set_body(&headers[1], Body::Durable));
    }

    #[test]
    fn a_hole_below_new_headers_is_filled_from_above_only() {
        let mut log = log(16);
        let headers = chain(&[1; 9]);
        for header in &headers[1..=3] {
            log.append(*header);
        }
        log.install(&[headers[9], headers[8]]);
        assert_eq!((log.tail(), log.head().op.get()), (8, 9));
        assert_eq!(state(&log, 9), (Body::Missing, false));
        assert!(log.entry(3).is_none() && log.header(3).is_some());
        let foreign = next(&next(&headers[5], 2), 2);
        assert!(!log.extend(&foreign) && !log.extend(&headers[6]));
        for op in (4..=7).rev() {
            assert!(log.extend(&headers[op]));
        }
        assert_eq!(log.tail(), 0, "what was there before is in the chain again");
        assert!(log.held(3, headers[3].checksum).is_none());
    }

    #[test]
    fn what_was_prepared_in_the_view_follows() {
        let mut headers = chain(&[1; 3]);
        for view in [2, 2] {
            headers.push(next(headers.last().unwrap(), view));
        }
        let mut slots = slots(8);
        for header in &headers[1..] {
            slots[crate::stdx::u64_to_usize(header.op.get())] = Entry::durable(header);
        }
        // Op 4 cannot be read, op 6 is of a view that came to nothing.
        slots[4] = Entry::unreadable();
        slots[6] = Entry::durable(&next(&headers[5], 1));
        let mut log = Log::new(&slots, &headers[3]);
        log.follow(2, 7);
        assert_eq!((log.tail(), log.head().op.get()), (5, 5));
        assert!(log.extend(&headers[4]));
        assert_eq!((log.tail(), state(&log, 4)), (0, (Body::Missing, true)));
    }

    #[test]
    fn what_a_new_view_drops_is_not_in_the_chain() {
        let mut log = log(16);
        let headers = chain(&[1; 4]);
        for header in &headers[1..] {
            log.append(*header);
            log.set_body(header, Body::Durable);
        }
        let other = next(&headers[2], 2);
        log.install(&[other, headers[2]]);
        assert_eq!((log.tail(), log.head().op.get()), (0, 3));
        assert_eq!(state(&log, 3), (Body::Missing, false));
        assert_eq!(log.entry(2).unwrap().body, Body::Durable);
        assert!(!log.set_body(&headers[3], Body::Durable));
        assert!(log.entry(4).is_none());
    }

    #[test]
    fn what_was_never_written_was_never_acknowledged_in_any_lap() {
        let mut log = log(2);
        for header in &chain(&[1; 7])[1..] {
            log.append(*header);
            let op = header.op.get();
            assert_eq!(state(&log, op), (Body::Missing, false), "op {op}");
            for body in [Body::Writing, Body::Written, Body::Durable] {
                assert!(log.set_body(header, body));
            }
            assert_eq!(state(&log, op), (Body::Durable, true));
        }
    }

    #[test]
    fn a_slot_that_cannot_be_read_may_have_held_anything() {
        let mut slots = slots(4);
        slots[1] = Entry::unreadable();
        let headers = chain(&[1; 6]);
        let mut log = Log::new(&slots, &headers[0]);
        log.install(&[
            headers[6], headers[5], headers[4], headers[3], headers[2], headers[1],
        ]);
        let lost = (1..=6).filter(|op| state(&log, *op) == (Body::Missing, true));
        assert_eq!(lost.collect::<Vec<_>>(), [1, 5]);
    }
}
