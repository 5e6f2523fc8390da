//! U: binaries and clients of several releases.
//!
//! A log stays at the release that it was formatted at, so no upgrade starts: what there is of the family is
//! that binaries of several releases work side by side, and that one which does not have the release of the
//! log stops.

use super::Scenario;
use super::script::{Mark, Script, check};
use crate::cluster::directed::{any_frame, frames};
use crate::cluster::releases::NEWEST;
use crate::cluster::world::with;
use crate::sim::crash_plan::CrashPlan;
use crate::sim::verdict::Verdict;
use daftari::constants::{
    RELEASE_CLIENT_MAX, RELEASE_CLIENT_MIN, RELEASE_LOG_MAX, RELEASE_LOG_MIN,
};
use daftari::vsr::FatalReason;
use daftari::wire::build::request;
use daftari::wire::header::command::{EVICTION, PONG, RECOVER, REPLY};
use daftari::wire::{ClientState, Evicted, EvictionHeader, Operation, ReplyHeader};
use storage_format::Checksum;
use storage_format::geometry::{SUPERBLOCK_COPY_COUNT, SUPERBLOCK_COPY_SIZE};
use zerocopy::FromBytes;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "U03",
        "upgrade-partial",
        "one replica after the other gets a newer binary, and the last one stays: all work together at the \
         release of the log",
        |s| Box::pin(upgrade_partial(s)),
    )
    .tuned(|options| options.releases.log = RELEASE_LOG_MIN),
    Scenario::new(
        "U05",
        "sync-into-new-release",
        "a file is lost, and an older binary makes another one: it stops when it hears of the release of \
         the log, and a newer one recovers with the same file",
        |s| Box::pin(sync_into_new_release(s)),
    ),
    Scenario::new(
        "U07",
        "binary-swapped-twice",
        "a newer binary that crashes while it opens the file, the one before, and an older one, which \
         refuses the file and leaves it as it was",
        |s| Box::pin(binary_swapped_twice(s)),
    ),
    Scenario::new(
        "U08",
        "old-client-frames",
        "a client of the oldest release is served; requests of older and of newer ones are evicted, each \
         for its reason",
        |s| Box::pin(old_client_frames(s)),
    )
    .tuned(|options| options.clients = 3),
];

async fn upgrade_partial(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    for replica in [c, b] {
        let mark = s.mark();
        s.crash(replica);
        s.load(10);
        s.start_with(replica, NEWEST);
        s.settle().await?;
        // A checkpoint is made by both kinds of binaries.
        s.log_up_to(s.committed() + 20).await?;
        s.settle().await?;
        let pongs = s.all_since(mark, &frames(PONG).from(replica));
        check(
            pongs
                .iter()
                .any(|pong| pong.peer().release_newest == NEWEST),
            || format!("replica {replica} does not say what it has"),
        )?;
    }
    // The only one that has the old binary is the primary no more.
    let mark = s.mark();
    s.crash(a);
    s.new_view(mark).await?;
    s.requests(0, 5).await?;
    s.start(a);
    s.settle().await?;
    // Also when it has the newer one, too, the log stays as it is.
    s.crash(a);
    s.start_with(a, NEWEST);
    s.log_up_to(s.committed() + 20).await?;
    s.settle().await?;
    for replica in [a, b, c] {
        let release = s.superblock(replica).release;
        check(release == RELEASE_LOG_MIN, || {
            format!("the file of replica {replica} is at {release:#x}")
        })?;
    }
    Ok(())
}

/// A replica stops: its binary does not have the release of the log.
async fn refuses(s: Script, replica: u8) -> Verdict {
    let reason = s.exited(replica).await?;
    let expected = FatalReason::ReleaseNewer {
        found: RELEASE_LOG_MAX,
        newest: RELEASE_LOG_MIN,
    };
    check(reason == expected, || format!("it exits: {reason:?}"))
}

async fn sync_into_new_release(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    s.crash(c);
    s.log_up_to(10 + s.below(50)).await?;
    s.lose_disk(c);
    s.may_exit(c);
    let mark = s.mark();
    s.start_with(c, RELEASE_LOG_MIN);
    refuses(s, c).await?;
    let sent = s.all_since(mark, &any_frame().from(c));
    check(sent.iter().all(|frame| frame.command == RECOVER), || {
        "it has said more than that it recovers".into()
    })?;
    check(s.superblock(c).recovering == 1, || "it remembers".into())?;
    s.start_with(c, NEWEST);
    s.settle().await?;
    let release = s.superblock(c).release;
    check(release == RELEASE_LOG_MAX, || {
        format!("its file is at {release:#x}")
    })
}

async fn binary_swapped_twice(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    s.log_up_to(s.below(30)).await?;
    s.settle().await?;
    s.crash(c);
    s.start_with(c, NEWEST);
    s.plan_crash(c, CrashPlan::AtWrite(1 + s.below(4)));
    s.load(5);
    s.down(c).await?;
    s.start_with(c, RELEASE_LOG_MAX);
    s.settle().await?;
    s.crash(c);
    s.may_exit(c);
    let copies = || s.bytes(c, 0, SUPERBLOCK_COPY_COUNT * SUPERBLOCK_COPY_SIZE);
    let (before, mark) = (copies(), s.mark());
    s.start_with(c, RELEASE_LOG_MIN);
    refuses(s, c).await?;
    check(copies() == before, || {
        "it has written its superblock".into()
    })?;
    s.none_since(mark, &any_frame().from(c), "it does not have the release")?;
    s.start_with(c, NEWEST);
    s.requests(0, 5).await?;
    s.settle().await
}

async fn old_client_frames(s: Script) -> Verdict {
    let [a, _, _] = s.begin().await?;
    let client = 2;
    with(|world| world.clients[client].state.release = RELEASE_CLIENT_MIN);
    s.requests(client, 3).await?;
    let replies = s.all_since(Mark::START, &frames(REPLY).to_client(client));
    let release = replies.last().map(|reply| {
        let (header, _) = ReplyHeader::read_from_prefix(&reply.bytes).expect("a whole frame");
        header.release.get()
    });
    check(release == Some(RELEASE_CLIENT_MIN), || {
        format!("the reply to a client of the oldest release is of {release:x?}")
    })?;
    for (release, reason) in [
        (RELEASE_CLIENT_MIN - 1, Evicted::ReleaseTooLow),
        (RELEASE_CLIENT_MAX + 1, Evicted::ReleaseTooHigh),
    ] {
        // A stranger, so that no session is given up.
        let state = ClientState {
            release,
            client: 1 + u128::from(s.below(1 << 40)),
            session: 0,
            request: 0,
            parent: Checksum::ZERO,
            ..s.client_state(client)
        };
        let frame = request(&state, Operation::Register, &[0; 256]);
        with(|world| world.checker.on_provoked(state.client, reason.code()));
        let mark = s.mark();
        s.send_raw(client, a, &frame);
        let sent = s
            .sent_since(mark, frames(EVICTION).to_client(client))
            .await?;
        let header = EvictionHeader::read_from_bytes(&sent.bytes).expect("256 bytes");
        check(
            header.reason == reason.code() && header.client.get() == state.client,
            || format!("the eviction is {header:?}"),
        )?;
    }
    s.requests(client, 1).await?;
    s.settle().await
}
