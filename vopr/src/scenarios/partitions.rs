//! P: the network falls apart.
//!
//! `a` is the primary at first, `b` that of the next view, and so on.

use super::Scenario;
use super::script::{Script, check, within};
use crate::cluster::directed::{Filter, any_frame, frames};
use crate::sim::disk::{Survived, Zone};
use crate::sim::verdict::{Failure, Verdict};
use daftari::wire::header::command::{
    DO_VIEW_CHANGE, FORWARD, PREPARE, RELAY, REPLY, START_VIEW, START_VIEW_CHANGE,
};

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "P01",
        "backup-isolated",
        "a backup is cut off: the view stays, also when it comes back",
        |s| Box::pin(backup_cut(s, Way::Both)),
    ),
    Scenario::new(
        "P02",
        "backup-send-only",
        "a backup that hears nobody asks for views, and cannot force one",
        |s| Box::pin(backup_cut(s, Way::SendsOnly)),
    ),
    Scenario::new(
        "P03",
        "backup-receive-only",
        "a backup that nobody hears: the view stays",
        |s| Box::pin(backup_cut(s, Way::HearsOnly)),
    ),
    Scenario::new(
        "P04",
        "primary-isolated",
        "the primary is cut off: the others serve in another view, which stays when it comes back",
        |s| Box::pin(primary_cut(s, Way::Both)),
    ),
    Scenario::new(
        "P05",
        "primary-send-only",
        "the primary hears nobody: it falls silent when it cannot commit, and another serves",
        |s| Box::pin(primary_cut(s, Way::SendsOnly)),
    ),
    Scenario::new(
        "P06",
        "primary-receive-only",
        "nobody hears the primary: the others serve in another view",
        |s| Box::pin(primary_cut(s, Way::HearsOnly)),
    ),
    Scenario::new(
        "P07",
        "primary-gets-no-requests",
        "clients do not reach the primary: a backup passes their requests on, the view stays",
        |s| Box::pin(clients_cut(s, Way::SendsOnly)),
    ),
    Scenario::new(
        "P08",
        "primary-answers-nobody",
        "clients do not hear the primary: its answers go through a backup, the view stays",
        |s| Box::pin(clients_cut(s, Way::HearsOnly)),
    ),
    Scenario::new(
        "P09",
        "bridge",
        "two halves of five joined by one replica: the primary stays, clients are served",
        |s| Box::pin(bridge(s)),
    )
    .of(&[5]),
    Scenario::new(
        "P10",
        "small-frames-only",
        "heartbeats pass, prepares do not: the primary gives up, and another serves",
        |s| Box::pin(small_frames_only(s)),
    ),
    Scenario::new(
        "P11",
        "flapping-primary-link",
        "the links of the primary come and go every half second: clients are served",
        |s| Box::pin(flapping_primary_link(s)),
    ),
    Scenario::new(
        "P12",
        "flexible-quorums",
        "of four and six, a replication quorum commits; without its primary, no view starts until \
         a view-change quorum is there",
        |s| Box::pin(flexible_quorums(s)),
    )
    .of(&[4, 6]),
    Scenario::new(
        "P13",
        "higher-view-outsider",
        "a replica that left the view alone is cut off: the others serve in it, and it comes back",
        |s| Box::pin(higher_view_outsider(s)),
    ),
];

/// In which direction a replica is cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Both,
    SendsOnly,
    HearsOnly,
}

fn cut(s: Script, replica: u8, way: Way) {
    for other in s.others(replica) {
        if way != Way::SendsOnly {
            s.cut_to(replica, other);
        }
        if way != Way::HearsOnly {
            s.cut_to(other, replica);
        }
    }
}

async fn backup_cut(s: Script, way: Way) -> Verdict {
    let [a, _, c] = s.begin().await?;
    let view = s.newest_view();
    let mark = s.mark();
    cut(s, c, way);
    for _ in 0..4 {
        s.requests(0, 2).await?;
        s.wait(1_500).await;
    }
    let asks = frames(START_VIEW_CHANGE).from(c);
    if way != Way::HearsOnly {
        s.some_since(mark, &asks, "it misses its primary")?;
    }
    check(s.newest_view() == view && s.primary() == a, || {
        "the view changed".into()
    })?;
    s.rejoin(c);
    s.settle().await?;
    s.wait(1_000).await;
    check(s.newest_view() == view, || {
        "the view changed when it came back".into()
    })?;
    s.none_since(
        mark,
        &frames(START_VIEW).views(view + 1..=u32::MAX),
        "the view stays",
    )
}

async fn primary_cut(s: Script, way: Way) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let view = s.newest_view();
    let mark = s.mark();
    cut(s, a, way);
    s.issue(0);
    let start = s
        .sent_since(mark, frames(START_VIEW).views(view + 1..=u32::MAX))
        .await?;
    s.answered(0).await?;
    s.requests(0, 3).await?;
    let primary = s.primary();
    check(primary != a, || "the primary is the same".into())?;
    s.none_since(mark, &frames(REPLY).from(a), "it commits nothing")?;
    let now = s.newest_view();
    check(now <= start.view + 3, || {
        format!("view {now} after {}", start.view)
    })?;
    s.rejoin(a);
    s.settle().await?;
    s.wait(1_000).await;
    check(s.newest_view() == now, || {
        "the view changed when it came back".into()
    })
}

