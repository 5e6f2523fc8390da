//! Makes a failure small: less of a seed that fails in the same way.
//!
//! First what changes everything that is drawn (replicas), then requests, clients and whole families of
//! faults, then single faults, and requests and clients once more. Whatever is tried is a run of its own; what still fails is kept.

use super::Ended;
use super::cuts::Cuts;
use super::injection::Family;
use super::numbers::Numbers;
use crate::sim::verdict::Failure;
use std::collections::BTreeSet;

/// A failure that is as small as it got.
#[derive(Clone, Debug)]
pub struct Minimised {
    /// What is left out.
    pub cuts: Cuts,
    /// The run that fails.
    pub ended: Ended,
    /// Runs that it took.
    pub runs: u64,
    /// Whether nothing more could be left out; if not, time was up.
    pub complete: bool,
}

/// Makes the failure of a run small, as long as `may_go_on` says so.
pub fn minimise(
    (cuts, ended): (Cuts, Ended),
    failure: &Failure,
    run: &mut dyn FnMut(&Cuts) -> Ended,
    may_go_on: &mut dyn FnMut() -> bool,
) -> Minimised {
    let mut search = Search {
        cuts,
        ended,
        failure,
        run,
        may_go_on,
        runs: 0,
        complete: true,
    };
    search.fewer_replicas();
    search.fewer_requests();
    search.fewer_clients();
    search.fewer_families();
    search.fewer_faults();
    search.fewer_requests();
    search.fewer_clients();
    Minimised {
        cuts: search.cuts,
        ended: search.ended,
        runs: search.runs,
        complete: search.complete,
    }
}

/// The smallest so far, and how more is tried.
struct Search<'a> {
    cuts: Cuts,
    ended: Ended,
    failure: &'a Failure,
    run: &'a mut dyn FnMut(&Cuts) -> Ended,
    may_go_on: &'a mut dyn FnMut() -> bool,
    runs: u64,
    complete: bool,
}

impl Search<'_> {
    /// Whether it fails in the same way with these cuts, which are kept then.
    fn fails(&mut self, cuts: Cuts) -> bool {
        if !(self.may_go_on)() {
            self.complete = false;
            return false;
        }
        self.runs += 1;
        let ended = (self.run)(&cuts);
        let same = ended
            .failure
            .as_ref()
            .is_some_and(|failure| failure.is_like(self.failure));
        if same {
            (self.cuts, self.ended) = (cuts, ended);
        }
        same
    }

    fn fewer_replicas(&mut self) {
        for replicas in 1..self.ended.replicas {
            let cuts = Cuts {
                replicas: Some(replicas),
                ..self.cuts.clone()
            };
            if self.fails(cuts) {
                return;
            }
        }
    }

    fn fewer_requests(&mut self) {
        let begun = self.ended.requests;
        fewer(begun, |requests| {
            self.fails(Cuts {
                requests: Some(requests),
                ..self.cuts.clone()
            })
        });
    }

    fn fewer_clients(&mut self) {
        let clients = daftari::stdx::to_u64(self.ended.clients);
        fewer(clients, |clients| {
            self.fails(Cuts {
                clients: Some(daftari::stdx::u64_to_usize(clients)),
                ..self.cuts.clone()
            })
        });
    }

    fn fewer_families(&mut self) {
        let there = self.ended.faults.by_family();
        let there: Vec<Family> = there
            .filter(|(_, count)| *count > 0)
            .map(|(family, _)| family)
            .collect();
        for family in there {
            let mut cuts = self.cuts.clone();
            cuts.without.insert(family);
            let _kept_if_it_fails = self.fails(cuts);
        }
    }

    /// The cuts so far, with no other faults than these, whatever their family.
    fn only(&self, kept: &[u64]) -> Cuts {
        Cuts {
            without: BTreeSet::new(),
            skip: Numbers::all_but(kept),
            ..self.cuts.clone()
        }
    }

    /// Leaves out ever smaller parts of the list of faults, down to single ones.
    fn fewer_faults(&mut self) {
        let mut size = self.ended.faults.fired().len();
        // The same run, named by a list.
        let kept = self.ended.faults.fired().to_vec();
        if !self.fails(self.only(&kept)) {
            return;
        }
        while size > 0 {
            let mut at = 0;
            let mut removed = false;
            while at < self.ended.faults.fired().len() {
                let mut kept = self.ended.faults.fired().to_vec();
                kept.drain(at..kept.len().min(at + size));
                if self.fails(self.only(&kept)) {
                    removed = true;
                } else {
                    at += size;
                }
            }
            if size > 1 {
                size = size.div_ceil(2);
            } else if !removed {
                return;
            }
            if !self.complete {
                return;
            }
        }
    }
}

/// Finds a smaller number, 1 at least, that fails as well: by steps that are halved when one is too far.
fn fewer(mut number: u64, mut fails: impl FnMut(u64) -> bool) {
    let mut step = number.saturating_sub(1);
    while step > 0 {
        if number > step && fails(number - step) {
            number -= step;
        } else {
            step /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cuts, Ended, Failure, fewer, minimise};
    use crate::seed::injection::{Family, Faults};
    use crate::sim::hash::EventHash;
    use daftari::stdx::marks::Marks;

    /// A run that fails if faults 3 and 70 of 100 happen, with 3 requests or more.
    fn run(cuts: &Cuts) -> Ended {
        let mut faults = Faults::new(&cuts.without, &cuts.skip);
        for _ in 0..100 {
            let _ = faults.inject(Family::FrameLost);
        }
        let requests = cuts.requests.unwrap_or(50);
        let both = [3, 70].iter().all(|it| faults.fired().contains(it));
        let failure = (both && requests >= 3).then(|| Failure {
            kind: "I01",
            what: format!("{requests}"),
        });
        Ended {
            failure,
            hash: EventHash::default(),
            time: 0,
            config: 0,
            replicas: cuts.replicas.unwrap_or(1),
            standbys: 0,
            clients: cuts.clients.unwrap_or(4),
            requests,
            op: 0,
            marks: Marks::default(),
            unavailable: None,
            faults,
            recording: None,
        }
    }

    #[test]
    fn what_is_left_is_what_it_takes() {
        let first = run(&Cuts::default());
        let failure = first.failure.clone().unwrap();
        let found = minimise((Cuts::default(), first), &failure, &mut run, &mut || true);
        assert!(found.complete);
        assert_eq!(
            found.cuts.to_string(),
            " --clients 1 --requests 3 --skip 0-2,4-69,71-"
        );
    }

    #[test]
    fn it_ends_when_time_is_up() {
        let first = run(&Cuts::default());
        let failure = first.failure.clone().unwrap();
        let mut left = 5;
        let found = minimise((Cuts::default(), first), &failure, &mut run, &mut || {
            left -= 1;
            left > 0
        });
        assert!(!found.complete);
        assert_eq!(found.runs, 4);
        assert!(found.ended.failure.is_some());
    }

    #[test]
    fn the_smallest_number_is_found() {
        for smallest in 1..40 {
            let mut found = 40;
            fewer(40, |number| {
                let fails = number >= smallest;
                if fails {
                    found = number;
                }
                fails
            });
            assert_eq!(found, smallest);
        }
    }
}
