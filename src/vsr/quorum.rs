//! How many replicas have to agree.

/// The quorums of a cluster.
///
/// Any replication quorum meets any view-change quorum, so a new view learns of every committed op; and
/// any replication quorum meets any nack quorum, so an op that so many never acknowledged was never
/// committed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quorums {
    /// Replicas that have to hold an op for it to be committed.
    pub replication: u8,
    /// Replicas that have to take part in a view change.
    pub view_change: u8,
    /// Replicas that must never have acknowledged an op for it to be dropped.
    pub nack: u8,
}

impl Quorums {
    /// Those of a cluster of `replica_count`.
    ///
    /// # Panics
    /// When there are no such clusters.
    #[must_use]
    pub fn new(replica_count: u8) -> Self {
        let (replication, view_change, nack) = match replica_count {
            1 => (1, 1, 1),
            2 => (2, 2, 1),
            3 => (2, 2, 2),
            4 => (2, 3, 3),
            5 => (3, 3, 3),
            6 => (3, 4, 4),
            _ => panic!("a cluster has 1 to 6 replicas"),
        };
        Self {
            replication,
            view_change,
            nack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Quorums;

    #[test]
    fn quorums_meet() {
        for count in 1..=crate::constants::REPLICA_COUNT_MAX {
            let quorums = Quorums::new(count);
            assert!(quorums.replication + quorums.view_change > count);
            assert!(quorums.replication + quorums.nack > count);
            assert!(quorums.view_change.max(quorums.replication) <= count);
            // Two views cannot start from disjoint sets of replicas.
            assert!(2 * quorums.view_change > count);
        }
    }
}
