//! The phases of a run, from format to the last comparison.
//!
//! Clients work while everything fails; then everything is healed, and all replicas have to come to the
//! same state, and every client to its answer. Every id that was ever used is read back through the
//! protocol, before and after a restart of all replicas.

use super::faults;
use super::network::LinkFaults;
use super::world::{Action, World};
use crate::sim::client::Client;
use crate::sim::draws::Draws;
use crate::sim::ids::Ids;
use crate::sim::options::MS;
use crate::sim::verdict::fail;
use crate::sim::world::now;
use crate::timeline::Mark;
use daftari::stdx::to_u64;
use daftari::wire::Operation;

/// Where a run stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// The data files are made.
    Format,
    /// Clients work, faults happen.
    Faults,
    /// Nothing fails any more; all replicas come to the same state.
    Converge,
    /// Everything is read back.
    ReadBack,
    /// All replicas were restarted; they come to the same state.
    ConvergeAgain,
    /// Everything is read back once more.
    ReadAgain,
}

/// Longest that clients work, in nanoseconds; what they have not asked for by then, they never do.
const FAULTS_MAX: u64 = 600_000 * MS;
/// Longest from one reply to the next while everything fails (LV1).
const SILENCE_MAX: u64 = 1_000_000 * MS;
/// Longest that any later phase may take (LV2).
const PHASE_MAX: u64 = 600_000 * MS;
/// How long a cluster that is whole may look for a view to stay in (LV4).
const STABLE: u64 = 30_000 * MS;
/// What is reported as slow.
const PHASE_SLOW: u64 = 60_000 * MS;

/// See the module.
#[derive(Debug)]
pub struct Phases {
    /// Where the run stands.
    pub phase: Phase,
    since: u64,
    issued: u64,
    formatted: u8,
    replied: u64,
    ids: Ids,
    /// Primaries that are still to be stopped before everything is read back once more.
    depositions: u8,
    /// Why the cluster has to stand still, if it has.
    pub unavailable: Option<String>,
    /// The newest view when the cluster had been whole for [`STABLE`].
    view_stable: Option<u32>,
}

impl Phases {
    /// A run that begins.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Format,
            since: 0,
            issued: 0,
            formatted: 0,
            replied: 0,
            ids: Ids::default(),
            depositions: 0,
            view_stable: None,
            unavailable: None,
        }
    }

    /// What a link does in this phase: in the end only its delay is left.
    #[must_use]
    pub fn links(&self, faults: &LinkFaults) -> LinkFaults {
        if self.phase == Phase::Faults {
            return *faults;
        }
        LinkFaults {
            lost: 0,
            replayed: 0,
            ..*faults
        }
    }

    /// A client got its reply.
    pub fn on_reply(&mut self, now: u64) {
        self.replied = now;
    }
}

impl Default for Phases {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    fn enter(&mut self, phase: Phase) {
        self.tell(None, Mark::Phase, || format!("phase {phase:?}"));
        self.phases.phase = phase;
        self.phases.since = now();
        self.phases.view_stable = None;
    }

    /// The client that reads back.
    fn auditor(&self) -> usize {
        self.clients.len() - 1
    }
}

/// A data file is made: with the last of them everything begins.
pub fn on_formatted(world: &mut World) {
    world.phases.formatted += 1;
    if world.phases.formatted < world.options.members() {
        return;
    }
    world.enter(Phase::Faults);
    for replica in world.members() {
        world.processes[usize::from(replica)].state = super::processes::State::Down;
        let disk = &mut world.disks[usize::from(replica)];
        disk.formatting = false;
        world.checker.on_formatted(disk, replica);
        let delay = world.random.fault.exponential(100 * MS);
        world.at(now() + delay, Action::Start(replica));
    }
    if world.is_directed() {
        // Clients wait to be told.
        return;
    }
    for client in 0..world.auditor() {
        let delay = world.random.client.exponential(300 * MS);
        world.arm(client, delay);
    }
    faults::begin(world);
}

/// What a client sends next, and how long it waits before; `None` when there is nothing to do.
pub fn next_request(world: &mut World, client: usize) -> Option<(u64, (Operation, Vec<u8>))> {
    let over = world.phases.phase != Phase::Faults || world.phases.issued >= world.options.requests;
    if over || client == world.auditor() {
        return None;
    }
    world.phases.issued += 1;
    let (pause, content) = new_request(world);
    // A script has to know how long things take.
    let pause = if world.is_directed() { MS } else { pause };
    Some((pause, content))
}

/// A new request, and how long its client would wait before.
pub fn new_request(world: &mut World) -> (u64, (Operation, Vec<u8>)) {
    let request = world.generator.request();
    let operation = Operation::from_u8(request.operation).expect("it is an operation");
    world.phases.ids.note(operation, &request.body);
    (request.pause, (operation, request.body))
}

