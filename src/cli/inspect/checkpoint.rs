//! The blocks that the last checkpoint references, and single blocks.

use super::DataFile;
use super::document::{Cell, Document};
use crate::cli::exit::{Status, failure};
use crate::stdx::{to_u64, to_usize};
use std::collections::BTreeMap;
use storage_format::block::{BlockHeader, verify};
use storage_format::{BlockKind, BlockReference, SECTOR_SIZE, Superblock, checksum};
use zerocopy::FromBytes;

/// A block that was read.
#[derive(Clone, Debug)]
pub struct Visited {
    /// How the checkpoint names it.
    pub reference: BlockReference,
    /// Its header, or what is wrong with it.
    pub header: Result<BlockHeader, String>,
}

/// Visits every block that the checkpoint references: each block of the manifest, then what it lists.
///
/// # Errors
/// That of `visit`. What is wrong with a block is told to `visit`, and its successors are left out.
pub fn walk(
    file: &DataFile,
    superblock: &Superblock,
    mut visit: impl FnMut(&Visited) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let geometry = &superblock.geometry;
    // A chain that is longer than the file has blocks runs in a circle.
    let mut left = geometry.block_count_max();
    let mut next = superblock.checkpoint_index;
    while next.address.get() != 0 && left > 0 {
        left -= 1;
        let (visited, data) = read(file, superblock, &next, &[BlockKind::Manifest]);
        visit(&visited)?;
        let Ok(header) = visited.header else { break };
        for record in storage_format::manifest::blocks(&data) {
            let kinds = [BlockKind::Records, BlockKind::Run];
            visit(&read(file, superblock, &record.block, &kinds).0)?;
        }
        next = header.next;
    }
    Ok(())
}

/// Reads and verifies one block; its data is empty when anything is wrong.
fn read(
    file: &DataFile,
    superblock: &Superblock,
    reference: &BlockReference,
    kinds: &[BlockKind],
) -> (Visited, Vec<u8>) {
    let geometry = &superblock.geometry;
    let address = reference.address.get();
    let wrong = |reason: String| {
        (
            Visited {
                reference: *reference,
                header: Err(reason),
            },
            Vec::new(),
        )
    };
    if address == 0 || address > geometry.block_count_max() {
        return wrong(format!("no block has the address {address}"));
    }
    let block = file.block(geometry, address);
    match verify(&block, reference) {
        Err(error) => wrong(error.to_string()),
        Ok(header) if !kinds.iter().any(|kind| header.kind == *kind as u8) => {
            wrong(format!("it is of kind {}", header.kind))
        }
        Ok(header) if header.cluster != superblock.cluster => {
            wrong(format!("it belongs to cluster {}", header.cluster))
        }
        Ok(header) => {
            let data = block[SECTOR_SIZE..SECTOR_SIZE + to_usize(header.size.get())].to_vec();
            (
                Visited {
                    reference: *reference,
                    header: Ok(header),
                },
                data,
            )
        }
    }
}

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
    walk(file, &superblock, |visited| {
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
        let name = if *table == 0 {
            "manifest".into()
        } else {
            table.to_string()
        };
        let counts = [sum.blocks, sum.damaged, sum.records, sum.bytes].map(Cell::from);
        std::iter::once(name.into()).chain(counts).collect()
    });
    let columns = ["table", "blocks", "damaged", "records", "bytes"];
    document.table("tables", &columns, sums.collect());
    let columns = [
        "address", "table", "position", "op", "size", "checksum", "state",
    ];
    document.table("blocks", &columns, rows);
    Ok(document)
}

fn row(visited: &Visited) -> Vec<Cell> {
    let reference = &visited.reference;
    let mut row = vec![
        reference.address.get().into(),
        u32::from(reference.table).into(),
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
            ("next_address", header.next.address.get().into()),
        ],
    );
    Ok(document)
}
