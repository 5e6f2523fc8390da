//! Damage at rest of journal slots and blocks, as much as replication has to mend.
//!
//! The unit is a header sector together with the prepares that it describes. Of each, a set of at most
//! `q_r - 1` replicas is drawn that may be damaged; no replica has all of them. A slot is damaged once
//! at most until it is whole again, header or prepare, and never together with a torn write. Standbys are
//! not counted, and may be damaged anywhere; a wild seed regards none of this.

use super::network::Place;
use super::phases::Phase;
use super::quorum;
use super::world::{Action, World};
use crate::random::{Random, mix};
use crate::seed::injection::Family;
use crate::sim::disk::{Survived, Write, Zone};
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use crate::sim::platter;
use crate::sim::world::now;
use daftari::stdx::{to_u64, u64_to_usize};
use std::collections::BTreeSet;
use storage_format::SECTOR_SIZE;
use storage_format::geometry::HEADERS_PER_SECTOR;

/// Which sectors of headers may be damaged on which replicas.
#[derive(Clone, Debug, Default)]
pub struct Atlas(BTreeSet<(u64, u8)>);

impl Atlas {
    /// Draws one for a journal of so many sectors of headers.
    #[must_use]
    pub fn new(replicas: u8, sectors: u64, random: &mut Random) -> Self {
        let mut eligible = BTreeSet::new();
        for sector in 0..sectors {
            for _ in 1..quorum::replication(replicas) {
                let replica = u8::try_from(random.below(u64::from(replicas))).expect("below 6");
                let whole = (0..sectors)
                    .filter(|other| *other != sector)
                    .all(|other| eligible.contains(&(other, replica)));
                if !whole {
                    eligible.insert((sector, replica));
                }
            }
        }
        Self(eligible)
    }

    fn permits(&self, sector: u64, replica: u8) -> bool {
        self.0.contains(&(sector, replica))
    }
}

/// Whether it does not matter what else is damaged: on standbys, which nobody counts on, and in wild seeds.
fn rots_freely(world: &World, member: u8) -> bool {
    world.options.wild || world.options.is_standby(member)
}

/// Whether a block may be damaged on a replica: of each, on at most `q_r - 1`.
pub fn permits_block(world: &World, address: u64, replica: u8) -> bool {
    rots_freely(world, replica) || is_drawn(world, address, replica)
}

/// Whether the reply at an offset may be damaged on a replica: of each slot, on at most `q_r - 1`.
pub fn permits_reply(world: &World, replica: u8, offset: u64) -> bool {
    rots_freely(world, replica) || is_drawn(world, !offset, replica)
}

/// Whether a replica is one of those, fewer than a quorum, that were drawn for a datum.
fn is_drawn(world: &World, datum: u64, replica: u8) -> bool {
    let replicas = world.options.replicas;
    (1..quorum::replication(replicas)).any(|nth| {
        let drawn = mix(world.options.salt ^ mix(datum) ^ to_u64(nth));
        drawn % u64::from(replicas) == u64::from(replica)
    })
}

/// Whether a slot may be damaged on a replica; at the head of its log and beyond only if it may be uncertain. On
/// a standby any may that is whole.
pub fn permits_slot(world: &World, replica: u8, slot: u64, uncertain: bool) -> bool {
    let permitted = permits_sector(world, replica, slot);
    world.options.wild || permitted && world.checker.may_rot(replica, slot, uncertain)
}

/// Whether any slot may be damaged on a replica that has its header in the same sector as this one.
pub fn permits_sector(world: &World, replica: u8, slot: u64) -> bool {
    let sector = slot / to_u64(HEADERS_PER_SECTOR);
    rots_freely(world, replica) || world.checker.atlas.permits(sector, replica)
}

/// Some blocks of the checkpoint of a replica may rot.
fn rot_blocks(world: &mut World, replica: u8, random: &mut Random) {
    let rate = rate_of_blocks(world, replica);
    if rate == 0 {
        return;
    }
    let geometry = world.options.geometry;
    for address in world.checker.blocks(replica) {
        let permitted = permits_block(world, address, replica);
        if !permitted || !random.chance(rate) {
            continue;
        }
        let own = &mut Random::new(random.any());
        let what = || format!("block {address} of {replica} rots");
        let place = Some(Place::Replica(replica));
        if !world.stage.inject(Family::RotBlock, place, what) {
            continue;
        }
        world.checker.on_block_rot(replica, address);
        // The first page has what all others are checked with.
        let disk = &mut world.disks[usize::from(replica)];
        disk.damage(geometry.block_offset(address), own);
    }
}

