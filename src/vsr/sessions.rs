//! Client sessions: who is registered, and the last reply of each.
//!
//! Invariants:
//! * The table changes only when an op is executed, so it is equal on every replica at equal ops.
//! * A session executes each of its requests once: a request is new only if its number is the last
//!   one's plus 1 and it names the last reply as its parent.
//! * When the table is full, the session whose last commit is the oldest makes room.

use crate::stdx::planted::{Bug, planted};
use crate::stdx::to_usize;
use crate::wire::ReplyHeader;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use storage_format::RequestEntry;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A session as a checkpoint stores it (288 bytes).
#[derive(
    Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SessionRecord {
    /// Header of the last reply.
    pub reply: ReplyHeader,
    /// Op of the register request.
    pub session: U64,
    /// Position of the last request within its prepare; orders commits of one op.
    pub entry: U32,
    /// Slot of the client-replies zone.
    pub slot: U32,
    /// Zero.
    pub reserved: [u8; 16],
}

const _: () = assert!(size_of::<SessionRecord>() == 288);

/// A registered client.
#[derive(Clone, Debug)]
pub struct Session {
    /// What a checkpoint stores of it.
    pub record: SessionRecord,
    /// The last reply as a whole frame; `None` when its slot in the data file is damaged.
    pub reply: Option<Bytes>,
    /// Whether its slot in the data file has that reply. If not, the next checkpoint writes it.
    pub saved: bool,
}

/// All sessions, by client.
#[derive(Debug)]
pub struct Sessions {
    by_client: BTreeMap<u128, Session>,
    slot_used: Vec<bool>,
}

/// What a request is to its session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// To be executed.
    New,
    /// The last one again: its reply is to be sent again.
    Duplicate,
    /// Old, out of order, or something else under the number of the last: no answer.
    Stale,
    /// The client has no session.
    NoSession,
    /// The client has a newer session.
    SessionTooLow,
    /// The client claims a session that does not exist yet.
    SessionInFuture,
    /// The session was registered by another release.
    ReleaseMismatch,
}

/// The sessions as the replica and whoever executes ops share them; nobody holds them for long.
pub type SharedSessions = Rc<RefCell<Sessions>>;

impl Sessions {
    /// An empty table for `count_max` sessions.
    #[must_use]
    pub fn new(count_max: u32) -> Self {
        Self {
            by_client: BTreeMap::new(),
            slot_used: vec![false; to_usize(count_max)],
        }
    }

    /// The session of `client`.
    #[must_use]
    pub fn find(&self, client: u128) -> Option<&Session> {
        self.by_client.get(&client)
    }

