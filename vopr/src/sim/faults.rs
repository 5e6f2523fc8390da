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
use super::world::World;
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

/// What happens to the disk at a crash and until the next start.
pub fn after_crash(world: &mut World, writes: &[(Write, Survived)]) {
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
    rot(world);
    if world.options.clock_steps {
        let random = &mut world.random.fault;
        let step = random.exponential(2_000 * MS);
        world.clock = if random.chance(500) {
            world.clock + step
        } else {
            world.clock - step
        };
    }
}

fn rot(world: &mut World) {
    let geometry = world.options.geometry;
    let options = world.options.clone();
    let random = &mut world.random.fault;
    if random.chance(options.rot_headers) {
        let sector = random.below(u64::from(geometry.journal_slot_count.get()) / 16);
        if platter::header_sector_can_be_lost(&world.disk, &geometry, sector) {
            let offset = geometry.headers_offset() + sector * to_u64(SECTOR_SIZE);
            world.disk.damage(offset, random);
            world.counts.rotten += 1;
        }
    }
    if random.chance(options.rot_superblock) {
        let copies = platter::copies(&world.disk);
        if copies
            .iter()
            .all(|copy| copy.valid() && copy.checksum == copies[0].checksum)
        {
            world.disk.damage(random.below(4) * 8192, random);
            world.counts.rotten += 1;
        }
    }
    if random.chance(options.rot_replies) {
        let slot = random.below(u64::from(geometry.session_count_max.get()));
        let offset = geometry.replies_offset() + slot * geometry.reply_slot_size();
        let first = world.disk.bytes(offset, SECTOR_SIZE);
        let (header, _) = ReplySlotHeader::read_from_prefix(&first).expect("a sector");
        if header.valid() {
            world.checker.on_reply_damaged(header.client.get());
            let random = &mut world.random.fault;
            let at = offset + random.below(2) * to_u64(SECTOR_SIZE);
            world.disk.damage(at, random);
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
