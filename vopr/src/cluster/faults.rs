//! What goes wrong, when, and for how long; and the limit up to which a replica may lag.
//!
//! A replica that lacks ops which nobody has in the journal any more has to be sent a checkpoint. In half
//! of the seeds whoever lags is brought back in time, and clients wait for it, so that it comes on alone.

use super::network::Place;
use super::phases::Phase;
use super::processes::State;
use super::world::{Action, World, kind};
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::disk::{Survived, Write};
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use crate::sim::world::now;
use crate::timeline::Mark;

/// Chooses when the next crash of a replica comes; `starting` when it is about to recover.
pub fn plan_crash(world: &mut World, replica: u8, starting: bool) {
    let plan = if world.options.processes.crashes == 0 || !may_fail(world, replica) {
        CrashPlan::Never
    } else {
        world.options.processes.crashes -= 1;
        let distance = world.options.processes.crash_distance;
        CrashPlan::new(starting, distance, &mut world.random.fault)
    };
    world.processes[usize::from(replica)].plan = plan;
}

/// The plan of a replica says that it crashes now; whether it does. If not, it gets another plan, as it would
/// at its next start.
pub fn strikes(world: &mut World, replica: u8) -> bool {
    world.processes[usize::from(replica)].plan = CrashPlan::Never;
    if world.is_directed() || inject_crash(world, replica) {
        return true;
    }
    // The one draw of a crash.
    let _own = world.random.fault.any();
    plan_crash(world, replica, false);
    false
}

fn inject_crash(world: &mut World, replica: u8) -> bool {
    let place = Some(Place::Replica(replica));
    let what = || format!("power of {replica} fails");
    world.stage.inject(Family::Crash, place, what)
}

/// Whether a replica may be made to fail now.
fn may_fail(world: &World, replica: u8) -> bool {
    world.phases.phase == Phase::Faults && !world.checker.lags(replica)
}

/// A replica crashed: what rots, who crashes with it, and when it starts again.
/// All draws of a crash are from its `random`.
pub fn after_crash(
    world: &mut World,
    replica: u8,
    writes: &[(Write, Survived)],
    random: &mut Random,
) {
    if world.phases.phase != Phase::Faults || world.is_directed() {
        return;
    }
    super::rot::at_crash(world, replica, writes, random);
    let (options, standby) = (&world.options, world.options.is_standby(replica));
    let lost = if standby {
        random.chance(options.standbys.loss)
    } else {
        let loss = options.losses > 0 && random.chance(options.loss);
        loss && world.checker.may_lose(replica)
    };
    let what = || format!("the disk of {replica} is lost");
    let place = Some(Place::Replica(replica));
    if lost && world.stage.inject(Family::DiskLoss, place, what) {
        world.options.losses -= u64::from(!standby);
        world.lose_disk(replica);
    }
    let options = world.options.processes;
    let down = random.exponential(options.down);
    world.at(now() + down, Action::Start(replica));
    let others: Vec<u8> = world.members().filter(|other| *other != replica).collect();
    let with_it = if others.is_empty() {
        Vec::new()
    } else if random.chance(options.crash_all) {
        others
    } else if random.chance(options.crash_two) {
        vec![random.pick(&others)]
    } else {
        Vec::new()
    };
    for other in with_it {
        // The power of each fails at its own moment, and those that follow take nobody with them.
        let crashes = world.options.processes.crashes > 0 && may_fail(world, other);
        if crashes && inject_crash(world, other) {
            world.options.processes.crashes -= 1;
            world.at(now(), Action::Crash(other));
        }
    }
}

/// A replica whose disk was lost takes part again, and has next to nothing yet: the primary may crash now, so
/// that it is asked for what it remembers.
pub fn on_recovered(world: &mut World, replica: u8) {
    let primary = world.checker.primary();
    let crashes = world.options.processes.crashes > 0 && primary != replica;
    let own = &mut Random::new(world.random.fault.any());
    if crashes && may_fail(world, primary) && own.chance(500) && inject_crash(world, primary) {
        world.options.processes.crashes -= 1;
        let delay = own.exponential(50 * MS);
        world.at(now() + delay, Action::Crash(primary));
    }
}

/// When pauses, partitions, steps of clocks and damage at rest begin.
pub fn begin(world: &mut World) {
    super::clocks::differ(world);
    super::clocks::begin(world);
    super::rot::begin(world);
    let pause = world.options.processes.pause_distance;
    if pause > 0 {
        let at = now() + world.random.fault.exponential(pause);
        world.at(at, Action::Pause);
    }
    let partition = world.options.partitions.distance;
    if partition > 0 && world.options.members() > 1 {
        let at = now() + world.random.partition.exponential(partition);
        world.at(at, Action::Partition);
    }
}

