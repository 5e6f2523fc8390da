//! All copies of the superblock, and the one that counts.

use super::DataFile;
use super::document::{Cell, Document};
use super::file::explain;
use crate::constants::release_text;
use crate::stdx::to_u64;
use storage_format::Superblock;

/// Every copy, the winner's fields, and the geometry; copies that make no superblock are shown too,
/// and the verdict is an error then.
pub fn run(file: &DataFile) -> (Document, anyhow::Result<()>) {
    let copies = file.superblock_copies();
    let chosen = Superblock::choose(&copies);
    let winner = chosen
        .as_ref()
        .ok()
        .map(|(superblock, _)| superblock.checksum);
    let mut document = Document::default();
    let rows = copies
        .iter()
        .enumerate()
        .map(|(index, copy)| row(index, copy, winner));
    let columns = [
        "copy",
        "valid",
        "wins",
        "sequence",
        "view",
        "op_checkpoint",
        "checksum",
    ];
    document.table("copies", &columns, rows.collect());
    match chosen {
        Ok((superblock, count)) => describe(&mut document, &superblock, to_u64(count)),
        Err(error) => document.fields("superblock", [("error", explain(error).into())]),
    }
    (document, file.superblock().map(|_| ()))
}

fn row(index: usize, copy: &Superblock, winner: Option<storage_format::Checksum>) -> Vec<Cell> {
    let valid = copy.valid();
    vec![
        to_u64(index).into(),
        valid.into(),
        (valid && winner == Some(copy.checksum)).into(),
        copy.sequence.get().into(),
        copy.view.get().into(),
        copy.checkpoint.op.get().into(),
        copy.checksum.to_string().into(),
    ]
}

fn describe(document: &mut Document, superblock: &Superblock, copies: u64) {
    let index = superblock.checkpoint_index;
    document.fields(
        "superblock",
        [
            ("copies", copies.into()),
            ("version", u32::from(superblock.version.get()).into()),
            ("release", release_text(superblock.release.get()).into()),
            ("cluster", superblock.cluster.get().to_string().into()),
            ("replica", u32::from(superblock.replica).into()),
            ("standby", superblock.is_standby().into()),
            ("replica_count", u32::from(superblock.replica_count).into()),
            ("sequence", superblock.sequence.get().into()),
            ("view", superblock.view.get().into()),
            ("log_view", superblock.log_view.get().into()),
            ("commit_max", superblock.commit_max.get().into()),
            ("op_checkpoint", superblock.checkpoint.op.get().into()),
            (
                "checkpoint_timestamp",
                superblock.checkpoint.timestamp.get().into(),
            ),
            (
                "checkpoint_block_count",
                superblock.checkpoint_block_count.get().into(),
            ),
            (
                "content_missing",
                u32::from(superblock.content_missing).into(),
            ),
            ("recovering", u32::from(superblock.recovering).into()),
            ("recovered_view", superblock.recovered_view.get().into()),
            ("checkpoint_index_address", index.address.get().into()),
            (
                "checkpoint_index_checksum",
                index.checksum.to_string().into(),
            ),
            ("parent", superblock.parent.to_string().into()),
            ("checksum", superblock.checksum.to_string().into()),
        ],
    );
    let geometry = &superblock.geometry;
    document.fields(
        "geometry",
        [
            ("message_size_max", geometry.message_size_max.get().into()),
            (
                "journal_slot_count",
                geometry.journal_slot_count.get().into(),
            ),
            ("journal_slot_size", geometry.journal_slot_size.get().into()),
            ("session_count_max", geometry.session_count_max.get().into()),
            ("block_size", geometry.block_size.get().into()),
            ("block_count_max", geometry.block_count_max().into()),
            ("file_size_max", geometry.file_size_max.get().into()),
            ("headers_offset", geometry.headers_offset().into()),
            ("prepares_offset", geometry.prepares_offset().into()),
            ("replies_offset", geometry.replies_offset().into()),
            ("grid_offset", geometry.grid_offset().into()),
        ],
    );
}
