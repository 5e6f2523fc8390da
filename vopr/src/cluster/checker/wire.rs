//! What leaves the replicas, before the network has it.

use super::Checker;
use crate::cluster::clocks;
use crate::sim::disk::Disk;
use crate::sim::frames::{check_frame, check_pong};
use crate::sim::verdict::{Failure, Verdict, fail, require};
use daftari::io::ConnectionId;
use daftari::stdx::to_usize;
use daftari::vsr::message::CheckpointState;
use daftari::wire::header::command;
use daftari::wire::{
    CommonHeader, Evicted, EvictionHeader, PeerHeader, ReplyHeader, RequestHeader,
};
use storage_format::{BlockHeader, BlockReference, PrepareHeader};
use zerocopy::FromBytes;

/// The headers that make the body of a frame.
fn headers(body: &[u8]) -> Result<&[PrepareHeader], Failure> {
    match <[PrepareHeader]>::ref_from_bytes(body) {
        Ok(headers) => Ok(headers),
        Err(_) => fail("I15", format!("{} bytes are no headers", body.len())),
    }
}

impl Checker {
    fn check_view(&self, replica: u8, view: u32, what: impl Fn() -> String) -> Verdict {
        let durable = self.platter(replica).newest_view();
        require(view <= durable, "I06", || {
            format!(
                "replica {replica} sends {} of view {view}, durable is {durable}",
                what()
            )
        })
    }

    /// A replica sends a frame to a client.
    pub fn on_send(
        &mut self,
        disks: &[Disk],
        (replica, connection): (u8, ConnectionId),
        frame: &[u8],
    ) -> Verdict {
        if let Some(client) = addressee(frame) {
            let asked = self.routes.contains(&(replica, connection, client));
            require(asked, "I17", || {
                format!("an answer to {client:x} leaves over the connection of somebody else")
            })?;
        }
        self.check_answer(disks, replica, frame)
    }

    /// What is said to a client is right, whichever way it goes.
    fn check_answer(&mut self, disks: &[Disk], replica: u8, frame: &[u8]) -> Verdict {
        let header = check_frame(frame, self.cluster)?;
        let command = header.command;
        // It may have come from the primary, and from a view that is new here.
        let maker = usize::from(header.replica).min(self.platters.len() - 1);
        let maker = u8::try_from(maker).expect("a few");
        self.check_view(maker, header.view.get(), || format!("command {command}"))?;
        match command {
            command::REPLY => self.check_reply(disks, replica, frame),
            // Others passed it on: it was judged when it left the primary, and may be late.
            command::EVICTION if header.replica != replica => {
                require(self.relayed.contains(&header.checksum), "I22", || {
                    format!("replica {replica} sends an eviction of {maker}, who never sent it")
                })
            }
            command::EVICTION => {
                let eviction = EvictionHeader::read_from_bytes(frame).expect("256 bytes");
                self.check_eviction(replica, &eviction)
            }
            command::PONG_CLIENT => check_pong(frame),
            other => fail("I17", format!("a frame of command {other} to a client")),
        }
    }

    /// A frame of a client arrives at a replica.
    pub fn on_arrive(&mut self, replica: u8, connection: ConnectionId, frame: &[u8]) {
        let (common, _) = CommonHeader::read_from_prefix(frame).expect("a frame has a header");
        if common.command == command::REQUEST {
            let (header, _) = RequestHeader::read_from_prefix(frame).expect("a whole frame");
            let route = (replica, connection, header.client.get());
            let _ = self.routes.insert(route);
        }
    }

    /// A reply leaves: its op is committed (I03), and it is the model's (I17), from whom it may come.
    fn check_reply(&mut self, disks: &[Disk], replica: u8, frame: &[u8]) -> Verdict {
        let (header, _) = ReplyHeader::read_from_prefix(frame).expect("a whole frame");
        let who = || format!("a reply of replica {replica}");
        self.learn_commit(disks, header.op.get(), who)?;
        let _request = self.history.check_reply(frame)?;
        let primary = self.votes.primary(header.view.get());
        let known = header.replica == primary || header.replica == replica;
        require(known, "I17", || {
            let (view, named) = (header.view, header.replica);
            format!("a reply of view {view} names replica {named}")
        })?;
        self.history.seen.replies += 1;
        Ok(())
    }

    /// A frame was made that earns an eviction.
    pub fn on_provoked(&mut self, client: u128, reason: u8) {
        self.provoked.insert((client, reason));
    }

    /// A client is told that its session is gone only when it is.
    fn check_eviction(&mut self, replica: u8, eviction: &EvictionHeader) -> Verdict {
        self.history.seen.evictions += 1;
        let client = eviction.client.get();
        // The replica may have executed what nobody has named as committed yet.
        let ahead = self.platter(replica).head() > self.history.head();
        let reason = eviction.reason;
        let several = self.history.registered(client).len() > 1;
        let justified = if self.provoked.contains(&(client, reason)) {
            true
        } else if reason == Evicted::NoSession.code() {
            let room = self.geometry.session_count_max.get();
            let crowded = self.history.session_count() + 8 > to_usize(room);
            self.history.session(client).is_none() || several || (ahead && crowded)
        } else {
            reason == Evicted::SessionTooLow.code() && (several || ahead)
        };
        require(justified, "I22", || {
            format!("replica {replica} evicts client {client:x} for reason {reason}")
        })
    }

