//! Inspection of a file that is made by hand: 16 slots, two sessions, a checkpoint of four blocks.

use super::{DataFile, checkpoint, compare, integrity, journal, manifest, superblock};
use crate::cli::exit::{Status, status_of};
use crate::constants::{BLOCK_SIZE, HEADER_SIZE};
use crate::ledger::catalog::{table, tree};
use crate::lsm::entry::{Entry, IdEntry};
use crate::stdx::{to_u64, u64_to_usize};
use std::path::PathBuf;
use storage_format::block::{self, BlockHeader};
use storage_format::geometry::SUPERBLOCK_COPY_SIZE;
use storage_format::{
    BarRecord, BlockKind, BlockReference, Checksum, Geometry, ManifestKind, ManifestRecord,
    ManifestTag, PrepareHeader, PrepareKind, ReplySlotHeader, RunRecord, SECTOR_SIZE, Superblock,
    checksum,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

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

/// What the blocks of the checkpoint hold, and what the manifest says of it.
struct Contents {
    /// Of the accounts.
    timestamps: Vec<u64>,
    /// Accounts that the manifest counts.
    accounts: u64,
    /// Entries of the tree of ids.
    ids: Vec<u128>,
    run_entries: u64,
    run_first: u128,
    run_last: u128,
    /// What the page index says of the second page of the run.
    page: u128,
    /// Address that the manifest has for the expiries.
    expiries_at: u64,
    /// Whether the manifest lists the accounts twice.
    repeat: bool,
}

impl Contents {
    fn new() -> Self {
        let ids: Vec<u128> = (0..300).map(|id| 1000 + 7 * id).collect();
        Self {
            timestamps: (1..=10).collect(),
            accounts: 10,
            run_entries: 300,
            run_first: ids[0],
            run_last: ids[299],
            page: ids[IdEntry::PER_PAGE],
            ids,
            expiries_at: 2,
            repeat: false,
        }
    }

    /// Bytes of the accounts, and of the entries.
    fn data(&self) -> (Vec<u8>, Vec<u8>) {
        let mut accounts = vec![0; 128 * self.timestamps.len()];
        for (bytes, timestamp) in accounts.chunks_exact_mut(128).zip(&self.timestamps) {
            bytes[120..].copy_from_slice(&timestamp.to_le_bytes());
        }
        let last = self.ids.len() - 1;
        let at = |index: usize| {
            index / IdEntry::PER_PAGE * SECTOR_SIZE + index % IdEntry::PER_PAGE * IdEntry::SIZE
        };
        let mut entries = vec![0; at(last) + IdEntry::SIZE];
        for (index, id) in self.ids.iter().enumerate() {
            IdEntry { id: *id, value: 1 }.store(&mut entries[at(index)..]);
        }
        (accounts, entries)
    }
}

/// A block to be written.
struct Block<'a> {
    address: u64,
    kind: BlockKind,
    table: u8,
    record_size: u32,
    position: u64,
    data: &'a [u8],
    /// Its page index.
    pages: &'a [u128],
}

fn tag(kind: ManifestKind, table: u8, tier: u8) -> ManifestTag {
    ManifestTag {
        kind: kind as u8,
        table,
        tier,
        ..ManifestTag::default()
    }
}

impl Made {
    fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// Ops 0 to 3 in the journal, op 1 is the checkpoint; block 3 lists block 1 of accounts, block 2
    /// of expiries, and block 4 of the tree of ids.
    fn with(name: &str, change: impl FnOnce(&mut Contents)) -> Self {
        let path = std::env::temp_dir().join(format!("inspect-{name}-{}", std::process::id()));
        let geometry = geometry();
        let size = u64_to_usize(geometry.block_offset(5));
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
        let mut contents = Contents::new();
        change(&mut contents);
        let manifest = made.put_checkpoint(&contents);
        let mut superblock = Superblock::zeroed();
        superblock.cluster = CLUSTER.into();
        superblock.replica_count = 1;
        superblock.sequence = 8.into();
        superblock.geometry = geometry;
        superblock.view = 2.into();
        superblock.checkpoint = ops[1];
        superblock.checkpoint_index = manifest;
        superblock.checkpoint_block_count = 3.into();
        superblock.ledger_state[0] = 10;
        superblock.ledger_state[32] = 55;
        made.put_superblock(superblock);
        made
    }

    fn put_superblock(&mut self, mut superblock: Superblock) {
        superblock.seal();
        for copy in 0..4 {
            superblock.copy = copy.into();
            self.put(
                u64::from(copy) * to_u64(SUPERBLOCK_COPY_SIZE),
                superblock.as_bytes(),
            );
        }
    }

