//! Frames and writes as the log shows them.

use super::disk::{Write, Zone};
use daftari::vsr::message::CheckpointState;
use daftari::wire::header::command;
use daftari::wire::{CommonHeader, EvictionHeader, PeerHeader, ReplyHeader, RequestHeader};
use storage_format::{Checksum, PrepareHeader, PrepareKind, Superblock};
use zerocopy::FromBytes;

/// The first digits of a checksum.
fn short(checksum: Checksum) -> String {
    let digits = u128::from_le_bytes(checksum.0);
    format!("{:08x}", digits >> 96)
}

fn prepare(header: &PrepareHeader) -> String {
    let (op, view, commit) = (header.op, header.view, header.commit);
    let kind = PrepareKind::from_u8(header.kind);
    let (own, parent) = (short(header.checksum), short(header.parent));
    format!("{kind:?} op {op} view {view} commit {commit} {own} after {parent}")
}

/// The command of a whole frame.
#[must_use]
pub fn command(frame: &[u8]) -> u8 {
    let (common, _) = CommonHeader::read_from_prefix(frame).expect("a whole frame");
    common.command
}

/// A whole frame.
#[must_use]
pub fn frame(frame: &[u8]) -> String {
    let (common, body) = CommonHeader::read_from_prefix(frame).expect("a whole frame");
    match common.command {
        command::REPLY => {
            let (header, _) = ReplyHeader::read_from_prefix(frame).expect("a whole frame");
            let (client, op, request) = (header.client, header.op, header.request);
            let view = header.view;
            format!("reply to {client:x} request {request} op {op} view {view}")
        }
        command::REQUEST => {
            let (header, _) = RequestHeader::read_from_prefix(frame).expect("a whole frame");
            let (client, request, session) = (header.client, header.request, header.session);
            let (operation, view) = (header.operation, header.view);
            format!(
                "request {request} of {client:x} session {session} operation {operation} view {view}"
            )
        }
        command::EVICTION => {
            let (header, _) = EvictionHeader::read_from_prefix(frame).expect("a whole frame");
            format!("eviction of {:x} reason {}", header.client, header.reason)
        }
        command::PREPARE => {
            let (header, _) = PrepareHeader::read_from_prefix(frame).expect("a whole frame");
            format!("prepare {}", prepare(&header))
        }
        command::PING_CLIENT => "ping".into(),
        command::PONG_CLIENT => format!("pong view {}", common.view),
        command::FORWARD => format!("forward {}", self::frame(body)),
        command::RELAY => format!("relay {}", self::frame(body)),
        number => {
            let (header, _) = PeerHeader::read_from_prefix(frame).expect("a whole frame");
            peer(&header, number, body)
        }
    }
}

/// Names of commands.
pub const COMMANDS: &[(u8, &str)] = &[
    (command::REQUEST, "request"),
    (command::REPLY, "reply"),
    (command::PREPARE, "prepare"),
    (command::PREPARE_OK, "prepare_ok"),
    (command::COMMIT, "commit"),
    (command::START_VIEW_CHANGE, "start_view_change"),
    (command::DO_VIEW_CHANGE, "do_view_change"),
    (command::START_VIEW, "start_view"),
    (command::REQUEST_START_VIEW, "request_start_view"),
    (command::REQUEST_HEADERS, "request_headers"),
    (command::REQUEST_PREPARE, "request_prepare"),
    (command::HEADERS, "headers"),
    (command::REQUEST_BLOCK, "request_block"),
    (command::BLOCK, "block"),
    (command::REQUEST_REPLY, "request_reply"),
    (command::STORED_REPLY, "stored_reply"),
    (command::RECOVER, "recover"),
    (command::RECOVERY, "recovery"),
    (command::FORWARD, "forward"),
    (command::RELAY, "relay"),
    (command::EVICTION, "eviction"),
    (command::PING_CLIENT, "ping of a client"),
    (command::PONG_CLIENT, "pong to a client"),
    (command::PING, "ping"),
    (command::PONG, "pong"),
];

fn peer(header: &PeerHeader, number: u8, body: &[u8]) -> String {
    let named = COMMANDS.iter().find(|(other, _)| *other == number);
    let name = named.map_or("unknown", |(_, name)| *name);
    let (view, log_view, op) = (header.view, header.log_view, header.op);
    let (commit, checkpoint) = (header.commit, header.checkpoint_op);
    let mut line = format!(
        "{name} view {view} log_view {log_view} op {op} commit {commit} checkpoint {checkpoint}"
    );
    if header.checksum_item != Checksum::ZERO {
        line += &format!(" of {}", short(header.checksum_item));
    }
    let list = match number {
        command::START_VIEW => body.get(size_of::<CheckpointState>()..).unwrap_or_default(),
        _ => body,
    };
    if let Ok(headers) = <[PrepareHeader]>::ref_from_bytes(list)
        && !headers.is_empty()
    {
        let list = headers.iter().map(|header| {
            let own = short(header.checksum);
            format!("{}:{}:{own}", header.op, header.view)
        });
        let list: Vec<String> = list.collect();
        let (present, nacks) = (header.present, header.nacks);
        line += &format!(" [{}] present {present:b} nacks {nacks:b}", list.join(" "));
        if header.uncertain != 0 {
            line += " uncertain";
        }
    }
    line
}

/// Bytes that are written somewhere.
#[must_use]
pub fn bytes(zone: Zone, offset: u64, data: &[u8]) -> String {
    match zone {
        Zone::Prepares => {
            let (header, _) = PrepareHeader::read_from_prefix(data).expect("at least a sector");
            format!("prepare {}", prepare(&header))
        }
        Zone::Headers => {
            let headers = <[PrepareHeader]>::ref_from_bytes(data);
            let ops = headers.map(|headers| headers.iter().map(|header| header.op.get()).collect());
            let ops: Vec<u64> = ops.unwrap_or_default();
            format!("headers at {offset}: {ops:?}")
        }
        Zone::Superblock => {
            let (header, _) = Superblock::read_from_prefix(data).expect("a whole copy");
            let (view, log_view) = (header.view, header.log_view);
            let (commit, checkpoint) = (header.commit_max, header.checkpoint.op);
            format!(
                "superblock {} copy {} view {view} log_view {log_view} commit_max {commit} checkpoint {checkpoint}{}{}",
                header.sequence,
                offset / 8192,
                if header.content_missing == 0 {
                    ""
                } else {
                    " without its blocks"
                },
                if header.recovering == 0 {
                    ""
                } else {
                    " recovering"
                },
            )
        }
        Zone::Replies | Zone::Grid => format!("{} bytes of {zone:?} at {offset}", data.len()),
    }
}

/// A write under way.
#[must_use]
pub fn write(write: &Write) -> String {
    bytes(write.zone, write.offset, &write.data)
}
