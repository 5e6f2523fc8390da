//! What happened in a run, kept to be drawn: messages, what replicas are at, what they have, and what was
//! done to them.
//!
//! It is kept only when asked for, and looks on: nothing in a run depends on it.

pub mod page;

use crate::cluster::network::Place;
use std::collections::VecDeque;

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Message {
    /// When it is sent.
    pub sent: u64,
    /// When it arrives; never if it is lost.
    pub arrives: Option<u64>,
    /// From whom.
    pub from: Place,
    /// To whom.
    pub to: Place,
    /// Its command.
    pub command: u8,
    /// What it says.
    pub text: String,
}

/// What kind of point it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// A phase of the run begins.
    Phase,
    /// A replica starts, goes on or gets a new file.
    Start,
    /// A replica crashes, stops or stands still.
    Stop,
    /// A checkpoint is durable.
    Checkpoint,
    /// A view is durable.
    View,
    /// A fault.
    Fault,
    /// A fault that was vetoed.
    Vetoed,
    /// A step of a script.
    Step,
    /// A client begins a request.
    Request,
    /// It has its answer.
    Answer,
    /// The failure.
    Failure,
}

impl Mark {
    /// All of them, in the order of their numbers on the page.
    const ALL: [(Self, &str); 11] = [
        (Self::Phase, "phase"),
        (Self::Start, "start"),
        (Self::Stop, "stop"),
        (Self::Checkpoint, "checkpoint"),
        (Self::View, "view"),
        (Self::Fault, "fault"),
        (Self::Vetoed, "vetoed fault"),
        (Self::Step, "script"),
        (Self::Request, "request"),
        (Self::Answer, "answer"),
        (Self::Failure, "failure"),
    ];
}

/// Something that happens at a moment, to a replica, a client or the whole cluster.
#[derive(Clone, Debug)]
pub struct Point {
    /// When.
    pub at: u64,
    /// To whom.
    pub place: Option<Place>,
    /// What kind.
    pub mark: Mark,
    /// What it is.
    pub text: String,
}

/// What a replica is at, as its process and its superblock show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// There is no process.
    Down,
    /// It has said nothing yet.
    Starting,
    /// It stands still.
    Paused,
    /// Its file was lost, and it may not take part yet.
    Recovering,
    /// Its view is newer than its log.
    ViewChange,
    /// It goes on from a checkpoint whose blocks are on their way.
    Syncing,
    /// It is a backup.
    Backup,
    /// It is the primary of its view.
    Primary,
}

impl Status {
    /// All of them, in the order of their numbers on the page.
    const ALL: [(Self, &str); 8] = [
        (Self::Down, "down"),
        (Self::Starting, "starting"),
        (Self::Paused, "paused"),
        (Self::Recovering, "recovering"),
        (Self::ViewChange, "view change"),
        (Self::Syncing, "syncing"),
        (Self::Backup, "normal, backup"),
        (Self::Primary, "normal, primary"),
    ];
}

/// What a replica is at from a moment on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    /// What it is at.
    pub status: Status,
    /// Its durable view.
    pub view: u32,
}

/// What a replica has from a moment on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// The op of its checkpoint.
    pub checkpoint: u64,
    /// The highest op that it said was committed.
    pub commit: u64,
    /// The highest op in its journal.
    pub head: u64,
}

/// The newest of many, as many as are wanted.
#[derive(Clone, Debug)]
struct Newest<T> {
    limit: usize,
    kept: VecDeque<T>,
    dropped: u64,
}

impl<T> Newest<T> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: VecDeque::new(),
            dropped: 0,
        }
    }

    fn push(&mut self, item: T) {
        if self.kept.len() >= self.limit {
            self.kept.pop_front();
            self.dropped += 1;
        }
        self.kept.push_back(item);
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Recording {
    messages: Newest<Message>,
    points: Newest<Point>,
    progress: Newest<(u64, u8, Progress)>,
    /// All of them: there are few, and what came before the oldest message has to be known.
    states: Vec<(u64, u8, State)>,
    /// The last of each replica.
    last: Vec<(Option<State>, Progress)>,
}

impl Recording {
    /// One that keeps so many events of each kind.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            messages: Newest::new(limit),
            points: Newest::new(limit),
            progress: Newest::new(limit),
            states: Vec::new(),
            last: Vec::new(),
        }
    }

    /// A frame is sent.
    pub fn message(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Something happens.
    pub fn point(&mut self, point: Point) {
        self.points.push(point);
    }

    /// The faults that happened, in order.
    pub fn faults(&self) -> impl Iterator<Item = &Point> {
        let points = self.points.kept.iter();
        points.filter(|point| point.mark == Mark::Fault)
    }

    fn last(&mut self, replica: u8) -> &mut (Option<State>, Progress) {
        let index = usize::from(replica);
        while self.last.len() <= index {
            self.last.push((None, Progress::default()));
        }
        &mut self.last[index]
    }

    /// What a replica is at now; noted if it is something else than before.
    pub fn state(&mut self, at: u64, replica: u8, state: State) {
        let last = &mut self.last(replica).0;
        if *last != Some(state) {
            *last = Some(state);
            self.states.push((at, replica, state));
        }
    }

    /// What a replica has now; noted if it is something else than before.
    pub fn progress(&mut self, at: u64, replica: u8, progress: Progress) {
        let last = &mut self.last(replica).1;
        if *last != progress {
            *last = progress;
            self.progress.push((at, replica, progress));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, Progress, Recording, State, Status};
    use crate::cluster::network::Place;

    #[test]
    fn the_newest_messages_are_kept() {
        let mut recording = Recording::new(2);
        for sent in 0..5 {
            recording.message(Message {
                sent,
                arrives: None,
                from: Place::Replica(0),
                to: Place::Client(0),
                command: 0,
                text: String::new(),
            });
        }
        let kept: Vec<u64> = recording.messages.kept.iter().map(|it| it.sent).collect();
        assert_eq!((kept, recording.messages.dropped), (vec![3, 4], 3));
    }

    #[test]
    fn what_stays_the_same_is_noted_once() {
        let mut recording = Recording::new(10);
        let state = |view| State {
            status: Status::Backup,
            view,
        };
        for (at, view) in [(1, 0), (2, 0), (3, 1)] {
            recording.state(at, 1, state(view));
        }
        assert_eq!(recording.states, [(1, 1, state(0)), (3, 1, state(1))]);
        recording.progress(4, 1, Progress::default());
        assert!(recording.progress.kept.is_empty());
    }
}
