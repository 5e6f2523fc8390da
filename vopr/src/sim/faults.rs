//! Crashes, and what rots while the replica is down.
//!
//! Only what one replica has to survive: header sectors whose prepares are whole, one copy of a
//! superblock of four, a stored reply. Damage never meets a torn write of the same thing.

use super::crash_plan::CrashPlan;
use super::disk::{Survived, Write, Zone};
use super::draws::Draws;
use super::options::MS;
use super::platter;
use super::scenario::Phase;
use super::world::{REPLICA, World};
use crate::random::Random;
use crate::seed::injection::Family;
use daftari::stdx::to_u64;
use daftari::vsr::journal::{Bounds, SlotRead, decide};
use storage_format::{Geometry, PrepareHeader, ReplySlotHeader, SECTOR_SIZE};
use zerocopy::FromBytes;

/// Chooses when the next crash comes; `starting` when the replica is about to recover.
pub fn plan_crash(world: &mut World, starting: bool) {
    world.plan = CrashPlan::Never;
    if world.options.crashes == 0 || world.scenario.phase != Phase::Run {
        return;
    }
    world.options.crashes -= 1;
    let distance = world.options.crash_distance;
    world.plan = CrashPlan::new(starting, distance, &mut world.random.fault);
}

/// The plan says that the replica crashes now; whether it does. If not, there is another plan.
pub fn strikes(world: &mut World) -> bool {
    world.plan = CrashPlan::Never;
    let what = || "power fails".into();
    if world.stage.inject(Family::Crash, REPLICA, what) {
        return true;
    }
    // The one draw of a crash.
    let _own = world.random.fault.any();
    plan_crash(world, false);
    false
}

/// What happens to the disk at a crash and until the next start. All draws are from the crash's `random`.
pub fn after_crash(world: &mut World, writes: &[(Write, Survived)], random: &mut Random) {
    for (write, survived) in writes {
        let torn = u64::from(*survived != Survived::Whole);
        match write.zone {
            Zone::Prepares => world.counts.torn_prepares += torn,
            Zone::Headers => world.counts.torn_headers += torn,
            Zone::Superblock | Zone::Replies | Zone::Grid => {}
        }
    }
    let verdict = world.checker.on_crash(&world.disk, writes);
    world.judge(verdict);
    if world.scenario.phase != Phase::Run {
        return;
    }
    rot(world, random);
    if world.options.clock_steps {
        let step = random.exponential(2_000 * MS);
        let forward = random.chance(500);
        let what = || {
            let way = if forward { "forward" } else { "back" };
            format!("the clock steps {way} by {} ms", step / MS)
        };
        if !world.stage.inject(Family::Clock, REPLICA, what) {
            return;
        }
        world.clock = if forward {
            world.clock + step
        } else {
            world.clock - step
        };
    }
}

fn rot(world: &mut World, random: &mut Random) {
    let geometry = world.options.geometry;
    let options = world.options.clone();
    let stage = &mut world.stage;
    let mut may_rot = |what: &str| stage.inject(Family::Rot, REPLICA, || format!("{what} rots"));
    if random.chance(options.rot_headers) {
        let sector = random.below(u64::from(geometry.journal_slot_count.get()) / 16);
        let own = &mut Random::new(random.any());
        if platter::header_sector_can_be_lost(&world.disk, &geometry, sector)
            && may_rot("a sector of headers")
        {
            let offset = geometry.headers_offset() + sector * to_u64(SECTOR_SIZE);
            world.disk.damage(offset, own);
            world.counts.rotten += 1;
        }
    }
    if random.chance(options.rot_superblock) {
        let own = &mut Random::new(random.any());
        let copies = platter::copies(&world.disk);
        if copies
            .iter()
            .all(|copy| copy.valid() && copy.checksum == copies[0].checksum)
            && may_rot("a copy of the superblock")
        {
            world.disk.damage(own.below(4) * 8192, own);
            world.counts.rotten += 1;
        }
    }
    if random.chance(options.rot_replies) {
        let slot = random.below(u64::from(geometry.session_count_max.get()));
        let offset = geometry.reply_offset(slot);
        let first = world.disk.bytes(offset, SECTOR_SIZE);
        let (header, _) = ReplySlotHeader::read_from_prefix(&first).expect("a sector");
        let own = &mut Random::new(random.any());
        if header.valid() && may_rot("a stored reply") {
            world.checker.on_reply_damaged(header.client.get());
            let at = offset + own.below(2) * to_u64(SECTOR_SIZE);
            world.disk.damage(at, own);
            world.counts.rotten += 1;
        }
    }
}

/// Counts the rows of the recovery table that the platter is about to meet.
pub fn note_rows(world: &mut World) {
    let Some(superblock) = platter::superblock(&world.disk) else {
        return;
    };
    let geometry: Geometry = world.options.geometry;
    let cluster = superblock.cluster.get();
    let slots = world.slots();
    let checkpoint = superblock.checkpoint.op.get();
    let read = |offset: u64, at: usize, slot: u64| {
        let bytes = world.disk.bytes(offset, SECTOR_SIZE);
        let header = PrepareHeader::read_from_bytes(&bytes[at..at + 256]).expect("256 bytes");
        SlotRead::classify(&header, cluster, slot, slots)
    };
    let reads: Vec<(SlotRead, SlotRead)> = (0..slots)
        .map(|slot| {
            let sector = geometry.headers_offset() + slot / 16 * to_u64(SECTOR_SIZE);
            let at = daftari::stdx::u64_to_usize(slot % 16) * 256;
            let header = read(sector, at, slot);
            let offset = platter::slot_offset(&geometry, slot);
            let mut prepare = read(offset, 0, slot);
            if let SlotRead::Valid(found) = prepare
                && found.op.get() > checkpoint
                && platter::prepare_at(&world.disk, &geometry, slot).is_none()
            {
                prepare = SlotRead::Bad;
            }
            (header, prepare)
        })
        .collect();
    let op = |read: &SlotRead| match read {
        SlotRead::Valid(header) => header.op.get(),
        SlotRead::Bad | SlotRead::Empty => 0,
    };
    let highest = reads
        .iter()
        .map(|(h, p)| op(h).max(op(p)))
        .max()
        .unwrap_or(0);
    let limit = checkpoint + slots;
    let bounds = Bounds {
        checkpoint,
        limit,
        highest: highest.max(checkpoint),
        solo: true,
    };
    for (header, prepare) in &reads {
        let (_, row) = decide(header, prepare, &bounds);
        world.counts.rows[usize::from(row)] += 1;
    }
}
