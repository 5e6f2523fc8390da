//! Replays recorded traces: requests with the full results that a reference server gave.
//!
//! A trace is gzipped JSON Lines: a header, then steps. Timestamps that the server assigned are
//! labels, numbered in the order of time; a label must always stand for one value, and values must
//! increase with the labels.

mod fields;
mod frames;
mod labels;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::fields::{Row, decode_rows, encode_row, fields_of_event, fields_of_result, same};
pub use self::frames::replay_frames;
use self::labels::Labels;
use crate::clock::Clock;
use crate::machine::Machine;
use crate::model::batch::{self, Kind, Op};
use crate::model::status;

/// What is wrong, or nothing.
pub type Outcome = Result<(), String>;

/// How the packets of a step are sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Packets {
    /// Each in a request of its own.
    Apart,
    /// All in one multi-batch request.
    Together,
}

/// What there is to replay in `paths`: files as they are, and from directories the trace files and
/// the directories of captured frames.
///
/// # Errors
/// When a directory cannot be read.
pub fn expand(paths: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() && !frames::is_session(path) {
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(path)? {
                let file = entry?.path();
                if file.to_string_lossy().ends_with(".jsonl.gz") || frames::is_session(&file) {
                    inside.push(file);
                }
            }
            inside.sort();
            files.append(&mut inside);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Replays a trace against an empty ledger.
///
/// # Errors
/// The first difference.
pub fn replay(path: &Path, machine: &mut dyn Machine, packets: Packets) -> Outcome {
    let compressed = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(&compressed[..])
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    let mut lines = text.lines();
    let header = parse(lines.next().unwrap_or_default())?;
    if header.get("format").and_then(Value::as_str) != Some("tb-trace/1") {
        return Err("no trace".to_owned());
    }
    let mut replayer = Replayer {
        machine,
        packets,
        clock: Clock::default(),
        labels: Labels::default(),
    };
    let mut steps = 0;
    for (index, line) in lines.enumerate() {
        let step = parse(line)?;
        let name = text_of(&step, "op")?;
        replayer
            .step(&name, &step)
            .map_err(|error| format!("request {index} {name}: {error}"))?;
        steps += u64::from(name != "sleep");
    }
    if header.get("requests").and_then(Value::as_u64) != Some(steps) {
        return Err(format!(
            "{steps} requests, which is not what the header says"
        ));
    }
    Ok(())
}

fn parse(line: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

fn text_of(step: &Map<String, Value>, key: &str) -> Result<String, String> {
    let text = step.get(key).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| format!("no {key}"))
}

fn rows_of(step: &Map<String, Value>, key: &str) -> Result<Vec<Row>, String> {
    let rows = step
        .get(key)
        .and_then(Value::as_array)
        .ok_or_else(|| format!("no {key}"))?;
    let row = |value: &Value| {
        value
            .as_object()
            .cloned()
            .ok_or_else(|| format!("{key}: no struct"))
    };
    rows.iter().map(row).collect()
}

fn code_of(name: &str) -> Result<u8, String> {
    Ok(match name {
        "get_change_events" => 137,
        "lookup_accounts" => 140,
        "lookup_transfers" => 141,
        "get_account_transfers" => 142,
        "get_account_balances" => 143,
        "query_accounts" => 144,
        "query_transfers" => 145,
        "create_accounts" => 146,
        "create_transfers" => 147,
        _ => return Err("unknown operation".to_owned()),
    })
}

/// The name of a status of that operation.
#[must_use]
pub fn status_name(kind: Kind, code: u32) -> Option<String> {
    let all = if kind == Kind::CreateAccounts {
        status::account::ALL
    } else {
        status::transfer::ALL
    };
    all.iter()
        .find(|&&(_, known)| known == code)
        .map(|(name, _)| name.to_ascii_lowercase())
}

/// Nanoseconds of a decimal number of seconds.
fn nanoseconds(seconds: &Value) -> Option<u64> {
    let text = seconds.to_string();
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = format!("{fraction:0<9}");
    let fraction = fraction.get(..9)?.parse::<u64>().ok()?;
    Some(whole.parse::<u64>().ok()? * 1_000_000_000 + fraction)
}

struct Replayer<'a> {
    machine: &'a mut dyn Machine,
    packets: Packets,
    clock: Clock,
    labels: Labels,
}

impl Replayer<'_> {
    fn step(&mut self, name: &str, step: &Map<String, Value>) -> Outcome {
        if name == "sleep" {
            let seconds = step
                .get("seconds")
                .and_then(nanoseconds)
                .ok_or("no seconds")?;
            self.clock.advance(seconds);
            return Ok(());
        }
        let code = code_of(name)?;
        let op = Op::from_code(code).ok_or("unknown operation")?;
        if let Some(packets) = step.get("packets").and_then(Value::as_array) {
            let packets: Vec<&Row> = packets
                .iter()
                .map(|p| p.as_object().ok_or("no packet"))
                .collect::<Result<_, _>>()?;
            return self.packets(code, op, &packets);
        }
        let mut events = rows_of(step, "events")?;
        if let Some(repeat) = step.get("repeat") {
            let times = repeat
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .ok_or("repeat")?;
            events = std::iter::repeat_n(events, times).flatten().collect();
        }
        self.tick();
        let refused = refused_by_client(op, &events);
        match (step.get("error").and_then(Value::as_str), refused) {
            (Some(expected), Some(got)) if expected == got => return Ok(()),
            (None, None) => {}
            (expected, got) => return Err(format!("expected the error {expected:?}, got {got:?}")),
        }
        let results = rows_of(step, "results")?;
        let batch = self.encode(op, &events)?;
        let replies = self.request(code, op, &[batch])?;
        self.compare(op, &events, &results, &replies.1[0], replies.0)
    }

    fn packets(&mut self, code: u8, op: Op, packets: &[&Row]) -> Outcome {
        let mut batches = Vec::new();
        for packet in packets {
            let events = rows_of(packet, "events")?;
            if let Some(error) = refused_by_client(op, &events) {
                return Err(format!("the client refuses a packet: {error}"));
            }
            batches.push(self.encode(op, &events)?);
        }
        self.tick();
        let size = batches.iter().map(Vec::len).sum::<usize>()
            + batch::trailer_size(op.event_size(), batches.len());
        // Queries are kept apart, since their results together need not fit a reply.
        let together = self.packets == Packets::Together
            && op.multi_batch
            && !op.queries()
            && size <= 1_048_320;
        let mut replies = Vec::new();
        if together {
            let (timestamp, bodies) = self.request(code, op, &batches)?;
            let after: Vec<usize> = batches
                .iter()
                .map(|batch| batch.len() / op.event_size())
                .collect();
            for (i, body) in bodies.into_iter().enumerate() {
                let later: usize = after[i + 1..].iter().sum();
                let later = if op.creates() {
                    u64::try_from(later).expect("few")
                } else {
                    0
                };
                replies.push((timestamp - later, body));
            }
        } else {
            for batch in batches {
                self.tick();
                let (timestamp, mut bodies) = self.request(code, op, &[batch])?;
                replies.push((timestamp, bodies.remove(0)));
            }
        }
        for (i, (packet, (timestamp, reply))) in packets.iter().zip(replies).enumerate() {
            let (events, results) = (rows_of(packet, "events")?, rows_of(packet, "results")?);
            self.compare(op, &events, &results, &reply, timestamp)
                .map_err(|error| format!("packet {i}: {error}"))?;
        }
        Ok(())
    }

    /// A call takes a millisecond; expiries come before it.
    fn tick(&mut self) {
        self.clock.advance(1_000_000);
        while let Some(timestamp) = self.clock.pulse(self.machine) {
            self.machine.pulse(timestamp);
        }
    }

    fn encode(&self, op: Op, events: &[Row]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for event in events {
            encode_row(fields_of_event(op.kind), event, &self.labels, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Sends one request, and cuts the reply into its batches.
    fn request(
        &mut self,
        code: u8,
        op: Op,
        batches: &[Vec<u8>],
    ) -> Result<(u64, Vec<Vec<u8>>), String> {
        let body = if op.multi_batch {
            batch::encode(op.event_size(), batches)
        } else {
            batches.concat()
        };
        let timestamp = self.clock.request(code, &body);
        let reply = self.machine.execute(code, timestamp, &body);
        if reply.len() > 1_048_320 {
            return Err(format!("a reply of {} bytes", reply.len()));
        }
        let replies = if op.multi_batch {
            let cut = batch::decode(op.result_size(), &reply).ok_or("a malformed reply")?;
            cut.into_iter().map(<[u8]>::to_vec).collect()
        } else {
            vec![reply]
        };
        if replies.len() != batches.len() {
            return Err(format!(
                "{} batches, {} replies",
                batches.len(),
                replies.len()
            ));
        }
        Ok((timestamp, replies))
    }

    fn compare(
        &mut self,
        op: Op,
        events: &[Row],
        expected: &[Row],
        reply: &[u8],
        timestamp: u64,
    ) -> Outcome {
        let results = decode_rows(op, reply).ok_or("a reply that is cut off")?;
        let count = u64::try_from(events.len()).expect("few events");
        for (i, (want, got)) in (0..).zip(expected.iter().zip(&results)) {
            let about = |error: String| {
                let event = if op.creates() {
                    events.get(i)
                } else {
                    events.first()
                };
                format!("result {i}: {error}\n    event: {event:?}\n    want: {want:?}")
            };
            let fresh = self.is_fresh(want);
            for (name, _) in fields_of_result(op.kind) {
                same(
                    name,
                    want.get(json_name(name)),
                    &got[name],
                    &mut self.labels,
                )
                .map_err(about)?;
            }
            // Everything but an object that existed has the time of its own event.
            let own = timestamp - count + 1 + u64::try_from(i).expect("few events");
            let at = got.get("timestamp").and_then(|text| text.parse().ok());
            if op.creates() && fresh && at != Some(own) {
                return Err(about(format!("timestamp {at:?}, which is not {own}")));
            }
        }
        if results.len() != expected.len() {
            return Err(format!(
                "expected {} results, got {}\n    event: {:?}",
                expected.len(),
                results.len(),
                events.first()
            ));
        }
        Ok(())
    }

    /// Whether the result has a timestamp that the server gave it just now.
    fn is_fresh(&self, want: &Row) -> bool {
        let label = want.get("timestamp").and_then(Value::as_object);
        let exists = want.get("status").and_then(Value::as_str) == Some("exists");
        !exists && label.is_some_and(|label| !label.contains_key("d") && !self.labels.knows(label))
    }
}

/// The name of a field in traces.
fn json_name(field: &str) -> &str {
    if field == "kind" { "type" } else { field }
}

/// The error with which the official client refuses a request itself.
fn refused_by_client(op: Op, events: &[Row]) -> Option<&'static str> {
    let limits = events
        .iter()
        .filter_map(|event| event.get("limit").and_then(Value::as_u64));
    let max = u64::try_from(op.limit_max()).expect("64 bits");
    let too_many = events.len() > op.limit_max() || limits.into_iter().any(|limit| limit > max);
    too_many.then_some("too_much_data")
}