    /// A replica sends a frame to another one.
    pub fn on_send_peer(&mut self, disks: &[Disk], (from, to): (u8, u8), frame: &[u8]) -> Verdict {
        self.counts.frames += 1;
        let common = check_frame(frame, self.cluster)?;
        require(
            from != to && usize::from(to) < self.platters.len(),
            "I15",
            || format!("replica {from} sends a frame to replica {to}"),
        )?;
        let recovering = self.platter(from).superblock.recovering == 1;
        require(
            !recovering || common.command == command::RECOVER,
            "I05",
            || {
                let command = common.command;
                format!("replica {from} remembers nothing, and sends command {command}")
            },
        )?;
        self.check_standby(from, to, common.command)?;
        // The file of a standby is made without asking anybody at which release the log is.
        let blank = self.is_standby(from) && self.platter(from).superblock.view == 0;
        if !recovering && !blank {
            let release = common.release.get();
            let command = common.command;
            self.check_release(from, release, || format!("command {command}"))?;
        }
        if common.command == command::PREPARE {
            return self.check_prepare_sent(disks, (from, to), frame);
        }
        let (header, body) = PeerHeader::read_from_prefix(frame).expect("a whole frame");
        let number = header.command;
        self.check_announced(from, &header)?;
        require(header.replica == from, "I15", || {
            format!("replica {from} says that it is {}", header.replica)
        })?;
        if number != command::START_VIEW_CHANGE {
            self.check_view(from, header.view.get(), || format!("command {number}"))?;
        }
        self.on_commit_named(disks, from, header.commit.get())?;
        match number {
            command::PREPARE_OK => self.check_prepare_ok((from, to), &header),
            command::COMMIT => self.check_primary(from, header.view.get()),
            command::DO_VIEW_CHANGE => self.check_ballot(from, &header, headers(body)?),
            command::START_VIEW => {
                let (_, log) = body.split_at(size_of::<CheckpointState>().min(body.len()));
                self.check_start(from, &header, headers(log)?)
            }
            command::HEADERS => self.check_headers(headers(body)?),
            command::REQUEST_PREPARE => {
                self.asked.insert((from, header.op.get()));
                Ok(())
            }
            command::BLOCK => {
                self.counts.blocks += 1;
                self.check_block_sent(from, &header, body)
            }
            command::RELAY => {
                let (passed, _) = CommonHeader::read_from_prefix(body).expect("a whole frame");
                self.relayed.insert(passed.checksum);
                self.check_answer(disks, from, body)
            }
            _ => Ok(()),
        }
    }

    /// A standby asks replicas, and passes on what its clients ask them: it says nothing that could count
    /// (I26). Nobody asks a standby for anything.
    fn check_standby(&self, from: u8, to: u8, number: u8) -> Verdict {
        let asks = matches!(
            number,
            command::PING
                | command::REQUEST_START_VIEW
                | command::REQUEST_HEADERS
                | command::REQUEST_PREPARE
                | command::REQUEST_BLOCK
                | command::FORWARD
        );
        let tells = matches!(
            number,
            command::PREPARE
                | command::COMMIT
                | command::PONG
                | command::START_VIEW
                | command::HEADERS
                | command::BLOCK
                | command::RELAY
        );
        let heard = !self.is_standby(from) || (asks && !self.is_standby(to));
        require(heard && (!self.is_standby(to) || tells), "I26", || {
            format!("command {number} from member {from} to {to}, of which one is a standby")
        })
    }

    /// A replica serves only blocks that it has just found whole (I15).
    fn check_block_sent(&self, from: u8, header: &PeerHeader, body: &[u8]) -> Verdict {
        let found = BlockHeader::read_from_prefix(body);
        let reference = BlockReference {
            checksum: header.checksum_item,
            address: header.op,
            table: found.map_or(0, |(found, _)| found.table),
            ..BlockReference::default()
        };
        let whole = storage_format::block::verify(body, &reference);
        require(whole.is_ok(), "I15", || {
            format!("replica {from} sends block {} as {whole:?}", header.op)
        })
    }

    /// A replica tells others what its binary has, if the message is one that tells it.
    fn check_announced(&self, from: u8, header: &PeerHeader) -> Verdict {
        let (found, newest) = (header.release_newest, self.binaries[usize::from(from)]);
        let blocks = matches!(header.command, command::BLOCK | command::REQUEST_BLOCK);
        require(found == newest || blocks, "I25", || {
            format!("replica {from} says that it has {found:#x}, and has {newest:#x}")
        })
    }

