//! The page that shows a recording: a template and its data, in one file that needs no other.

use super::{Mark, Newest, Recording, Status};
use crate::cluster::network::Place;
use crate::seed::Ended;
use crate::sim::describe::COMMANDS;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the page says of the run beside what it shows.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The seed, or the scenario and its seed.
    pub title: &'a str,
    /// The command line that repeats the run.
    pub repeat: &'a str,
    /// The commit that was run.
    pub commit: &'a str,
}

/// Where the template has the data, and where the scripts.
const DATA: &str = "/*DATA*/ null";
const SCRIPT: &str = "/*SCRIPT*/";
const TEMPLATE: &str = include_str!("page.html");
const SCRIPTS: &str = concat!(
    include_str!("timeline.js"),
    include_str!("interaction.js"),
    include_str!("selftest.js"),
);

/// The page of a run.
///
/// # Panics
/// When the template has no place for the data and the scripts.
#[must_use]
pub fn page(about: &About<'_>, ended: &Ended, recording: &Recording) -> String {
    let data = data(about, ended, recording).to_string();
    // No text may end the script element.
    let data = data.replace('<', "\\u003c");
    let (before, rest) = TEMPLATE.split_once(DATA).expect("it has a place for data");
    let (between, after) = rest.split_once(SCRIPT).expect("and one for scripts");
    [before, &data, between, SCRIPTS, after].concat()
}

/// Numbers of what is found at many places, in the order of their first use.
#[derive(Default)]
struct Texts<'a> {
    numbers: BTreeMap<&'a str, usize>,
    texts: Vec<&'a str>,
}

impl<'a> Texts<'a> {
    fn number(&mut self, text: &'a str) -> usize {
        let texts = &mut self.texts;
        *self.numbers.entry(text).or_insert_with(|| {
            texts.push(text);
            texts.len() - 1
        })
    }
}

/// Lanes: the replicas and standbys, then the clients; -1 is the whole run.
fn lane(place: Place, members: u8) -> usize {
    match place {
        Place::Replica(replica) => usize::from(replica),
        Place::Client(client) => usize::from(members) + client,
    }
}

/// A column of numbers, each as the difference from the one before.
fn differences(numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut before = 0;
    let difference = |number: u64| number - std::mem::replace(&mut before, number);
    numbers.map(difference).collect()
}

/// Microseconds.
fn micro(time: u64) -> u64 {
    time / 1000
}

fn data(about: &About<'_>, ended: &Ended, recording: &Recording) -> Value {
    let members = ended.replicas + ended.standbys;
    let last = recording.points.kept.back().map_or(0, |point| point.at);
    // The client that reads back is one more.
    let clients = ended.clients + 1;
    json!({
        "title": about.title,
        "repeat": about.repeat,
        "commit": about.commit,
        "config": format!("{:08x}", ended.config),
        "failure": ended.failure.as_ref().map(|it| json!([it.kind, it.what])),
        "op": ended.op,
        "events": ended.hash.events(),
        "end": micro(ended.time.max(last)) + 1,
        "replicas": ended.replicas,
        "members": members,
        "clients": clients,
        "statuses": Status::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>(),
        "marks": Mark::ALL.iter().map(|(_, name)| *name).collect::<Vec<_>>(),
        "commands": COMMANDS.iter().map(|(_, name)| *name).collect::<Vec<_>>(),
        "messages": messages(recording, members),
        "points": points(recording, members),
        "states": states(recording),
        "progress": progress(recording),
    })
}

fn messages(recording: &Recording, members: u8) -> Value {
    let mut texts = Texts::default();
    let kept = &recording.messages.kept;
    let number = |code: u8| {
        let found = COMMANDS.iter().position(|(other, _)| *other == code);
        found.map_or(-1, |index| i64::try_from(index).expect("a few"))
    };
    // Microseconds on the way, -1 if it does not arrive.
    let way = |sent: u64, arrives: Option<u64>| {
        arrives.map_or(-1, |at| {
            i64::try_from(micro(at) - micro(sent)).expect("some hours")
        })
    };
    json!({
        "dropped": recording.messages.dropped,
        "sent": differences(kept.iter().map(|it| micro(it.sent))),
        "way": kept.iter().map(|it| way(it.sent, it.arrives)).collect::<Vec<_>>(),
        "from": kept.iter().map(|it| lane(it.from, members)).collect::<Vec<_>>(),
        "to": kept.iter().map(|it| lane(it.to, members)).collect::<Vec<_>>(),
        "command": kept.iter().map(|it| number(it.command)).collect::<Vec<_>>(),
        "text": kept.iter().map(|it| texts.number(&it.text)).collect::<Vec<_>>(),
        "texts": texts.texts,
    })
}

fn points(recording: &Recording, members: u8) -> Value {
    let kept = &recording.points.kept;
    let lane = |place: Option<Place>| {
        place.map_or(-1, |place| {
            i64::try_from(lane(place, members)).expect("a few")
        })
    };
    let mark = |mark: Mark| Mark::ALL.iter().position(|(other, _)| *other == mark);
    json!({
        "dropped": recording.points.dropped,
        "at": differences(kept.iter().map(|it| micro(it.at))),
        "lane": kept.iter().map(|it| lane(it.place)).collect::<Vec<_>>(),
        "mark": kept.iter().map(|it| mark(it.mark)).collect::<Vec<_>>(),
        "text": kept.iter().map(|it| it.text.as_str()).collect::<Vec<_>>(),
    })
}

/// Of each replica, what it is at from when on.
fn states(recording: &Recording) -> Value {
    let status = |status: Status| Status::ALL.iter().position(|(other, _)| *other == status);
    let rows = recording
        .states
        .iter()
        .map(|(at, replica, state)| json!([micro(*at), replica, status(state.status), state.view]));
    rows.collect()
}

/// Of each replica, what it has from when on.
fn progress(recording: &Recording) -> Value {
    let Newest { kept, .. } = &recording.progress;
    let rows = kept.iter().map(|(at, replica, progress)| {
        json!([
            micro(*at),
            replica,
            progress.checkpoint,
            progress.commit,
            progress.head
        ])
    });
    rows.collect()
}
