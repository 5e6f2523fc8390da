//! One seed: the real core under madsim, with a simulated disk, network, clock and clients.

pub mod checker;
pub mod client;
pub mod crash_plan;
pub mod describe;
pub mod disk;
pub mod draws;
pub mod faults;
pub mod frames;
pub mod garbage;
pub mod hash;
pub mod history;
pub mod ids;
pub mod io;
pub mod mirror;
pub mod network;
pub mod observe;
pub mod options;
pub mod platter;
pub mod protected;
pub mod rot;
pub mod scenario;
pub mod seen;
pub mod stage;
pub mod tally;
pub mod transmit;
pub mod trees;
pub mod verdict;
pub mod world;

use crate::seed::{self, Ended, Setup};
use daftari::driver::scrub::{ScrubOptions, Scrubbed};
use daftari::driver::{FormatOptions, RunOptions};
use daftari::stdx::marks::{Marks, take_marks};
use daftari::stdx::planted::plant;
use daftari::vsr::Releases;
use futures_util::FutureExt;
use io::SimIo;
use madsim::task::NodeId;
use options::Options;
use scenario::Phase;
use seen::Seen;
use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Poll, Waker};
use std::time::Duration;
use verdict::{Failure, fail};
use world::{Counts, World, with};

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What came of it.
    pub ended: Ended,
    /// What the checker saw.
    pub seen: Seen,
    /// What was done to the replica.
    pub counts: Counts,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the text of a panic instead of printing it; for the whole process.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string().replace('\n', " ");
        PANIC.with_borrow_mut(|panic| {
            panic.get_or_insert(text);
        });
    }));
}

/// Forgets the panics of an earlier run.
pub fn forget_panic() {
    PANIC.set(None);
}

/// The text of the first panic since it was asked for last.
#[must_use]
pub fn panic_text() -> String {
    PANIC.take().unwrap_or_else(|| "no text".into())
}

/// Runs a seed on this thread.
#[must_use]
pub fn run_seed(setup: &Setup) -> Outcome {
    plant(setup.bug);
    forget_panic();
    let _of_others: Marks = take_marks();
    let mut options = Options::of_seed(setup.seed);
    let (clients, requests) = (&mut options.clients, &mut options.requests);
    setup.cuts.limit(clients, requests);
    let config = seed::config(&options);
    let former = world::replace(Some(World::new(setup, options)));
    assert!(former.is_none(), "one seed at a time on a thread");
    let start = || {
        let node = madsim::runtime::Handle::current()
            .create_node()
            .name("replica")
            .init(process)
            .build();
        with(|world| world.node = Some(node.id()));
        vec![node.id()]
    };
    let panic = simulate(setup.seed, start, |waker| with(|world| world.turn(waker)));
    let world = world::replace(None).expect("it was put there");
    plant(None);
    let (seen, counts) = world.summary();
    Outcome {
        seen,
        counts,
        ended: Ended {
            failure: world.stage.failure.or(panic),
            hash: world.stage.hash,
            time: world.stage.time,
            config,
            replicas: 1,
            standbys: 0,
            clients: world.options.clients,
            requests: world.scenario.issued(),
            op: world.checker.history.head(),
            marks: take_marks(),
            unavailable: None,
            faults: world.stage.faults,
            recording: world.stage.recording,
        },
    }
}

/// Runs a simulation on this thread: `start` makes the nodes, and `turn` moves everything else, as
/// [`drive`] says. Gives a panic that came out of it.
pub fn simulate(
    seed: u64,
    start: impl FnOnce() -> Vec<NodeId>,
    turn: impl FnMut(&Waker) -> Option<u64>,
) -> Option<Failure> {
    let runtime = madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let nodes = start();
            drive(turn).await;
            // A task that waits keeps itself in memory for ever: it holds what would wake it.
            for node in nodes {
                madsim::runtime::Handle::current().kill(node);
            }
            madsim::time::sleep(Duration::from_millis(1)).await;
        });
    }));
    drop(std::panic::catch_unwind(AssertUnwindSafe(|| drop(runtime))));
    result.err().map(|_| Failure {
        kind: "panic",
        what: panic_text(),
    })
}

/// Takes the events of a world as they come due: `turn` takes those that are, and gives the time of the
/// next one, or `None` when the run is over.
pub async fn drive(mut turn: impl FnMut(&Waker) -> Option<u64>) {
    let mut timer: Option<(u64, Pin<Box<madsim::time::Sleep>>)> = None;
    std::future::poll_fn(|context| {
        loop {
            let Some(next) = turn(context.waker()) else {
                return Poll::Ready(());
            };
            if timer.as_ref().is_none_or(|(at, _)| *at != next) {
                let delay = Duration::from_nanos(next - world::now());
                timer = Some((next, Box::pin(madsim::time::sleep(delay))));
            }
            let (_, sleep) = timer.as_mut().expect("it was set just now");
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            timer = None;
        }
    })
    .await;
}

/// Whatever the scrubber finds is wrong before the file is broken on purpose: what rots at a crash is
/// mended at the start, or known to be damaged.
fn on_scrubbed(scrubbed: &Scrubbed) {
    with(|world| match scrubbed {
        Scrubbed::Tour(_) => world.counts.tours += 1,
        Scrubbed::Block { block, .. } if world.scenario.is_broken(block.address.get()) => {
            world.counts.rot_scrubbed += 1;
        }
        Scrubbed::Block { .. }
        | Scrubbed::Superblock { .. }
        | Scrubbed::Prepare { .. }
        | Scrubbed::Reply { .. } => {
            if world.scenario.phase != Phase::Refuse {
                world.judge(fail("scrub", format!("{scrubbed:?}")));
            }
        }
    });
}

/// The replica's process: it formats the file once, and serves from then on.
async fn process() {
    let io = SimIo::default();
    let (phase, cluster, geometry) = with(|world| {
        let cluster = world.clients[0].state.cluster;
        (world.scenario.phase, cluster, world.options.geometry)
    });
    if phase == Phase::Format {
        let options = FormatOptions {
            recovering: false,
            release: Releases::OF_BINARY.newest,
            cluster,
            replica: 0,
            replica_count: 1,
            geometry,
        };
        let storage = daftari::io::Io::storage(&io);
        let result = Box::pin(daftari::driver::format(storage, &options)).await;
        with(|world| match result {
            Ok(()) => scenario::on_formatted(world),
            Err(reason) => world.judge(fail("fatal", reason.to_string())),
        });
        return;
    }
    let options = RunOptions {
        cluster: Some(cluster),
        replica: Some(0),
        member_count: 1,
        memory_limit: 1 << 30,
        account_cache_size: with(|world| world.options.account_cache_size),
        cache_size: with(|world| world.options.cache_size),
        scrub: Some(ScrubOptions {
            period: with(|world| world.options.scrub_period),
            report: on_scrubbed,
        }),
        releases: Releases::OF_BINARY,
    };
    let run = Box::pin(daftari::driver::run(&io, &options));
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(result) => with(|world| world.on_exit(result)),
        Err(_) => with(|world| world.judge(fail("panic", panic_text()))),
    }
}
