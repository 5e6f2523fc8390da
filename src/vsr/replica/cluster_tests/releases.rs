//! Binaries of several releases, and files that were formatted by them.

use super::*;
use crate::constants::{RELEASE_LOG_MIN, release};

const NEXT: u32 = RELEASE_LOG_MAX + 1;

fn up_to(newest: u32) -> Releases {
    Releases {
        oldest: RELEASE_LOG_MIN,
        newest,
    }
}

impl World {
    /// Another binary takes the place of the one that runs.
    fn swap(&mut self, index: usize, newest: u32) {
        self.crash(index);
        self.nodes[index].releases = up_to(newest);
        self.start(index);
    }
}

#[test]
fn u03_a_log_stays_at_its_release_whatever_the_binaries_have() {
    for log in [RELEASE_LOG_MIN, RELEASE_LOG_MAX] {
        let mut world = calm(&[0; 3]);
        for node in &mut world.nodes {
            node.disk.superblock.release = log.into();
            node.releases = up_to(log);
        }
        world.pass(5 * SECOND);
        // One after the other gets a newer one, and the first the older again.
        for (index, newest) in [(0, NEXT), (1, NEXT), (2, NEXT + 1), (0, log)] {
            world.swap(index, newest);
            world.pass(3 * SECOND);
            assert!(world.committed_in(5 * SECOND) > 50);
        }
        let of_log = |(header, _): &(PrepareHeader, _)| header.release == log;
        assert!(world.history[1..].iter().all(of_log), "I25");
        let names = |(header, _): &(PrepareHeader, _)| header.checkpoint_id != Checksum::ZERO;
        assert_eq!(world.history.iter().any(names), log == release(0, 17, 10));
        assert!(world.stops.is_empty(), "{:?}", world.stops);
    }
}

#[test]
fn a_file_that_was_formatted_at_another_release_than_the_others_stops_its_replica_only() {
    for other in [RELEASE_LOG_MIN, NEXT] {
        let mut world = calm(&[0; 3]);
        world.nodes[1].disk.superblock.release = other.into();
        world.nodes[1].releases = up_to(NEXT);
        world.pass(10 * SECOND);
        let reason = FatalReason::ReleaseOfOthers {
            own: other,
            others: RELEASE_LOG_MAX,
        };
        assert_eq!(world.stops, [(1, reason)]);
        assert!(world.committed_in(5 * SECOND) > 50);
    }
}

#[test]
fn u05_an_older_binary_does_not_recover_into_a_newer_log_and_a_newer_one_does() {
    let mut world = calm(&[0; 3]);
    world.pass(5 * SECOND);
    world.lose(2);
    world.nodes[2].disk.superblock.release = RELEASE_LOG_MIN.into();
    world.nodes[2].releases = up_to(RELEASE_LOG_MIN);
    world.start(2);
    world.pass(10 * SECOND);
    let reason = FatalReason::ReleaseNewer {
        found: RELEASE_LOG_MAX,
        newest: RELEASE_LOG_MIN,
    };
    assert_eq!(world.stops, [(2, reason)]);
    assert_eq!(
        world.nodes[2].disk.superblock.recovering, 1,
        "it promised nothing"
    );
    world.nodes[2].releases = up_to(NEXT);
    world.start(2);
    world.pass(10 * SECOND);
    assert!(world.is_restored(2));
    assert_eq!(world.nodes[2].disk.superblock.release, RELEASE_LOG_MAX);
    assert_eq!(world.stops.len(), 1);
}
