//! What a seed is like: every choice that is made once for a whole run.

use super::astray::AstrayOptions;
use super::clocks::ClockOptions;
use super::links::LinkTroubles;
use super::network::LinkFaults;
use super::quorum;
use super::releases::ReleaseOptions;
use super::standbys::StandbyOptions;
use crate::random::Random;
use crate::sim::draws::Draws;
use crate::sim::options::{DiskSpeed, MS};
use daftari::constants;
use storage_format::Geometry;

/// Weights of the sizes of clusters, from 1 replica on.
const REPLICA_WEIGHTS: [u64; 6] = [2, 1, 4, 1, 2, 2];

/// When the network falls apart, and how.
#[derive(Clone, Copy, Debug)]
pub struct PartitionOptions {
    /// Nanoseconds from one partition to the next, on average; 0 for none at all.
    pub distance: u64,
    /// Nanoseconds that one lasts, on average.
    pub length: u64,
    /// Of 1000, those that cut one direction only.
    pub one_way: u64,
    /// Of 1000, those that cut clients off as well.
    pub with_clients: u64,
}

/// When processes stop.
#[derive(Clone, Copy, Debug)]
pub struct ProcessOptions {
    /// Crashes at most.
    pub crashes: u64,
    /// Writes of a replica between its crashes, on average.
    pub crash_distance: u64,
    /// Of 1000 crashes, those that take all other replicas with them.
    pub crash_all: u64,
    /// Of 1000 crashes, those that take one more with them.
    pub crash_two: u64,
    /// Nanoseconds that a replica stays down, on average.
    pub down: u64,
    /// Nanoseconds from one pause of any replica to the next, on average; 0 for none at all.
    pub pause_distance: u64,
    /// Nanoseconds that a pause lasts, on average.
    pub pause: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Options {
    /// Replicas.
    pub replicas: u8,
    /// Members that only follow.
    pub standbys: StandbyOptions,
    /// Sizes of the data files.
    pub geometry: Geometry,
    /// Bytes of the cache of pages.
    pub cache_size: u64,
    /// Bytes of the cache of accounts.
    pub account_cache_size: u64,
    /// Nanoseconds of a tour of the scrubber.
    pub scrub_period: u64,
    /// Clients at work.
    pub clients: usize,
    /// Requests that they get answered, all together.
    pub requests: u64,
    /// Whether disks tear within sectors.
    pub tear_inside_sectors: bool,
    /// Of each member, whether what lies beyond the head of its log may be damaged, and whether a crash
    /// may make a sector of headers unreadable. It may not know where its log ended then, so as many have
    /// to be spared as a view change needs to be sure.
    pub uncertain: Vec<bool>,
    /// How fast the disks are.
    pub speeds: Vec<DiskSpeed>,
    /// What clocks are like.
    pub clocks: ClockOptions,
    /// What happens to frames between replicas.
    pub peers: LinkFaults,
    /// What happens to frames of clients.
    pub links: LinkFaults,
    /// Links that are worse than others.
    pub troubles: LinkTroubles,
    /// When the network falls apart.
    pub partitions: PartitionOptions,
    /// When processes stop.
    pub processes: ProcessOptions,
    /// Blocks of a checkpoint that rot at a crash, of 1000: as many as other replicas can mend.
    pub rot_blocks: u64,
    /// Decides which block may rot where.
    pub salt: u64,
    /// Journal slots that rot at a crash, of 1000: as many as other replicas can mend.
    pub rot: u64,
    /// Whether anything may rot, however many copies of it there are: the replicas may have to wait for ever
    /// then, but must never be wrong.
    pub wild: bool,
    /// Reads that give something else, of 1000.
    pub misreads: u64,
    /// Writes that go astray.
    pub astray: AstrayOptions,
    /// Wrong frames, of 1000 requests.
    pub garbage: u64,
    /// Clients that die while they wait, of 1000.
    pub client_crashes: u64,
    /// Whether a replica is brought back, and the load held, before others overwrite ops that it
    /// lacks: so that it does not have to go on from a checkpoint of theirs.
    pub lag_limit: bool,
    /// Disks that are lost at a crash, at most; nothing else is damaged then.
    pub losses: u64,
    /// Of 1000 crashes, those that take the disk with them.
    pub loss: u64,
    /// Which binaries replicas are run by.
    pub releases: ReleaseOptions,
}

fn geometry(random: &mut Random) -> Geometry {
    let slots: u32 = random.pick(&[32, 32, 48, 64]);
    let mut geometry = Geometry {
        message_size_max: (1024 * 1024).into(),
        journal_slot_count: slots.into(),
        session_count_max: u32::try_from(random.between(4, 9)).expect("small").into(),
        block_size: u32::try_from(constants::BLOCK_SIZE).expect("small").into(),
        file_size_max: (128 * 1024 * 1024).into(),
        ..Geometry::default()
    };
    let entries = u32::try_from(constants::PREPARE_ENTRIES_SIZE).expect("small");
    geometry.journal_slot_size = (geometry.message_size_max.get() + entries).into();
    geometry
}

/// How rough a seed is: how much of each fault there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Weather {
    Calm,
    Mixed,
    Storm,
}

