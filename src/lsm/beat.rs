//! A beat of several trees: their merges advance side by side.
//!
//! In rounds: what each merge needs is read, one step of each is computed, what became full is
//! written; in the order of the trees, so that addresses follow from the entries alone. The steps of a
//! round touch nothing that another one does, and may run on other cores.

use super::entry::{IdEntry, IndexEntry};
use super::merge::Work;
use super::{IdTree, IndexTree};
use crate::grid::BlockStore;
use crate::stdx::yield_once;

/// Advances the merges of trees by a beat of so many units.
pub async fn beat(
    indexes: &mut [&mut IndexTree],
    ids: &mut [&mut IdTree],
    units: u64,
    store: &mut impl BlockStore,
) {
    let begun = indexes.iter_mut().map(|tree| tree.beat_begin(units));
    let mut of_indexes: Vec<Work<'_, IndexEntry>> = begun.flatten().collect();
    let begun = ids.iter_mut().map(|tree| tree.beat_begin(units));
    let mut of_ids: Vec<Work<'_, IdEntry>> = begun.flatten().collect();
    loop {
        of_indexes.retain(|work| !work.is_done());
        of_ids.retain(|work| !work.is_done());
        if of_indexes.is_empty() && of_ids.is_empty() {
            break;
        }
        for work in &mut of_indexes {
            work.prepare(store).await;
        }
        for work in &mut of_ids {
            work.prepare(store).await;
        }
        compute(&mut of_indexes, &mut of_ids, store);
        of_indexes.iter_mut().for_each(|work| work.write(store));
        of_ids.iter_mut().for_each(|work| work.write(store));
        yield_once().await;
    }
    drop((of_indexes, of_ids));
    indexes.iter_mut().for_each(|tree| tree.beat_end(store));
    ids.iter_mut().for_each(|tree| tree.beat_end(store));
}

/// One step of each.
fn compute(
    of_indexes: &mut [Work<'_, IndexEntry>],
    of_ids: &mut [Work<'_, IdEntry>],
    store: &mut impl BlockStore,
) {
    let mut of_indexes: Vec<_> = of_indexes.iter_mut().map(|work| || work.step()).collect();
    let mut of_ids: Vec<_> = of_ids.iter_mut().map(|work| || work.step()).collect();
    let mut jobs: Vec<&mut (dyn FnMut() + Send)> = Vec::new();
    for job in &mut of_ids {
        jobs.push(job);
    }
    for job in &mut of_indexes {
        jobs.push(job);
    }
    store.compute(&mut jobs);
}

#[cfg(test)]
mod tests {
    use super::beat;
    use crate::lsm::mock::{Mock, Random};
    use crate::lsm::{IdTree, IndexTree, TreeOptions};
    use crate::stdx::run_to_end;

    const OPTIONS: TreeOptions = TreeOptions { bar: 24, pages: 1 };

    /// What trees of several kinds write, and where merges stand in the end.
    fn written(threads: bool) -> (Mock, String) {
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
                run_to_end(beat(&mut indexes, &mut [&mut ids], 8, &mut store));
            }
            if position % 24 == 23 {
                for tree in &mut indexes {
                    tree.bar();
                    tree.begin_merges(&mut store);
                }
                ids.bar();
                ids.begin_merges(&mut store);
            }
        }
        let states: Vec<_> = indexes.iter().map(IndexTree::state).collect();
        (store, format!("{states:?} {:?}", ids.state()))
    }

    #[test]
    fn threads_make_the_same_blocks_at_the_same_addresses() {
        let (alone, with_threads) = (written(false), written(true));
        assert!(alone.0.blocks.len() > 50, "{}", alone.0.blocks.len());
        assert_eq!(alone.0.blocks, with_threads.0.blocks);
        assert_eq!(alone.1, with_threads.1);
    }
}
