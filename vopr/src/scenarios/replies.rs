//! R: replies that are lost or damaged, and sessions that come and go.

use super::Scenario;
use super::script::{Mark, Script, check, within};
use crate::cluster::directed::{Rule, frames};
use crate::cluster::world::with;
use crate::sim::disk::Zone;
use crate::sim::verdict::{Failure, Verdict};
use daftari::stdx::marks;
use daftari::wire::header::command::{EVICTION, REPLY, REQUEST, REQUEST_REPLY, STORED_REPLY};
use daftari::wire::{ClientState, Evicted, Operation};
use storage_format::{Checksum, ReplySlotHeader, SECTOR_SIZE};
use zerocopy::FromBytes;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "R01",
        "reply-lost",
        "a reply is lost: the client asks again, there is one execution and the same reply",
        |s| Box::pin(reply_lost(s)),
    ),
    Scenario::new(
        "R02",
        "reply-damaged",
        "the stored replies of a new primary are damaged: it has them from another replica",
        |s| Box::pin(reply_damaged(s)),
    ),
    Scenario::new(
        "R03",
        "reply-damaged-everywhere",
        "a stored reply is damaged on all replicas: its client is told that its session is gone",
        |s| Box::pin(reply_damaged_everywhere(s)),
    ),
    Scenario::new(
        "R04",
        "reply-write-vs-repair",
        "a checkpoint writes a reply when another's answer to what was asked for before comes at last: the \
         newer one stays, in memory and in its slot",
        |s| Box::pin(reply_write_vs_repair(s)),
    ),
    Scenario::new(
        "R05",
        "reply-slot-reuse-after-evict",
        "a replica writes the reply of a session that is gone, and its slot another's, where the others are: \
         it goes on from their checkpoint when that is done, and not before",
        |s| Box::pin(slot_reuse_after_evict(s)),
    )
    .tuned(|options| options.clients = 9),
    Scenario::new(
        "R06",
        "session-evict",
        "more clients than sessions: the oldest go, on all replicas at the same op",
        |s| Box::pin(session_evict(s)),
    )
    .tuned(|options| options.clients = 9),
    Scenario::new(
        "R07",
        "evicted-client-request",
        "a client whose session made room is told so, and its request is not executed",
        |s| Box::pin(evicted_client_request(s)),
    )
    .tuned(|options| options.clients = 9),
    Scenario::new(
        "R08",
        "register-replayed",
        "an old register request comes again after the session is gone: a new session, and the old \
         one is no use",
        |s| Box::pin(register_replayed(s)),
    )
    .tuned(|options| options.clients = 9),
    Scenario::new(
        "R09",
        "request-fork",
        "another request under the number of the last one is not executed, and not answered",
        |s| Box::pin(request_fork(s)),
    ),
];

async fn reply_lost(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    let mark = s.mark();
    let rule = s.lose(frames(REPLY).to_client(0));
    s.issue(0);
    s.until("three replies are lost", || s.hits(rule) >= 3)
        .await?;
    let (request, _) = s.in_flight(0).expect("it waits");
    s.end(rule);
    s.answered(0).await?;
    let replies = s.all_since(mark, &frames(REPLY).to_client(0));
    let mut ops: Vec<u64> = replies.iter().map(|it| it.op).collect();
    ops.dedup();
    check(ops.len() == 1 && s.executed(&request) == ops, || {
        format!("the replies name ops {ops:?}")
    })?;
    s.settle().await
}

/// A client's request is executed, and its reply never received. Gives the request.
async fn executed_unheard(s: Script) -> Result<(Checksum, Rule), Failure> {
    let rule = s.lose(frames(REPLY).to_client(0));
    s.issue(0);
    s.until("it is executed, and not answered", || {
        let executed = |(request, _): &(Checksum, _)| !s.executed(request).is_empty();
        s.in_flight(0).as_ref().is_some_and(executed)
    })
    .await?;
    let (request, _) = s.in_flight(0).expect("it waits");
    Ok((request, rule))
}

/// The same, with the reply in a checkpoint of all.
async fn reply_in_checkpoint(s: Script) -> Result<(Checksum, Rule), Failure> {
    let (request, rule) = executed_unheard(s).await?;
    while (0..s.replicas()).any(|replica| s.checkpoint(replica) == 0) {
        s.requests(1, 1).await?;
    }
    check(s.executed(&request)[0] < 20, || {
        "its reply should be in a checkpoint".into()
    })?;
    Ok((request, rule))
}

async fn reply_damaged(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let (request, rule) = reply_in_checkpoint(s).await?;
    s.crash(b);
    s.damage_replies(b);
    s.start(b);
    s.caught_up(b).await?;
    let mark = s.mark();
    s.crash(a);
    let start = s.new_view(mark).await?;
    s.end(rule);
    s.answered(0).await?;
    if s.primary() == b && start.view == s.newest_view() {
        s.some_since(mark, &frames(REQUEST_REPLY).from(b), "its own is damaged")?;
        s.some_since(mark, &frames(STORED_REPLY).to(b), "another has it")?;
    }
    check(s.executed(&request).len() == 1, || {
        "it was executed again".into()
    })?;
    s.start(a);
    s.settle().await
}