    fn on_commit_named(&mut self, disks: &[Disk], from: u8, commit: u64) -> Verdict {
        let named = &mut self.platters[usize::from(from)].commit_named;
        *named = commit.max(*named);
        self.learn_commit(disks, commit, || format!("replica {from}"))
    }

    fn check_prepare_sent(
        &mut self,
        disks: &[Disk],
        (from, to): (u8, u8),
        frame: &[u8],
    ) -> Verdict {
        let (header, _) = PrepareHeader::read_from_prefix(frame).expect("a whole frame");
        let op = header.op.get();
        require(header.valid(self.cluster), "I15", || {
            format!("replica {from} sends a prepare that is none, op {op}")
        })?;
        self.check_view(from, header.view.get(), || format!("prepare {op}"))?;
        self.votes.on_header(&header)?;
        self.check_timestamp(from, &header)?;
        self.counts.repaired += u64::from(self.asked.remove(&(to, op)));
        let who = || format!("the prepare of op {op}");
        self.learn_commit(disks, header.commit.get(), who)
    }

    /// A prepare that was just made is of the time that a quorum of clocks agrees on.
    fn check_timestamp(&mut self, from: u8, header: &PrepareHeader) -> Verdict {
        let made = &mut self.made[usize::from(from)];
        let this = (header.view.get(), header.op.get());
        if header.replica != from || this <= *made {
            return Ok(());
        }
        *made = this;
        let timestamp = header.timestamp.get();
        require(clocks::is_near(timestamp), "I24", || {
            let (op, time) = (header.op, clocks::true_time());
            format!("replica {from} gives op {op} the timestamp {timestamp} at {time}")
        })
    }

    fn check_primary(&self, from: u8, view: u32) -> Verdict {
        require(self.votes.primary(view) == from, "I08", || {
            format!("replica {from} acts as the primary of view {view}")
        })
    }

    fn check_headers(&mut self, log: &[PrepareHeader]) -> Verdict {
        for header in log {
            require(header.valid(self.cluster), "I15", || {
                format!("a header in a list is none, op {}", header.op)
            })?;
            if header.op.get() > 0 {
                self.votes.on_header(header)?;
            }
        }
        Ok(())
    }

    /// A prepare is acknowledged only when it and its header are on the platter, in a view that is as
    /// well (I04).
    fn check_prepare_ok(&mut self, (from, to): (u8, u8), header: &PeerHeader) -> Verdict {
        let op = header.op.get();
        let view = header.view.get();
        let platter = self.platter(from);
        let durable = &platter.superblock;
        let prepare = platter.prepare(op).map(|found| found.checksum);
        let covered = op <= platter.checkpoint()
            && durable.content_missing == 0
            && self.history.prepare(op).map(|known| known.checksum) == Some(header.checksum_item);
        let there = prepare == Some(header.checksum_item)
            && platter.header(op).checksum == header.checksum_item;
        require(there || covered, "I04", || {
            let ring = platter.header(op).op;
            format!(
                "replica {from} acknowledges op {op}; on its platter are the prepare {prepare:?} and \
                 the header of op {ring}"
            )
        })?;
        let (of_disk, log_view) = (durable.view.get(), durable.log_view.get());
        require(view == of_disk && view == log_view, "I04", || {
            format!(
                "replica {from} acknowledges op {op} in view {view}; durable are view {of_disk} and \
                 log_view {log_view}"
            )
        })?;
        require(self.votes.primary(view) == to, "I06", || {
            format!("replica {from} acknowledges op {op} of view {view} to {to}")
        })?;
        self.votes.on_prepare_ok(from, header);
        Ok(())
    }

    fn check_ballot(&mut self, from: u8, header: &PeerHeader, log: &[PrepareHeader]) -> Verdict {
        self.counts.votes += 1;
        let durable = &self.platter(from).superblock;
        let same = durable.view == header.view && durable.log_view == header.log_view;
        require(same, "I06", || {
            let (view, log_view) = (header.view, header.log_view);
            format!(
                "replica {from} votes for view {view} with log_view {log_view}; durable are {} and {}",
                durable.view, durable.log_view
            )
        })?;
        self.check_headers(log)?;
        self.votes.on_ballot(from, header, log)
    }

    fn check_start(&mut self, from: u8, header: &PeerHeader, log: &[PrepareHeader]) -> Verdict {
        let view = header.view.get();
        self.check_primary(from, view)?;
        let log_view = self.platter(from).superblock.log_view.get();
        require(log_view == view, "I06", || {
            format!("replica {from} starts view {view}; durable is log_view {log_view}")
        })?;
        self.check_headers(log)?;
        require(!log.is_empty(), "I15", || {
            format!("view {view} starts without a log")
        })?;
        let first = self.votes.on_start(&self.history, view, log)?;
        self.counts.views += u64::from(first);
        Ok(())
    }
}

/// The client that a reply is for.
fn addressee(frame: &[u8]) -> Option<u128> {
    let (header, _) = ReplyHeader::read_from_prefix(frame).ok()?;
    (header.command == command::REPLY).then(|| header.client.get())
}
