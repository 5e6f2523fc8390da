//! What a seed is like: every choice that is made once for a whole run.

use super::draws::Draws;
use super::network::NetworkFaults;
use crate::random::Random;
use daftari::constants;
use storage_format::Geometry;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// What is broken on purpose after the run, while the replica is down: it has to refuse to serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Nothing.
    Clean,
    /// A sector of a committed prepare above the checkpoint is damaged.
    DamagePrepare,
    /// A slot above the checkpoint and its header are as they were before their last writes.
    LostWrites,
    /// A block of the checkpoint is damaged that is read when the file is opened.
    DamageBlock,
    /// Any other block of the checkpoint is damaged, before the replica starts: what it serves has to
    /// be right, and it stops when it meets the damage.
    RotBlock,
    /// The same while it runs.
    RotBlockLater,
    /// Three copies of the superblock are damaged.
    DamageSuperblock,
}

impl Ending {
    fn new(random: &mut Random) -> Self {
        match random.below(20) {
            0 | 1 => Self::DamagePrepare,
            2 | 3 => Self::LostWrites,
            4..=6 => Self::DamageBlock,
            7 => Self::DamageSuperblock,
            8..=11 => Self::RotBlock,
            12..=14 => Self::RotBlockLater,
            _ => Self::Clean,
        }
    }
}

/// How fast a disk is. Journal and blocks differ, as do writes and reads, so that they overlap in all
/// ways.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Nanoseconds of a write: shortest, and more on average.
    pub write: (u64, u64),
    /// The same of a read.
    pub read: (u64, u64),
    /// Accesses that stall, of 1000.
    pub stalls: u64,
    /// How much slower blocks are than the rest.
    pub grid_factor: u64,
    /// Accesses at which the disk gets slow for a while, of 10,000.
    pub spells: u64,
    /// How slow it is then.
    pub spell_factor: u64,
}

