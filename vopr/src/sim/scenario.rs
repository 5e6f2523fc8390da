//! The phases of a run, from format to the last comparison.
//!
//! Clients work while everything fails; then the faults stop, every client gets its answer, every id
//! that was ever used is read back through the protocol, before and after one more restart; and in
//! some seeds the file is broken beyond repair in the end, and the replica has to refuse it.

use super::crash_plan::CrashPlan;
use super::disk::Sector;
use super::draws::Draws;
use super::ids::Ids;
use super::options::{Ending, MS};
use super::platter;
use super::rot;
use super::verdict::fail;
use super::world::{Action, World, now};
use crate::generate::Request;
use daftari::io::Incoming;
use daftari::stdx::{to_u64, to_usize};
use daftari::vsr::FatalReason;
use daftari::wire::Operation;
use std::collections::BTreeMap;
use std::rc::Rc;
use storage_format::{PrepareHeader, SECTOR_SIZE, SuperblockError};
use zerocopy::FromBytes;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// The data file is made.
    Format,
    /// Clients work, faults happen.
    Run,
    /// No faults and no requests; pending transfers may expire.
    Settle,
    /// Everything is read back.
    ReadBack,
    /// The replica shuts down.
    Stop,
    /// Everything is read back after a restart.
    ReadAgain,
    /// The replica shuts down for the last time.
    StopAgain,
    /// The file is broken: the replica has to refuse it.
    Refuse,
    /// A block is broken: the replica serves what is right, or stops.
    Rot,
    /// The replica shuts down without having met the broken block.
    StopRot,
}

/// Longest that a phase may take, in nanoseconds: longer means that something hangs.
const RUN_MAX: u64 = 20_000_000 * MS;
/// The same for all other phases.
const PHASE_MAX: u64 = 10_000_000 * MS;
/// Longest that a replica may take to refuse a broken file.
const REFUSE_MAX: u64 = 300_000 * MS;

/// What a slot of the journal held before it was written last.
#[derive(Clone, Debug)]
pub struct Before {
    prepare: Vec<Option<Rc<Sector>>>,
    header: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Scenario {
    /// Where the run stands.
    pub phase: Phase,
    since: u64,
    issued: u64,
    ids: Ids,
    /// By op.
    before: BTreeMap<u64, Before>,
    /// The block that was broken in the end.
    broken: Option<u64>,
}

impl Scenario {
    /// A run that begins.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Format,
            since: 0,
            issued: 0,
            ids: Ids::default(),
            before: BTreeMap::new(),
            broken: None,
        }
    }

    /// Whether the block at an address was broken on purpose.
    #[must_use]
    pub fn is_broken(&self, address: u64) -> bool {
        self.broken == Some(address)
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = now();
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self::new()
    }
}

/// The data file is made: everything begins.
pub fn on_formatted(world: &mut World) {
    world.running = false;
    world.disk.formatting = false;
    world.scenario.enter(Phase::Run);
    world.at(now(), Action::Start);
    for client in 0..world.auditor() {
        let delay = world.random.client.exponential(100 * MS);
        world.arm(client, delay);
    }
}

impl Scenario {
    /// Requests that clients began so far of those that they may.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued
    }
}

/// What a client sends next, and how long it waits before; `None` when there is nothing to do.
pub fn next_request(world: &mut World, client: usize) -> Option<(u64, (Operation, Vec<u8>))> {
    if world.scenario.phase != Phase::Run
        || client == world.auditor()
        || world.scenario.issued >= world.options.requests
    {
        return None;
    }
    world.scenario.issued += 1;
    let request = world.generator.request();
    let operation = Operation::from_u8(request.operation).expect("it is an operation");
    world.scenario.ids.note(operation, &request.body);
    Some((request.pause, (operation, request.body)))
}

/// A prepare is about to be written over what is in its slot.
pub fn before_prepare(world: &mut World, offset: u64, data: &[u8]) {
    let geometry = world.options.geometry;
    let (header, _) = PrepareHeader::read_from_prefix(data).expect("at least a sector");
    let slot = header.op.get() % world.slots();
    let size = u64::from(geometry.journal_slot_size.get());
    let sector = geometry.headers_offset() + slot / 16 * to_u64(SECTOR_SIZE);
    let at = to_usize(u32::try_from(slot % 16).expect("below 16")) * 256;
    let header_bytes = world.disk.bytes(sector, SECTOR_SIZE)[at..at + 256].to_vec();
    let before = Before {
        prepare: world.disk.snapshot(offset, size),
        header: header_bytes,
    };
    let op = header.op.get();
    world.scenario.before.insert(op, before);
    let slots = world.slots();
    world.scenario.before.retain(|other, _| *other + slots > op);
}

