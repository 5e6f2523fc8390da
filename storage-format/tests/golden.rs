//! Golden files: one for each layout, compared in both directions, and one for every offset.
//!
//! A difference means that the format has changed: give it a new version, a new golden file and a
//! reader of the old one. `BLESS=1 cargo test -p storage-format` writes missing files only.

#![expect(clippy::unwrap_used, reason = "a test says where it failed")]
#![expect(
    clippy::too_many_lines,
    reason = "the list of all fields is long and flat"
)]

use storage_format::block::{BlockKind, data_size_max, seal, verify};
use storage_format::{
    BarRecord, BlockHeader, BlockReference, Checksum, Geometry, ManifestKind, ManifestRecord,
    ManifestTag, MergeRecord, PrepareHeader, PrepareKind, ReplySlotHeader, RequestEntry, RunRecord,
    Superblock,
};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

fn hex(bytes: &[u8]) -> String {
    let mut lines = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            lines.push_str(&format!("{byte:02x}"));
        }
        lines.push('\n');
    }
    lines
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2)
        .map(|index| u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).unwrap())
        .collect()
}

fn path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

fn golden(name: &str, text: &str) -> String {
    let path = path(name);
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Encoding `value` gives the golden bytes, and decoding those gives `value`.
fn check<T>(name: &str, value: &T)
where
    T: FromBytes + IntoBytes + Immutable + KnownLayout + PartialEq + std::fmt::Debug,
{
    let expected = golden(name, &hex(value.as_bytes()));
    assert_eq!(hex(value.as_bytes()), expected, "{name}: encoding");
    let decoded = T::read_from_bytes(&unhex(&expected)).unwrap();
    assert_eq!(&decoded, value, "{name}: decoding");
}

fn geometry() -> Geometry {
    Geometry {
        message_size_max: 0x0010_0000.into(),
        journal_slot_count: 1024.into(),
        journal_slot_size: 0x0011_0000.into(),
        session_count_max: 256.into(),
        block_size: 0x0004_0000.into(),
        reserved: 0.into(),
        file_size_max: 0x0102_0304_0506.into(),
    }
}

fn prepare_header() -> PrepareHeader {
    let mut header = PrepareHeader::zeroed();
    header.checksum_body = Checksum([0xB1; 16]);
    header.cluster = 0x0C0D_0E0F_u128.into();
    header.size = 4096.into();
    header.view = 7.into();
    header.release = 0x1109.into();
    header.command = storage_format::prepare::COMMAND_PREPARE;
    header.replica = 2;
    header.parent = Checksum([0xA7; 16]);
    header.op = 0x1122_3344.into();
    header.commit = 0x1122_3343.into();
    header.timestamp = 0x1800_0000_0000_0001.into();
    header.request_count = 3.into();
    header.kind = PrepareKind::Requests.code();
    header.seal();
    header
}

fn block_reference() -> BlockReference {
    BlockReference {
        checksum: Checksum([0x5C; 16]),
        address: 0x99.into(),
        table: 3,
        reserved: [0; 7],
    }
}

fn superblock() -> Superblock {
    let mut superblock = Superblock::zeroed();
    superblock.copy = 3.into();
    superblock.release = 0x1109.into();
    superblock.cluster = 0x0C0D_0E0F_u128.into();
    superblock.sequence = 42.into();
    superblock.replica = 2;
    superblock.replica_count = 3;
    superblock.parent = Checksum([0xD4; 16]);
    superblock.geometry = geometry();
    superblock.view = 7.into();
    superblock.log_view = 6.into();
    superblock.commit_max = 0x1122_3344.into();
    superblock.checkpoint_index = block_reference();
    superblock.checkpoint_block_count = 12.into();
    superblock.ledger_state[..4].copy_from_slice(&[1, 2, 3, 4]);
    superblock.checkpoint = prepare_header();
    superblock.view_headers[0] = prepare_header();
    superblock.seal();
    superblock
}

#[test]
fn prepare_headers() {
    let header = prepare_header();
    assert!(header.valid(0x0C0D_0E0F));
    check("prepare_header_v3.hex", &header);
    let mut header = prepare_header();
    header.release = 0x110a.into();
    header.checkpoint_id = Checksum([0xC9; 16]);
    header.seal();
    assert!(header.valid(0x0C0D_0E0F));
    check("prepare_header_0_17_10_v3.hex", &header);
    check("prepare_root_v3.hex", &PrepareHeader::root(5));
    check("prepare_empty_v3.hex", &PrepareHeader::empty(5, 17));
    check(
        "request_entry_v3.hex",
        &RequestEntry {
            request_checksum: Checksum([0x3E; 16]),
            client: 0x1234_5678_9ABC_u128.into(),
            session: 9.into(),
            timestamp: 0x1800_0000_0000_0000.into(),
            request: 4.into(),
            release: 0x1108.into(),
            body_size: 256.into(),
            operation: 147,
            reserved: [0; 3],
        },
    );
}

#[test]
fn superblocks() {
    let superblock = superblock();
    assert!(superblock.valid());
    check("superblock_v3.hex", &superblock);
    check("geometry_v3.hex", &geometry());
}

#[test]
fn reply_slot_headers() {
    let header = ReplySlotHeader::new(77, 1000, b"a reply");
    assert!(header.valid());
    check("reply_slot_header_v3.hex", &header);
}

#[test]
fn blocks() {
    let mut block = vec![0xEE; 3 * 4096];
    for (index, byte) in block[4096..4096 + 5000].iter_mut().enumerate() {
        *byte = u8::try_from(index % 251).unwrap();
    }
    let header = BlockHeader {
        cluster: 0x0C0D_0E0F_u128.into(),
        address: 0x99.into(),
        op: 1234.into(),
        position: 5.into(),
        size: 5000.into(),
        record_size: 125.into(),
        version: storage_format::FORMAT_VERSION.into(),
        kind: BlockKind::Records.code(),
        table: 3,
        next: block_reference(),
        ..BlockHeader::new_zeroed()
    };
    let (reference, written) = seal(&mut block, header);
    assert_eq!(written, 3 * 4096);
    let page = hex(&block[..512]);
    assert_eq!(page, golden("block_header_page_v3.hex", &page));
    assert_eq!(verify(&block, &reference).unwrap().op.get(), 1234);
}

/// A flipped bit anywhere in a block, its padding included, is noticed.
#[test]
fn a_flipped_bit_in_a_block_is_noticed() {
    let mut block = vec![0; 3 * 4096];
    block[4096..4096 + 4100].fill(0x77);
    let header = BlockHeader {
        address: 1.into(),
        size: 4100.into(),
        ..BlockHeader::new_zeroed()
    };
    let (reference, written) = seal(&mut block, header);
    assert!(verify(&block, &reference).is_ok());
    for bit in 0..written * 8 {
        block[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&block, &reference).is_err(), "bit {bit}");
        block[bit / 8] ^= 1 << (bit % 8);
    }
}

