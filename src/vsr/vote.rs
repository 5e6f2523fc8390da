//! What the primary of a new view makes of the logs that it is told of.
//!
//! The logs of the newest log view are prefixes of one another, and hold every committed op. The longest
//! of them is the log of the new view, but for ops at its end that certainly were not committed:
//! those that a nack quorum never acknowledged. A replica whose journal may have lost the end of its log
//! says so, and proves nothing about what lies beyond. An op that is neither nacked by so many nor held by
//! anybody who answered may have been committed, so the view has to wait for more answers.

use super::quorum::Quorums;
use crate::constants::PIPELINE_PREPARES_MAX;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use storage_format::PrepareHeader;

/// What a replica says of its log when it joins a view.
#[derive(Clone, Debug)]
pub struct Vote {
    /// The view in which its log was installed.
    pub log_view: u32,
    /// Highest op that it knows to be committed.
    pub commit: u64,
    /// The top of its log, newest first; never empty.
    pub headers: Vec<PrepareHeader>,
    /// Whether nothing can have been in its log beyond these.
    pub certain: bool,
    /// One bit for each header: the prepare is on stable storage.
    pub present: u64,
    /// One bit for each header: the replica never acknowledged it.
    pub nacks: u64,
}

/// The log of the new view.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decided {
    /// The top of the log, newest first.
    pub headers: Vec<PrepareHeader>,
    /// Highest op that is known to be committed.
    pub commit: u64,
}

impl Vote {
    fn head(&self) -> u64 {
        self.headers[0].op.get()
    }

    /// The position of the header of `op`.
    fn position(&self, op: u64) -> Option<usize> {
        self.headers.iter().position(|header| header.op.get() == op)
    }

    fn has(&self, header: &PrepareHeader) -> bool {
        self.position(header.op.get()).is_some_and(|at| {
            self.headers[at].checksum == header.checksum && self.present >> at & 1 == 1
        })
    }

    /// Whether this replica never acknowledged `header`, which is of the log of the newest log view.
    fn never_acknowledged(&self, header: &PrepareHeader) -> bool {
        let op = header.op.get();
        if self.head() < op {
            if !self.certain && self.log_view < header.view.get() {
                mark(Mark::DeniedByOlderLogView);
            }
            return self.certain || self.log_view < header.view.get();
        }
        // What it does not know it may have acknowledged.
        self.position(op).is_some_and(|at| {
            self.headers[at].checksum != header.checksum || self.nacks >> at & 1 == 1
        })
    }
}

/// Decides on the log, if the votes say enough; there is a view-change quorum of them at least.
///
/// # Panics
/// When a vote has no headers.
#[must_use]
pub fn decide(votes: &[&Vote], quorums: &Quorums) -> Option<Decided> {
    let newest = votes.iter().map(|vote| vote.log_view).max()?;
    let any = planted(Bug::PreferLongerLog);
    let canonical = || votes.iter().filter(|vote| vote.log_view == newest || any);
    let longest = canonical().max_by_key(|vote| vote.head())?;
    // After a restart nobody remembers what was committed; but no primary prepares further ahead.
    let committed = longest.head().saturating_sub(PIPELINE_PREPARES_MAX);
    let known = votes.iter().map(|vote| vote.commit).max()?;
    let commit = known.max(committed);
    let mut headers = longest.headers.clone();
    if longest.head() < commit {
        // Whoever has the end of the log is not among the voters, or has lost it.
        mark(Mark::VotesLackEnd);
        return None;
    }
    // Others may know what lies below a hole.
    while let Some(lowest) = headers.last().copied()
        && lowest.op.get() > commit
        && let Some(below) = canonical()
            .flat_map(|vote| &vote.headers)
            .find(|header| header.checksum == lowest.parent)
    {
        mark(Mark::HoleFilled);
        headers.push(*below);
    }
    // Whoever may have lost the end of its log may have lost the end of all that there was.
    let lost = canonical().any(|vote| !vote.certain);
    let sure = votes
        .iter()
        .filter(|vote| vote.certain || vote.log_view < newest);
    if lost && sure.count() < usize::from(quorums.nack) {
        mark(Mark::VotesUncertain);
        return None;
    }
    let lowest = headers.last()?.op.get();
    let enough = match planted(Bug::DropOnOneNack) {
        true => 1,
        false => usize::from(quorums.nack),
    };
    for op in commit + 1..=longest.head() {
        if op < lowest {
            mark(Mark::VotesHaveHole);
            return None;
        }
        let at = crate::stdx::u64_to_usize(longest.head() - op);
        let header = headers[at];
        let nacks = votes.iter().filter(|vote| vote.never_acknowledged(&header));
        if nacks.count() >= enough {
            mark(Mark::TailDropped);
            headers.drain(..=at);
            break;
        }
        if !votes.iter().any(|vote| vote.has(&header)) {
            mark(Mark::VotesLackBody);
            return None;
        }
    }
    (!headers.is_empty()).then_some(Decided { headers, commit })
}