/// Looks whether a phase is over.
pub fn look(world: &mut World) {
    let elapsed = now() - world.scenario.since;
    let phase = world.scenario.phase;
    let limit = if phase == Phase::Run {
        RUN_MAX
    } else {
        PHASE_MAX
    };
    if elapsed > limit {
        let what = format!("phase {phase:?} does not end");
        world.judge(fail("liveness", what));
        return;
    }
    match phase {
        Phase::Run => {
            let idle = |client: &super::client::Client| {
                client.in_flight.is_none() && client.script.is_empty()
            };
            let issued = world.scenario.issued >= world.options.requests;
            if issued && world.clients.iter().all(idle) {
                stop_faults(world);
                world.scenario.enter(Phase::Settle);
            }
        }
        Phase::Settle => {
            // What waits for a slow disk is not overdue.
            let calm = now().saturating_sub(world.slow_done);
            if world.running && elapsed.min(calm) > 4_000 * MS {
                settle(world);
            }
        }
        Phase::ReadBack | Phase::ReadAgain => {
            let auditor = &world.clients[world.auditor()];
            if auditor.in_flight.is_none() && auditor.script.is_empty() {
                world.network.put(Incoming::Shutdown);
                let next = if phase == Phase::ReadBack {
                    Phase::Stop
                } else {
                    Phase::StopAgain
                };
                world.scenario.enter(next);
            }
        }
        Phase::Refuse => {
            if elapsed > REFUSE_MAX {
                let ending = world.options.ending;
                world.judge(fail("I28", format!("{ending:?}: the file was opened")));
            }
        }
        Phase::Rot => {
            let auditor = &world.clients[world.auditor()];
            if world.running && auditor.in_flight.is_none() && auditor.script.is_empty() {
                world.network.put(Incoming::Shutdown);
                world.scenario.enter(Phase::StopRot);
            }
        }
        Phase::Format | Phase::Stop | Phase::StopAgain | Phase::StopRot => {}
    }
}

fn stop_faults(world: &mut World) {
    world.plan = CrashPlan::Never;
    world.options.crashes = 0;
    world.network.faults.lost = 0;
    world.network.faults.replayed = 0;
    world.options.speed.stalls = 0;
}

/// Nothing was asked for a while: nothing may be overdue.
fn settle(world: &mut World) {
    let overdue = world.realtime() - 3_000 * MS;
    if world.checker.history.model().pulse_due(overdue) {
        world.judge(fail(
            "C07",
            "pending transfers are overdue, and no pulse came",
        ));
        return;
    }
    read_back(world, Phase::ReadBack);
}

fn read_back(world: &mut World, phase: Phase) {
    world.scenario.enter(phase);
    let auditor = world.auditor();
    world.clients[auditor].script = world.scenario.ids.lookups();
    world.arm(auditor, MS);
}

/// The replica's process ended.
pub fn on_exit(world: &mut World, result: Result<(), FatalReason>) {
    match (world.scenario.phase, result) {
        (Phase::Stop, Ok(())) => {
            world.at(now() + 10 * MS, Action::Start);
            read_back(world, Phase::ReadAgain);
        }
        (Phase::StopAgain, Ok(())) => {
            let verdict = world.checker.history.finish();
            world.judge(verdict);
            if !spoil(world) {
                world.stage.finished = true;
                return;
            }
            let rots = matches!(
                world.options.ending,
                Ending::RotBlock | Ending::RotBlockLater
            );
            if rots {
                read_rotten(world);
            } else {
                world.scenario.enter(Phase::Refuse);
            }
            world.at(now() + 10 * MS, Action::Start);
        }
        (Phase::StopRot, Ok(())) => {
            world.counts.rot_unseen += 1;
            world.stage.finished = true;
        }
        (Phase::Rot | Phase::StopRot, Err(FatalReason::Block { address, .. }))
            if world.scenario.broken == Some(address) =>
        {
            world.counts.rot_stopped += 1;
            world.stage.finished = true;
        }
        (Phase::Refuse, Err(reason)) => {
            let ending = world.options.ending;
            let right = match ending {
                Ending::Clean | Ending::RotBlock | Ending::RotBlockLater => false,
                Ending::DamagePrepare => matches!(reason, FatalReason::JournalSlot { .. }),
                Ending::LostWrites => matches!(
                    reason,
                    FatalReason::JournalGap { .. } | FatalReason::JournalSlot { .. }
                ),
                Ending::DamageBlock => matches!(
                    reason,
                    FatalReason::Block { address, .. } if world.scenario.broken == Some(address)
                ),
                Ending::DamageSuperblock => {
                    matches!(
                        reason,
                        FatalReason::Superblock(SuperblockError::NoQuorum { .. })
                    )
                }
            };
            world.counts.refused += 1;
            world.stage.finished = true;
            if !right {
                world.judge(fail("I28", format!("{ending:?}: the reason is {reason:?}")));
            }
        }
        (phase, Ok(())) => {
            world.judge(fail(
                "liveness",
                format!("the replica left in phase {phase:?}"),
            ));
        }
        (phase, Err(reason)) => {
            world.judge(fail("fatal", format!("{phase:?}: {reason:?}: {reason}")));
        }
    }
}