impl Options {
    /// The choices of a seed, for so many replicas or for any number.
    #[must_use]
    pub fn of_seed(seed: u64, replicas: Option<u8>) -> Self {
        let mut options = Self::of_replicas(seed, replicas);
        options.draw_standbys(seed);
        options.troubles = LinkTroubles::of_seed(seed, options.members());
        options
    }

    /// Those that are made for the replicas.
    fn of_replicas(seed: u64, replicas: Option<u8>) -> Self {
        let random = &mut Random::stream(seed, 201);
        let drawn = 1 + random.weighted(&REPLICA_WEIGHTS);
        let replicas = replicas.unwrap_or_else(|| u8::try_from(drawn).expect("at most 6"));
        let weather = match random.below(5) {
            0 => Weather::Calm,
            1..=3 => Weather::Mixed,
            _ => Weather::Storm,
        };
        let geometry = geometry(random);
        let stalls = if random.chance(500) {
            random.between(1, 4)
        } else {
            0
        };
        let speeds = (0..replicas).map(|_| DiskSpeed::new(random, stalls, false));
        let speeds = speeds.collect();
        let ordered = random.chance(500);
        let loses = replicas >= 3 && seed_loses(seed, weather);
        let rots = replicas >= 3 && weather != Weather::Calm && random.chance(400);
        let mut options = Self {
            replicas,
            standbys: StandbyOptions::default(),
            geometry,
            cache_size: daftari::driver::CACHE_SIZE_MIN << random.below(3),
            account_cache_size: random.pick(&[0, 0, 1, 3, 1000]) * 1024,
            scrub_period: MS * 10_u64.pow(random.between_32(2, 5)),
            clients: random.index(8) + 1,
            requests: random.between(200, 400),
            tear_inside_sectors: random.chance(500),
            uncertain: uncertain(random, replicas),
            speeds,
            clocks: ClockOptions::new(random, replicas),
            peers: links(random, weather, ordered),
            links: links(random, weather, true),
            troubles: LinkTroubles::default(),
            partitions: partitions(random, weather),
            processes: processes(random, weather, u64::from(replicas)),
            rot_blocks: if rots && random.chance(500) {
                random.between(5, 100)
            } else {
                0
            },
            salt: random.any(),
            rot: if rots { random.between(20, 300) } else { 0 },
            wild: false,
            misreads: match weather {
                Weather::Calm => 0,
                Weather::Mixed | Weather::Storm => super::misread::rate(seed),
            },
            astray: AstrayOptions::default(),
            garbage: if random.chance(150) {
                random.between(10, 200)
            } else {
                0
            },
            client_crashes: if random.chance(300) { 20 } else { 0 },
            lag_limit: random.chance(500),
            losses: 0,
            loss: 0,
            releases: ReleaseOptions::of_seed(seed),
        };
        if loses {
            options.lose_disks(random);
        } else if replicas > 1 && weather != Weather::Calm {
            options.go_wild(seed);
            if replicas > 2 {
                options.astray = AstrayOptions::of_seed(seed);
            }
        }
        options
    }

    /// Disks are lost, and nothing is damaged beside that: a lost replica counts as a fault of everything
    /// until it has recovered.
    fn lose_disks(&mut self, random: &mut Random) {
        self.losses = random.between(1, u64::from(self.replicas) + 2);
        self.loss = random.between(100, 500);
        (self.rot, self.rot_blocks) = (0, 0);
        self.uncertain.fill(false);
        let crashes = &mut self.processes.crashes;
        *crashes = (*crashes).max(2 * u64::from(self.replicas));
    }
}

/// Of 1000 seeds that may be wild, those that are.
const WILD: u64 = 60;