#[cfg(test)]
mod tests {
    use super::{Decided, Quorums, Vote, decide};
    use crate::vsr::testing::chain;

    /// A log with ops of those views; `bodies` says of each op, oldest first, whether it is there (`+`),
    /// was never acknowledged (`-`), or may have been (`?`).
    fn vote(log_view: u32, commit: u64, views: &[u32], bodies: &str) -> Vote {
        let mut headers = chain(views);
        headers.reverse();
        let bits = |wanted: char| {
            let bodies = bodies.chars().rev().enumerate();
            bodies.fold(0, |bits, (at, body)| bits | u64::from(body == wanted) << at)
        };
        Vote {
            log_view,
            commit,
            headers,
            certain: true,
            present: bits('+'),
            nacks: bits('-'),
        }
    }

    /// The head that is decided on in a cluster of so many.
    fn head(replicas: u8, votes: &[Vote]) -> Option<u64> {
        let votes: Vec<&Vote> = votes.iter().collect();
        let decided: Option<Decided> = decide(&votes, &Quorums::new(replicas));
        decided.map(|decided| decided.headers[0].op.get())
    }

    #[test]
    fn what_one_of_two_voters_has_is_kept() {
        let votes = [vote(1, 1, &[1, 1, 1], "+++"), vote(1, 1, &[1], "+")];
        assert_eq!(head(3, &votes), Some(3));
    }

    #[test]
    fn what_nobody_acknowledged_is_dropped() {
        let votes = [vote(1, 1, &[1, 1, 1], "++-"), vote(1, 1, &[1, 1], "++")];
        assert_eq!(head(3, &votes), Some(2));
    }

    #[test]
    fn a_damaged_copy_is_no_proof() {
        let mut votes = vec![vote(1, 1, &[1, 1], "+?"), vote(1, 1, &[1], "+")];
        assert_eq!(head(3, &votes), None, "the third may have acknowledged it");
        votes.push(vote(1, 1, &[1, 1], "++"));
        assert_eq!(head(3, &votes), Some(2));
        votes.pop();
        votes.push(vote(1, 1, &[1], "+"));
        assert_eq!(head(3, &votes), Some(1), "two never did");
    }

    #[test]
    fn a_log_whose_end_may_be_lost_proves_nothing_beyond_it() {
        let mut torn = vote(1, 1, &[1], "+");
        torn.certain = false;
        let whole = vote(1, 1, &[1, 1], "++");
        assert_eq!(
            head(2, &[torn.clone(), whole.clone()]),
            Some(2),
            "one of two is enough"
        );
        assert_eq!(head(3, &[torn.clone(), whole.clone()]), None);
        assert_eq!(head(3, &[torn.clone(), whole.clone(), whole]), Some(2));
        let later = vote(2, 1, &[1, 2], "+-");
        assert_eq!(head(3, &[torn, later]), Some(1), "it was not in view 2");
    }

    #[test]
    fn the_newest_log_view_wins_over_longer_logs() {
        let votes = [vote(1, 1, &[1, 1, 1, 1], "++++"), vote(2, 1, &[1, 2], "++")];
        assert_eq!(head(3, &votes), Some(2));
    }

    #[test]
    fn another_prepare_in_its_place_is_a_nack() {
        let votes = [vote(1, 1, &[1, 1], "++"), vote(2, 1, &[1, 2], "+-")];
        assert_eq!(
            head(3, &votes),
            Some(1),
            "neither acknowledged op 2 of view 2"
        );
    }

    #[test]
    fn five_replicas_drop_what_three_never_had() {
        let votes = [
            vote(1, 1, &[1, 1], "+?"),
            vote(1, 1, &[1], "+"),
            vote(1, 1, &[1], "+"),
        ];
        assert_eq!(head(5, &votes), None);
        let more = [&votes[..], &[vote(1, 1, &[1], "+")]].concat();
        assert_eq!(head(5, &more), Some(1));
    }

    #[test]
    fn a_hole_is_filled_from_another_log_of_the_view() {
        let mut holed = vote(1, 1, &[1, 1, 1, 1], "++++");
        holed.headers.truncate(2);
        let whole = vote(1, 1, &[1, 1, 1], "+++");
        assert_eq!(head(3, &[holed.clone(), whole]), Some(4));
        let other = vote(0, 1, &[1, 1, 1], "+++");
        assert_eq!(head(3, &[holed, other]), None);
    }
}
