//! Which checkpoint an op builds on.
//!
//! That is a function of the op alone, so that all replicas agree on it, however far each has come: the newest
//! checkpoint that every primary has made when it prepares the op, because the journal has no room for
//! the op before. (A primary may have made the next one by then.) Whoever executes the op has made it,
//! too, and at most one more. The header of a checkpoint's own op names the one before, so two are
//! known wherever one is: after a restart, and after going on from the checkpoint of another replica.

use super::message::CheckpointState;
use crate::constants::PIPELINE_PREPARES_MAX;
use storage_format::{Checksum, Geometry};

/// Ops that may be prepared while a checkpoint is made.
const MARGIN: u64 = 3 * PIPELINE_PREPARES_MAX;

/// Ops from one checkpoint to the next: as many as the journal holds, but for what may be prepared
/// while the checkpoint is made.
#[must_use]
pub fn checkpoint_interval(geometry: &Geometry) -> u64 {
    u64::from(geometry.journal_slot_count.get()) - MARGIN
}

/// Op of the checkpoint that `op` builds on; 0 if that is none.
#[must_use]
pub fn base_of(op: u64, geometry: &Geometry) -> u64 {
    let interval = checkpoint_interval(geometry);
    op.saturating_sub(MARGIN) / interval * interval
}

/// The identity of the checkpoint that `op` builds on, if whoever is at a checkpoint can tell.
#[must_use]
pub fn base_identity(
    op: u64,
    (checkpoint, identity): (&CheckpointState, Checksum),
    geometry: &Geometry,
) -> Option<Checksum> {
    let base = base_of(op, geometry);
    if base == 0 {
        Some(Checksum::ZERO)
    } else if base == checkpoint.op() {
        Some(identity)
    } else if base + checkpoint_interval(geometry) == checkpoint.op() {
        Some(checkpoint.header.checkpoint_id)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{MARGIN, base_identity, base_of, checkpoint_interval};
    use crate::vsr::message::CheckpointState;
    use crate::vsr::testing::geometry;
    use storage_format::Checksum;

    /// The smallest journal, and a larger one.
    const SLOTS: [u64; 2] = [48, 1024];

    fn checkpoint(op: u64) -> (CheckpointState, Checksum) {
        let mut state = CheckpointState::none(0);
        state.header.op = op.into();
        state.header.checkpoint_id = Checksum([1; 16]);
        (state, Checksum([2; 16]))
    }

    #[test]
    fn whoever_prepares_or_executes_an_op_knows_what_it_builds_on() {
        for slots in SLOTS {
            let geometry = geometry(slots);
            let interval = checkpoint_interval(&geometry);
            for op in 1..=5 * interval {
                // From the oldest that leaves a slot for the op, to the newest before it.
                let oldest = (op + 1).saturating_sub(slots).next_multiple_of(interval);
                let newest = (op - 1) / interval * interval;
                for made in [oldest, newest] {
                    let (state, identity) = checkpoint(made);
                    let named = base_identity(op, (&state, identity), &geometry);
                    let expected = match base_of(op, &geometry) {
                        0 => Checksum::ZERO,
                        base if base == made => Checksum([2; 16]),
                        _ => Checksum([1; 16]),
                    };
                    assert_eq!(named, Some(expected), "op {op} of {slots} at {made}");
                }
            }
        }
    }

    #[test]
    fn the_op_of_a_checkpoint_builds_on_the_one_before() {
        for slots in SLOTS {
            let geometry = geometry(slots);
            let interval = checkpoint_interval(&geometry);
            for number in 1..5 {
                let op = number * interval;
                assert_eq!(base_of(op, &geometry), op - interval);
            }
            assert_eq!(base_of(interval + MARGIN, &geometry), interval);
            assert_eq!(base_of(interval + MARGIN - 1, &geometry), 0);
        }
    }

    #[test]
    fn nobody_guesses_what_is_too_far_away() {
        let geometry = geometry(48);
        let interval = checkpoint_interval(&geometry);
        let (state, identity) = checkpoint(3 * interval);
        let named = |base: u64| base_identity(base + MARGIN, (&state, identity), &geometry);
        assert_eq!(named(interval), None);
        assert_eq!(named(4 * interval), None);
    }
}
