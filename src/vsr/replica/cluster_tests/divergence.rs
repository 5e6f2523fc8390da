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