impl Phases {
    /// Requests that clients began so far of those that they may.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// Remembers the ids of a request that did not come from the generator.
    pub fn note_ids(&mut self, operation: Operation, body: &[u8]) {
        self.ids.note(operation, body);
    }
}

/// Looks whether a phase is over.
pub fn look(world: &mut World) {
    let elapsed = now() - world.phases.since;
    let idle = |client: &Client| client.in_flight.is_none() && client.script.is_empty();
    let all_idle = world.clients.iter().all(idle);
    match world.phases.phase {
        Phase::Format => {}
        Phase::Faults => {
            if now() - world.phases.replied > SILENCE_MAX && !world.options.wild {
                world.judge(fail("liveness", "no client gets a reply (LV1)"));
            }
            let done = match &world.directed {
                Some(directed) => directed.over,
                None => world.phases.issued >= world.options.requests && all_idle,
            };
            if world.is_directed() && elapsed > FAULTS_MAX {
                world.judge(fail("scenario", "the script does not come to its end"));
            }
            if done || elapsed > FAULTS_MAX {
                calm_down(world);
                world.enter(Phase::Converge);
            } else {
                faults::bring_back(world);
            }
        }
        Phase::Converge | Phase::ConvergeAgain => {
            let missing = match world.checker.missing(&world.disks) {
                None if !all_idle => Some("a client waits for its reply".into()),
                missing => missing,
            };
            check_views(world, elapsed);
            if world.stage.finished {
                return;
            }
            match missing {
                None => on_converged(world, elapsed),
                Some(what) if elapsed > PHASE_MAX => stuck(world, what),
                Some(_) => {}
            }
        }
        Phase::ReadBack | Phase::ReadAgain => {
            if all_idle && world.phases.depositions > 0 {
                depose(world);
            } else if all_idle && world.phases.phase == Phase::ReadBack {
                restart(world);
            } else if all_idle {
                let verdict = world.checker.finish();
                world.judge(verdict);
                world.stage.finished = true;
            } else if elapsed > PHASE_MAX {
                stuck(world, "the state cannot be read back (LV3)".into());
            }
        }
    }
}

/// Views do not go on to change in a cluster that is whole (LV4).
fn check_views(world: &mut World, elapsed: u64) {
    if elapsed < STABLE {
        return;
    }
    let newest = world.checker.newest_view();
    let stable = *world.phases.view_stable.get_or_insert(newest);
    if newest > stable + 2 * u32::from(world.options.replicas) {
        stuck(
            world,
            format!("views go on to change, from {stable} to {newest} (LV4)"),
        );
    }
}

/// The cluster does not come on, though nothing fails any more. That is a failure, unless the seed may damage
/// everything, and something that is needed is whole nowhere.
fn stuck(world: &mut World, what: String) {
    let wild = world.options.wild;
    let proof = wild.then(|| world.checker.proof(&world.disks)).flatten();
    let Some(proof) = proof else {
        return world.judge(fail("liveness", what));
    };
    world.trace(|| format!("it stands still, {what}: {proof}"));
    world.checker.counts.unavailable += 1;
    world.phases.unavailable = Some(format!("{what}; {proof}"));
    let verdict = world.checker.finish();
    world.judge(verdict);
    world.stage.finished = true;
}

/// Nothing fails from now on.
fn calm_down(world: &mut World) {
    world.phases.phase = Phase::Converge;
    world.phases.depositions = (world.options.replicas - 1).min(2);
    world.network.heal();
    world.end_directions();
    for replica in world.members() {
        faults::revive(world, replica);
    }
}

fn on_converged(world: &mut World, elapsed: u64) {
    world.checker.counts.slow += u64::from(elapsed > PHASE_SLOW);
    let verdict = world.checker.compare(&world.disks);
    world.judge(verdict);
    let next = if world.phases.phase == Phase::Converge {
        Phase::ReadBack
    } else {
        Phase::ReadAgain
    };
    world.enter(next);
    let auditor = world.auditor();
    world.clients[auditor].script = world.phases.ids.lookups();
    world.arm(auditor, MS);
}

/// The primary is stopped for a while, so that another one has to answer.
fn depose(world: &mut World) {
    world.phases.depositions -= 1;
    world.enter(Phase::Converge);
    let primary = world.checker.primary();
    world.crash(primary);
    world.at(now() + 3_000 * MS, Action::Start(primary));
}

/// The power of all replicas fails, and comes back.
fn restart(world: &mut World) {
    world.enter(Phase::ConvergeAgain);
    for replica in world.members() {
        world.crash(replica);
        let delay = to_u64(world.random.fault.index(500)) * MS;
        world.at(now() + delay, Action::Start(replica));
    }
}
