//! Why replicas may stand still: something that they need is whole on no disk any more.
//!
//! Seeds without an atlas damage more copies than replication can mend. Then the replicas may have to wait for
//! ever, and must not guess. That is no failure, but only with a proof: the datum that somebody needs, and that
//! no platter has. Whatever a replica says of itself proves nothing.

use super::Checker;
use super::platters::Platter;
use crate::cluster::quorum;
use crate::sim::disk::Disk;
use crate::sim::platter;

impl Checker {
    /// The proof, if there is one, in a sentence.
    #[must_use]
    pub fn proof(&self, disks: &[Disk]) -> Option<String> {
        // Nobody asks a standby for anything.
        let disks = &disks[..usize::from(self.replicas)];
        let lost = self.lost_block(disks).or_else(|| self.lost_op(disks));
        lost.or_else(|| self.undecided(disks))
            .or_else(|| self.uncertain())
    }

    /// Of how many replicas something may be lost while a nack quorum is left.
    fn may_be_lost(&self) -> usize {
        usize::from(self.replicas) - quorum::nack(self.replicas)
    }

    /// The newest checkpoint that a replica has with all its blocks, its own or those of others. Nobody goes on
    /// from one of a standby.
    fn best_checkpoint(&self, disks: &[Disk]) -> u64 {
        let whole = |platter: &&Platter| {
            let mut blocks = platter.protected.references();
            blocks.all(|block| {
                let on = |disk: &Disk| platter::block(disk, &self.geometry, block).is_ok();
                disks.iter().any(on)
            })
        };
        let platters = self.voters().iter().filter(whole);
        platters.map(Platter::checkpoint).max().unwrap_or(0)
    }

    /// A committed op that somebody needs, and nobody has.
    fn lost_op(&self, disks: &[Disk]) -> Option<String> {
        let best = self.best_checkpoint(disks);
        let lost = (best + 1..=self.history.head()).find(|op| {
            let known = self.history.prepare(*op);
            let has = |disk| platter::prepare_at(disk, &self.geometry, *op).as_ref() == known;
            !disks.iter().any(has)
        })?;
        Some(format!(
            "op {lost} is committed and whole on no disk; the newest whole checkpoint is {best}"
        ))
    }

    /// A block that a replica needs, and nobody has, while nobody has a newer checkpoint to go on from.
    fn lost_block(&self, disks: &[Disk]) -> Option<String> {
        let best = self.best_checkpoint(disks);
        for (replica, platter) in self.platters.iter().enumerate() {
            let checkpoint = platter.checkpoint();
            if checkpoint < best {
                continue;
            }
            let mut blocks = platter.protected.references();
            let lost = blocks.find(|block| {
                let on = |disk: &Disk| platter::block(disk, &self.geometry, block).is_ok();
                !disks.iter().any(on)
            });
            if let Some(block) = lost {
                return Some(format!(
                    "block {} of checkpoint {checkpoint}, which replica {replica} is at, is whole on no disk",
                    block.address
                ));
            }
        }
        None
    }

    /// An op that may be committed, that nobody has, and that too few can deny.
    fn undecided(&self, disks: &[Disk]) -> Option<String> {
        let platters = self.voters();
        let newest = platters.iter().map(Platter::head).max()?;
        for op in self.history.head() + 1..=newest {
            let known: Vec<_> = platters.iter().filter_map(|it| it.prepare(op)).collect();
            let has = |disk: &Disk| {
                let found = platter::prepare_at(disk, &self.geometry, op);
                found.is_some_and(|found| known.contains(&&found))
            };
            let damaged = platters.iter().filter(|platter| platter.is_rotten(op));
            let damaged = damaged.count();
            if !disks.iter().any(has) && damaged > self.may_be_lost() {
                return Some(format!(
                    "op {op} may be committed: it is whole on no disk, and its slot is damaged on {damaged}"
                ));
            }
        }
        None
    }

    /// Too many replicas may have lost the end of their logs.
    fn uncertain(&self) -> Option<String> {
        let uncertain = self.voters().iter().enumerate();
        let uncertain = uncertain.filter(|(_, platter)| platter.may_have_lost_head());
        let uncertain: Vec<usize> = uncertain.map(|(replica, _)| replica).collect();
        (uncertain.len() > self.may_be_lost()).then(|| {
            format!("replicas {uncertain:?} have damage where the end of their logs may have been")
        })
    }
}
