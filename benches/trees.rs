//! What do trees on disk cost, without the disk?
//!
//! * `index sort`, `id sort`: an entry of a bar, put in order.
//! * `index merge`, `id merge`: an entry that goes from one tier to the next, filters included.
//! * `seek`: the next position of a key, and one in another page.
//! * `lookup`: an id that is not there, in one run of a million.
//! * `filter`: an id of a full block's filter.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use daftari::constants::BLOCK_SIZE;
use daftari::grid::store::{BlockStore, NewBlock, Pages};
use daftari::lsm::fuse::{Builder, Filter};
use daftari::lsm::{IdTree, IndexTree, Lookup, Seek, TreeOptions, sort};
use daftari::stdx::{SectorBuf, run_to_end};
use std::hint::black_box;
use storage_format::{BlockReference, SECTOR_SIZE};

/// Blocks in memory: the address is where they are. Nothing is checked, or sealed.
#[derive(Default)]
struct Store {
    blocks: Vec<Option<SectorBuf>>,
    free: Vec<SectorBuf>,
    /// Blocks are written and forgotten.
    forget: bool,
}

impl Store {
    fn at(&self, block: &BlockReference) -> &SectorBuf {
        let address = usize::try_from(block.address.get()).expect("it is small");
        self.blocks[address - 1].as_ref().expect("it is there")
    }
}

impl Pages for Store {
    fn page(&self, block: &BlockReference, page: usize) -> Option<&[u8]> {
        Some(&self.at(block)[page * SECTOR_SIZE..][..SECTOR_SIZE])
    }
}

impl BlockStore for Store {
    async fn room(&mut self) {}

    async fn buffer(&mut self) -> SectorBuf {
        let mut buffer = self.free.pop();
        if let Some(buffer) = &mut buffer {
            buffer[..SECTOR_SIZE].fill(0);
        }
        buffer.unwrap_or_else(|| SectorBuf::zeroed(BLOCK_SIZE))
    }

    fn write(&mut self, mut block: NewBlock) -> BlockReference {
        // As much of the header as a restart would need.
        block.buffer[88..92]
            .copy_from_slice(&u32::try_from(block.size).expect("small").to_le_bytes());
        let buffer = if self.forget {
            self.free.push(block.buffer);
            None
        } else {
            Some(block.buffer)
        };
        self.blocks.push(buffer);
        BlockReference {
            address: u64::try_from(self.blocks.len()).expect("small").into(),
            ..BlockReference::default()
        }
    }

    fn release(&mut self, block: &BlockReference) {
        let address = usize::try_from(block.address.get()).expect("it is small");
        if let Some(buffer) = self.blocks[address - 1].take() {
            self.free.push(buffer);
        }
    }

    fn read_ahead(&mut self, _: &BlockReference) {}

