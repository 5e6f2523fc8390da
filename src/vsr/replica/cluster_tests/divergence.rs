//! A replica that computes something else from the same log.

use super::*;

#[test]
fn k05_who_has_another_checkpoint_than_the_others_stops_and_they_go_on() {
    for wrong in 0..3 {
        let mut world = calm(&[0; 3]);
        world.nodes[wrong].diverges = true;
        while world.stops.is_empty() {
            world.turn();
            assert!(world.now < 60 * SECOND, "nobody has noticed");
        }
        let (stopped, reason) = world.stops[0].clone();
        assert_eq!(stopped, wrong);
        assert!(matches!(reason, FatalReason::Diverged { .. }));
        world.pass(5 * SECOND);
        // A third of all requests is sent to the one that has stopped.
        assert!(world.committed_in(5 * SECOND) > 50);
        assert_eq!(world.stops.len(), 1);
    }
}

#[test]
fn k05_two_of_two_cannot_tell_which_is_right_and_go_on_with_nothing() {
    let mut world = calm(&[0; 2]);
    world.nodes[1].diverges = true;
    world.pass(30 * SECOND);
    // Whoever notices first leaves the other without a quorum.
    assert!(!world.stops.is_empty());
    assert_eq!(world.committed_in(10 * SECOND), 0);
}

/// All hear from prepares only that one of them has another checkpoint.
fn hearing_prepares_only(wrong: usize) -> World {
    let mut world = calm(&[0; 3]);
    world.nodes[wrong].diverges = true;
    for node in &mut world.nodes {
        node.hears_no_checkpoints = true;
    }
    world
}

#[test]
fn k06_who_has_another_checkpoint_than_a_committed_prepare_names_stops_and_does_not_execute_it() {
    for wrong in 0..3 {
        let mut world = hearing_prepares_only(wrong);
        while world.stops.is_empty() {
            world.turn();
            assert!(world.now < 120 * SECOND, "nobody has noticed");
        }
        let checkpoint = INTERVAL;
        assert_eq!(
            world.stops,
            [(wrong, FatalReason::Diverged { op: checkpoint })]
        );
        world.pass(5 * SECOND);
        assert!(world.committed_in(5 * SECOND) > 50, "the others go on");
        assert_eq!(world.stops.len(), 1);
        let (named, _) = &world.history[u64_to_usize(checkpoint + INTERVAL)];
        for right in (0..3).filter(|right| *right != wrong) {
            assert_eq!(named.checkpoint_id, world.checkpoints[&(right, checkpoint)]);
        }
    }
}

#[test]
fn k06_two_of_two_commit_nothing_that_builds_on_a_checkpoint_of_one_alone() {
    let mut world = calm(&[0; 2]);
    for (node, wrong) in world.nodes.iter_mut().zip([false, true]) {
        (node.diverges, node.hears_no_checkpoints) = (wrong, true);
    }
    world.pass(60 * SECOND);
    // The first op that builds on it is in one journal at most.
    let first = (1..).find(|op| lineage::base_of(*op, &geometry(SLOTS)) == INTERVAL);
    assert_eq!(Some(to_u64(world.history.len())), first);
}
