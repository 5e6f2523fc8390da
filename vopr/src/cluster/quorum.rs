//! How many replicas have to agree, written down from the specification and not taken from the core.

/// Replicas that hold a committed op, by the number of replicas.
const REPLICATION: [usize; 7] = [0, 1, 2, 2, 2, 3, 3];
/// Replicas that never acknowledged an op which a view drops.
const NACK: [usize; 7] = [0, 1, 1, 2, 3, 3, 4];

// An op that so many denied cannot have been committed.
const _: () = {
    let mut replicas = 1;
    while replicas < REPLICATION.len() {
        assert!(REPLICATION[replicas] + NACK[replicas] > replicas);
        replicas += 1;
    }
};

/// The replication quorum of so many replicas.
#[must_use]
pub fn replication(replicas: u8) -> usize {
    REPLICATION[usize::from(replicas)]
}

/// The nack quorum of so many replicas.
#[must_use]
pub fn nack(replicas: u8) -> usize {
    NACK[usize::from(replicas)]
}
