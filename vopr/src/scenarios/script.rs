//! What a script can wait for, do, and check.

use crate::cluster::directed::{Filter, Handling, Rule, Sent};
use crate::cluster::network::Place;
use crate::cluster::phases::{Phase, new_request};
use crate::cluster::processes::State;
use crate::cluster::world::{Action, World, with};
use crate::cluster::{faults, quorum};
use crate::model::layout::{Account, Layout, Transfer};
use crate::sim::client::Client;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::{Disk, Sector, Survived, Zone};
use crate::sim::garbage;
use crate::sim::options::MS;
use crate::sim::platter;
use crate::sim::verdict::{Failure, Verdict, fail, require};
use crate::sim::world::now;
use bytes::Bytes;
use daftari::stdx::{to_u64, u64_to_usize};
use daftari::wire::{ClientState, Evicted, Operation, RequestHeader};
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;
use storage_format::geometry::{HEADERS_PER_SECTOR, SUPERBLOCK_COPY_SIZE};
use storage_format::{Checksum, Geometry, PrepareHeader, PrepareKind, SECTOR_SIZE, Superblock};
use zerocopy::FromBytes;

/// Longest that something may take which a script waits for, in milliseconds.
const LIMIT: u64 = 60_000;

/// The hand of a script on the world of this thread.
#[derive(Clone, Copy, Debug)]
pub struct Script;

/// A place among the frames that were sent: those from here on.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl Mark {
    /// All frames.
    pub const START: Self = Self(0);
}

/// Waits until something holds. It is looked at after every event.
///
/// # Errors
/// When it does not within so many milliseconds.
pub async fn within(
    milliseconds: u64,
    what: impl Into<String>,
    mut holds: impl FnMut() -> bool,
) -> Verdict {
    let deadline = now() + milliseconds * MS;
    let what = what.into();
    std::future::poll_fn(|_| {
        if holds() {
            Poll::Ready(Ok(()))
        } else if now() > deadline {
            Poll::Ready(fail("scenario", format!("it does not happen: {what}")))
        } else {
            Poll::Pending
        }
    })
    .await?;
    with(|world| world.step(|| what));
    Ok(())
}

/// Fails unless something holds.
///
/// # Errors
/// When it does not.
pub fn check(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    require(holds, "scenario", what)
}

impl Script {
    // Waiting.

