//! One seed of a whole cluster: real replicas under madsim, with simulated disks, network, clocks and
//! clients.

pub mod checker;
pub mod clients;
pub mod clocks;
pub mod counts;
pub mod directed;
pub mod faults;
pub mod io;
pub mod network;
pub mod options;
pub mod phases;
pub mod processes;
pub mod quorum;
pub mod releases;
pub mod rot;
pub mod world;

use crate::sim::disk::Zone;
use crate::sim::hash::EventHash;
use crate::sim::seen::Seen;
use crate::sim::stage::Next;
use crate::sim::verdict::{Failure, Verdict, fail};
use crate::sim::{forget_panic, panic_text, simulate};
use counts::Counts;
use daftari::driver::scrub::{ScrubOptions, Scrubbed};
use daftari::driver::{FormatOptions, RunOptions};
use daftari::io::Io;
use daftari::stdx::planted::{Bug, plant};
use futures_util::FutureExt;
use io::ClusterIo;
use options::Options;
use phases::Phase;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use world::{World, with};

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first failure, if any.
    pub failure: Option<Failure>,
    /// Replicas that there were.
    pub replicas: u8,
    /// The hash of all events.
    pub hash: EventHash,
    /// What was seen of the history.
    pub seen: Seen,
    /// What was done to the replicas, and what they did.
    pub counts: Counts,
    /// Simulated nanoseconds.
    pub time: u64,
}

/// Runs a seed on this thread, with a bug planted or without.
#[must_use]
pub fn run_seed(seed: u64, replicas: Option<u8>, bug: Option<Bug>, log: bool) -> Outcome {
    let options = Options::of_seed(seed, replicas);
    run(seed, options, None, (bug, log))
}

/// What decides on a run, step by step, while it goes on.
pub type Play = Pin<Box<dyn Future<Output = Verdict>>>;

/// Runs a seed with these options, and with a script or without.
#[must_use]
pub fn run(
    seed: u64,
    options: Options,
    mut play: Option<Play>,
    (bug, log): (Option<Bug>, bool),
) -> Outcome {
    plant(bug);
    forget_panic();
    let replicas = options.replicas;
    let mut world = World::new(seed, options, bug, log);
    if play.is_some() {
        world.direct(seed);
    }
    let former = world::replace(Some(world));
    assert!(former.is_none(), "one seed at a time on a thread");
    let start = || {
        let node = |replica| {
            let node = madsim::runtime::Handle::current()
                .create_node()
                .name(format!("replica {replica}"))
                .init(move || process(replica))
                .build();
            with(|world| world.processes[usize::from(replica)].node = Some(node.id()));
            node.id()
        };
        (0..replicas).map(node).collect()
    };
    let turn = |waker: &Waker| {
        loop {
            play_on(&mut play);
            match with(|world| world.turn(waker)) {
                Next::Now(()) => {}
                Next::At(time) => return Some(time),
                Next::Over => return None,
            }
        }
    };
    let (time, panic) = simulate(seed, start, turn);
    let world = world::replace(None).expect("it was put there");
    plant(None);
    Outcome {
        failure: world.stage.failure.or(panic),
        replicas,
        hash: world.stage.hash,
        seen: world.checker.history.seen_in_all(),
        counts: world.checker.counts,
        time,
    }
}

/// The script looks at what has happened, and goes on if that is what it waits for.
fn play_on(play: &mut Option<Play>) {
    let Some(script) = play else { return };
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(verdict) = script.as_mut().poll(&mut context) {
        *play = None;
        with(|world| {
            world.directed().over = true;
            world.judge(verdict);
        });
    }
}

/// Nothing is damaged but what the seed is for; blocks of a checkpoint that came from another replica are
/// missed until they come, too.
fn on_scrubbed(scrubbed: &Scrubbed) {
    with(|world| match scrubbed {
        Scrubbed::Tour(_) => {}
        Scrubbed::Prepare { .. } if world.options.rot > 0 || is_damaged(world, Zone::Prepares) => {}
        Scrubbed::Block { .. } if is_damaged(world, Zone::Grid) => {}
        Scrubbed::Superblock { .. } if is_damaged(world, Zone::Superblock) => {}
        Scrubbed::Reply { .. } if is_damaged(world, Zone::Replies) => {}
        Scrubbed::Block { .. }
            if world.options.rot_blocks > 0 || world.checker.counts.syncs > 0 => {}
        Scrubbed::Prepare { .. }
        | Scrubbed::Block { .. }
        | Scrubbed::Superblock { .. }
        | Scrubbed::Reply { .. } => world.judge(fail("scrub", format!("{scrubbed:?}"))),
    });
}

/// Whether a script damaged something of a zone.
fn is_damaged(world: &World, zone: Zone) -> bool {
    let directed = world.directed.as_ref();
    directed.is_some_and(|directed| directed.damaged.contains(&zone))
}

/// A replica's process: it formats its file once, and serves from then on.
async fn process(replica: u8) {
    let io = ClusterIo::new(replica);
    let (phase, cluster, options) =
        with(|world| (world.phases.phase, world.cluster, world.options.clone()));
    let (lost, newest) = with(|world| {
        let process = &world.processes[usize::from(replica)];
        (process.lost, process.newest)
    });
    if phase == Phase::Format || lost {
        let format = FormatOptions {
            cluster,
            replica,
            replica_count: options.replicas,
            geometry: options.geometry,
            recovering: lost,
            release: newest,
        };
        let result = Box::pin(daftari::driver::format(io.storage(), &format)).await;
        with(|world| match result {
            Ok(()) if lost => world.on_replaced(replica),
            Ok(()) => phases::on_formatted(world),
            Err(reason) => world.judge(fail("fatal", reason.to_string())),
        });
        if !lost {
            return;
        }
    }
    let options = RunOptions {
        cluster: Some(cluster),
        replica: Some(replica),
        replica_count: usize::from(options.replicas),
        memory_limit: 1 << 30,
        account_cache_size: options.account_cache_size,
        cache_size: options.cache_size,
        scrub: Some(ScrubOptions {
            period: options.scrub_period,
            report: on_scrubbed,
        }),
        releases: releases::up_to(newest),
    };
    let run = Box::pin(daftari::driver::run(&io, &options));
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(result) => with(|world| world.on_exit(replica, result)),
        Err(_) => with(|world| world.judge(fail("panic", panic_text()))),
    }
}