/// A flipped bit anywhere in a superblock copy, but in the copy's number, is noticed.
#[test]
fn a_flipped_bit_in_a_superblock_is_noticed() {
    let mut bytes = superblock().as_bytes().to_vec();
    for bit in (0..16 * 8).chain(32 * 8..bytes.len() * 8) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            !Superblock::read_from_bytes(&bytes).unwrap().valid(),
            "bit {bit}"
        );
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// The newest superblock with two equal copies wins; anything less is refused.
#[test]
fn a_quorum_of_copies_decides() {
    use storage_format::SuperblockError;
    let old = superblock();
    let mut new = old;
    new.sequence = 43.into();
    new.parent = old.checksum;
    new.seal();
    let mut bad = old;
    bad.view = 99.into();
    let mut fork = new;
    fork.view = 8.into();
    fork.seal();
    let mut foreign = old;
    foreign.magic = [0; 8];
    let mut version = old;
    version.version = 9.into();
    let choose =
        |copies: [Superblock; 4]| Superblock::choose(&copies).map(|(s, n)| (s.sequence.get(), n));
    assert_eq!(choose([old; 4]), Ok((42, 4)));
    assert_eq!(choose([new, old, old, old]), Ok((42, 3)));
    assert_eq!(choose([bad, old, old, old]), Ok((42, 3)));
    assert_eq!(choose([new, bad, old, old]), Ok((42, 2)));
    assert_eq!(choose([new, new, old, old]), Ok((43, 2)));
    assert_eq!(choose([new, new, bad, old]), Ok((43, 2)));
    assert_eq!(choose([new, new, new, bad]), Ok((43, 3)));
    assert_eq!(
        choose([bad, bad, bad, new]),
        Err(SuperblockError::NoQuorum { valid: 1 })
    );
    assert_eq!(
        choose([bad; 4]),
        Err(SuperblockError::NoQuorum { valid: 0 })
    );
    assert_eq!(
        choose([new, fork, old, old]),
        Err(SuperblockError::Fork { sequence: 43 })
    );
    assert_eq!(choose([foreign; 4]), Err(SuperblockError::Foreign));
    assert_eq!(
        choose([version; 4]),
        Err(SuperblockError::Version { found: 9 })
    );
}

fn tag(kind: ManifestKind) -> ManifestTag {
    ManifestTag {
        kind: kind as u8,
        table: 48,
        tier: 2,
        reserved: [0; 5],
    }
}