async fn reply_damaged_everywhere(s: Script) -> Verdict {
    let roles: [u8; 3] = s.begin().await?;
    let (request, rule) = reply_in_checkpoint(s).await?;
    for replica in roles {
        s.crash(replica);
        s.damage_replies(replica);
        s.start(replica);
    }
    s.provoke(0, Evicted::NoSession);
    let mark = s.mark();
    s.end(rule);
    within(120_000, "the client is told", || {
        let told = [frames(EVICTION).to_client(0), frames(REPLY).to_client(0)];
        told.iter().any(|filter| s.was_sent(mark, filter))
    })
    .await?;
    s.requests(1, 1).await?;
    check(s.executed(&request).len() == 1, || {
        "it was executed again".into()
    })?;
    s.answered(0).await?;
    s.settle().await
}

/// More clients come than there are sessions beside those of the first two.
async fn crowd(s: Script) -> Verdict {
    for client in 2..9 {
        s.requests(client, 1).await?;
    }
    s.settle().await
}

/// So many clients come that the session of the first is gone; what that client was then.
async fn crowd_out(s: Script) -> Result<ClientState, Failure> {
    crowd(s).await?;
    let client = s.client_state(0);
    let gone = with(|world| world.checker.history.session(client.client).is_none());
    check(gone && client.session > 0, || {
        "the first session should be gone".into()
    })?;
    Ok(client)
}

/// One replica after the other is stopped that leads, until this one does.
async fn make_primary(s: Script, replica: u8) -> Verdict {
    while s.primary() != replica {
        let (mark, primary) = (s.mark(), s.primary());
        s.crash(primary);
        s.new_view(mark).await?;
        s.start(primary);
        s.caught_up(primary).await?;
    }
    Ok(())
}

async fn reply_write_vs_repair(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let (old, rule) = reply_in_checkpoint(s).await?;
    s.crash(b);
    s.damage_replies(b);
    s.start(b);
    s.caught_up(b).await?;
    let held = s.hold(frames(STORED_REPLY).to(b));
    s.crash(a);
    let answer = s.sent(frames(STORED_REPLY).to(b)).await?;
    check(s.primary() == b, || "another one asks".into())?;
    // The others go on, and answer.
    s.start(a);
    s.isolate(b);
    s.end(rule);
    s.answered(0).await?;
    let (new, rule) = executed_unheard(s).await?;
    let client = s.client_state(0).client;
    let slot = slot_of(s, a, client).expect("it is in the checkpoint");
    s.rejoin(b);
    s.stall(b, Zone::Replies);
    while s.checkpoint(a) < 40 {
        s.requests(1, 1).await?;
    }
    let offset = s.geometry().reply_offset(slot);
    let is_written = || s.writing(b, Zone::Replies).contains(&offset);
    s.until("the newer one is being written", is_written)
        .await?;
    s.end(held);
    s.wait(200).await;
    check(is_written() && s.checkpoint(b) == 20, || {
        "it was written too early".into()
    })?;
    s.unstall(b, Zone::Replies);
    s.until("it is written", || s.checkpoint(b) == 40).await?;
    check(stored(s, b, slot) == (client, s.executed(&new)[0]), || {
        "its slot has another one".into()
    })?;
    let lost = s.below(2) == 0;
    if lost {
        // Only its header tells which one it is then.
        s.crash(b);
        s.damage_replies(b);
        s.start(b);
        s.caught_up(b).await?;
        s.wait(500).await;
        s.replay(&answer);
    }
    let mark = s.mark();
    make_primary(s, b).await?;
    let told = frames(REPLY).to_client(0).view(s.newest_view());
    s.end(rule);
    s.answered(0).await?;
    s.some_since(mark, &told, "it leads")?;
    let asks = s.was_sent(mark, &frames(REQUEST_REPLY).from(b));
    check(asks == lost, || "it took the older one for it".into())?;
    check(
        s.executed(&old).len() == 1 && s.executed(&new).len() == 1,
        || "one of them was executed again".into(),
    )?;
    s.settle().await
}

/// Whose reply a slot of a replica has, and of which op.
fn stored(s: Script, replica: u8, slot: u64) -> (u128, u64) {
    let bytes = s.bytes(replica, s.geometry().reply_offset(slot), SECTOR_SIZE);
    let (header, _) = ReplySlotHeader::read_from_prefix(&bytes).expect("a sector");
    (header.client.get(), header.op.get())
}

/// The slot of a replica that has the reply of a client.
fn slot_of(s: Script, replica: u8, client: u128) -> Option<u64> {
    let mut slots = 0..u64::from(s.geometry().session_count_max.get());
    slots.find(|slot| stored(s, replica, *slot).0 == client)
}

