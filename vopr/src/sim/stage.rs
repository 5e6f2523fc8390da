//! What a simulated world is played on: a queue of events in the order of their time, the hash of all that
//! happens, the faults, and the first failure, which ends the run.

use super::hash::EventHash;
use super::options::MS;
use super::verdict::{Failure, Verdict};
use super::world::now;
use crate::cluster::network::Place;
use crate::seed::Setup;
use crate::seed::injection::{Family, Faults};
use crate::timeline::{Mark, Point, Recording};
use std::collections::BTreeMap;
use std::task::Waker;

/// See the module.
#[derive(Debug)]
pub struct Stage<Action> {
    /// The hash of all events.
    pub hash: EventHash,
    /// The first failure.
    pub failure: Option<Failure>,
    /// Whether the run is over.
    pub finished: bool,
    /// The faults.
    pub faults: Faults,
    /// What happens, if it is kept.
    pub recording: Option<Recording>,
    /// When the last event was taken.
    pub time: u64,
    /// Whether each event is printed.
    log: bool,
    /// The event before which the run is stopped, whatever would come.
    until: Option<u64>,
    queue: BTreeMap<(u64, u64), Action>,
    queued: u64,
    waker: Option<Waker>,
}

/// What comes next.
#[derive(Debug)]
pub enum Next<Action> {
    /// This, now.
    Now(Action),
    /// Something, at a time.
    At(u64),
    /// Nothing: the run is over.
    Over,
}

impl<Action> Stage<Action> {
    /// A run that begins with an event.
    #[must_use]
    pub fn new(first: Action, setup: &Setup) -> Self {
        Self {
            hash: EventHash::default(),
            failure: None,
            finished: false,
            faults: Faults::new(&setup.cuts.without, &setup.cuts.skip),
            recording: setup.record.map(Recording::new),
            time: 0,
            log: setup.log,
            until: setup.until,
            queue: BTreeMap::from([((0, 0), first)]),
            queued: 0,
            waker: None,
        }
    }

    /// Puts an event into the queue.
    pub fn at(&mut self, time: u64, action: Action) {
        self.queued += 1;
        self.queue.insert((time, self.queued), action);
        self.wake();
    }

    /// Takes the next event, if it is due; if not, `waker` is told when there is another.
    ///
    /// # Panics
    /// When there is none at all.
    pub fn next(&mut self, waker: &Waker) -> Next<Action> {
        let stopped = self.until.is_some_and(|until| self.hash.events() >= until);
        if self.finished || stopped || self.failure.is_some() {
            return Next::Over;
        }
        let first = self.queue.first_entry().expect("somebody always looks on");
        let time = first.key().0;
        if time <= now() {
            self.time = now();
            return Next::Now(first.remove());
        }
        self.waker = Some(waker.clone());
        Next::At(time)
    }

    /// Notes a verdict; the first failure ends the run.
    pub fn judge(&mut self, verdict: Verdict) {
        if let Err(failure) = verdict {
            self.tell(None, Mark::Failure, || {
                format!("FAIL {}: {}", failure.kind, failure.what)
            });
            self.failure.get_or_insert(failure);
            self.wake();
        }
    }

    /// Prints an event, if asked to.
    #[expect(clippy::print_stderr, reason = "the log that `--log full` asks for")]
    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.log {
            let now = now();
            eprintln!("{:>7}.{:06} {}", now / MS, now % MS, text());
        }
    }

    /// Prints something that stands out, and keeps it, if asked to.
    pub fn tell(&mut self, place: Option<Place>, mark: Mark, text: impl FnOnce() -> String) {
        match &mut self.recording {
            None => self.trace(text),
            Some(recording) => {
                let (at, text) = (now(), text());
                recording.point(Point {
                    at,
                    place,
                    mark,
                    text: text.clone(),
                });
                self.trace(|| text);
            }
        }
    }

    /// A fault is about to happen, at a place or to everybody; whether it may. What it needs was drawn
    /// before.
    pub fn inject(
        &mut self,
        family: Family,
        place: Option<Place>,
        what: impl FnOnce() -> String,
    ) -> bool {
        let (index, may) = self.faults.inject(family);
        let mark = if may { Mark::Fault } else { Mark::Vetoed };
        self.tell(place, mark, || {
            let vetoed = if may { "" } else { ", vetoed" };
            format!("fault {index} ({}{vetoed}): {}", family.name(), what())
        });
        may
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
