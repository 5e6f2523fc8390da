//! That a replica lacks what the others have, and what the operator hears of it: how far it is, and when
//! it counts again. Until then another replica that stops may stop the cluster.

use super::Replica;
use super::timers::PROGRESS;
use crate::constants;
use crate::stdx::marks::{Mark, mark};
use crate::vsr::log::Body;

/// What a replica has to come to that lacks what the others have.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchUp {
    /// Up to this op at least, once it is known.
    to: Option<u64>,
    /// Whether it had that before, in a file that is lost.
    lost: bool,
    /// When to say again how far it is.
    say: u64,
}

impl CatchUp {
    /// Of a replica that starts: it hears from a primary how much there is.
    pub(super) fn since_start() -> Self {
        Self {
            to: None,
            lost: false,
            say: 0,
        }
    }
}

impl Replica {
    /// The log of a replica that recovered is that of its view again, and what is in it has to come.
    pub(super) fn catch_up_with_loss(&mut self) {
        self.catch_up = Some(CatchUp {
            to: Some(self.log.head().op.get()),
            lost: true,
            say: self.timers.now + PROGRESS,
        });
    }

    /// What is executed is behind by more than the journals hold: it goes on from a checkpoint.
    pub(super) fn catch_up_with_checkpoint(&mut self) {
        let commit = self.commit_max;
        let catch_up = self.catch_up.get_or_insert(CatchUp::since_start());
        if !catch_up.lost {
            catch_up.to = catch_up.to.max(Some(commit));
        }
    }

    /// The primary says up to where everything is committed.
    pub(super) fn hear_commit(&mut self, commit: u64) {
        let now = self.timers.now;
        if let Some(unsure) = self.catch_up.as_mut().filter(|it| it.to.is_none()) {
            (unsure.to, unsure.say) = (Some(commit), now + PROGRESS);
        }
    }

    /// Whether the journal has everything up to `to` that the checkpoint does not.
    fn has_journal(&self, to: u64) -> bool {
        let last = to.min(self.log.head().op.get());
        (self.checkpoint.op() + 1..=last).all(|op| {
            let entry = self.log.entry(op);
            entry.is_some_and(|entry| matches!(entry.body, Body::Written | Body::Durable))
        })
    }

    /// Says how far this replica has come.
    pub(super) fn say_progress(&mut self) {
        let Some(catch_up) = self.catch_up else {
            return;
        };
        let Some(to) = catch_up.to else { return };
        let executed = self.executed.0;
        let to = match catch_up.lost {
            // A view that started since may have done without the last of it.
            true => to.min(self.log.head().op.get()),
            // The others have what came meanwhile, too; a few ops are always on their way.
            false if executed + constants::PIPELINE_PREPARES_MAX < self.commit_max => {
                self.commit_max
            }
            false => to,
        };
        if executed >= to && !self.content_missing && self.loaded && self.has_journal(to) {
            if catch_up.lost {
                mark(Mark::RecoveredAll);
                tracing::info!(
                    op = executed,
                    "recovered: this replica has all that was lost"
                );
            } else {
                mark(Mark::CaughtUp);
                tracing::info!(
                    op = executed,
                    "caught up: this replica has what the others have"
                );
            }
            self.catch_up = None;
        } else if self.timers.due(catch_up.say) {
            let say = self.timers.now + PROGRESS;
            self.catch_up = Some(CatchUp { say, ..catch_up });
            let blocks = if self.content_missing {
                ", blocks are missing"
            } else {
                ""
            };
            let executed = executed.min(to);
            tracing::info!("catching up: op {executed} of {to}{blocks}");
        }
    }
}