/// Blocks that rot at a time, of 1000.
fn rate_of_blocks(world: &World, replica: u8) -> u64 {
    match world.options.is_standby(replica) {
        true => world.options.standbys.rot,
        false => world.options.rot_blocks,
    }
}

/// Slots that rot at a crash, of 1000.
fn rate_of_slots(world: &World, replica: u8) -> u64 {
    match world.options.is_standby(replica) {
        true => world.options.standbys.rot,
        false => world.options.rot,
    }
}

/// When what is at rest on the disk of a replica that runs rots first, or next.
pub fn begin(world: &mut World) {
    let options = &world.options;
    if options.rot + options.rot_blocks + options.standbys.rot > 0 {
        let at = now() + world.random.rot.exponential(5_000 * MS);
        world.at(at, Action::Rot);
    }
}

/// Blocks and a prepare of a replica rot, which may run: somebody reads them, or the scrubber does.
pub fn at_rest(world: &mut World) {
    if world.phases.phase != Phase::Faults {
        return;
    }
    begin(world);
    let random = &mut Random::new(world.random.rot.any());
    let replica = u8::try_from(random.below(u64::from(world.options.members()))).expect("a few");
    rot_blocks(world, replica, random);
    let geometry = world.options.geometry;
    let slots = u64::from(geometry.journal_slot_count.get());
    let slot = random.below(slots);
    let what = || format!("slot {slot} of {replica} rots at rest");
    let place = Some(Place::Replica(replica));
    if rate_of_slots(world, replica) > 0
        && permits_slot(world, replica, slot, false)
        && world.stage.inject(Family::Rot, place, what)
    {
        world.checker.on_rot(replica, slot);
        world.checker.counts.rotten_at_rest += 1;
        let disk = &mut world.disks[usize::from(replica)];
        disk.damage(platter::slot_offset(&geometry, slot), random);
    }
}

/// Some slots of a replica that crashed may rot.
pub fn at_crash(world: &mut World, replica: u8, writes: &[(Write, Survived)], random: &mut Random) {
    rot_blocks(world, replica, random);
    let journal = |zone: Zone| matches!(zone, Zone::Headers | Zone::Prepares);
    let torn = writes
        .iter()
        .any(|(write, survived)| journal(write.zone) && *survived != Survived::Whole);
    let rate = rate_of_slots(world, replica);
    if rate == 0 || torn && !rots_freely(world, replica) {
        return;
    }
    let geometry = world.options.geometry;
    for slot in 0..u64::from(geometry.journal_slot_count.get()) {
        let sector = slot / to_u64(HEADERS_PER_SECTOR);
        let uncertain = world.options.uncertain[usize::from(replica)];
        if !permits_slot(world, replica, slot, uncertain) || !random.chance(rate) {
            continue;
        }
        let own = &mut Random::new(random.any());
        let what = || format!("slot {slot} of {replica} rots");
        let place = Some(Place::Replica(replica));
        if !world.stage.inject(Family::Rot, place, what) {
            continue;
        }
        world.checker.on_rot(replica, slot);
        let disk = &mut world.disks[usize::from(replica)];
        let header = own.chance(500);
        let both = world.options.wild && own.chance(300);
        if header || both {
            // The header only, not its neighbours: that would be damage of 16 slots.
            let offset = geometry.headers_offset() + sector * to_u64(SECTOR_SIZE);
            let mut bytes = disk.bytes(offset, SECTOR_SIZE);
            let at = u64_to_usize(slot) % HEADERS_PER_SECTOR * 256 + own.index(256);
            bytes[at] ^= 1 << own.below(8);
            disk.put(offset, &bytes);
        }
        if !header || both {
            disk.damage(platter::slot_offset(&geometry, slot), own);
        }
    }
}