impl Options {
    /// In some seeds everything may rot; a stream of its own, so that other seeds stay what they are.
    fn go_wild(&mut self, seed: u64) {
        let random = &mut Random::stream(seed, 213);
        if random.chance(WILD) {
            self.wild = true;
            self.rot = random.between(1, 40);
            let blocks = random.between(1, 15);
            self.rot_blocks = random.pick(&[0, blocks]);
        }
    }
}

/// Whether disks are lost in a seed; a stream of its own, so that other seeds stay what they are.
fn seed_loses(seed: u64, weather: Weather) -> bool {
    weather != Weather::Calm && Random::stream(seed, 208).chance(500)
}

impl Options {
    /// Those of a cluster in which nothing fails by itself: only how long things take differs from seed to
    /// seed.
    #[must_use]
    pub fn calm(seed: u64, replicas: u8) -> Self {
        let mut options = Self::of_replicas(seed, Some(replicas));
        let random = &mut Random::stream(seed, 210);
        let speed = |random: &mut Random| {
            let write = (random.below(MS), random.between(1, 3) * MS);
            DiskSpeed {
                write,
                read: (write.0 / 4, write.1 / 4),
                stalls: 0,
                grid_factor: 1,
                spells: 0,
                spell_factor: 1,
            }
        };
        let link = LinkFaults {
            delay_min: random.below(2 * MS),
            delay_mean: random.between(1, 5) * MS,
            lost: 0,
            replayed: 0,
            ordered: true,
        };
        options.geometry.journal_slot_count = 32.into();
        options.geometry.session_count_max = 7.into();
        options.scrub_period = 1_000_000 * MS;
        options.clients = 2;
        options.requests = 0;
        options.uncertain.fill(false);
        options.speeds = (0..replicas).map(|_| speed(random)).collect();
        options.clocks = ClockOptions::right(replicas);
        (options.peers, options.links) = (link, link);
        options.partitions.distance = 0;
        options.processes.crashes = 0;
        options.processes.pause_distance = 0;
        (options.rot, options.rot_blocks, options.garbage) = (0, 0, 0);
        (options.losses, options.misreads) = (0, 0);
        options.astray = AstrayOptions::default();
        options.wild = false;
        options.client_crashes = 0;
        options.lag_limit = false;
        options.releases = ReleaseOptions::one();
        options
    }
}

fn uncertain(random: &mut Random, replicas: u8) -> Vec<bool> {
    let mut uncertain = vec![replicas == 1; usize::from(replicas)];
    for _ in 1..quorum::replication(replicas) {
        let replica = random.index(uncertain.len());
        uncertain[replica] = true;
    }
    uncertain
}

fn links(random: &mut Random, weather: Weather, ordered: bool) -> LinkFaults {
    let mut rate = |max: u64| {
        let drawn = random.between(1, max);
        let on = random.chance(500) && weather != Weather::Calm;
        if on { drawn } else { 0 }
    };
    let (lost, replayed) = (rate(150), rate(150));
    LinkFaults {
        delay_min: random.between(0, 5) * MS,
        delay_mean: random.pick(&[1, 3, 10, 40]) * MS,
        lost,
        replayed,
        ordered,
    }
}

fn partitions(random: &mut Random, weather: Weather) -> PartitionOptions {
    let distance = random.between(2, 20) * 1000 * MS;
    let on = match weather {
        Weather::Calm => false,
        Weather::Mixed => random.chance(600),
        Weather::Storm => true,
    };
    PartitionOptions {
        distance: if on { distance } else { 0 },
        length: random.pick(&[300, 1_000, 5_000]) * MS,
        one_way: random.pick(&[0, 300, 1000]),
        with_clients: random.pick(&[0, 500]),
    }
}

fn processes(random: &mut Random, weather: Weather, replicas: u64) -> ProcessOptions {
    let (crashes, crash_distance) = match weather {
        Weather::Calm => (random.below(2), 200),
        Weather::Mixed => (random.between(1, 4 * replicas), 150),
        Weather::Storm => (random.between(2, 8 * replicas), 40),
    };
    let pauses = weather != Weather::Calm && random.chance(400);
    let pause_distance = random.between(2, 20) * 1000 * MS;
    ProcessOptions {
        crashes,
        crash_distance,
        crash_all: random.pick(&[0, 0, 100]),
        crash_two: random.pick(&[0, 100, 300]),
        down: random.pick(&[200, 2_000, 10_000]) * MS,
        pause_distance: if pauses { pause_distance } else { 0 },
        pause: random.pick(&[100, 1_000, 5_000]) * MS,
    }
}
