//! The blocks that the last checkpoint references, and single blocks.

use super::DataFile;
use super::document::{Cell, Document};
use crate::cli::exit::{Status, failure};
use crate::ledger::catalog;
use crate::stdx::{to_u64, to_usize};
use std::collections::BTreeMap;
use storage_format::block::{BlockHeader, verify};
use storage_format::{BlockKind, BlockReference, ManifestEntry, SECTOR_SIZE, Superblock, checksum};
use zerocopy::FromBytes;

/// A block that was read.
#[derive(Clone, Debug)]
pub struct Visited {
    /// How the checkpoint names it.
    pub reference: BlockReference,
    /// Its header, or what is wrong with it.
    pub header: Result<BlockHeader, String>,
    /// All of it, damaged or not; empty if it cannot be anywhere.
    pub bytes: Vec<u8>,
}

/// A step of a walk.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// A block of the manifest.
    Manifest(&'a Visited),
    /// A record of the manifest; the block that it may name is not read.
    Record(&'a ManifestEntry),
}

/// Walks the manifest: each of its blocks, then the records in it.
///
/// # Errors
/// That of `visit`. What is wrong with a block is told to `visit`, and its successors are left out.
pub fn walk(
    file: &DataFile,
    superblock: &Superblock,
    mut visit: impl FnMut(Step<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let geometry = &superblock.geometry;
    // A chain that is longer than the file has blocks runs in a circle.
    let mut left = geometry.block_count_max();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 && left > 0 {
        left -= 1;
        let visited = read(file, superblock, &next, &[BlockKind::Manifest]);
        visit(Step::Manifest(&visited))?;
        let Ok(header) = visited.header else { break };
        let data = &visited.bytes[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())];
        for entry in storage_format::manifest::entries(data) {
            visit(Step::Record(&entry))?;
        }
        next = header.next;
    }
    Ok(())
}

/// Reads and verifies one block.
#[must_use]
pub fn read(
    file: &DataFile,
    superblock: &Superblock,
    reference: &BlockReference,
    kinds: &[BlockKind],
) -> Visited {
    let geometry = &superblock.geometry;
    let address = reference.address.get();
    if address == 0 || address > geometry.block_count_max() {
        return Visited {
            reference: *reference,
            header: Err(format!("no block has the address {address}")),
            bytes: Vec::new(),
        };
    }
    let bytes = file.block(geometry, address);
    let header = match verify(&bytes, reference) {
        Err(_) if geometry.block_offset(address) >= file.size() => {
            Err("it lies beyond the end of the file".to_owned())
        }
        Err(error) => Err(error.to_string()),
        Ok(header) if !kinds.iter().any(|kind| header.kind == *kind as u8) => {
            Err(format!("it is of kind {}", header.kind))
        }
        Ok(header) if header.cluster != superblock.cluster => {
            Err(format!("it belongs to cluster {}", header.cluster))
        }
        Ok(header) => Ok(header),
    };
    Visited {
        reference: *reference,
        header,
        bytes,
    }
}

/// Kinds of the blocks that the manifest lists.
pub const LISTED: &[BlockKind] = &[BlockKind::Records, BlockKind::Run];

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    blocks: u64,
    damaged: u64,
    records: u64,
    bytes: u64,
}

