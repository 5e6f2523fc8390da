//! What a timeline shows of a replica: its process, its superblock and its journal, never its opinion.

use super::network::Place;
use super::processes::State as Process;
use super::world::World;
use crate::sim::world::now;
use crate::timeline::{Mark, Progress, State, Status};

impl World {
    /// Keeps what a replica is at and what it has, if that is asked for.
    pub fn observe(&mut self, replica: u8) {
        if self.stage.recording.is_none() {
            return;
        }
        let state = self.state(replica);
        let platter = self.checker.platter(replica);
        let progress = Progress {
            checkpoint: platter.checkpoint(),
            // What it said is forgotten with its process, and what is durable is not.
            commit: platter
                .commit_named
                .max(platter.superblock.commit_max.get()),
            head: platter.head(),
        };
        if let Some(recording) = &mut self.stage.recording {
            recording.state(now(), replica, state);
            recording.progress(now(), replica, progress);
        }
    }

    /// Tells of a checkpoint or a view that has become durable, since the superblock named others.
    pub fn tell_superblock(&mut self, replica: u8, (checkpoint, view): (u64, u32)) {
        let superblock = &self.checker.platter(replica).superblock;
        let (new_checkpoint, new_view) = (superblock.checkpoint.op.get(), superblock.view.get());
        let place = Some(Place::Replica(replica));
        if new_checkpoint > checkpoint {
            self.tell(place, Mark::Checkpoint, || {
                format!("{replica} is at checkpoint {new_checkpoint}")
            });
        }
        if new_view > view {
            self.tell(place, Mark::View, || {
                format!("{replica} is in view {new_view}")
            });
        }
    }

    fn state(&self, replica: u8) -> State {
        let process = &self.processes[usize::from(replica)];
        let superblock = &self.checker.platter(replica).superblock;
        let view = superblock.view.get();
        let leads = view % u32::from(self.options.replicas) == u32::from(replica);
        let status = match process.state {
            Process::Down => Status::Down,
            Process::Paused => Status::Paused,
            Process::Up if !process.spoke => Status::Starting,
            Process::Up if process.lost || superblock.recovering > 0 => Status::Recovering,
            Process::Up if superblock.log_view.get() < view => Status::ViewChange,
            Process::Up if superblock.content_missing > 0 => Status::Syncing,
            Process::Up if leads => Status::Primary,
            Process::Up => Status::Backup,
        };
        State { status, view }
    }
}