/// The replica sent something.
pub fn on_served(world: &mut World) {
    if world.scenario.phase == Phase::Refuse {
        let ending = world.options.ending;
        world.judge(fail("I28", format!("{ending:?}: the replica serves")));
    }
    let later = world.options.ending == Ending::RotBlockLater;
    if world.scenario.phase == Phase::Rot && later && world.scenario.broken.is_none() {
        break_block(world);
    }
}

/// Damages a block that the replica does not need to open the file.
fn break_block(world: &mut World) -> bool {
    let Some(superblock) = platter::superblock(&world.disk) else {
        return false;
    };
    let blocks = rot::blocks(&world.disk, &superblock).later;
    let random = &mut world.random.fault;
    let broken = rot::damage(&mut world.disk, &superblock, &blocks, random);
    world.scenario.broken = broken;
    world.checker.protected.damaged = broken.into_iter().collect();
    broken.is_some()
}

/// Everything is read while a block is rotten, and some is written, so that merges go on.
fn read_rotten(world: &mut World) {
    world.scenario.enter(Phase::Rot);
    let mut script = world.scenario.ids.everything(&mut world.random.client);
    for _ in 0..150 {
        let Request {
            operation, body, ..
        } = world.generator.request();
        let operation = Operation::from_u8(operation).expect("it is an operation");
        script.push_back((operation, body));
    }
    let auditor = world.auditor();
    world.clients[auditor].script = script;
    world.arm(auditor, MS);
}

/// Breaks the file as the ending says; `false` when there is nothing to break.
fn spoil(world: &mut World) -> bool {
    let geometry = world.options.geometry;
    let Some(superblock) = platter::superblock(&world.disk) else {
        return false;
    };
    let checkpoint = superblock.checkpoint.op.get();
    let head = world.checker.history.head();
    let random = &mut world.random.fault;
    match world.options.ending {
        Ending::Clean => false,
        Ending::DamagePrepare => {
            if checkpoint == head {
                return false;
            }
            let op = random.between(checkpoint + 1, head);
            let offset = platter::slot_offset(&geometry, op);
            let prepare = platter::prepare_at(&world.disk, &geometry, op);
            let sectors =
                to_usize(prepare.expect("it is committed").size.get()).div_ceil(SECTOR_SIZE);
            let at = offset + to_u64(random.index(sectors) * SECTOR_SIZE);
            world.disk.damage(at, random);
            true
        }
        Ending::LostWrites => {
            if checkpoint + 1 >= head {
                return false;
            }
            let op = random.between(checkpoint + 1, head - 1);
            lose_writes(world, op)
        }
        Ending::DamageBlock => {
            let blocks = rot::blocks(&world.disk, &superblock).at_open;
            let broken = rot::damage(&mut world.disk, &superblock, &blocks, random);
            world.scenario.broken = broken;
            broken.is_some()
        }
        Ending::RotBlock => break_block(world),
        Ending::RotBlockLater => checkpoint > 0,
        Ending::DamageSuperblock => {
            let spared = random.below(4);
            for copy in (0..4).filter(|copy| *copy != spared) {
                world.disk.put(copy * 8192, &[0xa5; SECTOR_SIZE]);
            }
            true
        }
    }
}

/// Takes both writes of an op back, as a disk does that lost them.
fn lose_writes(world: &mut World, op: u64) -> bool {
    let geometry = world.options.geometry;
    let Some(before) = world.scenario.before.get(&op).cloned() else {
        return false;
    };
    world
        .disk
        .restore(platter::slot_offset(&geometry, op), &before.prepare);
    let slot = op % world.slots();
    let sector = geometry.headers_offset() + slot / 16 * to_u64(SECTOR_SIZE);
    let at = to_usize(u32::try_from(slot % 16).expect("below 16")) * 256;
    let mut bytes = world.disk.bytes(sector, SECTOR_SIZE);
    bytes[at..at + 256].copy_from_slice(&before.header);
    world.disk.put(sector, &bytes);
    true
}