#[test]
fn manifest_records() {
    let block = ManifestRecord {
        block: block_reference(),
        first: 0x0102_0304_0506_0708_090A_u128.into(),
        count: 2016.into(),
        tag: tag(ManifestKind::RunBlock),
    };
    check("manifest_record_v3.hex", &block);
    check(
        "run_record_v3.hex",
        &RunRecord {
            last: 0x0102_0304_0506_0708_090B_u128.into(),
            entries: 300_000.into(),
            position_min: 7.into(),
            position_max: 0x8000_0000_0001.into(),
            blocks: 15.into(),
            reserved: [0; 12],
            tag: tag(ManifestKind::Run),
        },
    );
    check(
        "merge_record_v3.hex",
        &MergeRecord {
            taken: std::array::from_fn(|input| [u8::try_from(input).unwrap(); 6]),
            done: 77.into(),
            tag: tag(ManifestKind::Merge),
        },
    );
    check(
        "bar_record_v3.hex",
        &BarRecord {
            values: [1.into(), 2.into(), 3.into()],
            reserved: [0; 32],
            tag: tag(ManifestKind::Bar),
        },
    );
    let mut bytes = block.as_bytes().to_vec();
    bytes.extend_from_slice(&[0; 64]);
    let found: Vec<ManifestRecord> = storage_format::manifest::blocks(&bytes).collect();
    assert_eq!(found, [block], "a record of no kind is no block");
}

macro_rules! offsets {
    ($out:expr, $type:ident { $($field:ident),* $(,)? }) => {
        $out.push_str(&format!("{} {}\n", stringify!($type), size_of::<$type>()));
        $($out.push_str(&format!(
            "  {} {}\n", std::mem::offset_of!($type, $field), stringify!($field)
        ));)*
    };
}

/// Every offset, size and constant of the format, as `SPEC.md` has them.
#[test]
fn offsets_and_constants() {
    let mut out = String::new();
    offsets!(
        out,
        Superblock {
            checksum,
            copy,
            reserved_copy,
            magic,
            version,
            reserved_version,
            release,
            cluster,
            sequence,
            replica,
            replica_count,
            reserved_replica,
            parent,
            geometry,
            view,
            log_view,
            commit_max,
            checkpoint_index,
            checkpoint_block_count,
            content_missing,
            recovering,
            reserved_checkpoint,
            recovered_view,
            ledger_state,
            reserved,
            checkpoint,
            view_headers,
        }
    );
    offsets!(
        out,
        Geometry {
            message_size_max,
            journal_slot_count,
            journal_slot_size,
            session_count_max,
            block_size,
            reserved,
            file_size_max,
        }
    );
    offsets!(
        out,
        PrepareHeader {
            checksum,
            checksum_padding,
            checksum_body,
            checksum_body_padding,
            nonce_reserved,
            cluster,
            size,
            epoch,
            view,
            release,
            protocol,
            command,
            replica,
            reserved_frame,
            parent,
            parent_padding,
            op,
            commit,
            timestamp,
            request_count,
            kind,
            reserved_kind,
            checkpoint_id,
            reserved,
        }
    );
    offsets!(
        out,
        RequestEntry {
            request_checksum,
            client,
            session,
            timestamp,
            request,
            release,
            body_size,
            operation,
            reserved,
        }
    );
    offsets!(
        out,
        ReplySlotHeader {
            checksum,
            checksum_message,
            client,
            op,
            size,
            reserved
        }
    );
    offsets!(
        out,
        BlockHeader {
            checksum,
            checksum_data,
            cluster,
            address,
            op,
            position,
            size,
            record_size,
            version,
            kind,
            table,
            reserved_frame,
            next,
            reserved,
        }
    );
    offsets!(
        out,
        BlockReference {
            checksum,
            address,
            table,
            reserved
        }
    );
    offsets!(
        out,
        ManifestTag {
            kind,
            table,
            tier,
            reserved
        }
    );
    offsets!(
        out,
        ManifestRecord {
            block,
            first,
            count,
            tag
        }
    );
    offsets!(
        out,
        RunRecord {
            last,
            entries,
            position_min,
            position_max,
            blocks,
            reserved,
            tag,
        }
    );
    offsets!(out, MergeRecord { taken, done, tag });
    offsets!(
        out,
        BarRecord {
            values,
            reserved,
            tag
        }
    );
    let geometry = geometry();
    for (name, value) in [
        ("headers_offset", geometry.headers_offset()),
        ("prepares_offset", geometry.prepares_offset()),
        ("replies_offset", geometry.replies_offset()),
        ("reply_slot_size", geometry.reply_slot_size()),
        ("grid_offset", geometry.grid_offset()),
        ("block_offset(2)", geometry.block_offset(2)),
        ("block_count_max", geometry.block_count_max()),
        (
            "data_size_max",
            u64::try_from(data_size_max(0x0004_0000)).unwrap(),
        ),
    ] {
        out.push_str(&format!("{name} {value}\n"));
    }
    assert_eq!(out, golden("offsets_v3.txt", &out));
    let spec = include_str!("../SPEC.md");
    let mut table = "";
    for line in out
        .lines()
        .take_while(|line| !line.starts_with("headers_offset"))
    {
        let (at, field) = line.trim().split_once(' ').unwrap();
        if line.starts_with(' ') {
            let row = format!("| {at} | `{field}` |");
            let section = spec.split(&format!("## {table}\n")).nth(1);
            let section = section.unwrap_or_else(|| panic!("SPEC.md has no section {table}"));
            let section = section.split("\n## ").next().unwrap();
            assert!(section.contains(&row), "SPEC.md, {table}: no row {row}");
        } else {
            table = at;
        }
    }
}
