//! Inspection of a file that is made by hand: 16 slots, two sessions, a checkpoint of three blocks.

use super::{DataFile, checkpoint, integrity, journal, superblock};
use crate::cli::exit::{Status, status_of};
use crate::constants::{BLOCK_SIZE, HEADER_SIZE};
use crate::stdx::{to_u64, u64_to_usize};
use std::path::PathBuf;
use storage_format::block::{self, BlockHeader};
use storage_format::geometry::SUPERBLOCK_COPY_SIZE;
use storage_format::{
    BlockKind, BlockReference, Checksum, Geometry, ManifestKind, ManifestRecord, ManifestTag,
    PrepareHeader, PrepareKind, ReplySlotHeader, SECTOR_SIZE, Superblock, checksum,
};
use zerocopy::{FromZeros, IntoBytes};

const CLUSTER: u128 = 9;

/// A file that is removed with the value.
struct Made {
    path: PathBuf,
    bytes: Vec<u8>,
    geometry: Geometry,
    /// Checksum of the newest prepare.
    head: Checksum,
}

impl Drop for Made {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).expect("the test wrote it");
    }
}

fn geometry() -> Geometry {
    Geometry {
        message_size_max: (1 << 20).into(),
        journal_slot_count: 16.into(),
        journal_slot_size: ((1 << 20) + 4096).into(),
        session_count_max: 2.into(),
        block_size: u32::try_from(BLOCK_SIZE).unwrap().into(),
        reserved: 0.into(),
        file_size_max: (1 << 30).into(),
    }
}

impl Made {
    /// Ops 0 to 3 in the journal, op 1 is the checkpoint, blocks 1 and 2 listed by block 3.
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inspect-{name}-{}", std::process::id()));
        let geometry = geometry();
        let size = u64_to_usize(geometry.block_offset(4));
        let mut made = Self {
            path,
            bytes: vec![0; size],
            geometry,
            head: Checksum::ZERO,
        };
        let ops: Vec<PrepareHeader> = (0..4).map(|op| made.put_prepare(op, op)).collect();
        for slot in 4..16 {
            let marker = PrepareHeader::empty(CLUSTER, slot);
            made.put_header(slot, &marker);
            made.put(made.prepare_offset(slot), marker.as_bytes());
        }
        let message = [7; 300];
        let reply = ReplySlotHeader::new(42, 1, &message);
        made.put(geometry.replies_offset(), reply.as_bytes());
        made.put(geometry.replies_offset() + to_u64(SECTOR_SIZE), &message);
        let no_next = BlockReference::default();
        let listed = [
            made.put_block(1, BlockKind::Records, 3, &[1; 1280], no_next),
            made.put_block(2, BlockKind::Records, 5, &[2; 9000], no_next),
        ];
        let listed = listed.map(|block| ManifestRecord {
            block,
            first: 0.into(),
            count: 1.into(),
            tag: ManifestTag {
                kind: ManifestKind::TableBlock as u8,
                table: block.table,
                ..ManifestTag::default()
            },
        });
        let manifest = made.put_block(3, BlockKind::Manifest, 0, listed.as_bytes(), no_next);
        let mut superblock = Superblock::zeroed();
        superblock.cluster = CLUSTER.into();
        superblock.replica_count = 1;
        superblock.sequence = 8.into();
        superblock.geometry = geometry;
        superblock.view = 2.into();
        superblock.checkpoint = ops[1];
        superblock.checkpoint_index = manifest;
        superblock.checkpoint_block_count = 2.into();
        superblock.seal();
        for copy in 0..4 {
            superblock.copy = copy.into();
            made.put(
                u64::from(copy) * to_u64(SUPERBLOCK_COPY_SIZE),
                superblock.as_bytes(),
            );
        }
        made
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let offset = u64_to_usize(offset);
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn put_header(&mut self, slot: u64, header: &PrepareHeader) {
        self.put(
            self.geometry.headers_offset() + slot * 256,
            header.as_bytes(),
        );
    }