async fn slot_reuse_after_evict(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let evicted = s.client_state(0).client;
    s.stall(b, Zone::Replies);
    while s.committed() < 20 {
        s.requests(1, 1).await?;
    }
    s.until("the primary makes a checkpoint", || s.checkpoint(a) == 20)
        .await?;
    let slot = slot_of(s, a, evicted).expect("it is in the checkpoint");
    let offset = s.geometry().reply_offset(slot);
    let is_late = || s.checkpoint(b) == 0 && s.writing(b, Zone::Replies).contains(&offset);
    s.until("the backup writes the reply", is_late).await?;
    let op = s.committed() + 1;
    s.isolate(b);
    for client in 2..9 {
        s.requests(client, 1).await?;
    }
    // The journals of the others do not have what it lacks.
    while s.committed() < op + s.slots() + 3 {
        s.requests(8, 1).await?;
    }
    let (owner, _) = stored(s, a, slot);
    let mut clients = 2..9;
    let owner = clients.find(|client| s.client_state(*client).client == owner);
    let Some(owner) = owner else {
        return check(false, || "the slot should be another's".into());
    };
    check(s.checkpoint(a) == 40 && !s.has(a, op), || {
        "the backup should need a checkpoint".into()
    })?;
    s.rejoin(b);
    s.until("it is to go on from another checkpoint", || {
        s.has_reached(marks::Mark::Syncs)
    })
    .await?;
    s.stays(2_000, "the write comes first", is_late).await?;
    s.reached(marks::Mark::SyncWaits)?;
    s.unstall(b, Zone::Replies);
    s.until("it takes the checkpoint", || {
        with(|world| world.checker.counts.syncs) > 0
    })
    .await?;
    s.settle().await?;
    // A reply that it makes itself.
    s.requests(owner, 1).await?;
    let client = s.client_state(owner);
    while s.committed() < 62 {
        s.requests(1, 1).await?;
    }
    s.settle().await?;
    for replica in 0..s.replicas() {
        let found = stored(s, replica, slot);
        check(
            found == stored(s, a, slot) && found.0 == client.client,
            || format!("replica {replica} has {found:?} in slot {slot}"),
        )?;
    }
    Ok(())
}

async fn session_evict(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    s.requests(0, 1).await?;
    crowd(s).await?;
    let lost = with(|world| world.checker.history.seen.sessions_lost);
    check(lost >= 2, || format!("{lost} sessions made room"))?;
    s.settle().await
}

async fn evicted_client_request(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    let _client = crowd_out(s).await?;
    let mark = s.mark();
    s.issue(0);
    s.sent_since(mark, frames(EVICTION).to_client(0)).await?;
    let sent = s.all_since(mark, &frames(REQUEST).from_client(0));
    let first = sent.first().map(|it| it.item);
    s.answered(0).await?;
    check(
        first.is_some_and(|first| s.executed(&first).is_empty()),
        || "it was executed without a session".into(),
    )?;
    s.settle().await
}

async fn register_replayed(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    let client = crowd_out(s).await?;
    let registers = s.all_since(Mark::START, &frames(REQUEST).from_client(0).op(0));
    let register = registers.first().expect("it registered").clone();
    s.replay(&register);
    let registered = || with(|world| world.checker.history.registered(client.client).to_vec());
    s.until("it is executed again", || registered().len() == 2)
        .await?;
    let mark = s.mark();
    s.issue(0);
    s.sent_since(mark, frames(EVICTION).to_client(0)).await?;
    let sent = s.all_since(mark, &frames(REQUEST).from_client(0));
    let old = sent.first().map(|it| it.item);
    check(old.is_some_and(|old| s.executed(&old).is_empty()), || {
        "a request of the old session was executed".into()
    })?;
    s.answered(0).await?;
    s.settle().await
}

async fn request_fork(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let state = s.client_state(0);
    s.issue(0);
    s.until("it is executed", || {
        let executed = |(request, _): &(Checksum, _)| !s.executed(request).is_empty();
        !s.waits(0) || s.in_flight(0).as_ref().is_some_and(executed)
    })
    .await?;
    s.answered(0).await?;
    let head = s.committed();
    let body = 7_u128.to_le_bytes();
    let fork = daftari::wire::build::request(&state, Operation::LookupTransfersUnbatched, &body);
    let mark = s.mark();
    s.send_raw(0, a, &fork);
    s.wait(2_000).await;
    s.none_since(mark, &frames(REPLY).to_client(0), "it is another request")?;
    let forked = Checksum(fork[..16].try_into().expect("16 bytes"));
    check(
        s.executed(&forked).is_empty() && s.committed() == head,
        || "the other request was executed".into(),
    )?;
    within(60_000, "the client goes on", || s.committed() == head).await?;
    s.requests(0, 1).await?;
    s.settle().await
}