impl DiskSpeed {
    /// The speed of a disk; `stalls` of 1000 accesses take long.
    pub fn new(random: &mut Random, stalls: u64, long: bool) -> Self {
        let write = (random.between(0, 2) * MS, random.between(1, 10) * MS);
        let read = match random.below(4) {
            0 => (0, MS / 10),
            1 => (random.between(0, 4) * MS, random.between(1, 20) * MS),
            _ => (write.0 / 4, write.1 / 4),
        };
        // Long runs on a slow disk would take days.
        let read = if long { (read.0 / 4, read.1 / 4) } else { read };
        let factors: &[u64] = if long { &[1, 2] } else { &[1, 1, 1, 3, 10] };
        Self {
            write,
            read,
            stalls,
            grid_factor: random.pick(factors),
            spells: random.pick(&[0, 0, 2, 10]),
            spell_factor: random.pick(&[10, 30, 100]),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes of the data file.
    pub geometry: Geometry,
    /// Bytes of the cache of pages.
    pub cache_size: u64,
    /// Bytes of the cache of accounts.
    pub account_cache_size: u64,
    /// Blocks that the disk has room for, until so many requests for more were refused.
    pub disk_room: Option<(u64, u64)>,
    /// Nanoseconds of a tour of the scrubber.
    pub scrub_period: u64,
    /// Clients at work.
    pub clients: usize,
    /// Requests that they get answered, all together.
    pub requests: u64,
    /// Crashes at most.
    pub crashes: u64,
    /// Writes between crashes on average.
    pub crash_distance: u64,
    /// Whether a disk tears within sectors.
    pub tear_inside_sectors: bool,
    /// Whether the file is so small that it gets full: requests that create are refused then.
    pub cramped: bool,
    /// Whether the run is long, for higher tiers.
    pub long: bool,
    /// How fast the disk is.
    pub speed: DiskSpeed,
    /// What the network does.
    pub network: NetworkFaults,
    /// Header sectors that rot at a crash, of 1000.
    pub rot_headers: u64,
    /// Superblock copies that rot at a crash, of 1000.
    pub rot_superblock: u64,
    /// Stored replies that rot at a crash, of 1000.
    pub rot_replies: u64,
    /// Wrong frames, of 1000 requests.
    pub garbage: u64,
    /// Clients that die while they wait, of 1000.
    pub client_crashes: u64,
    /// Pauses of a client between requests, of 1000.
    pub idle: u64,
    /// Whether the wall clock steps.
    pub clock_steps: bool,
    /// What is broken in the end.
    pub ending: Ending,
}

/// From a tour that never waits to one that takes longer than most runs.
fn scrub_period(seed: u64) -> u64 {
    let mut random = Random::stream(seed, 106);
    MS * 10_u64.pow(u32::try_from(random.between(1, 5)).expect("small"))
}

/// In some seeds the disk is full for a while: with enough for the checkpoints of a young file.
fn disk_room(seed: u64) -> Option<(u64, u64)> {
    let mut random = Random::stream(seed, 107);
    let full = random.chance(250);
    let room = (random.between(76, 400), random.between(1, 300));
    full.then_some(room)
}

/// From a cache of the accounts of a batch to one of all.
fn account_cache_size(seed: u64) -> u64 {
    let mut random = Random::stream(seed, 108);
    random.pick(&[0, 0, 1, 3, 1000]) * 1024
}

impl Options {
    /// The choices of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::stream(seed, 101);
        let random = &mut random;
        let mut geometry = Geometry {
            message_size_max: (1024 * 1024).into(),
            journal_slot_count: if random.chance(600) {
                32.into()
            } else {
                48.into()
            },
            session_count_max: u32::try_from(random.between(4, 8)).expect("small").into(),
            block_size: u32::try_from(constants::BLOCK_SIZE).expect("small").into(),
            file_size_max: (128 * 1024 * 1024).into(),
            ..Geometry::default()
        };
        let entries = u32::try_from(constants::PREPARE_ENTRIES_SIZE).expect("small");
        geometry.journal_slot_size = (geometry.message_size_max.get() + entries).into();
        let sessions = u64::from(geometry.session_count_max.get());
        let cramped = random.chance(60);
        if cramped {
            let blocks = random.between(150, 350) * u64::from(geometry.block_size.get());
            geometry.file_size_max = (geometry.grid_offset() + blocks).into();
        }
        let crowded = random.chance(250);
        let clients = if crowded {
            random.between(sessions, 2 * sessions - 1)
        } else {
            random.between(1, sessions)
        };
        let calm = random.chance(200);
        let storm = !calm && random.chance(250);
        let long = random.chance(50);
        let mut rate = |max: u64| {
            let on = random.chance(500);
            let drawn = random.between(1, max);
            if on && !calm { drawn } else { 0 }
        };
        let (lost, replayed) = (rate(100), rate(150));
        let (rot_headers, rot_superblock, rot_replies) = (rate(300), rate(300), rate(300));
        let (client_crashes, idle, disk_stalls) = (rate(60), rate(60), rate(4));
        let garbage = if random.chance(50) {
            random.between(10, 100)
        } else {
            0
        };
        let ending = Ending::new(random);
        // What is in the cache cannot be found damaged. Long runs have more runs in their trees, each
        // with pages that one query asks for.
        let rots = matches!(ending, Ending::RotBlock | Ending::RotBlockLater);
        let doublings = if rots { 0 } else { random.below(3) } + u64::from(long);
        Self {
            geometry,
            cache_size: daftari::driver::CACHE_SIZE_MIN << doublings,
            account_cache_size: account_cache_size(seed),
            disk_room: disk_room(seed),
            scrub_period: scrub_period(seed),
            clients: usize::try_from(clients).expect("small"),
            requests: if long {
                random.between(3500, 5000)
            } else {
                random.between(300, 900)
            },
            crashes: if calm {
                random.below(3)
            } else {
                random.between(2, if storm { 30 } else { 12 })
            },
            crash_distance: if storm { 40 } else { 150 },
            tear_inside_sectors: random.chance(500),
            cramped,
            long,
            speed: DiskSpeed::new(random, disk_stalls, long),
            network: NetworkFaults {
                delay_min: random.between(0, 3) * MS,
                delay_mean: random.between(1, 20) * MS,
                lost,
                replayed,
            },
            rot_headers,
            rot_superblock,
            rot_replies,
            garbage,
            client_crashes,
            idle,
            clock_steps: random.chance(500),
            ending,
        }
    }
}
