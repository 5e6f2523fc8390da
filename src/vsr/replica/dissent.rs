//! Members whose data files say something that this one's contradicts.
//!
//! What they say has to be said for a while: one frame that somebody made up ends nothing.

use super::timers::PATIENCE;
use crate::constants::{REPLICA_COUNT_MAX, STANDBY_COUNT_MAX};

/// Members that there can be.
const MEMBERS_MAX: usize = (REPLICA_COUNT_MAX + STANDBY_COUNT_MAX) as usize;
/// How long a member says something until it is taken for what its file says.
const LONG: u64 = 4 * PATIENCE;
/// Longest from one time that it says so to the next: some speak once a second.
const PAUSE: u64 = 6 * PATIENCE;

/// What a member says.
#[derive(Clone, Copy, Debug)]
struct Said {
    what: u32,
    /// Since when it says nothing else,
    first: u64,
    /// and when it said so last.
    last: u64,
}

/// What each member says, if it is not what the file here says.
#[derive(Debug, Default)]
pub(super) struct Dissent([Option<Said>; MEMBERS_MAX]);

impl Dissent {
    /// A member contradicts; whether that is new.
    pub(super) fn hear(&mut self, member: u8, what: u32, now: u64) -> bool {
        let said = &mut self.0[usize::from(member)];
        let before = said.filter(|said| said.what == what && now <= said.last + PAUSE);
        *said = Some(Said {
            what,
            first: before.map_or(now, |before| before.first),
            last: now,
        });
        before.is_none()
    }

    /// A member says the same as the file here.
    pub(super) fn agree(&mut self, member: u8) {
        self.0[usize::from(member)] = None;
    }

    /// How many members have been saying so for long.
    pub(super) fn count(&self, what: u32, now: u64) -> usize {
        let said = self.0.iter().flatten();
        let insist = said.filter(|said| {
            let long = said.last >= said.first + LONG;
            said.what == what && long && now <= said.last + PAUSE
        });
        insist.count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Dissent, LONG, PAUSE};

    #[test]
    fn who_says_the_same_for_long_counts() {
        let mut dissent = Dissent::default();
        assert!(dissent.hear(3, 5, 0) && dissent.hear(11, 5, 1));
        assert!(!dissent.hear(3, 5, LONG) && !dissent.hear(11, 5, LONG));
        assert_eq!(dissent.count(5, LONG), 1);
        assert!(!dissent.hear(11, 5, LONG + 1));
        assert_eq!(dissent.count(5, LONG + 1), 2);
        assert_eq!(dissent.count(4, LONG + 1), 0);
        assert_eq!(dissent.count(5, LONG + PAUSE + 1), 1, "the other is silent");
    }

    #[test]
    fn a_pause_another_word_and_agreement_begin_anew() {
        let said = || {
            let mut dissent = Dissent::default();
            assert!(dissent.hear(0, 5, 0));
            dissent
        };
        assert!(!said().hear(0, 5, PAUSE) && said().hear(0, 5, PAUSE + 1));
        let mut other = said();
        assert!(other.hear(0, 6, 1) && other.hear(0, 5, LONG));
        assert_eq!(other.count(5, LONG), 0);
        let mut agrees = said();
        agrees.agree(0);
        assert!(agrees.hear(0, 5, LONG));
        assert_eq!(agrees.count(5, LONG), 0);
    }
}
