//! What do the parts of the storage engine cost, but for trees?
//!
//! * `id index`: an id that is not there, looked for and then inserted, among two million.
//! * `block seal`, `block verify`: a full block of 256 KiB, page checksums and identity.
//! * `checksum`: AEGIS-128L of 1 MiB.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use daftari::constants::{BLOCK_DATA_SIZE, BLOCK_SIZE};
use daftari::lsm::{Hash, IdIndex};
use storage_format::block::{BlockKind, seal, verify};
use storage_format::{BlockHeader, SECTOR_SIZE, checksum};
use zerocopy::FromZeros;

const ENTRIES: u32 = 2_000_000;

fn mix(value: u32) -> u32 {
    let value = (value ^ (value >> 16)).wrapping_mul(0x85EB_CA6B);
    let value = (value ^ (value >> 13)).wrapping_mul(0xC2B2_AE35);
    value ^ (value >> 16)
}

fn ids(criterion: &mut Criterion) {
    let mut index = IdIndex::new();
    let mut next = 0;
    let mut insert = |index: &mut IdIndex| {
        let hash = Hash::of(u128::from(mix(next)) << 64 | u128::from(next));
        assert!(index.find(hash, |_| false).is_none());
        index.insert(hash, next);
        next += 1;
    };
    for _ in 0..ENTRIES {
        insert(&mut index);
    }
    let _ = criterion.bench_function("id index", |bencher| bencher.iter(|| insert(&mut index)));
}

fn blocks(criterion: &mut Criterion) {
    let header = BlockHeader {
        address: 1.into(),
        size: u32::try_from(BLOCK_DATA_SIZE)
            .expect("a block is at most 1 MiB")
            .into(),
        version: storage_format::FORMAT_VERSION.into(),
        kind: BlockKind::Records.code(),
        ..BlockHeader::new_zeroed()
    };
    let mut group = criterion.benchmark_group("block");
    group.throughput(Throughput::Bytes(BLOCK_SIZE as u64));
    let mut buffer = vec![0x5A; BLOCK_SIZE];
    let _ = group.bench_function("seal", |bencher| bencher.iter(|| seal(&mut buffer, header)));
    let (reference, _) = seal(&mut buffer, header);
    let _ = group.bench_function("verify", |bencher| {
        bencher.iter(|| verify(&buffer, &reference).expect("it was sealed just now"));
    });
    group.finish();

    let message = vec![0xA5_u8; 1 << 20];
    let mut group = criterion.benchmark_group("checksum");
    group.throughput(Throughput::Bytes(1 << 20));
    let _ = group.bench_function("1 MiB", |bencher| bencher.iter(|| checksum(&message)));
    let _ = group.bench_function("sector", |bencher| {
        bencher.iter(|| checksum(&message[..SECTOR_SIZE]));
    });
    group.finish();
}

criterion_group!(benches, ids, blocks);
criterion_main!(benches);
