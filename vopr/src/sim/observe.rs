//! What a timeline shows of the replica.

use super::platter;
use super::world::{World, now};
use crate::timeline::{Progress, State, Status};

impl World {
    /// Keeps what the replica is at and what it has, if that is asked for.
    pub fn observe(&mut self, status: Status) {
        let Some(recording) = &mut self.stage.recording else {
            return;
        };
        let head = self.checker.history.head();
        let superblock = platter::superblock(&self.disk);
        recording.state(now(), 0, State { status, view: 0 });
        let progress = Progress {
            checkpoint: superblock.map_or(0, |found| found.checkpoint.op.get()),
            commit: head,
            head,
        };
        recording.progress(now(), 0, progress);
    }
}
