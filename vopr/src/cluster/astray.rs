//! Writes that go astray, and replies that rot: a write completes, and what was there before is there still; or
//! what was written lies in the place of something else as well.
//!
//! The checker goes on from what should be there, as with damage at rest, and the atlas is the same: see
//! [`super::rot`]. Only the copies of the superblock are spared, which scenarios send astray.

use super::network::Place;
use super::phases::Phase;
use super::rot;
use super::world::World;
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::disk::{Write, Zone};
use crate::sim::draws::Draws;
use crate::sim::mirror::SESSIONS_TABLE;
use crate::sim::platter;
use daftari::stdx::to_u64;
use storage_format::geometry::HEADERS_PER_SECTOR;
use storage_format::{BlockHeader, BlockKind, SECTOR_SIZE};
use zerocopy::FromBytes;

/// How often, of 1000 writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct AstrayOptions {
    /// Writes to the journal that are lost or land elsewhere.
    journal: u64,
    /// Blocks of which that is true.
    grid: u64,
    /// Replies of which that is true, and as many that rot as soon as they are written.
    replies: u64,
    /// Of 1000 writes that go astray, those that land elsewhere.
    elsewhere: u64,
}

impl AstrayOptions {
    /// Those of a seed, none in most; a stream of its own, so that other seeds stay what they are.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let random = &mut Random::stream(seed, 217);
        let mut rate = |max: u64| {
            let drawn = random.between(1, max);
            if random.chance(500) { drawn } else { 0 }
        };
        let drawn = Self {
            journal: rate(50),
            grid: rate(50),
            replies: rate(100),
            elsewhere: rate(500),
        };
        if random.chance(400) {
            drawn
        } else {
            Self::default()
        }
    }

    /// Whether any may.
    #[must_use]
    pub fn any(&self) -> bool {
        self.journal + self.grid + self.replies > 0
    }

    /// Of 1000 writes to a zone, those that go astray.
    #[must_use]
    pub fn rate(&self, zone: Zone) -> u64 {
        match zone {
            Zone::Superblock => 0,
            Zone::Headers | Zone::Prepares => self.journal,
            Zone::Replies => self.replies,
            Zone::Grid => self.grid,
        }
    }
}

/// A write of a member is done, and `before` was there before it: it may go astray.
pub fn strike(world: &mut World, member: u8, write: &Write, before: &[u8]) {
    let rate = world.options.astray.rate(write.zone);
    let formatting = world.disks[usize::from(member)].formatting;
    if rate == 0 || formatting || world.phases.phase != Phase::Faults {
        return;
    }
    let own = &mut Random::new(world.random.astray.any());
    // What was written again as it was is there.
    let same = write.data == before;
    if !own.chance(rate) || same || !permits(world, member, write, before) {
        return;
    }
    let (zone, offset) = (write.zone, write.offset);
    let rots = zone == Zone::Replies && own.chance(500);
    let victim = if own.chance(world.options.astray.elsewhere) && !rots {
        victim(world, member, write, own)
    } else {
        None
    };
    let what = || match victim {
        _ if rots => format!("what {member} has written to {zone:?} at {offset} rots"),
        None => format!("{member}'s write to {zone:?} at {offset} is lost"),
        Some(at) => format!("{member}'s write to {zone:?} at {offset} goes to {at}"),
    };
    let place = Some(Place::Replica(member));
    if !world.stage.inject(Family::Astray, place, what) {
        return;
    }
    world.checker.counts.astray += 1;
    note(world, member, write, before);
    let disk = &mut world.disks[usize::from(member)];
    if rots {
        disk.damage(offset, own);
        return;
    }
    disk.put(offset, before);
    let Some(at) = victim else {
        return;
    };
    disk.put(at, &write.data);
    match zone {
        Zone::Prepares => {
            let slot = platter::slot_at(&world.options.geometry, at);
            world.checker.on_rot(member, slot);
        }
        Zone::Grid => world.checker.on_block_rot(member, address_at(world, at)),
        Zone::Superblock | Zone::Headers | Zone::Replies => {}
    }
}

/// Whether what a write changes may be as it was before.
fn permits(world: &World, member: u8, write: &Write, before: &[u8]) -> bool {
    match write.zone {
        Zone::Superblock => false,
        Zone::Headers | Zone::Prepares => {
            let mut slots = changed_slots(world, write, before).into_iter();
            slots.all(|slot| {
                rot::permits_sector(world, member, slot)
                    && world.checker.may_go_astray(member, slot)
            })
        }
        Zone::Replies => rot::permits_reply(world, member, write.offset),
        Zone::Grid => {
            let (header, _) = BlockHeader::read_from_prefix(&write.data).expect("a whole block");
            // The checker reads these of a new checkpoint itself; they rot at rest only.
            let read = header.kind == BlockKind::Manifest.code() || header.table == SESSIONS_TABLE;
            !read && rot::permits_block(world, address_at(world, write.offset), member)
        }
    }
}

/// Notes that it is.
fn note(world: &mut World, member: u8, write: &Write, before: &[u8]) {
    match write.zone {
        Zone::Headers | Zone::Prepares => {
            for slot in changed_slots(world, write, before) {
                world.checker.on_rot(member, slot);
            }
        }
        Zone::Grid => {
            let address = address_at(world, write.offset);
            world.checker.on_block_astray(member, address);
        }
        Zone::Superblock | Zone::Replies => {}
    }
}

/// Where a write lands instead: in the place of something that may be damaged, if it finds any.
fn victim(world: &World, member: u8, write: &Write, random: &mut Random) -> Option<u64> {
    let geometry = &world.options.geometry;
    let at = match write.zone {
        // A sector of headers is about 16 slots.
        Zone::Superblock | Zone::Headers => return None,
        Zone::Prepares => {
            let slot = random.below(u64::from(geometry.journal_slot_count.get()));
            let uncertain = world.options.uncertain[usize::from(member)];
            let permitted = rot::permits_slot(world, member, slot, uncertain);
            permitted.then(|| platter::slot_offset(geometry, slot))
        }
        Zone::Replies => {
            let slot = random.below(u64::from(geometry.session_count_max.get()));
            let at = geometry.reply_offset(slot);
            rot::permits_reply(world, member, at).then_some(at)
        }
        Zone::Grid => {
            let mut blocks = world.checker.blocks(member);
            blocks.retain(|address| rot::permits_block(world, *address, member));
            let at = |address| geometry.block_offset(address);
            (!blocks.is_empty()).then(|| at(random.pick(&blocks)))
        }
    };
    at.filter(|at| *at != write.offset && !world.disks[usize::from(member)].is_written(*at))
}

/// The slots that a write to the journal is about.
fn changed_slots(world: &World, write: &Write, before: &[u8]) -> Vec<u64> {
    if write.zone == Zone::Prepares {
        return vec![platter::slot_at(&world.options.geometry, write.offset)];
    }
    let size = SECTOR_SIZE / HEADERS_PER_SECTOR;
    let first = (write.offset - world.options.geometry.headers_offset()) / to_u64(size);
    let pairs = write.data.chunks(size).zip(before.chunks(size));
    let changed = pairs.enumerate().filter(|(_, (new, old))| new != old);
    changed.map(|(index, _)| first + to_u64(index)).collect()
}

fn address_at(world: &World, offset: u64) -> u64 {
    let geometry = &world.options.geometry;
    // The first block has address 1.
    (offset - geometry.grid_offset()) / u64::from(geometry.block_size.get()) + 1
}