    async fn read(&mut self, block: &BlockReference) -> SectorBuf {
        let mut buffer = SectorBuf::zeroed(BLOCK_SIZE);
        buffer.copy_from_slice(self.at(block));
        buffer
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

const BAR: u64 = 32 * 1024;
const KEY_MASK: u64 = (1 << 48) - 1;

type KeyOf = fn(u64) -> u64;
const KEYS: [(&str, KeyOf); 4] = [
    ("random keys", |at| mix(at) & KEY_MASK),
    ("10,000 keys", |at| mix(at) % 10_000),
    ("sequential keys", |at| at),
    ("one key", |_| 1),
];

type IdOf = fn(u64) -> u128;
const IDS: [(&str, IdOf); 2] = [
    ("random ids", |at| {
        u128::from(mix(at)) << 64 | u128::from(mix(!at))
    }),
    ("sequential ids", |at| u128::from(at) + 1),
];

fn sorts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index sort");
    let _ = group.throughput(Throughput::Elements(BAR));
    for (name, key_of) in KEYS {
        let words: Vec<u64> = (0..BAR).map(|at| key_of(at) << 16 | at).collect();
        let mut spare = Vec::new();
        let _ = group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || words.clone(),
                |words| sort::words(words, &mut spare),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("id sort");
    let _ = group.throughput(Throughput::Elements(BAR));
    for (name, id_of) in IDS {
        let ids: Vec<u128> = (0..BAR).map(id_of).collect();
        let _ = group.bench_function(name, |bencher| {
            bencher.iter(|| sort::ids_in_order(ids.len(), |at| ids[at]));
        });
    }
    group.finish();
}

/// A tree whose merges begin as soon as they may.
const TREE: u8 = 64;

/// Bars until eight runs of tier 1 begin to merge, or a few more.
fn index_tree(key_of: KeyOf, bars: u64) -> (IndexTree, Store) {
    let (mut tree, mut store) = (
        IndexTree::new(TREE, TreeOptions::default()),
        Store::default(),
    );
    for bar in 0..bars {
        for at in bar * BAR..(bar + 1) * BAR {
            tree.push(key_of(at), at);
        }
        run_to_end(tree.beat(&mut store, BAR));
        run_to_end(tree.bar());
        tree.begin_merges(&mut store);
    }
    (tree, store)
}

fn id_tree(id_of: IdOf, bars: u64) -> (IdTree, Store) {
    let (mut tree, mut store) = (IdTree::new(TREE, TreeOptions::default()), Store::default());
    for bar in 0..bars {
        for at in bar * BAR..(bar + 1) * BAR {
            tree.push(id_of(at), at);
        }
        run_to_end(tree.beat(&mut store, BAR));
        tree.bar();
        tree.begin_merges(&mut store);
    }
    (tree, store)
}

/// The merge of tier 0 takes the units of four bars.
const MERGE: u64 = 4 * BAR;

fn merges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    let _ = group
        .sample_size(20)
        .throughput(Throughput::Elements(8 * BAR));
    for (name, key_of) in KEYS {
        let bench = BenchmarkId::new("index, from memory", name);
        let _ = group.bench_function(bench, |bencher| {
            let fill = || {
                let (mut tree, mut store) = index_tree(key_of, 8);
                while tree.sort_begin(&mut store) {
                    run_to_end(tree.sort_end());
                }
                store.forget = true;
                (tree, store)
            };
            bencher.iter_batched_ref(
                fill,
                |(tree, store)| run_to_end(tree.beat(store, MERGE)),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    for (name, id_of) in IDS {
        let bench = BenchmarkId::new("id, from memory", name);
        let _ = group.bench_function(bench, |bencher| {
            let fill = || {
                let (mut tree, mut store) = id_tree(id_of, 8);
                while tree.sort_begin(&mut store) {
                    run_to_end(tree.sort_end());
                }
                store.forget = true;
                (tree, store)
            };
            bencher.iter_batched_ref(
                fill,
                |(tree, store)| run_to_end(tree.beat(store, MERGE)),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("merge from blocks");
    let _ = group
        .sample_size(10)
        .throughput(Throughput::Elements(64 * BAR));
    for (name, key_of) in [KEYS[0], KEYS[1]] {
        let _ = group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || index_tree(key_of, 71),
                |(tree, store)| run_to_end(tree.beat(store, 32 * BAR)),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    let _ = group.bench_function("random ids", |bencher| {
        bencher.iter_batched_ref(
            || id_tree(IDS[0].1, 71),
            |(tree, store)| run_to_end(tree.beat(store, 32 * BAR)),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

#[expect(clippy::disallowed_types, reason = "a benchmark measures time")]
fn seeks(criterion: &mut Criterion) {
    let (tree, store) = index_tree(|at| mix(at) % 100, 12);
    for (name, reversed) in [("seek", false), ("seek, reversed", true)] {
        let _ = criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut elapsed = std::time::Duration::ZERO;
                let (mut key, mut left) = (0, count);
                while left > 0 {
                    key = (key + 37) % 100;
                    let mut cursor = tree.cursor(key, &(0..=u64::MAX), reversed);
                    let mut from = if reversed { KEY_MASK } else { 0 };
                    let began = std::time::Instant::now();
                    while left > 0 {
                        let Seek::Found(at) = cursor.seek(&store, from) else {
                            break;
                        };
                        left -= 1;
                        from = if reversed {
                            at.saturating_sub(1)
                        } else {
                            at + 1
                        };
                        if at == 0 && reversed {
                            break;
                        }
                    }
                    elapsed += began.elapsed();
                }
                elapsed
            });
        });
    }
    let mut key = 0;
    let _ = criterion.bench_function("cursor and first seek", |bencher| {
        bencher.iter(|| {
            key = (key + 37) % 100;
            let mut cursor = tree.cursor(key, &(0..=u64::MAX), false);
            cursor.seek(&store, 0)
        });
    });
    let _ = criterion.bench_function("count", |bencher| {
        bencher.iter(|| {
            key = (key + 37) % 100;
            tree.count_max(key, &(1000..=200_000))
        });
    });
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    let cases: [(&str, IdOf, IdOf); 3] = [
        ("random ids", IDS[0].1, |at| IDS[0].1(at + (1 << 40))),
        ("sequential ids", IDS[1].1, |at| IDS[1].1(at + (1 << 40))),
        // Of every eight, the tree has one.
        (
            "ids in the gaps",
            |at| u128::from(at) * 8,
            |at| u128::from(at) * 8 + 3,
        ),
    ];
    for (name, here, absent) in cases {
        // Two runs of 2^21 ids, and some of 2^18.
        let (tree, store) = id_tree(here, 64 + 64 + 40);
        let state = tree.state();
        let runs: usize = state.tiers.iter().map(|tier| tier.runs.len()).sum();
        let count = 8189 * u64::try_from(runs).expect("few");
        let _ = group.throughput(Throughput::Elements(count));
        let mut out = Vec::new();
        let mut next = 0;
        let _ = group.bench_function(format!("{name}, {runs} runs"), |bencher| {
            bencher.iter(|| {
                let ids: Vec<u128> = (next..next + 8189).map(absent).collect();
                next += 8189;
                tree.lookup_many(&store, &ids, &mut out);
                assert!(out.iter().all(|found| *found == Lookup::Absent));
            });
        });
        let _ = group.throughput(Throughput::Elements(1));
        let name = format!("one of {name}, there");
        let _ = group.bench_function(name, |bencher| {
            let mut at = 0;
            bencher.iter(|| {
                at = (at + 7919) % (100 * BAR);
                let found = tree.lookup(&store, here(at));
                assert!(found == Lookup::Found(at));
            });
        });
    }
    group.finish();
}

fn filters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("filter");
    let mut builder = Builder::default();
    for count in [10_416_u64, 1000] {
        let ids: Vec<u128> = (0..count).map(IDS[0].1).collect();
        let _ = group.throughput(Throughput::Elements(count));
        let _ = group.bench_function(BenchmarkId::new("make", count), |bencher| {
            bencher.iter(|| {
                let filter = Filter::new(ids.iter().copied(), ids.len(), &mut builder);
                black_box(filter.expect("ids are distinct"))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sorts, merges, seeks, lookups, filters);
criterion_main!(benches);