/// The tables of the checkpoint, and its blocks.
///
/// # Errors
/// When there is no superblock.
pub fn run(file: &DataFile) -> anyhow::Result<Document> {
    let superblock = file.superblock()?;
    let mut tables: BTreeMap<u8, Sum> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut visit = |visited: &Visited| {
        let sum = tables.entry(visited.reference.table).or_default();
        sum.blocks += 1;
        match &visited.header {
            Ok(header) => {
                let size = u64::from(header.size.get());
                sum.bytes += size;
                sum.records += size
                    .checked_div(header.record_size.get().into())
                    .unwrap_or(0);
            }
            Err(_) => sum.damaged += 1,
        }
        rows.push(row(visited));
    };
    walk(file, &superblock, |step| {
        match step {
            Step::Manifest(visited) => visit(visited),
            Step::Record(ManifestEntry::Block(_, record)) => {
                visit(&read(file, &superblock, &record.block, LISTED));
            }
            Step::Record(_) => {}
        }
        Ok(())
    })?;
    let mut document = Document::default();
    document.fields(
        "checkpoint",
        [
            ("op", superblock.checkpoint.op.get().into()),
            ("timestamp", superblock.checkpoint.timestamp.get().into()),
            (
                "block_count",
                superblock.checkpoint_block_count.get().into(),
            ),
        ],
    );
    let sums = tables.iter().map(|(table, sum)| {
        let name = [u32::from(*table).into(), catalog::name(*table).into()];
        let counts = [sum.blocks, sum.damaged, sum.records, sum.bytes].map(Cell::from);
        name.into_iter().chain(counts).collect()
    });
    let columns = ["table", "name", "blocks", "damaged", "records", "bytes"];
    document.table("tables", &columns, sums.collect());
    let columns = [
        "address", "table", "name", "position", "op", "size", "checksum", "state",
    ];
    document.table("blocks", &columns, rows);
    Ok(document)
}

fn row(visited: &Visited) -> Vec<Cell> {
    let reference = &visited.reference;
    let mut row = vec![
        reference.address.get().into(),
        u32::from(reference.table).into(),
        catalog::name(reference.table).into(),
    ];
    let (known, state) = match &visited.header {
        Ok(header) => {
            let size = u64::from(header.size.get());
            (
                [header.position.get(), header.op.get(), size].map(Cell::from),
                "whole",
            )
        }
        Err(reason) => (["-"; 3].map(Cell::from), reason.as_str()),
    };
    row.extend(known);
    row.push(reference.checksum.to_string().into());
    row.push(state.into());
    row
}

/// The header of the block at an address, believed as it stands.
///
/// # Errors
/// When there is no superblock, or no such address.
pub fn run_block(file: &DataFile, address: u64) -> anyhow::Result<Document> {
    let superblock = file.superblock()?;
    let geometry = &superblock.geometry;
    if address == 0 || address > geometry.block_count_max() {
        let most = geometry.block_count_max();
        let sentence = format!("--address={address}: addresses of this file go from 1 to {most}");
        return Err(failure(Status::Usage, sentence));
    }
    let block = file.block(geometry, address);
    let (header, _) = BlockHeader::read_from_prefix(&block).expect("a block has a header page");
    let reference = BlockReference {
        checksum: header.checksum,
        address: address.into(),
        table: header.table,
        reserved: [0; 7],
    };
    let state = match verify(&block, &reference) {
        Ok(_) => "whole".to_owned(),
        Err(error) => error.to_string(),
    };
    let identity = checksum(&block[16..SECTOR_SIZE]);
    let mut document = Document::default();
    document.fields(
        "block",
        [
            ("address", address.into()),
            ("offset", geometry.block_offset(address).into()),
            ("state", state.into()),
            ("identity_found", identity.to_string().into()),
            ("checksum", header.checksum.to_string().into()),
            ("checksum_data", header.checksum_data.to_string().into()),
            ("cluster", header.cluster.get().to_string().into()),
            ("address_in_header", header.address.get().into()),
            ("op", header.op.get().into()),
            ("position", header.position.get().into()),
            ("size", header.size.get().into()),
            (
                "size_max",
                to_u64(storage_format::block::data_size_max(block.len())).into(),
            ),
            ("record_size", header.record_size.get().into()),
            ("version", u32::from(header.version.get()).into()),
            ("kind", u32::from(header.kind).into()),
            ("table", u32::from(header.table).into()),
            ("name", catalog::name(header.table).into()),
            ("next_address", header.next.address.get().into()),
        ],
    );
    Ok(document)
}
