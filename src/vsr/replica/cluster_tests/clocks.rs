//! Clocks that are wrong, or that nobody hears of.

use super::*;

const HOUR: i64 = 3_600_000_000_000;

#[test]
fn c01_one_clock_of_three_is_an_hour_off_and_timestamps_are_those_of_the_others() {
    for wrong in 0..3 {
        for skew in [HOUR, -HOUR] {
            let mut skews = [0; 3];
            skews[wrong] = skew;
            let mut world = calm(&skews);
            world.pass(5 * SECOND);
            let view = world.view();
            // Every execution checks its timestamp.
            assert!(world.committed_in(10 * SECOND) > 100);
            assert_eq!(world.view(), view, "whoever is wrong can lead");
        }
    }
}

#[test]
fn c02_clocks_that_all_differ_stop_the_cluster_and_one_that_is_set_right_starts_it_again() {
    let mut world = calm(&[0, HOUR, -HOUR]);
    world.pass(5 * SECOND);
    let view = world.view();
    assert_eq!(world.committed_in(30 * SECOND), 0);
    assert_eq!(world.view(), view, "no other primary would do better");
    let astray = |node: &Node| node.replica.as_ref().unwrap().astray;
    let told = |node: &Node| astray(node).is_some_and(|astray| astray.told);
    assert!(world.nodes.iter().all(told), "operators hear of it");
    world.nodes[1].skew = 0;
    assert!(world.committed_in(10 * SECOND) > 100);
    assert!(world.nodes.iter().all(|node| astray(node).is_none()));
}

#[test]
fn c03_a_primary_that_hears_of_no_other_clock_gives_way() {
    let mut world = calm(&[0; 3]);
    world.pass(2 * SECOND);
    let primary = world.view() % 3;
    world.nodes[usize::try_from(primary).unwrap()].hears_no_pongs = true;
    world.pass(20 * SECOND);
    assert_ne!(world.view() % 3, primary);
    assert!(world.committed_in(5 * SECOND) > 100);
}

#[test]
fn c04_a_clock_that_steps_back_makes_no_timestamp_smaller() {
    let mut world = calm(&[0; 3]);
    for round in 0..12 {
        for node in &mut world.nodes {
            node.skew = if round % 2 == 0 { -HOUR / 1000 } else { 0 };
        }
        assert!(world.committed_in(2 * SECOND) > 10);
    }
}

#[test]
fn c08_two_of_two_have_to_agree_and_three_of_six_are_enough() {
    let mut world = calm(&[0, HOUR]);
    assert_eq!(world.committed_in(20 * SECOND), 0);
    let mut world = calm(&[0, 0]);
    assert!(world.committed_in(10 * SECOND) > 100);
    let mut world = calm(&[HOUR, 2 * HOUR, -HOUR, 0, 0, 0]);
    world.pass(5 * SECOND);
    assert!(world.committed_in(10 * SECOND) > 100);
}