    fn prepare_offset(&self, slot: u64) -> u64 {
        self.geometry.prepares_offset() + slot * u64::from(self.geometry.journal_slot_size.get())
    }

    /// Writes an op to both rings.
    fn put_prepare(&mut self, slot: u64, op: u64) -> PrepareHeader {
        let mut header = PrepareHeader::root(CLUSTER);
        let body = [0x11; 64 + 128];
        if op > 0 {
            header.kind = PrepareKind::Requests as u8;
            header.op = op.into();
            header.view = 2.into();
            header.parent = self.head;
            header.timestamp = (1000 + op).into();
            header.request_count = 1.into();
            header.size = u32::try_from(HEADER_SIZE + body.len()).unwrap().into();
            header.checksum_body = checksum(&body);
            header.seal();
            self.put(self.prepare_offset(slot) + 256, &body);
        }
        self.put_header(slot, &header);
        self.put(self.prepare_offset(slot), header.as_bytes());
        self.head = header.checksum;
        header
    }

    fn put_block(
        &mut self,
        address: u64,
        kind: BlockKind,
        table: u8,
        data: &[u8],
        next: BlockReference,
    ) -> BlockReference {
        let mut block = vec![0; BLOCK_SIZE];
        block[SECTOR_SIZE..SECTOR_SIZE + data.len()].copy_from_slice(data);
        let mut header = BlockHeader::new_zeroed();
        header.cluster = CLUSTER.into();
        header.address = address.into();
        header.op = 1.into();
        header.size = u32::try_from(data.len()).unwrap().into();
        header.record_size = 128.into();
        header.version = storage_format::FORMAT_VERSION.into();
        header.kind = kind as u8;
        header.table = table;
        header.next = next;
        let (reference, written) = block::seal(&mut block, header);
        self.put(self.geometry.block_offset(address), &block[..written]);
        reference
    }

    fn flip(&mut self, offset: u64) {
        self.bytes[u64_to_usize(offset)] ^= 0xff;
    }

    fn open(&self) -> DataFile {
        std::fs::write(&self.path, &self.bytes).unwrap();
        DataFile::open(&self.path, false).unwrap()
    }

    /// Damage and notices that integrity finds.
    fn check(&self, damage: &[&str], notices: &[&str]) {
        let (document, verdict) = integrity::run(&self.open()).unwrap();
        let json = document.json();
        for (name, expected) in [("damage", damage), ("notices", notices)] {
            let found = json[name].as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
            for (line, expected) in found.iter().zip(expected) {
                let line = line["what"].as_str().unwrap();
                assert!(line.contains(expected), "{line}");
            }
        }
        assert_eq!(verdict.is_err(), !damage.is_empty());
        if let Err(error) = verdict {
            assert_eq!(status_of(&error), Status::Negative);
        }
    }
}

#[test]
fn a_whole_file_is_whole() {
    let made = Made::new("whole");
    made.check(&[], &[]);
    let json = superblock::run(&made.open()).0.json();
    assert_eq!(json["copies"].as_array().unwrap().len(), 4);
    assert_eq!(json["copies"][3]["wins"], true);
    assert_eq!(json["superblock"]["cluster"], "9");
    assert_eq!(json["superblock"]["op_checkpoint"], 1);
    assert_eq!(json["geometry"]["journal_slot_count"], 16);
}

#[test]
fn the_journal_lists_what_each_slot_holds() {
    let made = Made::new("journal");
    let json = journal::run(&made.open()).unwrap().json();
    let slots = json["journal"].as_array().unwrap();
    assert_eq!(slots.len(), 16);
    assert_eq!(
        (&slots[0]["kind"], &slots[0]["state"]),
        (&"root".into(), &"clean".into())
    );
    assert_eq!(
        (&slots[3]["op"], &slots[3]["timestamp"]),
        (&3.into(), &1003.into())
    );
    assert_eq!(
        (&slots[3]["requests"], &slots[3]["kind"]),
        (&1.into(), &"requests".into())
    );
    assert_eq!(
        (&slots[4]["state"], &slots[4]["op"]),
        (&"empty".into(), &"-".into())
    );
}

