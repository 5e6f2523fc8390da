//! A beat of several trees: their merges advance side by side.
//!
//! [`begin`] reads what each merge needs, and has its share computed, here or on other cores; [`end`] waits for that,
//! and writes what became full, in the order of the trees, so that addresses follow from the entries alone.
//! In between the trees may be looked at, and added to.

use super::{IdTree, IndexTree};
use crate::grid::BlockStore;

/// Begins a beat of so many units.
pub async fn begin(
    indexes: &mut [&mut IndexTree],
    ids: &mut [&mut IdTree],
    units: u64,
    store: &mut impl BlockStore,
) {
    // Those of ids take longest.
    for tree in ids {
        tree.beat_begin(units, store).await;
    }
    for tree in indexes {
        tree.beat_begin(units, store).await;
    }
}

/// Ends the beat that was begun, if there is one.
pub async fn end(
    indexes: &mut [&mut IndexTree],
    ids: &mut [&mut IdTree],
    store: &mut impl BlockStore,
) {
    for tree in ids {
        tree.beat_end(store).await;
    }
    for tree in indexes {
        tree.beat_end(store).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{begin, end};
    use crate::lsm::mock::{Mock, Random};
    use crate::lsm::{IdTree, IndexTree, TreeOptions};
    use crate::stdx::run_to_end;

    const OPTIONS: TreeOptions = TreeOptions {
        bar: 24,
        pages: 1,
        bar_entries: 24,
    };

    /// What trees of several kinds write, and where merges stand in the end. Beats end before the next one, or
    /// `early`, as before a checkpoint.
    fn written(threads: bool, early: bool) -> (Mock, String) {
        let mut store = Mock::default();
        store.threads = threads;
        let mut random = Random(7);
        let mut indexes: Vec<IndexTree> = (1..=4).map(|n| IndexTree::new(n, OPTIONS)).collect();
        let mut ids = IdTree::new(9, OPTIONS);
        for position in 0..24 * 80 {
            for (modulus, tree) in [1, 7, 1000, 1 << 40].into_iter().zip(&mut indexes) {
                tree.push(random.below(modulus), position);
            }
            ids.push(
                u128::from(random.below(1 << 60)) << 13 | u128::from(position),
                position,
            );
            if position % 8 == 7 {
                let mut indexes: Vec<&mut IndexTree> = indexes.iter_mut().collect();
                run_to_end(end(&mut indexes, &mut [&mut ids], &mut store));
                run_to_end(begin(&mut indexes, &mut [&mut ids], 8, &mut store));
            }
            if position % 24 == 23 {
                for tree in &mut indexes {
                    run_to_end(tree.bar());
                    tree.begin_merges(&mut store);
                }
                ids.bar();
                ids.begin_merges(&mut store);
                for tree in &mut indexes {
                    while tree.sort_begin(&mut store) {}
                }
                while ids.sort_begin(&mut store) {}
            }
            if early {
                let mut indexes: Vec<&mut IndexTree> = indexes.iter_mut().collect();
                run_to_end(end(&mut indexes, &mut [&mut ids], &mut store));
            }
        }
        let mut indexes_mut: Vec<&mut IndexTree> = indexes.iter_mut().collect();
        run_to_end(end(&mut indexes_mut, &mut [&mut ids], &mut store));
        let states: Vec<_> = indexes.iter().map(IndexTree::state).collect();
        (store, format!("{states:?} {:?}", ids.state()))
    }

    #[test]
    fn threads_make_the_same_blocks_at_the_same_addresses() {
        let (expected, states) = written(false, true);
        assert!(expected.blocks.len() > 50, "{}", expected.blocks.len());
        for (threads, early) in [(false, false), (true, true), (true, false)] {
            let found = written(threads, early);
            assert_eq!(expected.blocks, found.0.blocks, "{threads} {early}");
            assert_eq!(states, found.1);
        }
    }
}
