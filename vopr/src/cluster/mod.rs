//! One seed of a whole cluster: real replicas under madsim, with simulated disks, network, clocks and
//! clients.

pub mod astray;
pub mod checker;
pub mod clients;
pub mod clocks;
pub mod counts;
pub mod directed;
pub mod faults;
pub mod io;
pub mod links;
pub mod misread;
pub mod network;
pub mod observe;
pub mod options;
pub mod phases;
pub mod processes;
pub mod quorum;
pub mod releases;
pub mod rot;
pub mod standbys;
pub mod transmit;
pub mod world;

use crate::seed::{self, Ended, Setup};
use crate::sim::disk::Zone;
use crate::sim::seen::Seen;
use crate::sim::stage::Next;
use crate::sim::verdict::{Verdict, fail};
use crate::sim::{forget_panic, panic_text, simulate};
use counts::Counts;
use daftari::driver::scrub::{ScrubOptions, Scrubbed};
use daftari::driver::{FormatOptions, RunOptions};
use daftari::io::Io;
use daftari::stdx::marks::{Marks, take_marks};
use daftari::stdx::planted::plant;
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
    /// What came of it.
    pub ended: Ended,
    /// What was seen of the history.
    pub seen: Seen,
    /// What was done to the replicas, and what they did.
    pub counts: Counts,
}

/// Runs a seed on this thread.
#[must_use]
pub fn run_seed(setup: &Setup) -> Outcome {
    let mut options = Options::of_seed(setup.seed, setup.cuts.replicas);
    let (clients, requests) = (&mut options.clients, &mut options.requests);
    setup.cuts.limit(clients, requests);
    run(setup, options, None)
}

/// What decides on a run, step by step, while it goes on.
pub type Play = Pin<Box<dyn Future<Output = Verdict>>>;

/// Runs a seed with these options, and with a script or without.
#[must_use]
pub fn run(setup: &Setup, options: Options, mut play: Option<Play>) -> Outcome {
    plant(setup.bug);
    forget_panic();
    let _of_others: Marks = take_marks();
    let (replicas, members) = (options.replicas, options.members());
    let config = seed::config(&options);
    let mut world = World::new(setup, options);
    if play.is_some() {
        world.direct(setup.seed);
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
        (0..members).map(node).collect()
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
    let panic = simulate(setup.seed, start, turn);
    let world = world::replace(None).expect("it was put there");
    plant(None);
    Outcome {
        seen: world.checker.history.seen_in_all(),
        counts: world.checker.counts,
        ended: Ended {
            failure: world.stage.failure.or(panic),
            hash: world.stage.hash,
            time: world.stage.time,
            config,
            replicas,
            standbys: members - replicas,
            clients: world.options.clients,
            requests: world.phases.issued(),
            op: world.checker.history.head(),
            marks: take_marks(),
            unavailable: world.phases.unavailable,
            faults: world.stage.faults,
            recording: world.stage.recording,
        },
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

/// Anything may be damaged on a standby.
fn expect_damage(_: &Scrubbed) {}

/// Whether a script damaged something of a zone, or writes to it go astray.
fn is_damaged(world: &World, zone: Zone) -> bool {
    let directed = world.directed.as_ref();
    directed.is_some_and(|directed| directed.damaged.contains(&zone))
        || world.options.astray.rate(zone) > 0
}

/// A member's process: it formats its file once, and serves from then on.
async fn process(replica: u8) {
    let io = ClusterIo::new(replica);
    let (phase, cluster, options) =
        with(|world| (world.phases.phase, world.cluster, world.options.clone()));
    let (lost, newest) = with(|world| {
        let process = &world.processes[usize::from(replica)];
        (process.lost, process.newest)
    });
    let standby = options.is_standby(replica);
    let free = standby && options.standbys.rot > 0;
    if phase == Phase::Format || lost {
        let format = FormatOptions {
            cluster,
            replica,
            replica_count: options.replicas,
            geometry: options.geometry,
            recovering: lost && !standby,
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
        member_count: usize::from(options.members()),
        memory_limit: 1 << 30,
        account_cache_size: options.account_cache_size,
        cache_size: options.cache_size,
        scrub: Some(ScrubOptions {
            period: options.scrub_period,
            report: if free { expect_damage } else { on_scrubbed },
        }),
        releases: releases::up_to(newest),
    };
    let run = Box::pin(daftari::driver::run(&io, &options));
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(result) => with(|world| world.on_exit(replica, result)),
        Err(_) => with(|world| world.judge(fail("panic", panic_text()))),
    }
}
