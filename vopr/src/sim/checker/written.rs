//! What the replica writes to the disk beside the journal: superblocks, blocks, stored replies.

use super::{Checker, Verdict, fail, require};
use crate::sim::disk::Disk;
use crate::sim::mirror::SESSIONS_TABLE;
use crate::sim::platter;
use crate::sim::trees::Trees;
use daftari::stdx::{to_usize, u64_to_usize};
use daftari::wire::ReplyHeader;
use std::collections::BTreeMap;
use storage_format::{BlockHeader, ReplySlotHeader, SECTOR_SIZE, Superblock, checksum};
use zerocopy::FromBytes;

impl Checker {
    /// Whether the superblock in `data` has a newer checkpoint than that on the platter.
    #[must_use]
    pub fn is_newer(&self, disk: &Disk, data: &[u8]) -> bool {
        let next = Superblock::read_from_bytes(data);
        let durable = platter::superblock(disk);
        next.is_ok_and(|next| {
            durable.is_some_and(|durable| next.checkpoint.op > durable.checkpoint.op)
        })
    }

    /// Superblocks grow by one, and whatever copy a crash tears, a quorum is left (I06, I14).
    pub(super) fn check_superblock_write(
        &mut self,
        disk: &Disk,
        offset: u64,
        data: &[u8],
    ) -> Verdict {
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
        let falls = next.view < durable.view || next.checkpoint.op < durable.checkpoint.op;
        require(!falls, "I06", || {
            "the view or the checkpoint falls back".into()
        })?;
        let op = next.checkpoint.op.get();
        if op == durable.checkpoint.op.get() {
            return Ok(());
        }
        if self.protected.contains_key(&next.checkpoint_index.checksum) {
            return Ok(());
        }
        require(
            self.history.get(u64_to_usize(op)) == Some(&next.checkpoint),
            "I11",
            || format!("checkpoint {op} is not of the history"),
        )?;
        if let Err(error) = platter::references(disk, &next, self.damaged) {
            return fail(
                "I13",
                format!("checkpoint {op} names what is not there: {error}"),
            );
        }
        self.seen.checkpoints += 1;
        match self.mirror_checkpoint(disk, &next) {
            Ok(()) => Ok(()),
            Err(what) => fail("I11", format!("checkpoint {op}: {what}")),
        }
    }

    /// The checkpoint is the same as that of a replica that never crashed.
    fn mirror_checkpoint(&mut self, disk: &Disk, next: &Superblock) -> Result<(), String> {
        let manifest = platter::manifest(disk, next)?;
        self.trees = Trees::of_manifest(&manifest.records);
        self.seen.merging += self.trees.merging;
        self.seen.merging_partly += self.trees.merging_partly;
        let mut sessions = Vec::new();
        for record in storage_format::manifest::blocks(&manifest.records) {
            if record.tag.table == SESSIONS_TABLE {
                let (header, block) = platter::block(disk, &next.geometry, &record.block)?;
                let size = to_usize(header.size.get());
                sessions.extend_from_slice(&block[SECTOR_SIZE..SECTOR_SIZE + size]);
            }
        }
        self.mirror.compare(next, &manifest, &sessions)?;
        self.seen.mirrored += 1;
        Ok(())
    }

    /// The blocks of every superblock on the platter are not to be touched.
    pub(super) fn protect(&mut self, disk: &Disk) {
        let mut protected = BTreeMap::new();
        for copy in platter::copies(disk) {
            let index = copy.checkpoint_index.checksum;
            if !copy.valid() || protected.contains_key(&index) {
                continue;
            }
            let references = match self.protected.remove(&index) {
                Some(references) => references,
                None => platter::references(disk, &copy, self.damaged).unwrap_or_default(),
            };
            protected.insert(index, references);
        }
        self.protected = protected;
    }

    /// Blocks of a checkpoint are never overwritten (I13), and replay makes equal blocks (I11).
    pub(super) fn check_block_write(&mut self, offset: u64, data: &[u8]) -> Verdict {
        let (header, _) = BlockHeader::read_from_prefix(data).expect("at least a sector");
        let address = header.address.get();
        require(self.geometry.block_offset(address) == offset, "I13", || {
            format!("block {address} is written at {offset}")
        })?;
        let referenced = self
            .protected
            .values()
            .any(|addresses| addresses.contains(&address));
        require(!referenced, "I13", || {
            format!("block {address} is overwritten while a checkpoint references it")
        })?;
        if self.damaged == Some(address) {
            self.damaged = None;
        }
        let key = (
            header.op.get(),
            header.kind,
            header.table,
            header.position.get(),
        );
        match self.blocks.insert(key, header.checksum) {
            None => Ok(()),
            Some(before) => {
                self.seen.blocks_again += 1;
                require(before == header.checksum, "I11", || {
                    format!(
                        "block {address} of {key:?} was {before}, is {}",
                        header.checksum
                    )
                })
            }
        }
    }

    /// A stored reply is one that was expected.
    pub(super) fn check_reply_write(&self, data: &[u8]) -> Verdict {
        let (slot, _) = ReplySlotHeader::read_from_prefix(data).expect("at least a sector");
        let frame = &data[SECTOR_SIZE..SECTOR_SIZE + to_usize(slot.size.get())];
        let (header, body) = ReplyHeader::read_from_prefix(frame).expect("a reply has a header");
        let client = header.client.get();
        let known = self.sessions.get(&client);
        let stored = known.is_none_or(|known| {
            let session = known.session;
            let expected = self.expected.get(&(client, session, header.request.get()));
            expected.is_some_and(|expected| expected.header == header && expected.body == body)
        });
        let valid = slot.valid() && slot.checksum_message == checksum(frame);
        require(stored && valid, "I17", || {
            format!("a wrong reply is stored for {client:x}")
        })
    }
}
