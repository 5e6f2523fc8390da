//! What a script has done to the network, the disks and the processes of a seed, and what went over the
//! wire since it began.
//!
//! A seed without a script has none of this. What a script reads is the wire, before the network has it,
//! and the platters; a replica is never asked.

use super::network::Place;
use super::world::{Action, World};
use crate::sim::disk::Zone;
use crate::sim::options::MS;
use crate::sim::world::now;
use bytes::Bytes;
use daftari::vsr::FatalReason;
use daftari::vsr::message::CheckpointState;
use daftari::wire::header::command;
use daftari::wire::{CommonHeader, EvictionHeader, PeerHeader, ReplyHeader, RequestHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use storage_format::{Checksum, PrepareHeader};
use zerocopy::FromBytes;

/// A frame that somebody sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When.
    pub at: u64,
    /// By whom.
    pub from: Place,
    /// To whom.
    pub to: Place,
    /// What it is.
    pub command: u8,
    /// Its view.
    pub view: u32,
    /// The log view of a message between replicas.
    pub log_view: u32,
    /// Its op, or the number of a client's request.
    pub op: u64,
    /// The highest op that it names as committed.
    pub commit: u64,
    /// Identity of the prepare or block that it is about.
    pub item: Checksum,
    /// The client that it is from or for; 0 for a message between replicas.
    pub client: u128,
    /// Whether the network or the script took it.
    pub lost: bool,
    /// The whole frame.
    pub bytes: Bytes,
}

impl Sent {
    fn new((from, to): (Place, Place), bytes: &Bytes, lost: bool) -> Self {
        let (common, _) = CommonHeader::read_from_prefix(bytes).expect("a whole frame");
        let mut this = Self {
            at: now(),
            from,
            to,
            command: common.command,
            view: common.view.get(),
            log_view: 0,
            op: 0,
            commit: 0,
            item: Checksum::ZERO,
            client: 0,
            lost,
            bytes: bytes.clone(),
        };
        match common.command {
            command::PREPARE => {
                let (header, _) = PrepareHeader::read_from_prefix(bytes).expect("a whole frame");
                this.op = header.op.get();
                this.commit = header.commit.get();
                this.item = header.checksum;
            }
            command::REQUEST => {
                let (header, _) = RequestHeader::read_from_prefix(bytes).expect("a whole frame");
                this.op = header.request.get().into();
                this.client = header.client.get();
                this.item = header.checksum;
            }
            command::REPLY => {
                let (header, _) = ReplyHeader::read_from_prefix(bytes).expect("a whole frame");
                this.op = header.op.get();
                this.client = header.client.get();
                this.item = header.request_checksum;
            }
            command::EVICTION => {
                let (header, _) = EvictionHeader::read_from_prefix(bytes).expect("a whole frame");
                this.client = header.client.get();
            }
            command::PING_CLIENT | command::PONG_CLIENT => {}
            _ => {
                let header = this.peer();
                this.op = header.op.get();
                this.log_view = header.log_view.get();
                this.commit = header.commit.get();
                this.item = header.checksum_item;
            }
        }
        this
    }

    /// Its header, if it is a message between replicas and no prepare.
    #[must_use]
    pub fn peer(&self) -> PeerHeader {
        let (header, _) = PeerHeader::read_from_prefix(&self.bytes).expect("a whole frame");
        header
    }

    /// The headers that it lists, newest first.
    #[must_use]
    pub fn headers(&self) -> Vec<PrepareHeader> {
        let skipped = match self.command {
            command::START_VIEW => size_of::<CheckpointState>(),
            _ => 0,
        };
        let body = self.bytes.get(256 + skipped..).unwrap_or_default();
        <[PrepareHeader]>::ref_from_bytes(body).map_or(Vec::new(), <[_]>::to_vec)
    }
}

/// Which frames are meant: those that have everything that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    command: Option<u8>,
    from: Option<Place>,
    to: Option<Place>,
    ops: Option<RangeInclusive<u64>>,
    views: Option<RangeInclusive<u32>>,
    arrived: bool,
}

/// Frames of a command.
#[must_use]
pub fn frames(command: u8) -> Filter {
    Filter {
        command: Some(command),
        ..Filter::default()
    }
}

/// Frames of any kind.
#[must_use]
pub fn any_frame() -> Filter {
    Filter::default()
}

impl Filter {
    /// From a replica.
    #[must_use]
    pub fn from(mut self, replica: u8) -> Self {
        self.from = Some(Place::Replica(replica));
        self
    }

