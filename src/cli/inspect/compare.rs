//! Whether the checkpoints of several replicas are the same, byte by byte.
//!
//! Every replica of a cluster writes the same blocks at the same addresses, so their files differ only in
//! what is of one replica: its superblock, where its journal stands, and what is not in a checkpoint yet.

use super::checkpoint::{LISTED, Step, Visited, read, walk};
use super::document::{Cell, Document};
use super::progress::Progress;
use super::{DataFile, file};
use crate::cli::exit::{Status, failure};
use crate::ledger::catalog;
use crate::stdx::{to_u64, to_usize};
use crate::vsr::message::CheckpointState;
use std::path::PathBuf;
use storage_format::block::BlockHeader;
use storage_format::{ManifestEntry, SECTOR_SIZE, Superblock};
use zerocopy::{FromBytes, IntoBytes};

/// A data file, and the superblock that counts in it.
struct Side {
    path: PathBuf,
    file: DataFile,
    superblock: Superblock,
}

/// Reads all files. The verdict is an error when they differ.
///
/// # Errors
/// When a file cannot be read, or belongs to another cluster.
pub fn run(paths: &[PathBuf], live: bool) -> anyhow::Result<(Document, anyhow::Result<()>)> {
    let mut sides = Vec::new();
    for path in paths {
        let file = DataFile::open(path, live)?;
        let chosen = Superblock::choose(&file.superblock_copies());
        let (superblock, _) = chosen.map_err(|error| {
            let why = file::explain(error);
            failure(Status::Negative, format!("{}: {why}", path.display()))
        })?;
        sides.push(Side {
            path: path.clone(),
            file,
            superblock,
        });
    }
    let Some((first, others)) = sides.split_first() else {
        return Err(failure(Status::Usage, "name the files to compare"));
    };
    for other in others {
        check_comparable(first, other)?;
    }
    let mut differences = Vec::new();
    for other in others {
        let same = CheckpointState::of(&first.superblock).as_bytes()
            == CheckpointState::of(&other.superblock).as_bytes();
        if !same {
            let (one, path) = (first.path.display(), other.path.display());
            differences.push(format!("{path}: another state than {one}"));
        }
    }
    let (blocks, bytes) = compare_blocks(first, others, &mut differences)?;
    Ok(report(&sides, (blocks, bytes), differences))
}

fn check_comparable(first: &Side, other: &Side) -> anyhow::Result<()> {
    let (one, path) = (first.path.display(), other.path.display());
    let (a, b) = (&first.superblock, &other.superblock);
    if a.cluster != b.cluster {
        let (of_one, of_other) = (a.cluster, b.cluster);
        let sentence = format!("{one} is of cluster {of_one}, and {path} is of {of_other}");
        return Err(failure(Status::Negative, sentence));
    }
    if a.geometry != b.geometry {
        let sentence =
            format!("{one} and {path} have different sizes: they are not of one cluster");
        return Err(failure(Status::Negative, sentence));
    }
    let (op_one, op_other) = (a.checkpoint.op, b.checkpoint.op);
    if op_one != op_other {
        let sentence = format!(
            "the checkpoint of {one} is of op {op_one}, and that of {path} of op {op_other}: start the \
             replicas, let them come to the same op, and stop them again"
        );
        return Err(failure(Status::Negative, sentence));
    }
    if b.content_missing == 1 {
        let sentence = format!(
            "{path}: the checkpoint came from another replica, and not all of its blocks are here yet: \
             start the replica, and it gets them"
        );
        return Err(failure(Status::Negative, sentence));
    }
    Ok(())
}

/// Compares all blocks that the first file's checkpoint names; how many, and their bytes.
fn compare_blocks(
    first: &Side,
    others: &[Side],
    differences: &mut Vec<String>,
) -> anyhow::Result<(u64, u64)> {
    let progress = Progress::default();
    let expected = first.superblock.checkpoint_block_count.get();
    let (mut blocks, mut bytes) = (0, 0);
    let mut compare = |visited: &Visited| {
        let address = visited.reference.address.get();
        blocks += 1;
        bytes += to_u64(visited.bytes.len());
        progress.step("blocks", blocks, expected);
        if let Err(reason) = &visited.header {
            let path = first.path.display();
            differences.push(format!("{path}: block {address}: {reason}"));
            return;
        }
        for other in others {
            let found = other.file.block(&other.superblock.geometry, address);
            if let Some(at) = first_difference(&visited.bytes, &found) {
                let path = other.path.display();
                let name = catalog::name(visited.reference.table);
                differences.push(format!(
                    "{path}: block {address} ({name}) differs from byte {at} on"
                ));
            }
        }
    };
    walk(&first.file, &first.superblock, |step| {
        match step {
            Step::Manifest(visited) => compare(visited),
            Step::Record(ManifestEntry::Block(_, record)) => {
                compare(&read(&first.file, &first.superblock, &record.block, LISTED));
            }
            Step::Record(_) => {}
        }
        Ok(())
    })?;
    Ok((blocks, bytes))
}

/// What a block has beyond its data is no part of it: a file may have anything there.
fn first_difference(block: &[u8], other: &[u8]) -> Option<usize> {
    let (header, _) = BlockHeader::read_from_prefix(block).expect("a block has a header page");
    let end = SECTOR_SIZE + to_usize(header.size.get());
    let pairs = block[..end].iter().zip(&other[..end]);
    pairs.into_iter().position(|(one, other)| one != other)
}

fn report(
    sides: &[Side],
    (blocks, bytes): (u64, u64),
    differences: Vec<String>,
) -> (Document, anyhow::Result<()>) {
    let different = to_u64(differences.len());
    let mut document = Document::default();
    let verdict = if different == 0 {
        "identical"
    } else {
        "different"
    };
    document.fields(
        "compare",
        [
            ("op", sides[0].superblock.checkpoint.op.get().into()),
            ("files", to_u64(sides.len()).into()),
            ("blocks", blocks.into()),
            ("bytes", bytes.into()),
            ("differences", different.into()),
            ("verdict", verdict.into()),
        ],
    );
    let files = sides.iter().map(|side| {
        let superblock = &side.superblock;
        vec![
            Cell::from(side.path.display().to_string()),
            u32::from(superblock.replica).into(),
            superblock.view.get().into(),
            superblock.commit_max.get().into(),
        ]
    });
    document.table(
        "files",
        &["file", "replica", "view", "commit"],
        files.collect(),
    );
    let rows = differences.into_iter().map(|what| vec![what.into()]);
    document.table("differences", &["what"], rows.collect());
    let result = match different {
        0 => Ok(()),
        _ => Err(failure(
            Status::Negative,
            format!(
                "the checkpoints differ in {different} places: `inspect integrity` tells which file is damaged"
            ),
        )),
    };
    (document, result)
}