    /// All sessions, in the order of the clients' ids.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_client.values()
    }

    /// Sessions that there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_client.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }

    /// Judges a request against the sessions; `commit` is the highest op executed.
    #[must_use]
    pub fn standing(&self, request: &crate::wire::RequestHeader, commit: u64) -> Standing {
        let Some(session) = self.by_client.get(&request.client.get()) else {
            return if request.request.get() == 0 {
                Standing::New
            } else if request.session.get() > commit {
                Standing::SessionInFuture
            } else {
                Standing::NoSession
            };
        };
        let last = &session.record.reply;
        if request.request.get() > 0 {
            if request.session.get() < session.record.session.get() {
                return Standing::SessionTooLow;
            }
            if request.session.get() > session.record.session.get() {
                return Standing::SessionInFuture;
            }
            if request.release != last.release {
                return Standing::ReleaseMismatch;
            }
        }
        if request.request == last.request {
            if request.checksum == last.request_checksum {
                if planted(Bug::SkipDuplicateCheck) {
                    return Standing::New;
                }
                Standing::Duplicate
            } else {
                Standing::Stale
            }
        } else if request.request.get() == last.request.get() + 1
            && request.parent.get() == u128::from_le_bytes(last.context.0)
        {
            Standing::New
        } else {
            Standing::Stale
        }
    }

    /// Judges a prepared request at its turn to be executed: the session may be gone by then.
    #[must_use]
    pub fn standing_entry(&self, entry: &RequestEntry) -> Standing {
        let session = self.by_client.get(&entry.client.get());
        match session {
            None if entry.request.get() == 0 => Standing::New,
            None => Standing::NoSession,
            Some(session) => {
                let record = &session.record;
                let last = record.reply.request.get();
                let again = planted(Bug::SkipDuplicateCheck) && entry.request.get() == last;
                let next = entry.request.get() == last + 1 || again;
                if entry.session == record.session && next {
                    Standing::New
                } else {
                    Standing::Stale
                }
            }
        }
    }

    /// Stores the reply to a client's request; a register request makes the session. `entry` is the
    /// request's position in its prepare.
    ///
    /// Returns `false` when the session is gone: evicted between prepare and execution.
    ///
    /// # Panics
    /// When the table is corrupt.
    pub fn store_reply(&mut self, reply: &ReplyHeader, entry: u32, frame: Bytes) -> bool {
        let client = reply.client.get();
        if reply.request.get() == 0 {
            let slot = match self.by_client.remove(&client) {
                Some(old) => old.record.slot.get(),
                None => self.free_slot(),
            };
            let record = SessionRecord {
                reply: *reply,
                session: reply.op,
                entry: entry.into(),
                slot: slot.into(),
                reserved: [0; 16],
            };
            let previous = self.by_client.insert(
                client,
                Session {
                    record,
                    reply: Some(frame),
                    saved: false,
                },
            );
            assert!(previous.is_none());
            return true;
        }
        let Some(session) = self.by_client.get_mut(&client) else {
            return false;
        };
        session.record.reply = *reply;
        session.record.entry = entry.into();
        session.reply = Some(frame);
        session.saved = false;
        true
    }

    fn free_slot(&mut self) -> u32 {
        let free = self.slot_used.iter().position(|used| !used);
        let slot = match free {
            Some(slot) => slot,
            None => {
                let age = |session: &Session| (session.record.reply.op, session.record.entry);
                let oldest = self
                    .by_client
                    .iter()
                    .min_by_key(|(_, session)| {
                        let (op, entry) = age(session);
                        (op.get(), entry.get())
                    })
                    .map(|(client, _)| *client)
                    .expect("a full table is not empty");
                let evicted = self
                    .by_client
                    .remove(&oldest)
                    .expect("it was found just now");
                to_usize(evicted.record.slot.get())
            }
        };
        self.slot_used[slot] = true;
        u32::try_from(slot).expect("the table has at most 2^16 slots")
    }

    /// Puts a session back that a checkpoint stored; its reply is loaded later.
    ///
    /// # Errors
    /// When the record cannot be right: a slot or a client twice, or a slot out of range.
    pub fn restore(&mut self, record: SessionRecord) -> Result<(), &'static str> {
        let slot = to_usize(record.slot.get());
        if self.slot_used.get(slot) != Some(&false) {
            return Err("a session's reply slot is out of range or taken");
        }
        self.slot_used[slot] = true;
        let client = record.reply.client.get();
        match self.by_client.insert(
            client,
            Session {
                record,
                reply: None,
                saved: false,
            },
        ) {
            None => Ok(()),
            Some(_) => Err("a client has two sessions"),
        }
    }

    /// Gives a restored session its reply, from its slot if it was `saved` there.
    ///
    /// # Panics
    /// When the client has no session.
    pub fn restore_reply(&mut self, client: u128, frame: Bytes, saved: bool) {
        let session = self
            .by_client
            .get_mut(&client)
            .expect("the caller found the session");
        session.reply = Some(frame);
        session.saved = saved;
    }

    /// The slot of a client has its reply of `op` now.
    pub fn set_saved(&mut self, client: u128, op: u64) {
        if let Some(session) = self.by_client.get_mut(&client)
            && session.record.reply.op.get() == op
        {
            session.saved = true;
        }
    }
}