    /// To a replica.
    #[must_use]
    pub fn to(mut self, replica: u8) -> Self {
        self.to = Some(Place::Replica(replica));
        self
    }

    /// From a client.
    #[must_use]
    pub fn from_client(mut self, client: usize) -> Self {
        self.from = Some(Place::Client(client));
        self
    }

    /// To a client.
    #[must_use]
    pub fn to_client(mut self, client: usize) -> Self {
        self.to = Some(Place::Client(client));
        self
    }

    /// Of an op.
    #[must_use]
    pub fn op(mut self, op: u64) -> Self {
        self.ops = Some(op..=op);
        self
    }

    /// Of some ops.
    #[must_use]
    pub fn ops(mut self, ops: RangeInclusive<u64>) -> Self {
        self.ops = Some(ops);
        self
    }

    /// Of a view.
    #[must_use]
    pub fn view(mut self, view: u32) -> Self {
        self.views = Some(view..=view);
        self
    }

    /// Of some views.
    #[must_use]
    pub fn views(mut self, views: RangeInclusive<u32>) -> Self {
        self.views = Some(views);
        self
    }

    /// That were not lost on the way.
    #[must_use]
    pub fn arrived(mut self) -> Self {
        self.arrived = true;
        self
    }

    /// Whether a frame is one of them.
    #[must_use]
    pub fn matches(&self, sent: &Sent) -> bool {
        self.command.is_none_or(|command| command == sent.command)
            && self.from.is_none_or(|from| from == sent.from)
            && self.to.is_none_or(|to| to == sent.to)
            && self.ops.as_ref().is_none_or(|ops| ops.contains(&sent.op))
            && self
                .views
                .as_ref()
                .is_none_or(|views| views.contains(&sent.view))
            && !(self.arrived && sent.lost)
    }
}

/// What becomes of frames that a rule is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handling {
    /// They are lost.
    Lose,
    /// They wait until the script releases them.
    Hold,
    /// They come later, by so many nanoseconds.
    Delay(u64),
}

/// Names a rule.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rule(u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Directed {
    /// Whether the script is through: everything is healed then.
    pub over: bool,
    /// All frames since the beginning, in the order in which they were sent.
    pub sent: Vec<Sent>,
    /// Replicas whose process may end by itself.
    pub may_exit: BTreeSet<u8>,
    /// Those that did, and why.
    pub exits: Vec<(u8, FatalReason)>,
    /// Zones that were damaged at rest, so that a scrubber may find it.
    pub damaged: BTreeSet<Zone>,
    /// What was on a platter before it was damaged.
    pub undo: Vec<(u8, u64, Vec<u8>)>,
    rules: BTreeMap<Rule, (Filter, Handling, u64)>,
    next_rule: u64,
    held: Vec<(Rule, Sent)>,
    /// Zones of replicas whose writes wait.
    stalls: BTreeSet<(u8, Zone)>,
    /// The writes that wait.
    stalled: Vec<(u8, u64)>,
    /// How much slower than usual disks are.
    slow: BTreeMap<u8, u64>,
    /// Where the next write of a zone lands instead, by replica: nowhere, or at an offset.
    astray: BTreeMap<(u8, Zone), Option<u64>>,
    /// Where the next read gives something else, by replica.
    misreads: BTreeSet<(u8, u64)>,
}

impl Directed {
    /// Adds a rule; of several that are about a frame, the last one counts.
    pub fn add_rule(&mut self, filter: Filter, handling: Handling) -> Rule {
        self.next_rule += 1;
        let rule = Rule(self.next_rule);
        self.rules.insert(rule, (filter, handling, 0));
        rule
    }

    /// Frames that a rule was about.
    #[must_use]
    pub fn hits(&self, rule: Rule) -> u64 {
        self.rules.get(&rule).map_or(0, |(_, _, hits)| *hits)
    }

    /// Notes a frame that arrives `at` some time, if at all; gives when it does.
    fn pass(&mut self, link: (Place, Place), frame: &Bytes, at: Option<u64>) -> Option<u64> {
        let mut sent = Sent::new(link, frame, at.is_none());
        let rules = self.rules.iter_mut().rev();
        let mut matching = rules.filter(|(_, (filter, _, _))| filter.matches(&sent));
        let found = matching.next().map(|(rule, (_, handling, hits))| {
            *hits += 1;
            (*rule, *handling)
        });
        let arrival = match found {
            None => at,
            Some((_, Handling::Lose)) => None,
            Some((rule, Handling::Hold)) => {
                self.held.push((rule, sent.clone()));
                None
            }
            Some((_, Handling::Delay(longer))) => at.map(|at| at + longer),
        };
        sent.lost = arrival.is_none();
        self.sent.push(sent);
        arrival
    }

