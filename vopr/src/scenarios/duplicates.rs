//! D: requests that come more than once, and frames that nobody should have sent.

use super::Scenario;
use super::partitions::alone_in_next_view;
use super::script::{Mark, Script, check, within};
use crate::cluster::directed::{Sent, frames};
use crate::cluster::world::with;
use crate::sim::verdict::{Failure, Verdict};
use bytes::Bytes;
use daftari::wire::header::command::{PONG_CLIENT, PREPARE, PREPARE_OK, REPLY, REQUEST};
use storage_format::Checksum;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "D01",
        "dup-request-across-views",
        "a request whose op was dropped is executed once in the next view, however often it comes",
        |s| Box::pin(dup_request_across_views(s)),
    ),
    Scenario::new(
        "D02",
        "dup-in-pipeline-and-queue",
        "a request comes again while it waits and while its op is under way: one op",
        |s| Box::pin(dup_in_pipeline_and_queue(s)),
    ),
    Scenario::new(
        "D03",
        "reply-then-late-duplicate",
        "a request comes again after its reply: the same reply, and no op",
        |s| Box::pin(reply_then_late_duplicate(s)),
    ),
    Scenario::new(
        "D04",
        "client-restart-same-ids",
        "a client that died sends the same events in a new session: they exist already",
        |s| Box::pin(client_restart_same_ids(s)),
    ),
    Scenario::new(
        "D05",
        "isolated-high-view-tells-client",
        "a client hears of a view that the quorum is not in: it is served all the same",
        |s| Box::pin(isolated_high_view_tells_client(s)),
    ),
    Scenario::new(
        "D06",
        "garbage-frames",
        "primary and backups get frames that no client sends: nothing comes of it",
        |s| Box::pin(garbage_frames(s)),
    ),
];

/// A client sends a request: what names it, and its frame.
async fn request_of(s: Script, client: usize) -> Result<(Checksum, Bytes), Failure> {
    s.issue(client);
    s.until("the request is sent", || s.waits(client)).await?;
    Ok(s.in_flight(client).expect("it waits"))
}

/// The request was executed once.
fn check_once(s: Script, request: &Checksum) -> Verdict {
    let ops = s.executed(request);
    check(ops.len() == 1, || {
        format!("a request was executed by ops {ops:?}")
    })
}

async fn dup_request_across_views(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let op = s.committed() + 1;
    let rule = s.lose(frames(PREPARE).from(a));
    let (request, frame) = request_of(s, 0).await?;
    s.until("the primary has it alone", || s.has(a, op)).await?;
    let dropped = s.prepare(a, op);
    let mark = s.mark();
    s.crash(a);
    s.end(rule);
    let start = s.new_view(mark).await?;
    check(start.op < op, || "the op is in the next view".into())?;
    for replica in [b, c, b] {
        s.send_raw(0, replica, &frame);
    }
    s.answered(0).await?;
    for replica in [b, c] {
        s.send_raw(0, replica, &frame);
    }
    s.start(a);
    s.settle().await?;
    s.send_raw(0, a, &frame);
    s.wait(500).await;
    check(s.history(op) != dropped, || {
        "the old op is committed".into()
    })?;
    check_once(s, &request)
}

async fn dup_in_pipeline_and_queue(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let rule = s.delay(frames(PREPARE_OK).to(a), 300);
    s.issue(1);
    let (request, frame) = request_of(s, 0).await?;
    // Queued, under way, and by way of a backup.
    for _ in 0..10 {
        let replica = if s.below(3) == 0 { b } else { a };
        s.send_raw(0, replica, &frame);
        s.wait(s.below(40)).await;
    }
    s.answered(0).await?;
    s.end(rule);
    s.settle().await?;
    check_once(s, &request)
}

async fn reply_then_late_duplicate(s: Script) -> Verdict {
    let [a, b, _] = s.begin().await?;
    let (request, frame) = request_of(s, 0).await?;
    s.answered(0).await?;
    s.settle().await?;
    let reply = |sent: &[Sent]| -> Vec<u64> {
        let mut mine: Vec<u64> = sent
            .iter()
            .filter(|it| it.item == request)
            .map(|it| it.op)
            .collect();
        mine.dedup();
        mine
    };
    let head = s.committed();
    let mark = s.mark();
    s.send_raw(0, a, &frame);
    s.send_raw(0, b, &frame);
    let again = frames(REPLY).to_client(0);
    s.until("it is answered twice more", || {
        s.all_since(mark, &again)
            .iter()
            .filter(|it| it.item == request)
            .count()
            >= 2
    })
    .await?;
    let ops = reply(&s.all_since(Mark::START, &again));
    check(ops.len() == 1, || format!("the replies name ops {ops:?}"))?;
    check(s.committed() == head, || "another op was made".into())?;
    check_once(s, &request)
}

async fn client_restart_same_ids(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    let rule = s.lose(frames(REPLY).to_client(0));
    let (request, _) = request_of(s, 0).await?;
    s.until("it is executed", || !s.executed(&request).is_empty())
        .await?;
    s.client_dies(0);
    s.end(rule);
    s.answered(0).await?;
    let requests = s.all_since(Mark::START, &frames(REQUEST).from_client(0));
    let old = requests.iter().find(|it| it.item == request);
    let body = |sent: &Sent| sent.bytes.slice(256..);
    let same = requests
        .iter()
        .filter(|it| it.item != request && old.is_some_and(|old| body(old) == body(it)));
    let again: Vec<Checksum> = same.map(|it| it.item).collect();
    check(
        again.iter().any(|again| s.executed(again).len() == 1),
        || "it was not sent and executed again".into(),
    )?;
    check_once(s, &request)?;
    s.settle().await
}

async fn isolated_high_view_tells_client(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let view = alone_in_next_view(s, (a, b, c)).await?;
    // It asks who is there, and hears of the later view.
    let mark = s.mark();
    let ping = daftari::wire::build::ping(&s.client_state(0), 42);
    with(|world| {
        let connection = world.network.connect(0, b);
        let frame = ping.clone();
        let action = crate::cluster::world::Action::FromClient(b, 0, connection, frame);
        world.at(crate::sim::world::now(), action);
    });
    s.sent_since(mark, frames(PONG_CLIENT).from(b).to_client(0).arrived())
        .await?;
    s.wait(100).await;
    check(s.view(b) > view && s.view(a) == view, || {
        "the view is not ahead".into()
    })?;
    let head = s.committed();
    s.issue(0);
    within(30_000, "the client is served", || {
        !s.waits(0) && s.committed() > head
    })
    .await?;
    s.rejoin(b);
    s.settle().await
}

async fn garbage_frames(s: Script) -> Verdict {
    let [_, _, _] = s.begin().await?;
    let view = s.newest_view();
    s.load(40);
    for _ in 0..60 {
        for replica in 0..s.replicas() {
            s.send_garbage(1, replica);
        }
        s.wait(s.below(20)).await;
    }
    s.idle().await?;
    check(s.newest_view() == view, || "the view changed".into())?;
    s.settle().await
}