    /// Waits until something holds.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn until(self, what: impl Into<String>, holds: impl FnMut() -> bool) -> Verdict {
        within(LIMIT, what, holds).await
    }

    /// Waits for so many milliseconds.
    pub async fn wait(self, milliseconds: u64) {
        let end = now() + milliseconds * MS;
        std::future::poll_fn(|_| {
            if now() >= end {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Something holds all the time for so many milliseconds.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stays(
        self,
        milliseconds: u64,
        what: &str,
        mut holds: impl FnMut() -> bool,
    ) -> Verdict {
        let end = now() + milliseconds * MS;
        std::future::poll_fn(|_| {
            if !holds() {
                Poll::Ready(fail("scenario", format!("it does not stay so: {what}")))
            } else if now() >= end {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Waits for a frame that is sent from now on.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn sent(self, filter: Filter) -> Result<Sent, Failure> {
        self.sent_since(self.mark(), filter).await
    }

    /// Waits for a frame that was sent after a mark.
    ///
    /// # Errors
    /// When there is none within a minute.
    pub async fn sent_since(self, mark: Mark, filter: Filter) -> Result<Sent, Failure> {
        let mut looked = mark.0;
        let mut found = None;
        let what = format!("a frame is sent, {filter:?}");
        let find = || {
            with(|world| {
                let sent = &world.directed().sent;
                found = sent[looked..].iter().find(|it| filter.matches(it)).cloned();
                looked = sent.len();
            });
            found.is_some()
        };
        self.until(what, find).await?;
        Ok(found.expect("it was found just now"))
    }

    // The wire.

    /// The frames from now on.
    #[must_use]
    pub fn mark(self) -> Mark {
        Mark(with(|world| world.directed().sent.len()))
    }

    /// The frames that were sent after a mark.
    #[must_use]
    pub fn all_since(self, mark: Mark, filter: &Filter) -> Vec<Sent> {
        with(|world| {
            let sent = &world.directed().sent;
            let found = sent[mark.0..].iter().filter(|it| filter.matches(it));
            found.cloned().collect()
        })
    }

    /// Whether a frame was sent after a mark.
    #[must_use]
    pub fn was_sent(self, mark: Mark, filter: &Filter) -> bool {
        with(|world| {
            let sent = &world.directed().sent;
            sent[mark.0..].iter().any(|it| filter.matches(it))
        })
    }

    /// No frame was sent after a mark.
    ///
    /// # Errors
    /// When one was.
    pub fn none_since(self, mark: Mark, filter: &Filter, why: &str) -> Verdict {
        check(!self.was_sent(mark, filter), || {
            format!("a frame was sent, {filter:?}: {why}")
        })
    }

    /// A frame was sent after a mark.
    ///
    /// # Errors
    /// When none was.
    pub fn some_since(self, mark: Mark, filter: &Filter, why: &str) -> Verdict {
        check(self.was_sent(mark, filter), || {
            format!("no frame was sent, {filter:?}: {why}")
        })
    }

    /// From now on such frames are lost, even if they were sent again and again.
    #[must_use]
    pub fn lose(self, filter: Filter) -> Rule {
        with(|world| world.directed().add_rule(filter, Handling::Lose))
    }

    /// From now on such frames wait until the rule ends.
    #[must_use]
    pub fn hold(self, filter: Filter) -> Rule {
        with(|world| world.directed().add_rule(filter, Handling::Hold))
    }

    /// From now on such frames take so many milliseconds longer.
    #[must_use]
    pub fn delay(self, filter: Filter, milliseconds: u64) -> Rule {
        let handling = Handling::Delay(milliseconds * MS);
        with(|world| world.directed().add_rule(filter, handling))
    }

    /// Ends a rule; what it held is delivered.
    pub fn end(self, rule: Rule) {
        with(|world| world.end_rule(rule));
    }

    /// Frames that a rule was about so far.
    #[must_use]
    pub fn hits(self, rule: Rule) -> u64 {
        with(|world| world.directed().hits(rule))
    }

    /// A frame arrives once more.
    pub fn replay(self, sent: &Sent) {
        with(|world| {
            world.step(|| format!("again {}", crate::sim::describe::frame(&sent.bytes)));
            world.deliver_again(sent);
        });
    }

    /// Cuts what goes from one replica to another.
    pub fn cut_to(self, from: u8, to: u8) {
        with(|world| {
            world.step(|| format!("{from} is cut from {to}"));
            world.network.cut(Place::Replica(from), Place::Replica(to));
        });
    }

    /// Cuts two replicas off each other.
    pub fn cut(self, a: u8, b: u8) {
        self.cut_to(a, b);
        self.cut_to(b, a);
    }

    /// Two replicas hear each other again.
    pub fn join(self, a: u8, b: u8) {
        let (a, b) = (Place::Replica(a), Place::Replica(b));
        with(|world| {
            world.step(|| format!("{a:?} and {b:?} are joined"));
            world.network.join(a, b);
            world.network.join(b, a);
        });
    }

    /// Cuts a replica or a standby off all others.
    pub fn isolate(self, replica: u8) {
        for other in self.other_members(replica) {
            self.cut(replica, other);
        }
    }

    /// Cuts a replica off all clients, in both directions.
    pub fn isolate_from_clients(self, replica: u8) {
        with(|world| {
            for client in (0..world.clients.len()).map(Place::Client) {
                world.network.cut(client, Place::Replica(replica));
                world.network.cut(Place::Replica(replica), client);
            }
        });
    }

    /// A replica hears all others again, and they it; clients as well.
    pub fn rejoin(self, replica: u8) {
        for other in self.other_members(replica) {
            self.join(replica, other);
        }
        with(|world| {
            for client in (0..world.clients.len()).map(Place::Client) {
                world.network.join(client, Place::Replica(replica));
                world.network.join(Place::Replica(replica), client);
            }
        });
    }

    // Processes and clocks.

    /// Replicas that there are.
    #[must_use]
    pub fn replicas(self) -> u8 {
        with(|world| world.options.replicas)
    }

    /// All replicas but one.
    pub fn others(self, replica: u8) -> impl Iterator<Item = u8> {
        (0..self.replicas()).filter(move |other| *other != replica)
    }

    /// All replicas and standbys but one.
    fn other_members(self, member: u8) -> impl Iterator<Item = u8> {
        let members = with(|world| world.members());
        members.filter(move |other| *other != member)
    }

    /// Power of a replica fails.
    pub fn crash(self, replica: u8) {
        with(|world| world.crash(replica));
    }

    /// Power fails, and that becomes of all writes under way.
    pub fn crash_with(self, replica: u8, survived: Survived) {
        with(|world| {
            world.disks[usize::from(replica)].at_crash = Some(survived);
            world.crash(replica);
        });
    }

    /// A replica crashes when its plan says so.
    pub fn plan_crash(self, replica: u8, plan: CrashPlan) {
        with(|world| world.processes[usize::from(replica)].plan = plan);
    }

    /// A replica starts.
    pub fn start(self, replica: u8) {
        with(|world| world.start(replica));
    }

    /// A replica starts, by a binary that has releases up to this one.
    pub fn start_with(self, replica: u8, newest: u32) {
        with(|world| {
            world.processes[usize::from(replica)].newest = newest;
            world.start(replica);
        });
    }

    /// Whether a replica's process is there.
    #[must_use]
    pub fn is_up(self, replica: u8) -> bool {
        with(|world| world.processes[usize::from(replica)].state != State::Down)
    }

    /// Waits until a replica is down.
    ///
    /// # Errors
    /// When it is not within a minute.
    pub async fn down(self, replica: u8) -> Verdict {
        self.until(format!("{replica} is down"), || !self.is_up(replica))
            .await
    }

    /// The disk of a replica that is down is lost; an empty one takes its place.
    pub fn lose_disk(self, replica: u8) {
        with(|world| world.lose_disk(replica));
    }

    /// All that is on the disk of a replica that is down.
    #[must_use]
    pub fn keep_disk(self, replica: u8) -> Vec<Option<Rc<Sector>>> {
        with(|world| {
            let disk = &world.disks[usize::from(replica)];
            disk.snapshot(0, disk.size())
        })
    }

    /// A disk that was taken for lost is found again.
    pub fn find_disk(self, replica: u8, sectors: &[Option<Rc<Sector>>]) {
        with(|world| world.find_disk(replica, sectors));
    }

    /// A replica stands still until it is told to go on.
    pub fn pause(self, replica: u8) {
        with(|world| world.pause(replica, 1_000_000_000 * MS));
    }

    /// It goes on.
    pub fn resume(self, replica: u8) {
        with(|world| faults::revive(world, replica));
    }

    /// The wall clock of a replica steps by so many milliseconds.
    pub fn step_clock(self, replica: u8, milliseconds: i64) {
        with(|world| {
            world.processes[usize::from(replica)]
                .clocks
                .step(milliseconds);
        });
    }

    /// The process of a replica may end by itself.
    pub fn may_exit(self, replica: u8) {
        with(|world| {
            world.directed().may_exit.insert(replica);
        });
    }

    /// Waits until the process of a replica has ended by itself; why it did.
    ///
    /// # Errors
    /// When it has not within a minute.
    pub async fn exited(self, replica: u8) -> Result<daftari::vsr::FatalReason, Failure> {
        let mut reason = None;
        let find = || {
            reason = with(|world| {
                let mut exits = world.directed().exits.iter();
                let found = exits.find(|(other, _)| *other == replica);
                found.map(|(_, reason)| reason.clone())
            });
            reason.is_some()
        };
        self.until(format!("{replica} exits"), find).await?;
        Ok(reason.expect("it was found just now"))
    }

    // Clients.

    /// A client sends a new request, when it has its answer to the one before.
    pub fn issue(self, client: usize) {
        with(|world| {
            let (_, content) = new_request(world);
            world.clients[client].script.push_back(content);
            if world.clients[client].in_flight.is_none() {
                world.arm(client, 0);
            }
        });
    }

    /// A client sends this request, when it has its answer to the one before.
    pub fn issue_this(self, client: usize, operation: Operation, body: Vec<u8>) {
        with(|world| {
            world.phases.note_ids(operation, &body);
            world.clients[client].script.push_back((operation, body));
            if world.clients[client].in_flight.is_none() {
                world.arm(client, 0);
            }
        });
    }

    /// A client creates accounts with these ids.
    pub fn create_accounts(self, client: usize, ids: Range<u128>) {
        let mut body = Vec::new();
        for id in ids {
            let account = Account {
                id,
                ledger: 1,
                code: 1,
                ..Account::zeroed()
            };
            account.encode(&mut body);
        }
        self.issue_this(client, Operation::CreateAccountsUnbatched, body);
    }

    /// A client creates a transfer between two accounts.
    pub fn create_transfer(self, client: usize, transfer: &Transfer) {
        let mut body = Vec::new();
        transfer.encode(&mut body);
        self.issue_this(client, Operation::CreateTransfersUnbatched, body);
    }

    /// A client sends this frame to a replica, beside all else that it does.
    pub fn send_raw(self, client: usize, replica: u8, frame: &Bytes) {
        with(|world| {
            // What is executed has to be what somebody sent.
            world.checker.history.on_request_made(frame);
            let connection = world.network.connect(client, replica);
            let action = Action::FromClient(replica, client, connection, frame.clone());
            world.at(now() + MS, action);
        });
    }

    /// A client gets an eviction for this reason, and deserves it.
    pub fn provoke(self, client: usize, reason: Evicted) {
        with(|world| {
            let client = world.clients[client].state.client;
            world.checker.on_provoked(client, reason.code());
        });
    }

    /// A replica gets a frame that no client would send.
    pub fn send_garbage(self, client: usize, replica: u8) {
        let garbage = with(|world| {
            let state = &world.clients[client].state;
            let garbage = garbage::draw(state, &mut world.random.client);
            for reason in &garbage.reasons {
                world.checker.on_provoked(garbage.client, *reason);
            }
            if state.session == 0 {
                // It names a session, and the client is about to get one.
                let reason = Evicted::NoSession.code();
                world.checker.on_provoked(garbage.client, reason);
            }
            garbage
        });
        self.send_raw(client, replica, &garbage.frame);
    }

    /// What the next request of a client says of its sender.
    #[must_use]
    pub fn client_state(self, client: usize) -> ClientState {
        with(|world| world.clients[client].state)
    }

    /// The request that a client waits for the answer of.
    #[must_use]
    pub fn in_flight(self, client: usize) -> Option<(Checksum, Bytes)> {
        with(|world| {
            let in_flight = world.clients[client].in_flight.as_ref()?;
            let header = RequestHeader::read_from_prefix(&in_flight.frame);
            let (header, _) = header.expect("a whole frame");
            Some((header.checksum, in_flight.frame.clone()))
        })
    }

    /// The ops that executed a request.
    #[must_use]
    pub fn executed(self, request: &Checksum) -> Vec<u64> {
        with(|world| world.checker.history.executed(request).to_vec())
    }

    /// A client dies, and goes on as somebody else: what it waited for is sent again.
    pub fn client_dies(self, client: usize) {
        with(|world| {
            world.clients[client].start_again(false, &mut world.random.client);
            world.arm(client, 0);
        });
    }

    /// Waits until a client has all its answers.
    ///
    /// # Errors
    /// When it has not within a minute.
    pub async fn answered(self, client: usize) -> Verdict {
        let answered = || with(|world| is_idle(&world.clients[client]));
        self.until(format!("client {client} has its answer"), answered)
            .await
    }

    /// Whether a client waits for an answer.
    #[must_use]
    pub fn waits(self, client: usize) -> bool {
        with(|world| world.clients[client].in_flight.is_some())
    }

    /// A client gets answers to so many requests, one after the other.
    ///
    /// # Errors
    /// When it does not within a minute each.
    pub async fn requests(self, client: usize, count: u64) -> Verdict {
        for _ in 0..count {
            self.issue(client);
            self.answered(client).await?;
        }
        Ok(())
    }

    /// All clients send so many requests more, together.
    pub fn load(self, requests: u64) {
        with(|world| {
            world.options.requests = world.phases.issued() + requests;
            for client in 0..world.clients.len() - 1 {
                if world.clients[client].in_flight.is_none() {
                    world.arm(client, 0);
                }
            }
        });
    }

    /// Waits until no client has anything to do.
    ///
    /// # Errors
    /// When they are not within a minute.
    pub async fn idle(self) -> Verdict {
        let idle = |world: &mut World| {
            let issued = world.phases.issued() >= world.options.requests;
            issued && world.clients.iter().all(is_idle)
        };
        self.until("all clients have their answers", || with(idle))
            .await
    }

    // Platters.

    /// Sizes of the data files.
    #[must_use]
    pub fn geometry(self) -> Geometry {
        with(|world| world.options.geometry)
    }

    /// Slots of the journal.
    #[must_use]
    pub fn slots(self) -> u64 {
        u64::from(self.geometry().journal_slot_count.get())
    }

    /// The superblock of a replica.
    #[must_use]
    pub fn superblock(self, replica: u8) -> Superblock {
        with(|world| world.checker.platter(replica).superblock)
    }

    /// The durable view of a replica.
    #[must_use]
    pub fn view(self, replica: u8) -> u32 {
        self.superblock(replica).view.get()
    }

    /// The checkpoint of a replica.
    #[must_use]
    pub fn checkpoint(self, replica: u8) -> u64 {
        self.superblock(replica).checkpoint.op.get()
    }

    /// The prepare of an op that is whole on the platter of a replica.
    #[must_use]
    pub fn prepare(self, replica: u8, op: u64) -> Option<PrepareHeader> {
        with(|world| {
            let disk = &world.disks[usize::from(replica)];
            let found = platter::prepare_at(disk, &world.options.geometry, op);
            found.filter(|header| header.op.get() == op && header.kind() != PrepareKind::Empty)
        })
    }

    /// Whether an op is whole on the platter of a replica.
    #[must_use]
    pub fn has(self, replica: u8, op: u64) -> bool {
        self.prepare(replica, op).is_some()
    }

    /// The highest committed op.
    #[must_use]
    pub fn committed(self) -> u64 {
        with(|world| world.checker.history.head())
    }

    /// The committed prepare of an op.
    #[must_use]
    pub fn history(self, op: u64) -> Option<PrepareHeader> {
        with(|world| world.checker.history.prepare(op).copied())
    }

    /// Replicas of a replication quorum.
    #[must_use]
    pub fn quorum(self) -> usize {
        quorum::replication(self.replicas())
    }

    /// The primary of the newest view on any platter.
    #[must_use]
    pub fn primary(self) -> u8 {
        with(|world| world.checker.primary())
    }

    /// The newest view on any platter.
    #[must_use]
    pub fn newest_view(self) -> u32 {
        with(|world| world.checker.newest_view())
    }

    /// Waits until all replicas have the same, and nothing is under way.
    ///
    /// # Errors
    /// When they have not within a minute.
    pub async fn settle(self) -> Verdict {
        self.idle().await?;
        let missing = || with(|world| world.checker.missing(&world.disks));
        let written = |disk: &Disk| {
            let copies = platter::copies(disk);
            let same = copies
                .windows(2)
                .all(|pair| pair[0].checksum == pair[1].checksum);
            same && disk.writes().next().is_none()
        };
        let quiet = || with(|world| world.disks.iter().all(written));
        let same = self.until("all replicas have the same", || {
            missing().is_none() && quiet()
        });
        same.await.map_err(|failure| Failure {
            what: format!("{}: {:?}", failure.what, missing()),
            ..failure
        })
    }

    /// Waits until a replica has all that is committed, and has said so.
    ///
    /// # Errors
    /// When it has not within a minute.
    pub async fn caught_up(self, replica: u8) -> Verdict {
        let whole = |world: &mut World| {
            let head = world.checker.history.head();
            let platter = world.checker.platter(replica);
            let mut ops = platter.checkpoint() + 1..=head;
            let whole = ops.all(|op| {
                let disk = &world.disks[usize::from(replica)];
                let found = platter::prepare_at(disk, &world.options.geometry, op);
                found.as_ref() == world.checker.history.prepare(op)
            });
            whole && platter.commit_named == head
        };
        self.until(format!("{replica} has all that is committed"), || {
            with(whole)
        })
        .await
    }

    /// Waits until a view is at work, the first two clients have a session, and all replicas have the same. Gives
    /// the replicas, the primary first, and then in the order in which they become it.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    ///
    /// # Panics
    /// When there are not so many replicas.
    pub async fn begin<const COUNT: usize>(self) -> Result<[u8; COUNT], Failure> {
        let clients = with(|world| world.clients.len() - 1);
        for client in 0..clients.min(2) {
            self.until("the data files are made", || {
                with(|world| world.phases.phase == Phase::Faults)
            })
            .await?;
            self.issue(client);
        }
        self.settle().await?;
        let (primary, count) = (self.primary(), self.replicas());
        let mut roles = (0..count).map(|step| (primary + step) % count);
        let roles = std::array::from_fn(|_| roles.next().expect("so many replicas"));
        with(|world| world.step(|| format!("all is set up, {roles:?}")));
        Ok(roles)
    }

    // Damage, and disks that are slow or wrong.

    /// Writes of a zone wait.
    pub fn stall(self, replica: u8, zone: Zone) {
        with(|world| {
            world.step(|| format!("writes of {replica} to {zone:?} wait"));
            world.directed().stall(replica, zone);
        });
    }

    /// They wait no more.
    pub fn unstall(self, replica: u8, zone: Zone) {
        with(|world| {
            world.step(|| format!("writes of {replica} to {zone:?} go on"));
            world.end_stall(replica, zone);
        });
    }

    /// Makes a disk so many times slower than usual.
    pub fn slow(self, replica: u8, factor: u64) {
        with(|world| world.directed().slow_down(replica, factor));
    }

    /// Where the writes of a zone go that are under way.
    #[must_use]
    pub fn writing(self, replica: u8, zone: Zone) -> Vec<u64> {
        with(|world| {
            let writes = world.disks[usize::from(replica)].writes();
            let of_zone = writes.filter(|write| write.zone == zone);
            of_zone.map(|write| write.offset).collect()
        })
    }

    /// The next write of a zone is done, and nothing is there.
    pub fn lose_write(self, replica: u8, zone: Zone) {
        with(|world| world.directed().send_astray(replica, zone, None));
    }

    /// The next write of a zone is done, and what was written is elsewhere.
    pub fn misdirect_write(self, replica: u8, zone: Zone, offset: u64) {
        with(|world| world.directed().send_astray(replica, zone, Some(offset)));
    }

    /// The prepare of an op rots.
    pub fn damage_prepare(self, replica: u8, op: u64) {
        let offset = platter::slot_offset(&self.geometry(), op);
        let slot = op % self.slots();
        with(|world| world.checker.on_rot(replica, slot));
        self.damage(replica, offset, Zone::Prepares);
    }

    /// The redundant header of an op rots, and none of its neighbours.
    pub fn damage_header(self, replica: u8, op: u64) {
        let slot = op % self.slots();
        let sector = slot / to_u64(HEADERS_PER_SECTOR);
        let offset = self.geometry().headers_offset() + sector * to_u64(SECTOR_SIZE);
        with(|world| {
            world.checker.on_rot(replica, slot);
            let mut bytes = world.disks[usize::from(replica)].bytes(offset, SECTOR_SIZE);
            let random = &mut world.random.fault;
            let at = u64_to_usize(slot) % HEADERS_PER_SECTOR * 256 + random.index(256);
            bytes[at] ^= 1 << random.below(8);
            overwrite(world, replica, offset, &bytes);
            world.directed().damaged.insert(Zone::Prepares);
        });
    }

    /// A sector of headers rots: that with the header of an op.
    pub fn damage_header_sector(self, replica: u8, op: u64) {
        let slots = op % self.slots() / to_u64(HEADERS_PER_SECTOR) * to_u64(HEADERS_PER_SECTOR);
        let offset = self.geometry().headers_offset() + slots * 256;
        with(|world| {
            for slot in slots..slots + to_u64(HEADERS_PER_SECTOR) {
                world.checker.on_rot(replica, slot);
            }
            overwrite(world, replica, offset, &[0xa5; SECTOR_SIZE]);
            world.directed().damaged.insert(Zone::Prepares);
        });
    }

    /// A block rots: its first page, which has what all others are checked with.
    pub fn damage_block(self, replica: u8, address: u64) {
        let offset = self.geometry().block_offset(address);
        with(|world| world.checker.on_block_rot(replica, address));
        self.damage(replica, offset, Zone::Grid);
    }

    /// A block that rotted is as it was: the disk could not read it for a while.
    pub fn heal_block(self, replica: u8, address: u64, first: &[u8]) {
        let offset = self.geometry().block_offset(address);
        self.overwrite(replica, offset, first, Zone::Grid);
        with(|world| world.checker.on_block_healed(replica, address));
    }

    /// The next read of a block gives something else, once.
    pub fn misread_block(self, replica: u8, address: u64) {
        let offset = self.geometry().block_offset(address);
        with(|world| world.directed().misread(replica, offset));
    }

    /// Blocks of the checkpoint of a replica that are not damaged.
    #[must_use]
    pub fn blocks(self, replica: u8) -> Vec<u64> {
        with(|world| world.checker.blocks(replica))
    }

    /// A copy of the superblock rots.
    pub fn damage_copy(self, replica: u8, copy: usize) {
        let offset = to_u64(copy * SUPERBLOCK_COPY_SIZE);
        self.damage(replica, offset, Zone::Superblock);
    }

    /// All stored replies of a replica rot.
    pub fn damage_replies(self, replica: u8) {
        let geometry = self.geometry();
        for slot in 0..u64::from(geometry.session_count_max.get()) {
            let offset = geometry.reply_offset(slot);
            self.overwrite(replica, offset, &[0xa5; SECTOR_SIZE], Zone::Replies);
        }
    }

    /// The sector at an offset rots.
    pub fn damage(self, replica: u8, offset: u64, zone: Zone) {
        with(|world| {
            world.step(|| format!("{zone:?} of {replica} rots at {offset}"));
            let before = world.disks[usize::from(replica)].bytes(offset, SECTOR_SIZE);
            let disk = &mut world.disks[usize::from(replica)];
            disk.damage(offset, &mut world.random.fault);
            let directed = world.directed();
            directed.undo.push((replica, offset, before));
            directed.damaged.insert(zone);
        });
    }

    /// Whole sectors of a platter become something else.
    pub fn overwrite(self, replica: u8, offset: u64, bytes: &[u8], zone: Zone) {
        with(|world| {
            world.step(|| format!("{zone:?} of {replica} changes at {offset}"));
            overwrite(world, replica, offset, bytes);
            world.directed().damaged.insert(zone);
        });
    }

    /// Bytes of a platter.
    #[must_use]
    pub fn bytes(self, replica: u8, offset: u64, size: usize) -> Vec<u8> {
        with(|world| world.disks[usize::from(replica)].bytes(offset, size))
    }

    /// Takes all damage of platters back: what was lost comes from a copy that somebody kept. The
    /// replicas have to be down.
    ///
    /// # Panics
    /// When one is not.
    pub fn undo_damage(self) {
        with(|world| {
            for (replica, offset, before) in std::mem::take(&mut world.directed().undo).iter().rev()
            {
                let process = &world.processes[usize::from(*replica)];
                assert_eq!(process.state, State::Down);
                world.disks[usize::from(*replica)].put(*offset, before);
            }
        });
    }

    /// A number below a bound, from the seed.
    #[must_use]
    pub fn below(self, bound: u64) -> u64 {
        with(|world| world.random.fault.below(bound))
    }
}

/// Whether a client has nothing to do.
fn is_idle(client: &Client) -> bool {
    client.in_flight.is_none() && client.script.is_empty()
}

fn overwrite(world: &mut World, replica: u8, offset: u64, bytes: &[u8]) {
    let disk = &mut world.disks[usize::from(replica)];
    let before = disk.bytes(offset, bytes.len());
    disk.put(offset, bytes);
    world.directed().undo.push((replica, offset, before));
}
