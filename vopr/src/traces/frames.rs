//! Replays captured sessions: the bodies of requests must give the bodies of the replies.

use std::collections::BTreeMap;
use std::path::Path;

use crate::machine::Machine;

const HEADER: usize = 256;
const COMMAND_REQUEST: u8 = 5;
const COMMAND_REPLY: u8 = 8;
/// Operations of the ledger.
const OPERATIONS: std::ops::RangeInclusive<u8> = 129..=147;

/// Whether this is a directory of frames.
pub(super) fn is_session(path: &Path) -> bool {
    path.is_dir()
        && std::fs::read_dir(path).is_ok_and(|mut entries| {
            entries.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|e| e == "bin")))
        })
}

fn field<const N: usize>(frame: &[u8], offset: usize) -> [u8; N] {
    *frame[offset..].first_chunk().expect("a whole header")
}

/// Replays a session against an empty ledger; gives the number of requests.
///
/// # Errors
/// The first reply that differs.
pub fn replay_frames(session: &Path, machine: &mut dyn Machine) -> Result<usize, String> {
    let entries = std::fs::read_dir(session).map_err(|error| error.to_string())?;
    let mut files: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    files.sort();
    // By client and request number; a request may be sent again, and is answered as before.
    let mut requests: BTreeMap<([u8; 16], [u8; 4]), Vec<u8>> = BTreeMap::new();
    let mut answered: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for file in files {
        let frame = std::fs::read(&file).map_err(|error| error.to_string())?;
        if frame.len() < HEADER {
            return Err(format!("{}: no frame", file.display()));
        }
        let body = frame[HEADER..].to_vec();
        if frame[114] == COMMAND_REQUEST && OPERATIONS.contains(&frame[196]) {
            requests.insert((field(&frame, 160), field(&frame, 192)), body);
        } else if frame[114] == COMMAND_REPLY && OPERATIONS.contains(&frame[236]) {
            let key = (field(&frame, 192), field(&frame, 232));
            let timestamp = u64::from_le_bytes(field(&frame, 224));
            let request = requests.get(&key).ok_or("a reply without a request")?;
            let reply = answered
                .entry(timestamp)
                .or_insert_with(|| machine.execute(frame[236], timestamp, request));
            if *reply != body {
                return Err(format!("{}: got {reply:x?}", file.display()));
            }
        }
    }
    Ok(answered.len())
}
