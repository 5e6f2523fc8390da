//! Steps that scenarios of several families have in common.

use super::script::{Mark, Script, check};
use crate::cluster::directed::{Sent, frames};
use crate::sim::verdict::{Failure, Verdict};
use daftari::stdx::marks;
use daftari::wire::header::command::START_VIEW;
use storage_format::PrepareHeader;

impl Script {
    /// Both copies of what the journal says of an op rot: its replica cannot know that it was there.
    pub fn damage_slot(self, replica: u8, op: u64) {
        self.damage_prepare(replica, op);
        self.damage_header(replica, op);
    }

    /// Whether this run has reached a rare branch.
    #[must_use]
    pub fn has_reached(self, mark: marks::Mark) -> bool {
        marks::has_reached(mark)
    }

    /// This run has reached a rare branch.
    ///
    /// # Errors
    /// When it has not.
    pub fn reached(self, mark: marks::Mark) -> Verdict {
        check(self.has_reached(mark), || {
            format!("{mark:?} is not reached")
        })
    }

    /// The first start of a view after a mark.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn new_view(self, mark: Mark) -> Result<Sent, Failure> {
        self.sent_since(mark, frames(START_VIEW)).await
    }

    /// Brings the log to an op, with requests of one client.
    ///
    /// # Errors
    /// When one is not answered within a minute.
    pub async fn log_up_to(self, op: u64) -> Verdict {
        while self.committed() < op {
            self.requests(0, 1).await?;
        }
        Ok(())
    }

    /// A client's request becomes an op that only the primary has; gives its prepare.
    ///
    /// # Errors
    /// When it does not, or another replica has it as well.
    ///
    /// # Panics
    /// When the platter lost it just now.
    pub async fn op_of_primary_alone(
        self,
        primary: u8,
        op: u64,
        client: usize,
    ) -> Result<PrepareHeader, Failure> {
        self.issue(client);
        self.until(format!("{primary} has op {op}"), || self.has(primary, op))
            .await?;
        for other in self.others(primary) {
            check(!self.has(other, op), || {
                format!("replica {other} has op {op}, too")
            })?;
        }
        Ok(self.prepare(primary, op).expect("it is there"))
    }

    /// All replicas stop, their damage is undone, and they start again.
    pub fn restore(self) {
        for replica in 0..self.replicas() {
            self.crash(replica);
        }
        self.undo_damage();
        for replica in 0..self.replicas() {
            self.start(replica);
        }
    }

    /// A replica that is down starts, its cluster serves again, and then another one is back as well.
    ///
    /// # Errors
    /// When one of that does not happen within a minute.
    pub async fn goes_on_with(self, first: u8, then: u8) -> Verdict {
        let mark = self.mark();
        self.start(first);
        self.new_view(mark).await?;
        self.requests(0, 1).await?;
        self.start(then);
        self.settle().await
    }
}
