//! Reads that give something else, once: unreadable sectors, wrong bits, or the bytes of another place.
//!
//! The platter is right, and so are all later reads of the same slot or block. No atlas limits this: whoever reads
//! is to read again before it takes what it found for damage. Only the copies of the superblock are spared,
//! since they are read once at the start, all four, and a file may be left with two.

use super::network::Place;
use super::phases::Phase;
use super::world::World;
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::disk::Zone;
use crate::sim::draws::Draws;
use daftari::stdx::to_u64;
use storage_format::SECTOR_SIZE;

/// Of 1000 reads, those that give something else; none in most seeds. A stream of its own, so that other seeds stay
/// what they are.
#[must_use]
pub fn rate(seed: u64) -> u64 {
    let random = &mut Random::stream(seed, 215);
    let rate = random.between(1, 20);
    if random.chance(400) { rate } else { 0 }
}

/// A member has read `buffer` at `offset`: it may get something else.
pub fn strike(world: &mut World, member: u8, offset: u64, buffer: &mut [u8]) {
    if let Some(directed) = &mut world.directed
        && directed.misreads(member, offset)
    {
        buffer[0] ^= 1;
        world.trace(|| format!("{member} reads something else at {offset}"));
        return;
    }
    let zone = world.disks[usize::from(member)].zone(offset);
    let never = world.options.misreads == 0 || zone == Zone::Superblock;
    if never || world.phases.phase != Phase::Faults || buffer.is_empty() {
        return;
    }
    let own = &mut Random::new(world.random.misread.any());
    let (slot, _) = world.disks[usize::from(member)].slot(zone, offset);
    if world.misread.contains(&(member, slot)) || !own.chance(world.options.misreads) {
        return;
    }
    let what = || format!("a read of {zone:?} of {member} at {offset} gives something else");
    let place = Some(Place::Replica(member));
    if !world.stage.inject(Family::Misread, place, what) {
        return;
    }
    world.misread.insert((member, slot));
    world.checker.counts.misreads += 1;
    let sectors = buffer.len() / SECTOR_SIZE;
    let at = own.index(sectors) * SECTOR_SIZE;
    match own.below(3) {
        // Unreadable: that is how the storage says so.
        0 => buffer[at..at + SECTOR_SIZE].fill(0),
        1 => buffer[at + own.index(SECTOR_SIZE)] ^= 1 << own.below(8),
        _ => {
            let disk = &world.disks[usize::from(member)];
            let all = disk.size() / to_u64(SECTOR_SIZE);
            let elsewhere = own.below(all) * to_u64(SECTOR_SIZE);
            disk.get(elsewhere, &mut buffer[at..]);
        }
    }
}