#[test]
fn the_checkpoint_lists_blocks_by_table() {
    let made = Made::new("checkpoint");
    let json = checkpoint::run(&made.open()).unwrap().json();
    let tables = json["tables"].as_array().unwrap();
    let names: Vec<_> = tables
        .iter()
        .map(|table| table["table"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["manifest", "3", "5"]);
    assert_eq!(
        (&tables[1]["records"], &tables[1]["bytes"]),
        (&10.into(), &1280.into())
    );
    assert_eq!(json["blocks"].as_array().unwrap().len(), 3);
    let block = checkpoint::run_block(&made.open(), 2).unwrap().json();
    assert_eq!(
        (&block["block"]["state"], &block["block"]["size"]),
        (&"whole".into(), &9000.into())
    );
    let error = checkpoint::run_block(&made.open(), 0).unwrap_err();
    assert_eq!(status_of(&error), Status::Usage);
}

#[test]
fn damaged_parts_are_named() {
    let mut made = Made::new("damage");
    let block = made.geometry.block_offset(2);
    made.flip(block + 2 * to_u64(SECTOR_SIZE) + 5);
    made.flip(to_u64(SUPERBLOCK_COPY_SIZE) + 100);
    made.flip(made.prepare_offset(3) + 300);
    made.flip(made.geometry.headers_offset() + 2 * 256 + 40);
    made.check(
        &["copy 1", "slot 2: the header", "op 3", "block 2: page 2"],
        &[],
    );
    let json = superblock::run(&made.open()).0.json();
    assert_eq!(json["copies"][1]["valid"], false);
}

#[test]
fn both_rings_damaged_is_damage() {
    let mut made = Made::new("both");
    made.flip(made.prepare_offset(3) + 40);
    made.flip(made.geometry.headers_offset() + 3 * 256 + 40);
    made.check(&["slot 3: header and prepare"], &[]);
}

/// Its header was not written yet, and a newer op says that it was acknowledged.
#[test]
fn a_prepare_that_opening_would_miss_is_damage() {
    let mut made = Made::new("gap");
    made.put_header(2, &PrepareHeader::empty(CLUSTER, 2));
    made.flip(made.prepare_offset(2) + 300);
    made.check(&["slot 2 is damaged and may hold"], &[]);
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    let mut made = Made::new("crash");
    // The prepare of op 4 is written, its header is not.
    made.put_prepare(4, 4);
    made.put_header(4, &PrepareHeader::empty(CLUSTER, 4));
    // Slot 1 was being overwritten by op 17; its op 1 is in the checkpoint.
    made.flip(made.prepare_offset(1) + 300);
    made.check(&[], &["slot 1", "slot 4"]);
}

#[test]
fn a_damaged_reply_is_a_notice() {
    let mut made = Made::new("reply");
    made.flip(made.geometry.replies_offset() + to_u64(SECTOR_SIZE) + 299);
    made.check(&[], &["reply slot 0"]);
}

#[test]
fn a_manifest_that_leads_nowhere_is_damage() {
    let mut made = Made::new("manifest");
    made.flip(made.geometry.block_offset(3) + 30);
    made.check(&["block 3", "has 2 blocks, and 0 are listed"], &[]);
}

#[test]
fn foreign_and_locked_files_are_refused() {
    let mut made = Made::new("foreign");
    made.bytes = vec![b'x'; 1 << 16];
    assert!(superblock::run(&made.open()).1.is_err());
    let error = journal::run(&made.open()).unwrap_err();
    assert_eq!(status_of(&error), Status::FileUnusable);
    assert!(
        error.to_string().contains("not a daftari data file"),
        "{error}"
    );

    let holder = std::fs::OpenOptions::new()
        .read(true)
        .open(&made.path)
        .unwrap();
    holder.try_lock().unwrap();
    let error = DataFile::open(&made.path, false).unwrap_err();
    assert_eq!(status_of(&error), Status::FileInUse);
    assert!(DataFile::open(&made.path, true).is_ok());
    assert_eq!(Checksum::ZERO, Checksum::default());
}
