//! Links that are worse than others: they come and go, carry small frames only, or are slow; and queues that
//! are full.
//!
//! A link's trouble comes in spells of equal length, so that what it decides needs no draws.

use super::network::Place;
use crate::random::Random;
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use daftari::stdx::to_u64;

/// What is wrong with a link.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// No frame arrives.
    Down,
    /// No frame of more bytes arrives.
    SmallOnly(usize),
    /// A byte takes so many nanoseconds more.
    Slow(u64),
}

/// When something is wrong with a link between members, one way.
#[derive(Clone, Copy, Debug)]
struct Spells {
    link: (u8, u8),
    trouble: Trouble,
    /// Nanoseconds that a spell takes, and as long it is well.
    length: u64,
}

/// All that is wrong with links in a seed.
#[derive(Clone, Debug, Default)]
pub struct LinkTroubles {
    spells: Vec<Spells>,
    /// Frames that are on their way over a link at most; none if it does not matter.
    queue: Option<usize>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It does not arrive.
    Lost,
    /// It takes so many nanoseconds longer.
    Late(u64),
}

impl LinkTroubles {
    /// Those of a seed, none in most; a stream of its own, so that other seeds stay what they are.
    #[must_use]
    pub fn of_seed(seed: u64, members: u8) -> Self {
        let random = &mut Random::stream(seed, 219);
        let mut troubles = Self::default();
        if random.chance(100) {
            troubles.queue = Some(random.between(2, 20).try_into().expect("a few"));
        }
        if members < 2 || !random.chance(300) {
            return troubles;
        }
        for _ in 0..random.between(1, 3) {
            let members: Vec<u8> = (0..members).collect();
            let (from, step) = (random.pick(&members), random.pick(&members[1..]));
            let to = (from + step) % u8::try_from(members.len()).expect("a few");
            let trouble = match random.below(3) {
                0 => Trouble::Down,
                1 => Trouble::SmallOnly(random.pick(&[256, 1024, 16 * 1024])),
                _ => Trouble::Slow(random.pick(&[1_000, 10_000, 100_000])),
            };
            let length = random.pick(&[50, 500, 5_000]) * MS + random.below(500 * MS);
            let there = Spells {
                link: (from, to),
                trouble,
                length,
            };
            troubles.spells.push(there);
            if random.chance(500) {
                let link = (to, from);
                troubles.spells.push(Spells { link, ..there });
            }
        }
        troubles
    }

    /// Whether it matters how many frames are on their way over a link.
    #[must_use]
    pub fn has_queues(&self) -> bool {
        self.queue.is_some()
    }

    /// What becomes of a frame of so many bytes that is sent over a link, on which so many others are on their way.
    #[must_use]
    pub fn fate(&self, link: (Place, Place), now: u64, size: usize, under_way: usize) -> Fate {
        if self.queue.is_some_and(|queue| under_way >= queue) {
            return Fate::Lost;
        }
        let (Place::Replica(from), Place::Replica(to)) = link else {
            return Fate::Late(0);
        };
        let mut later = 0;
        for spells in &self.spells {
            let on = now / spells.length % 2 == 1;
            if spells.link != (from, to) || !on {
                continue;
            }
            match spells.trouble {
                Trouble::Down => return Fate::Lost,
                Trouble::SmallOnly(largest) if size > largest => return Fate::Lost,
                Trouble::SmallOnly(_) => {}
                Trouble::Slow(byte) => later += byte * to_u64(size),
            }
        }
        Fate::Late(later)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, LinkTroubles, Place, Spells, Trouble};

    #[test]
    fn a_link_is_in_trouble_every_other_spell() {
        let troubles = |trouble| LinkTroubles {
            spells: vec![Spells {
                link: (0, 1),
                trouble,
                length: 100,
            }],
            queue: Some(3),
        };
        let there = (Place::Replica(0), Place::Replica(1));
        let back = (Place::Replica(1), Place::Replica(0));
        let down = troubles(Trouble::Down);
        assert_eq!(down.fate(there, 99, 1, 0), Fate::Late(0));
        assert_eq!(down.fate(there, 100, 1, 0), Fate::Lost);
        assert_eq!(down.fate(there, 200, 1, 0), Fate::Late(0));
        assert_eq!(down.fate(back, 100, 1, 0), Fate::Late(0));
        assert_eq!(down.fate(back, 100, 1, 3), Fate::Lost);
        let small = troubles(Trouble::SmallOnly(256));
        assert_eq!(small.fate(there, 100, 256, 0), Fate::Late(0));
        assert_eq!(small.fate(there, 100, 257, 0), Fate::Lost);
        let slow = troubles(Trouble::Slow(7));
        assert_eq!(slow.fate(there, 100, 3, 0), Fate::Late(21));
    }
}
