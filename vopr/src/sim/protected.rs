//! What may be written to a disk beside the journal: superblocks, and blocks that no checkpoint needs.

use super::disk::Disk;
use super::platter::{self, References};
use super::verdict::{Failure, fail, require};
use daftari::stdx::u64_to_usize;
use std::collections::{BTreeMap, BTreeSet};
use storage_format::{BlockHeader, BlockReference, Checksum, Geometry, Superblock};
use zerocopy::FromBytes;

/// The blocks that the superblocks on a platter reference.
#[derive(Debug, Default)]
pub struct Protected {
    /// By the identity of the index.
    blocks: BTreeMap<Checksum, References>,
    /// Those of which not all blocks were here, perhaps not even what lists them.
    partial: BTreeSet<Checksum>,
    /// Blocks of a checkpoint that were damaged on purpose, until they are written again.
    pub damaged: BTreeSet<u64>,
    /// Of them, those that no checkpoint has yet.
    fresh: BTreeSet<u64>,
}

/// What a block holds: op, kind, table and position.
pub type BlockKey = (u64, u8, u8, u64);

/// Identity of each block by what it holds, as first written.
#[derive(Debug, Default)]
pub struct Blocks(BTreeMap<BlockKey, Checksum>);

impl Blocks {
    /// Whoever writes a block that was written before writes the same (I11); whether it was.
    ///
    /// # Errors
    /// When it is another.
    pub fn note(&mut self, header: &BlockHeader) -> Result<bool, Failure> {
        let (op, position) = (header.op.get(), header.position.get());
        let key = (op, header.kind, header.table, position);
        let Some(before) = self.0.insert(key, header.checksum) else {
            return Ok(false);
        };
        require(before == header.checksum, "I11", || {
            let address = header.address;
            format!(
                "block {address} of {key:?} was {before}, is {}",
                header.checksum
            )
        })?;
        Ok(true)
    }

    /// A single replica crashed: of an op after `head`, which it may have run ahead of its journal, nothing was
    /// ever told. Another one takes its place.
    pub fn forget_after(&mut self, head: u64) {
        let first = (head + 1, 0, 0, 0);
        drop(self.0.split_off(&first));
    }
}

impl Protected {
    /// Superblocks grow by one, and whatever copy a crash tears, a quorum is left (I06, I14). Gives the
    /// new superblock when its checkpoint is not on the platter yet, or whole now.
    ///
    /// # Errors
    /// When the write breaks that.
    pub fn check_superblock(
        &self,
        disk: &Disk,
        offset: u64,
        data: &[u8],
    ) -> Result<Option<Superblock>, Failure> {
        let next = Superblock::read_from_bytes(data);
        let Ok(next) = next else {
            return fail("I14", format!("{} bytes are no superblock", data.len()));
        };
        require(next.valid(), "I14", || {
            "an invalid superblock is written".into()
        })?;
        let mut copies = platter::copies(disk);
        let copy = u64_to_usize(offset) / size_of::<Superblock>();
        copies[copy] = Superblock::zeroed();
        if let Err(error) = Superblock::choose(&copies) {
            return fail("I14", format!("a torn copy {copy} would leave {error:?}"));
        }
        let Some(durable) = platter::superblock(disk) else {
            return fail("I14", "no superblock has a quorum");
        };
        let grows = next.checksum == durable.checksum || next.sequence > durable.sequence;
        require(grows, "I14", || {
            format!("sequence {} after {}", next.sequence, durable.sequence)
        })?;
        let falls = next.view < durable.view
            || next.log_view < durable.log_view
            || next.checkpoint.op < durable.checkpoint.op;
        require(!falls, "I06", || {
            "a view or the checkpoint falls back".into()
        })?;
        let forgets = next.content_missing > durable.content_missing
            && next.checkpoint.op == durable.checkpoint.op;
        require(!forgets, "I16", || {
            format!(
                "the blocks of checkpoint {} are missing again",
                next.checkpoint.op
            )
        })?;
        let known = next.checkpoint.op == durable.checkpoint.op
            || self.blocks.contains_key(&next.checkpoint_index.checksum);
        let whole = next.content_missing == 0;
        if known && whole == (durable.content_missing == 0) {
            return Ok(None);
        }
        if whole && let Err(error) = platter::references(disk, &next, &self.damaged) {
            return fail(
                "I13",
                format!(
                    "checkpoint {} names what is not there: {error}",
                    next.checkpoint.op
                ),
            );
        }
        Ok(Some(next))
    }

    /// A superblock is on the platter, or a crash changed it: the blocks of every one are not to be
    /// touched.
    pub fn update(&mut self, disk: &Disk) {
        let mut blocks = BTreeMap::new();
        let mut partial = BTreeSet::new();
        for copy in platter::copies(disk) {
            let index = copy.checkpoint_index.checksum;
            if !copy.valid() || blocks.contains_key(&index) {
                continue;
            }
            let references = match self.blocks.remove(&index) {
                Some(references) if !self.partial.contains(&index) => references,
                Some(_) | None => platter::reachable(disk, &copy),
            };
            if copy.content_missing == 1 {
                partial.insert(index);
            }
            blocks.insert(index, references);
        }
        (self.blocks, self.partial) = (blocks, partial);
        // What no checkpoint has any more need not be mended.
        let listed: BTreeSet<u64> = self.addresses().collect();
        self.fresh.retain(|address| !listed.contains(address));
        let fresh = &self.fresh;
        // While blocks are missing, nobody knows of all that are listed.
        let copies = platter::copies(disk);
        let missing = copies.iter().any(|copy| copy.content_missing == 1);
        self.damaged
            .retain(|address| missing || listed.contains(address) || fresh.contains(address));
    }

    /// A block was written for a checkpoint to come, and is not there.
    pub fn lose(&mut self, address: u64) {
        self.damaged.insert(address);
        self.fresh.insert(address);
    }

    /// The same, with what they have to be.
    pub fn references(&self) -> impl Iterator<Item = &BlockReference> {
        self.blocks.values().flat_map(BTreeMap::values)
    }

    /// All blocks that some superblock references.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.blocks.values().flat_map(BTreeMap::keys).copied()
    }

    /// Blocks of a checkpoint are never overwritten (I13), unless they are not intact, and then by what
    /// they should be; gives the header of the block.
    ///
    /// # Errors
    /// When one is.
    pub fn check_block(
        &mut self,
        disk: &Disk,
        geometry: &Geometry,
        (offset, data): (u64, &[u8]),
    ) -> Result<BlockHeader, Failure> {
        let (header, _) = BlockHeader::read_from_prefix(data).expect("at least a sector");
        let address = header.address.get();
        require(geometry.block_offset(address) == offset, "I13", || {
            format!("block {address} is written at {offset}")
        })?;
        let references = self
            .blocks
            .values()
            .filter_map(|blocks| blocks.get(&address));
        for reference in references {
            let repair = reference.checksum == header.checksum
                && platter::block(disk, geometry, reference).is_err();
            require(repair, "I13", || {
                format!("block {address} is overwritten while a checkpoint references it")
            })?;
        }
        Ok(header)
    }

    /// A block is on the platter.
    pub fn on_block_written(&mut self, data: &[u8]) {
        let (header, _) = BlockHeader::read_from_prefix(data).expect("at least a sector");
        self.damaged.remove(&header.address.get());
        self.fresh.remove(&header.address.get());
    }
}