    /// How much slower than usual a disk is.
    #[must_use]
    pub fn slowness(&self, replica: u8) -> u64 {
        self.slow.get(&replica).copied().unwrap_or(1)
    }

    /// Makes the disk of a replica so many times slower than usual.
    pub fn slow_down(&mut self, replica: u8, factor: u64) {
        self.slow.insert(replica, factor);
    }

    /// Has the writes of a zone wait.
    pub fn stall(&mut self, replica: u8, zone: Zone) {
        self.stalls.insert((replica, zone));
    }

    /// Has the next write of a zone land elsewhere in the file, or nowhere.
    pub fn send_astray(&mut self, replica: u8, zone: Zone, offset: Option<u64>) {
        self.astray.insert((replica, zone), offset);
    }

    /// Whether a write waits; it is kept then.
    pub fn stalls(&mut self, replica: u8, zone: Zone, id: u64) -> bool {
        let waits = self.stalls.contains(&(replica, zone));
        if waits {
            self.stalled.push((replica, id));
        }
        waits
    }

    /// Has the next read at an offset give something else.
    pub fn misread(&mut self, replica: u8, offset: u64) {
        self.misreads.insert((replica, offset));
    }

    /// Whether a read gives something else, which the next one at the same offset does not.
    pub fn misreads(&mut self, replica: u8, offset: u64) -> bool {
        self.misreads.remove(&(replica, offset))
    }

    /// Where the write that has just been done is to be found instead, if not where it belongs.
    pub fn takes_astray(&mut self, replica: u8, zone: Zone) -> Option<Option<u64>> {
        self.astray.remove(&(replica, zone))
    }
}

impl World {
    /// What a script did; only a seed that has one asks.
    pub fn directed(&mut self) -> &mut Directed {
        self.directed.as_mut().expect("the seed has a script")
    }

    /// Whether a script says what happens.
    #[must_use]
    pub fn is_directed(&self) -> bool {
        self.directed.is_some()
    }

    /// Shows a frame to the script: when it arrives, if at all.
    pub fn pass(&mut self, link: (Place, Place), frame: &Bytes, at: Option<u64>) -> Option<u64> {
        let Some(directed) = &mut self.directed else {
            return at;
        };
        let arrival = directed.pass(link, frame, at);
        // The script looks on, whatever becomes of the frame.
        self.at(now(), Action::Nothing);
        arrival
    }

    /// Ends a rule; what it held is delivered, in order.
    pub fn end_rule(&mut self, rule: Rule) {
        let directed = self.directed();
        directed.rules.remove(&rule);
        let held = std::mem::take(&mut directed.held);
        let (released, kept) = held.into_iter().partition(|(of, _)| *of == rule);
        directed.held = kept;
        let released: Vec<(Rule, Sent)> = released;
        for (_, sent) in &released {
            self.deliver_again(sent);
        }
    }

    /// A frame that was sent before arrives now.
    pub fn deliver_again(&mut self, sent: &Sent) {
        let bytes = sent.bytes.clone();
        let action = match (sent.from, sent.to) {
            (Place::Replica(from), Place::Replica(to)) => Action::FromPeer(to, from, bytes),
            (Place::Client(client), Place::Replica(to)) => {
                let connection = self.network.connect(client, to);
                Action::FromClient(to, client, connection, bytes)
            }
            (_, Place::Client(client)) => Action::ToClient(client, bytes),
        };
        self.at(now() + MS / 10, action);
    }

    /// Writes of a zone wait no more.
    pub fn end_stall(&mut self, replica: u8, zone: Zone) {
        let directed = self.directed();
        directed.stalls.remove(&(replica, zone));
        let waiting = std::mem::take(&mut directed.stalled);
        // Those of zones that still stall come back here.
        for (replica, id) in waiting {
            self.at(now(), Action::Write(replica, id));
        }
    }

    /// All that a script did to network and disks ends, but for damage.
    pub fn end_directions(&mut self) {
        let Some(directed) = &mut self.directed else {
            return;
        };
        directed.rules.clear();
        directed.held.clear();
        directed.stalls.clear();
        directed.slow.clear();
        directed.astray.clear();
        for (replica, id) in std::mem::take(&mut directed.stalled) {
            self.at(now(), Action::Write(replica, id));
        }
    }
}
