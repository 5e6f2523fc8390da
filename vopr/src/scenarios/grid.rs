//! G: damaged blocks.

use super::Scenario;
use super::script::{Mark, Script, check};
use crate::cluster::directed::frames;
use crate::cluster::world::with;
use crate::sim::disk::Zone;
use crate::sim::options::MS;
use crate::sim::platter::slot_offset;
use crate::sim::verdict::Verdict;
use daftari::constants::BLOCK_SIZE;
use daftari::stdx::{marks, to_u64, u64_to_usize};
use daftari::wire::header::command::{BLOCK, REQUEST_BLOCK};
use storage_format::SECTOR_SIZE;
use storage_format::geometry::SUPERBLOCK_COPY_SIZE;

/// All of the family.
pub(super) const ALL: &[Scenario] = &[
    Scenario::new(
        "G01",
        "disjoint-grid",
        "each block of a checkpoint is whole on one replica only: all are repaired",
        |s| Box::pin(disjoint_grid(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "G02",
        "whole-grid-live",
        "all blocks of a replica rot while it runs: the scrubber has every one repaired",
        |s| Box::pin(whole_grid_live(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "G03",
        "scrub-tour",
        "a block rots on each replica, and nobody reads it: it is found within two tours",
        |s| Box::pin(scrub_tour(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "G04",
        "repair-vs-write",
        "a block comes for repair while it is being written: by a repair, or by the state that is given up for \
         another's checkpoint (which waits for it); it is written once",
        |s| Box::pin(repair_vs_write(s)),
    ),
    Scenario::new(
        "G05",
        "repair-vs-free",
        "a block that is being repaired is released meanwhile: what comes late is not written",
        |s| Box::pin(repair_vs_free(s)),
    )
    .tuned(|options| options.scrub_period = 5_000 * MS),
    Scenario::new(
        "G06",
        "peer-has-newer-content",
        "all blocks of a replica are damaged that the others' checkpoints do not have any more: it \
         goes on from theirs",
        |s| Box::pin(peer_has_newer_content(s)),
    ),
    Scenario::new(
        "G07",
        "bit-in-padding",
        "one bit anywhere in a block, a prepare and a copy of the superblock: no harm is done",
        |s| Box::pin(bit_in_padding(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "G08",
        "missing-queue-full",
        "more blocks are damaged than are asked for at a time: all come",
        |s| Box::pin(missing_queue_full(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "G09",
        "unsolicited-block",
        "blocks come that nobody asked for: nothing is written",
        |s| Box::pin(unsolicited_block(s)),
    )
    .tuned(|options| options.scrub_period = 10_000 * MS),
    Scenario::new(
        "G10",
        "whole-block-misread",
        "the answer to a damaged block comes when that is whole again, and one read of it goes wrong: it is not \
         written over",
        |s| Box::pin(whole_block_misread(s)),
    )
    .tuned(|options| options.scrub_period = 5_000 * MS),
];

/// Brings all replicas to a checkpoint.
async fn checkpointed(s: Script) -> Verdict {
    s.log_up_to(22).await?;
    s.settle().await?;
    for replica in 0..s.replicas() {
        check(
            s.checkpoint(replica) == 20 && !s.blocks(replica).is_empty(),
            || format!("replica {replica} has no checkpoint"),
        )?;
    }
    Ok(())
}

/// Waits until no block of a replica is known to be damaged.
async fn repaired(s: Script, replica: u8) -> Verdict {
    s.until(format!("all blocks of {replica} are repaired"), || {
        with(|world| world.checker.platter(replica).is_complete())
    })
    .await
}

async fn disjoint_grid(s: Script) -> Verdict {
    let roles: [u8; 3] = s.begin().await?;
    checkpointed(s).await?;
    let blocks = s.blocks(0);
    for replica in roles {
        s.crash(replica);
    }
    for (index, block) in blocks.iter().enumerate() {
        for replica in 0..3 {
            if index % 3 != usize::from(replica) {
                s.damage_block(replica, *block);
            }
        }
    }
    for replica in roles {
        s.start(replica);
    }
    s.requests(0, 1).await?;
    for replica in roles {
        repaired(s, replica).await?;
    }
    s.settle().await
}

async fn whole_grid_live(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    checkpointed(s).await?;
    let blocks = s.blocks(c);
    for block in &blocks {
        s.damage_block(c, *block);
    }
    let mark = s.mark();
    repaired(s, c).await?;
    for block in &blocks {
        s.some_since(mark, &frames(BLOCK).to(c).op(*block), "it was damaged")?;
    }
    s.requests(0, 1).await?;
    s.settle().await
}

async fn scrub_tour(s: Script) -> Verdict {
    let roles: [u8; 3] = s.begin().await?;
    checkpointed(s).await?;
    let blocks = s.blocks(0);
    let first = u64_to_usize(s.below(to_u64(blocks.len())));
    for (step, replica) in roles.into_iter().enumerate() {
        // Not the same one everywhere.
        s.damage_block(replica, blocks[(first + step) % blocks.len()]);
    }
    super::script::within(20_000, "the scrubbers find them", || {
        with(|world| {
            roles
                .iter()
                .all(|replica| world.checker.platter(*replica).is_complete())
        })
    })
    .await?;
    s.settle().await
}

async fn repair_vs_write(s: Script) -> Verdict {
    match s.below(2) {
        0 => repair_vs_repair(s).await,
        _ => repair_vs_write_of_old_state(s).await,
    }
}

async fn repair_vs_repair(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    checkpointed(s).await?;
    s.crash(c);
    // Its state cannot be loaded without it.
    let index = s.superblock(c).checkpoint_index.address.get();
    s.damage_block(c, index);
    s.stall(c, Zone::Grid);
    let mark = s.mark();
    s.start(c);
    let answer = s.sent_since(mark, frames(BLOCK).to(c).op(index)).await?;
    let offset = s.geometry().block_offset(index);
    let is_written_once = || s.writing(c, Zone::Grid) == [offset];
    s.until("it is being written", is_written_once).await?;
    for _ in 0..3 {
        s.replay(&answer);
        s.wait(100).await;
    }
    s.reached(marks::Mark::BlockNotWanted)?;
    check(is_written_once(), || "it is written again".into())?;
    s.log_up_to(42).await?;
    check(s.checkpoint(c) == 20, || "it did not wait for it".into())?;
    s.unstall(c, Zone::Grid);
    s.until("it goes on", || s.checkpoint(c) == 40).await?;
    s.settle().await
}

async fn repair_vs_write_of_old_state(s: Script) -> Verdict {
    let [a, _, c] = s.begin().await?;
    s.stall(c, Zone::Grid);
    // More than a block has room for.
    s.create_accounts(0, 1_000_000..1_000_100);
    s.answered(0).await?;
    // It is written at the end of the next op.
    s.create_accounts(0, 1_000_100..1_000_101);
    s.answered(0).await?;
    let op = s.committed() + 1;
    s.until("blocks are being written", || {
        !s.writing(c, Zone::Grid).is_empty()
    })
    .await?;
    s.isolate(c);
    s.log_up_to(op + s.slots() + 3).await?;
    check(s.checkpoint(a) > op && !s.has(a, op), || {
        format!("{c} should need a checkpoint")
    })?;
    let written = s.writing(c, Zone::Grid);
    let mut shared = s.blocks(a);
    shared.retain(|block| written.contains(&s.geometry().block_offset(*block)));
    check(!shared.is_empty(), || {
        "the checkpoint should have a block that is being written".into()
    })?;
    let mark = s.mark();
    s.rejoin(c);
    s.until("it is to go on from the checkpoint", || {
        s.has_reached(marks::Mark::Syncs)
    })
    .await?;
    s.stays(2_000, "the writes come first", || {
        s.checkpoint(c) == 0 && s.writing(c, Zone::Grid) == written
    })
    .await?;
    s.unstall(c, Zone::Grid);
    s.settle().await?;
    for block in shared {
        s.none_since(mark, &frames(BLOCK).to(c).op(block), "it is there already")?;
    }
    Ok(())
}

async fn repair_vs_free(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    checkpointed(s).await?;
    let rule = s.hold(frames(BLOCK).to(c));
    let blocks = s.blocks(c);
    for block in blocks {
        s.damage_block(c, block);
    }
    s.sent(frames(BLOCK).to(c)).await?;
    // Blocks that are wanted hold a checkpoint up, so it may have to let some pass.
    s.load(50);
    s.wait(4_000).await;
    s.end(rule);
    s.idle().await?;
    s.settle().await?;
    check(s.checkpoint(c) >= 40, || {
        "there is no later checkpoint".into()
    })
}

async fn peer_has_newer_content(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    checkpointed(s).await?;
    let blocks = s.blocks(c);
    s.crash(c);
    s.log_up_to(64).await?;
    for block in blocks {
        s.damage_block(c, block);
    }
    let syncs = with(|world| world.checker.counts.syncs);
    s.start(c);
    s.until("it goes on from another checkpoint", || {
        with(|world| world.checker.counts.syncs) > syncs
    })
    .await?;
    s.settle().await
}

async fn bit_in_padding(s: Script) -> Verdict {
    let [_, b, _] = s.begin().await?;
    checkpointed(s).await?;
    s.crash(b);
    let flip = |offset: u64, size: usize, zone: Zone| {
        let at = s.below(to_u64(size));
        let sector = offset + at / to_u64(SECTOR_SIZE) * to_u64(SECTOR_SIZE);
        let mut bytes = s.bytes(b, sector, SECTOR_SIZE);
        bytes[u64_to_usize(at) % SECTOR_SIZE] ^= 1 << s.below(8);
        s.overwrite(b, sector, &bytes, zone);
    };
    let geometry = s.geometry();
    flip(
        slot_offset(&geometry, s.committed()),
        SECTOR_SIZE,
        Zone::Prepares,
    );
    let copy = to_u64(SUPERBLOCK_COPY_SIZE) * s.below(4);
    flip(copy, SUPERBLOCK_COPY_SIZE, Zone::Superblock);
    let blocks = s.blocks(b);
    let block = blocks[u64_to_usize(s.below(to_u64(blocks.len())))];
    flip(geometry.block_offset(block), BLOCK_SIZE, Zone::Grid);
    s.start(b);
    s.requests(0, 2).await?;
    s.caught_up(b).await?;
    s.wait(20_000).await;
    s.settle().await
}

async fn missing_queue_full(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    // Tables that only grow have more blocks with every checkpoint.
    for first in 0..30 {
        // More than a block of a table has room for.
        s.create_accounts(0, 1_000_000 + 100 * first..1_000_100 + 100 * first);
        s.answered(0).await?;
    }
    s.settle().await?;
    let blocks = s.blocks(c);
    check(blocks.len() > 16, || {
        format!("there are {} blocks", blocks.len())
    })?;
    s.crash(c);
    for block in &blocks {
        s.damage_block(c, *block);
    }
    let mark = s.mark();
    s.start(c);
    repaired(s, c).await?;
    let asked = s.all_since(mark, &frames(REQUEST_BLOCK).from(c));
    check(asked.len() >= blocks.len(), || {
        "it did not ask for all".into()
    })?;
    s.settle().await
}

async fn unsolicited_block(s: Script) -> Verdict {
    let [a, b, c] = s.begin().await?;
    checkpointed(s).await?;
    s.crash(c);
    for block in s.blocks(c) {
        s.damage_block(c, block);
    }
    s.start(c);
    repaired(s, c).await?;
    let sent = s.all_since(Mark::START, &frames(BLOCK).to(c));
    check(!sent.is_empty(), || "no block was sent".into())?;
    let grid = s.geometry().grid_offset();
    let bytes = |replica| s.bytes(replica, grid, 64 * BLOCK_SIZE);
    let before = [a, b].map(bytes);
    for block in &sent {
        for replica in [a, b] {
            let mut other = block.clone();
            other.to = crate::cluster::network::Place::Replica(replica);
            if other.from != other.to {
                s.replay(&other);
            }
        }
    }
    s.wait(2_000).await;
    check([a, b].map(bytes) == before, || {
        "something was written".into()
    })?;
    s.settle().await
}

async fn whole_block_misread(s: Script) -> Verdict {
    let [_, _, c] = s.begin().await?;
    checkpointed(s).await?;
    let blocks = s.blocks(c);
    let block = blocks[u64_to_usize(s.below(to_u64(blocks.len())))];
    let offset = s.geometry().block_offset(block);
    let (first, grid) = (s.bytes(c, offset, SECTOR_SIZE), s.geometry().grid_offset());
    let answers = frames(BLOCK).to(c).op(block);
    let rule = s.hold(answers.clone());
    s.damage_block(c, block);
    s.sent(answers.clone()).await?;
    s.heal_block(c, block, &first);
    let before = s.bytes(c, grid, 64 * BLOCK_SIZE);
    s.misread_block(c, block);
    // I13: nothing that a checkpoint references is written over while it is whole.
    s.end(rule);
    s.wait(2_000).await;
    check(s.bytes(c, grid, 64 * BLOCK_SIZE) == before, || {
        "something was written".into()
    })?;
    s.some_since(Mark::START, &answers, "it was asked for")?;
    s.settle().await
}