async fn clients_cut(s: Script, way: Way) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let view = s.newest_view();
    let mark = s.mark();
    let rules: Vec<_> = (0..2)
        .map(|client| {
            let filter: Filter = match way {
                Way::HearsOnly => any_frame().from(a).to_client(client),
                Way::Both | Way::SendsOnly => any_frame().from_client(client).to(a),
            };
            s.lose(filter)
        })
        .collect();
    s.requests(0, 3).await?;
    s.requests(1, 3).await?;
    s.some_since(mark, &frames(FORWARD).to(a), "a backup passes it on")?;
    s.some_since(mark, &frames(RELAY).from(a), "the answer comes back")?;
    check(s.newest_view() == view, || "the view changed".into())?;
    for rule in rules {
        check(s.hits(rule) > 0, || "nothing was cut".into())?;
        s.end(rule);
    }
    s.settle().await
}

async fn bridge(s: Script) -> Verdict {
    let [a, b, c, d, e] = s.begin().await?;
    // The primary is in a half, or the bridge.
    let (left, right) = if s.below(2) == 0 {
        ([a, b], [d, e])
    } else {
        ([b, c], [d, e])
    };
    let view = s.newest_view();
    for one in left {
        for other in right {
            s.cut(one, other);
        }
    }
    for _ in 0..5 {
        s.requests(0, 2).await?;
        s.wait(1_000).await;
    }
    check(s.newest_view() == view && s.primary() == a, || {
        "the view changed".into()
    })?;
    for replica in right {
        s.rejoin(replica);
    }
    s.settle().await
}

async fn small_frames_only(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    let view = s.newest_view();
    let rule = s.lose(frames(PREPARE).from(a));
    s.issue(0);
    within(20_000, "another view starts", || s.newest_view() > view).await?;
    s.answered(0).await?;
    check(s.hits(rule) > 0 && s.primary() != a, || {
        "the primary is the same".into()
    })?;
    check(s.view(b) > view && s.view(c) > view, || "no view".into())?;
    s.end(rule);
    s.settle().await
}

async fn flapping_primary_link(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let view = s.newest_view();
    s.load(60);
    for _ in 0..20 {
        s.isolate(a);
        s.wait(500).await;
        s.rejoin(a);
        s.wait(500).await;
    }
    s.idle().await?;
    check(s.newest_view() <= view + 20, || {
        format!("view {} after {view}", s.newest_view())
    })?;
    s.settle().await
}

async fn flexible_quorums(s: Script) -> Verdict {
    let roles: [u8; 4] = s.begin().await?;
    let a = roles[0];
    // As many as a replication quorum can do without.
    let count = s.replicas();
    let gone: Vec<u8> = (1..=count / 2)
        .map(|step| (a + count - step) % count)
        .collect();
    for replica in &gone {
        s.crash(*replica);
    }
    let view = s.newest_view();
    s.requests(0, 3).await?;
    check(s.newest_view() == view, || "the view changed".into())?;
    let mark = s.mark();
    s.crash(a);
    s.start(gone[0]);
    s.stays(10_000, "no view starts", || {
        !s.was_sent(mark, &frames(START_VIEW))
    })
    .await?;
    s.start(gone[1]);
    s.new_view(mark).await?;
    s.requests(0, 1).await?;
    s.start(a);
    for replica in gone {
        s.start(replica);
    }
    s.settle().await
}

/// Brings `b`, and no other, into the view after that of `a`, and cuts it off. Gives the view that the
/// others are in.
pub(super) async fn alone_in_next_view(s: Script, (a, b, c): (u8, u8, u8)) -> Result<u32, Failure> {
    let view = s.newest_view();
    let mark = s.mark();
    s.stall(c, Zone::Superblock);
    let votes = s.lose(frames(DO_VIEW_CHANGE).from(b));
    s.isolate(a);
    let vote = s.sent_since(mark, frames(DO_VIEW_CHANGE).from(b)).await?;
    s.crash_with(c, Survived::None);
    s.unstall(c, Zone::Superblock);
    s.isolate(b);
    s.end(votes);
    check(s.view(b) == vote.view && s.view(b) > view, || {
        format!("{b} should have left the view")
    })?;
    check(s.view(c) == view, || {
        format!("{c} should be in view {view}")
    })?;
    s.start(c);
    s.join(a, c);
    Ok(view)
}

async fn higher_view_outsider(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    s.isolate_from_clients(b);
    let view = alone_in_next_view(s, (a, b, c)).await?;
    s.requests(0, 4).await?;
    check(s.view(a) == view && s.view(c) == view, || {
        "the others should have gone on in their view".into()
    })?;
    s.rejoin(b);
    s.requests(0, 2).await?;
    s.settle().await
}