    /// The same with another superblock.
    fn change_superblock(&mut self, change: impl FnOnce(&mut Superblock)) {
        let (mut superblock, _) = Superblock::read_from_prefix(&self.bytes).unwrap();
        change(&mut superblock);
        self.put_superblock(superblock);
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

    /// Writes the blocks; gives that of the manifest.
    fn put_checkpoint(&mut self, contents: &Contents) -> BlockReference {
        let (accounts, entries) = contents.data();
        let accounts = self.put_block(&Block {
            address: 1,
            kind: BlockKind::Records,
            table: table::ACCOUNTS,
            record_size: 128,
            position: 0,
            data: &accounts,
            pages: &[contents.timestamps[0].into()],
        });
        let mut expiries = self.put_block(&Block {
            address: 2,
            kind: BlockKind::Records,
            table: table::EXPIRIES,
            record_size: 160,
            position: 0,
            data: &[0; 2 * SECTOR_SIZE + 5 * 160],
            pages: &[],
        });
        expiries.address = contents.expiries_at.into();
        let ids = self.put_block(&Block {
            address: 4,
            kind: BlockKind::Run,
            table: tree::TRANSFER_IDS,
            record_size: 22,
            position: 1 << 56,
            data: &entries,
            pages: &[contents.ids[0], contents.page],
        });
        let block = |block: BlockReference, first: u128, count: u64, tag| ManifestRecord {
            block,
            first: first.into(),
            count: count.into(),
            tag,
        };
        let bar = |values: [u64; 3], tag| BarRecord {
            values: values.map(Into::into),
            reserved: [0; 32],
            tag,
        };
        let number = tree::TRANSFER_IDS;
        let run = RunRecord {
            last: contents.run_last.into(),
            entries: contents.run_entries.into(),
            position_min: 0.into(),
            position_max: 0.into(),
            blocks: 1.into(),
            reserved: [0; 12],
            tag: tag(ManifestKind::Run, number, 1),
        };
        let table = |number| tag(ManifestKind::TableBlock, number, 0);
        let mut records = [
            block(accounts, 0, contents.accounts, table(table::ACCOUNTS)).as_bytes(),
            block(expiries, 0, 55, table(table::EXPIRIES)).as_bytes(),
            bar([300, 4, 1], tag(ManifestKind::Clock, 0, 0)).as_bytes(),
            bar([0; 3], tag(ManifestKind::Tree, number, 0)).as_bytes(),
            run.as_bytes(),
            block(
                ids,
                contents.run_first,
                0,
                tag(ManifestKind::RunBlock, number, 1),
            )
            .as_bytes(),
        ]
        .concat();
        if contents.repeat {
            records.extend_from_within(..64);
        }
        self.put_block(&Block {
            address: 3,
            kind: BlockKind::Manifest,
            table: 0,
            record_size: 64,
            position: 0,
            data: &records,
            pages: &[],
        })
    }

    fn put_block(&mut self, made: &Block<'_>) -> BlockReference {
        let mut block = vec![0; BLOCK_SIZE];
        block[SECTOR_SIZE..SECTOR_SIZE + made.data.len()].copy_from_slice(made.data);
        for (index, rank) in made.pages.iter().enumerate() {
            let at = block::PAGE_INDEX_OFFSET + 16 * index;
            block[at..at + 16].copy_from_slice(&rank.to_le_bytes());
        }
        let mut header = BlockHeader::new_zeroed();
        header.cluster = CLUSTER.into();
        header.address = made.address.into();
        header.op = 1.into();
        header.position = made.position.into();
        header.size = u32::try_from(made.data.len()).unwrap().into();
        header.record_size = made.record_size.into();
        header.version = storage_format::FORMAT_VERSION.into();
        header.kind = made.kind as u8;
        header.table = made.table;
        let (reference, written) = block::seal(&mut block, header);
        self.put(self.geometry.block_offset(made.address), &block[..written]);
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
        .map(|table| table["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["manifest", "accounts", "expiries", "transfer_ids"]);
    assert_eq!(
        (&tables[1]["records"], &tables[1]["bytes"]),
        (&10.into(), &1280.into())
    );
    assert_eq!(json["blocks"].as_array().unwrap().len(), 4);
    let block = checkpoint::run_block(&made.open(), 2).unwrap().json();
    assert_eq!(
        (&block["block"]["state"], &block["block"]["size"]),
        (&"whole".into(), &8992.into())
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
    made.check(&["block 3", "has 3 blocks, and 0 are listed"], &[]);
}

#[test]
fn what_checksums_do_not_tell_is_damage() {
    let check = |name: &str, change: fn(&mut Contents), damage: &[&str]| {
        Made::with(name, change).check(damage, &[]);
    };
    check(
        "time",
        |of| of.timestamps.swap(3, 4),
        &["block 1: record 4 is older"],
    );
    check(
        "count",
        |of| of.accounts = 9,
        &[
            "block 1: it has 1280 bytes, the manifest says 9",
            "accounts has 9 records",
        ],
    );
    check(
        "order",
        |of| of.ids.swap(7, 8),
        &["block 4: entry 8 is not above"],
    );
    check(
        "twice",
        |of| of.ids[8] = of.ids[7],
        &["block 4: entry 8 is not above"],
    );
    check(
        "first",
        |of| of.run_first = 999,
        &["block 4: it does not begin where"],
    );
    check(
        "last",
        |of| of.run_last -= 1,
        &["block 4: entry 299 is above the last"],
    );
    check(
        "end",
        |of| of.run_last += 1,
        &["ends with 3093, the manifest says 3094"],
    );
    check(
        "page",
        |of| of.page += 1,
        &["block 4: the page index is wrong for page 2"],
    );
    check(
        "entries",
        |of| of.run_entries = 299,
        &["block 4: 22 bytes follow its entries", "ends with 3086"],
    );
    check(
        "again",
        |of| of.repeat = true,
        &[
            "block 1: two references lead to one block",
            "block 1: it follows a block that is not full",
            "has 3 blocks, and 4 are listed",
            "accounts has 20 records",
        ],
    );
    check(
        "outside",
        |of| of.expiries_at = 3000,
        &["block 3000: it lies beyond the end of the file"],
    );
}

/// Golden: what people see.
#[test]
fn manifest_trees_and_tables_are_decoded() {
    let made = Made::new("decoded");
    let json = manifest::run(&made.open()).unwrap().json();
    let rows = json["manifest"].as_array().unwrap();
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    let expected = [
        "table_block",
        "table_block",
        "clock",
        "tree",
        "run",
        "run_block",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(
        (
            &rows[5]["name"],
            &rows[5]["tier"],
            &rows[5]["address"],
            &rows[5]["first"]
        ),
        (&"transfer_ids".into(), &1.into(), &4.into(), &"1000".into())
    );
    assert_eq!(rows[4]["more"], "1 blocks, last 3093, positions 0 to 0");
    let json = manifest::run_trees(&made.open()).unwrap().json();
    assert_eq!(json["clock"]["bar_units"], 300);
    assert_eq!(json["trees"].as_array().unwrap().len(), 13);
    assert_eq!(json["trees"][11]["entries"], 300);
    assert_eq!(
        (&json["runs"][0]["first"], &json["runs"][0]["last"]),
        (&"1000".into(), &"3093".into())
    );
    let text = manifest::run_tables(&made.open()).unwrap().text();
    let line = text
        .lines()
        .find(|line| line.contains("transfer_ids"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words, ["transfer_ids", "64", "300", "1", "6600", "2.5%"]);
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

/// What `compare` says of two files: each difference, or why they cannot be compared.
fn compared(one: &Made, other: &Made) -> Vec<String> {
    drop((one.open(), other.open()));
    match compare::run(&[one.path.clone(), other.path.clone()], false) {
        Err(error) => vec![error.to_string()],
        Ok((document, verdict)) => {
            let json = document.json();
            let differences = json["differences"].as_array().unwrap();
            assert_eq!(verdict.is_err(), !differences.is_empty());
            let verdict = if differences.is_empty() {
                "identical"
            } else {
                "different"
            };
            assert_eq!(json["compare"]["verdict"], verdict);
            assert_eq!(json["compare"]["blocks"], 4);
            let what = |line: &serde_json::Value| line["what"].as_str().unwrap().to_owned();
            differences.iter().map(what).collect()
        }
    }
}

#[test]
fn checkpoints_of_replicas_are_compared_byte_by_byte() {
    let one = Made::new("compare-one");
    let mut other = Made::new("compare-other");
    // What is of one replica does not count.
    other.change_superblock(|superblock| {
        superblock.view = 7.into();
        superblock.sequence = 11.into();
    });
    assert_eq!(compared(&one, &other), [""; 0]);

    other.flip(other.geometry.block_offset(1) + 4101);
    let differences = compared(&one, &other);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].ends_with("block 1 (accounts) differs from byte 4101 on"));
    // Damage on either side is a difference.
    assert_eq!(compared(&other, &one).len(), 1);
    other.flip(other.geometry.block_offset(1) + 4101);

    other.change_superblock(|superblock| superblock.ledger_state[0] += 1);
    let differences = compared(&one, &other);
    assert!(differences[0].contains("another state"), "{differences:?}");
}

#[test]
fn files_that_cannot_be_compared_are_refused() {
    let one = Made::new("compare-refuses");
    let refused = |change: fn(&mut Superblock), words: &str| {
        let mut other = Made::new("compare-refused");
        other.change_superblock(change);
        let said = compared(&one, &other);
        assert!(said.len() == 1 && said[0].contains(words), "{said:?}");
    };
    refused(|superblock| superblock.cluster = 8.into(), "is of 8");
    refused(
        |superblock| superblock.checkpoint.op = 2.into(),
        "let them come to the same op",
    );
    refused(
        |superblock| superblock.content_missing = 1,
        "not all of its blocks",
    );
    refused(
        |superblock| superblock.geometry.session_count_max = 3.into(),
        "different sizes",
    );
}