/// A replica that runs stands still for a while.
pub fn pause(world: &mut World) {
    if world.phases.phase != Phase::Faults {
        return;
    }
    let options = world.options.processes;
    let random = &mut world.random.fault;
    let replica = u8::try_from(random.below(u64::from(world.options.members()))).expect("a few");
    let length = random.exponential(options.pause);
    let next = now() + random.exponential(options.pause_distance);
    world.at(next, Action::Pause);
    let freezes = super::clocks::draw_freeze(world);
    let up = world.processes[usize::from(replica)].state == State::Up;
    let what = || format!("{replica} stands still for {} ms", length / MS);
    let place = Some(Place::Replica(replica));
    if up && may_fail(world, replica) && world.stage.inject(Family::Pause, place, what) {
        world.pause(replica, length);
        if freezes {
            super::clocks::freeze(world, replica);
        }
    }
}

/// The network falls apart.
pub fn partition(world: &mut World) {
    if world.phases.phase != Phase::Faults {
        return;
    }
    let options = world.options.partitions;
    let random = &mut world.random.partition;
    let members = world.options.members();
    let all: Vec<u8> = (0..members).collect();
    let a = random.pick(&all);
    let one_way = random.chance(options.one_way);
    let (mut side, other): (Vec<u8>, Vec<u8>) = match random.below(4) {
        // One is alone.
        0 | 1 => all.iter().partition(|replica| **replica == a),
        // Each falls on one of two sides.
        2 => all.iter().partition(|_| random.chance(500)),
        // Two do not hear each other.
        _ => {
            let b = (a + 1 + u8::try_from(random.below(u64::from(members) - 1)).expect("a few"))
                % members;
            (vec![a], vec![b])
        }
    };
    let reversed = one_way && random.chance(500);
    let clients = random.chance(options.with_clients);
    let length = random.exponential(options.length);
    world.at(now() + length, Action::Heal);
    side.retain(|replica| may_fail(world, *replica));
    if side.is_empty() || other.iter().any(|replica| !may_fail(world, *replica)) {
        return;
    }
    let what = || {
        let way = match (one_way, reversed) {
            (false, _) => "both ways",
            (true, false) => "one way",
            (true, true) => "one way, back",
        };
        let with = if clients { ", and from clients" } else { "" };
        format!(
            "{side:?} and {other:?} are cut {way}{with}, {} ms",
            length / MS
        )
    };
    if !world.stage.inject(Family::Partition, None, what) {
        return;
    }
    world.checker.counts.partitions += 1;
    world.note(kind::WEATHER, 0_usize, &side);
    let client_places = (0..world.clients.len()).map(Place::Client);
    let client_places: Vec<Place> = client_places.filter(|_| clients).collect();
    for a in side.into_iter().map(Place::Replica) {
        let others = other.iter().copied().map(Place::Replica);
        for b in others.chain(client_places.iter().copied()) {
            if !one_way || !reversed {
                world.network.cut(a, b);
            }
            if !one_way || reversed {
                world.network.cut(b, a);
            }
        }
    }
}

/// The network is whole again, until the next partition.
pub fn heal(world: &mut World) {
    world.network.heal();
    world.note(kind::WEATHER, 0_usize, b"heal");
    world.tell(None, Mark::Start, || "the network is whole".into());
    if world.phases.phase == Phase::Faults {
        let distance = world.options.partitions.distance;
        let at = now() + world.random.partition.exponential(distance);
        world.at(at, Action::Partition);
    }
}

/// Brings back whoever lags: it is started, goes on, is heard again, and has a disk that works.
pub fn bring_back(world: &mut World) {
    if !world.options.lag_limit {
        return;
    }
    for replica in world.replicas() {
        let newly = world.checker.measure_lag(replica);
        if !world.checker.lags(replica) {
            continue;
        }
        world.checker.counts.lags += u64::from(newly);
        revive(world, replica);
        if world.network.is_cut(replica) {
            world.network.heal();
            world.note(kind::WEATHER, replica, b"whole");
        }
    }
}

/// A replica runs, and goes on to.
pub fn revive(world: &mut World, replica: u8) {
    let process = &mut world.processes[usize::from(replica)];
    process.plan = CrashPlan::Never;
    process.slow_ends();
    let (state, incarnation) = (process.state, process.incarnation);
    match state {
        State::Down => world.start(replica),
        State::Paused => world.resume(replica, incarnation),
        State::Up => {}
    }
}
