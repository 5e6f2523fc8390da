//! Indexes over accounts and transfers: what queries and checks of ids look in.
//!
//! All follow from the tables. An op's records are indexed when it has been executed; ids at once,
//! since the next event may repeat one.

use super::Ledger;
use super::catalog::{self, FIELDS, tree};
use super::fetch::{FAILED, sides_of};
use super::records::FailedRecord;
use super::scan::Asked;
use crate::grid::Grid;
use crate::io::Io;
use crate::lsm::entry::FAN;
use crate::lsm::{Clock, Extent, IdTree, IndexTree, TreeOptions, TreeState, beat};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{to_u64, u64_to_usize, yield_once};
use crate::wire::{Account, Transfer};
use std::collections::{BTreeMap, VecDeque};

/// The fields of a record that queries name; zero asks for nothing, and is not indexed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Fields {
    pub(super) user_data_128: u128,
    pub(super) user_data_64: u64,
    pub(super) user_data_32: u32,
    pub(super) ledger: u32,
    pub(super) code: u16,
}

/// The key of a value in a tree: itself if it has 48 bits.
fn key(value: u128) -> u64 {
    const BITS: u32 = 48;
    match u64::try_from(value) {
        Ok(value) if value >> BITS == 0 => value,
        _ => crate::lsm::hash::mix(value) >> (u64::BITS - BITS),
    }
}

impl Fields {
    /// By tree, the key of each value.
    fn keys(&self) -> [Option<u64>; FIELDS] {
        let keep = |value: u128| (value != 0).then(|| key(value));
        [
            keep(self.user_data_128),
            keep(self.user_data_64.into()),
            keep(self.user_data_32.into()),
            keep(self.ledger.into()),
            keep(self.code.into()),
        ]
    }
}

/// How long the tables are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Lengths {
    pub(super) accounts: u64,
    pub(super) transfers: u64,
    pub(super) failed: u64,
}

impl Lengths {
    fn sum(&self) -> u64 {
        self.accounts + self.transfers + self.failed
    }
}

/// All trees.
const TREES: u64 = to_u64(catalog::TREES.len());
/// Records for whose merges memory is set aside: all tiers merge at the same time.
const UNITS_MERGING: u64 = 1 << 30;
/// Bars whose entries a tree may have in memory, and the one before.
const BARS_MAX: usize = 2 * FAN + 1;

/// The options of a tree.
fn options_of(number: u8) -> TreeOptions {
    let mut options = TreeOptions::default();
    if number == tree::TRANSFER_SIDES {
        options.bar_entries *= 2;
    }
    options
}

/// All indexes.
#[derive(Debug)]
pub(super) struct Indexes {
    accounts: [IndexTree; FIELDS],
    transfers: [IndexTree; FIELDS],
    /// By account, of either side, the transfers.
    sides: IndexTree,
    /// By id, positions of transfers, and of burnt ids.
    pub(super) ids: IdTree,
    /// By id, positions of accounts.
    pub(super) account_ids: IdTree,
    /// When the trees do what they do together.
    pub(super) clock: Clock,
    /// The ends of the last bars, the oldest first.
    pub(super) bars: VecDeque<Lengths>,
    /// What is indexed; ids always are.
    indexed: Lengths,
    /// What the clock knows of.
    counted: Lengths,
}

impl Indexes {
    pub(super) fn new() -> Self {
        let options = TreeOptions::default();
        let of = |first: u8| {
            std::array::from_fn(|field| {
                let field = u8::try_from(field).expect("there are few");
                IndexTree::new(first + field, options)
            })
        };
        Self {
            accounts: of(tree::ACCOUNT_FIELDS),
            transfers: of(tree::TRANSFER_FIELDS),
            sides: IndexTree::new(tree::TRANSFER_SIDES, options_of(tree::TRANSFER_SIDES)),
            ids: IdTree::new(tree::TRANSFER_IDS, options),
            account_ids: IdTree::new(tree::ACCOUNT_IDS, options),
            clock: Clock::default(),
            bars: VecDeque::new(),
            indexed: Lengths::default(),
            counted: Lengths::default(),
        }
    }

    /// The trees of positions, in the order of their numbers.
    fn trees(&self) -> impl Iterator<Item = &IndexTree> {
        let fields = self.accounts.iter().chain(&self.transfers);
        fields.chain(std::iter::once(&self.sides))
    }

    fn trees_mut(&mut self) -> impl Iterator<Item = &mut IndexTree> {
        let fields = self.accounts.iter_mut().chain(&mut self.transfers);
        fields.chain(std::iter::once(&mut self.sides))
    }

    /// The trees of ids, in the order of their numbers.
    fn id_trees(&self) -> [&IdTree; 2] {
        [&self.ids, &self.account_ids]
    }

    fn id_trees_mut(&mut self) -> [&mut IdTree; 2] {
        [&mut self.ids, &mut self.account_ids]
    }

    /// Bytes that the trees take for what they have on disk.
    pub(super) fn disk_memory(&self) -> u64 {
        let trees: u64 = self.trees().map(IndexTree::disk_memory).sum();
        let ids = self.id_trees().map(IdTree::disk_memory);
        trees + ids.iter().sum::<u64>()
    }

    /// Bytes that the trees take at most for what they have in memory, and the buffers of merges.
    pub(super) fn memory_fixed() -> u64 {
        let options = TreeOptions::default();
        // What is on disk is counted as it is there.
        let extent = Extent {
            entries: 0,
            units: UNITS_MERGING,
        };
        let fields = 2 * to_u64(FIELDS) * IndexTree::memory_max(&extent, options);
        let sides = IndexTree::memory_max(&extent, options_of(tree::TRANSFER_SIDES));
        fields + sides + 2 * IdTree::memory_max(&extent, options)
    }

    /// Blocks of all trees.
    pub(super) fn block_count(&self) -> u64 {
        let ids = self.id_trees().map(IdTree::block_count);
        self.trees().map(IndexTree::block_count).sum::<u64>() + ids.iter().sum::<u64>()
    }

    /// The states of all trees, with their numbers.
    pub(super) fn states(&self) -> Vec<(u8, TreeState)> {
        let ids = self.id_trees().map(|tree| (tree.number(), tree.state()));
        self.trees()
            .map(|tree| (tree.number(), tree.state()))
            .chain(ids)
            .collect()
    }

    /// Makes the trees as a manifest has them: a state for each number. What was in memory is to be
    /// pushed again.
    pub(super) async fn restore<I: Io>(
        &mut self,
        mut states: BTreeMap<u8, TreeState>,
        grid: &mut Grid<'_, I>,
    ) -> Vec<Repush> {
        let options = TreeOptions::default();
        let mut repushes = Vec::new();
        let mut take = |number: u8| {
            let state = states.remove(&number).unwrap_or_default();
            repushes.push(Repush {
                number,
                bars: state.memory_runs,
            });
            state
        };
        for tree in self.trees_mut() {
            let number = tree.number();
            *tree = IndexTree::restore(number, options_of(number), take(number), grid).await;
        }
        for tree in self.id_trees_mut() {
            let number = tree.number();
            *tree = IdTree::restore(number, options, take(number), grid).await;
        }
        repushes
    }

    /// The trees of account fields that are asked for.
    pub(super) fn of_accounts(&self, wanted: &Fields) -> Vec<Asked<'_>> {
        asked(&self.accounts, wanted).collect()
    }

    /// The same for transfers.
    pub(super) fn of_transfers(&self, wanted: &Fields) -> Vec<Asked<'_>> {
        asked(&self.transfers, wanted).collect()
    }

    /// The transfers of an account, and the trees of fields that are asked for.
    pub(super) fn of_account(&self, id: u128, wanted: &Fields) -> Vec<Asked<'_>> {
        let sides = Asked {
            tree: &self.sides,
            key: key(id),
            always: true,
        };
        let fields = asked(&self.transfers, wanted);
        std::iter::once(sides).chain(fields).collect()
    }

    fn add_account(&mut self, position: u64, account: &Account) {
        for (tree, key) in self.accounts.iter_mut().zip(account_fields(account).keys()) {
            if let Some(key) = key {
                tree.push(key, position);
            }
        }
    }

    fn add_transfer(&mut self, position: u64, transfer: &Transfer) {
        let keys = transfer_fields(transfer).keys();
        for (tree, key) in self.transfers.iter_mut().zip(keys) {
            if let Some(key) = key {
                tree.push(key, position);
            }
        }
        for account in sides_of(transfer) {
            self.sides.push(key(account), position);
        }
    }

    fn all_mut(&mut self) -> (Vec<&mut IndexTree>, [&mut IdTree; 2]) {
        let fields = self.accounts.iter_mut().chain(&mut self.transfers);
        let trees = fields.chain(std::iter::once(&mut self.sides)).collect();
        (trees, [&mut self.ids, &mut self.account_ids])
    }

    /// Begins a beat of so many units: tables are sorted, and merges advance, while the state goes on.
    async fn beat_begin<I: Io>(&mut self, units: u64, grid: &mut Grid<'_, I>) {
        self.sort_some(units, grid);
        let (mut trees, mut ids) = self.all_mut();
        beat::begin(&mut trees, &mut ids, units, grid).await;
    }

    /// Waits for what the last beat began, and writes what comes of it.
    pub(super) async fn beat_end<I: Io>(&mut self, grid: &mut Grid<'_, I>) {
        self.sort_end().await;
        let (mut trees, mut ids) = self.all_mut();
        beat::end(&mut trees, &mut ids, grid).await;
        grid.start().await;
    }

    /// Waits for tables that are being sorted: queries look in them.
    pub(super) async fn sort_end(&mut self) {
        for tree in self.trees_mut() {
            tree.sort_end().await;
        }
        for tree in self.id_trees_mut() {
            tree.sort_end().await;
        }
    }

    /// Begins to sort tables of bars that have ended: so many in a beat of so many units that all are sorted
    /// when the next bar ends, and none waits for a merge to need it.
    fn sort_some<I: Io>(&mut self, units: u64, grid: &mut Grid<'_, I>) {
        let tables = (TREES * units).div_ceil(TreeOptions::default().bar);
        for _ in 0..tables {
            let _ = self.trees_mut().any(|tree| tree.sort_begin(grid))
                || self
                    .id_trees_mut()
                    .into_iter()
                    .any(|tree| tree.sort_begin(grid));
        }
    }

    async fn bar<I: Io>(&mut self, grid: &mut Grid<'_, I>) {
        for tree in self.trees_mut() {
            tree.bar().await;
            tree.begin_merges(grid);
        }
        for tree in self.id_trees_mut() {
            tree.bar();
            tree.begin_merges(grid);
        }
        if self.bars.len() == BARS_MAX {
            let _ = self.bars.pop_front();
        }
        self.bars.push_back(self.indexed);
    }
}

/// What a restored tree lacks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repush {
    number: u8,
    /// Bars whose entries are to be pushed again, beside those after the last bar.
    bars: u64,
}

fn asked<'t>(
    trees: &'t [IndexTree; FIELDS],
    wanted: &Fields,
) -> impl Iterator<Item = Asked<'t>> + use<'t> {
    let pairs = trees.iter().zip(wanted.keys());
    pairs.filter_map(|(tree, key)| {
        Some(Asked {
            tree,
            key: key?,
            always: false,
        })
    })
}

impl Ledger {
    /// What an op leaves to do: its records are indexed, merges go on until the end of the next op, and blocks that
    /// have become full are written.
    pub async fn finish<I: Io>(&mut self, grid: &mut Grid<'_, I>) {
        self.indexes.beat_end(grid).await;
        self.index_records();
        let indexes = &mut self.indexes;
        let units = indexes.indexed.sum() - indexes.counted.sum();
        indexes.counted = indexes.indexed;
        let due = indexes.clock.op_end(units);
        if let Some(units) = due.beat {
            yield_once().await;
            indexes.beat_begin(units, grid).await;
        }
        if due.bar {
            indexes.bar(grid).await;
        }
        self.accounts.created.write_full(grid).await;
        self.transfers.write_full(grid).await;
        self.events.write_full(grid).await;
        self.wide.write_full(grid).await;
        self.expiries.write_full(grid).await;
        self.failed.write_full(grid).await;
    }

    fn lengths(&self) -> Lengths {
        Lengths {
            accounts: self.accounts.created.len(),
            transfers: self.transfers.len(),
            failed: self.failed.len(),
        }
    }

    /// Indexes what was added; all of it is in memory.
    pub(super) fn index_records(&mut self) {
        let (from, to) = (self.indexes.indexed, self.lengths());
        for position in from.accounts..to.accounts {
            self.indexes
                .add_account(position, self.accounts.created.get_recent(position));
        }
        for position in from.transfers..to.transfers {
            self.indexes
                .add_transfer(position, self.transfers.get_recent(position));
        }
        self.indexes.indexed = to;
    }

    /// Brings restored trees to where they were: what they had in memory is pushed again, bar by
    /// bar, and merges go on.
    pub(super) async fn repush<I: Io>(&mut self, repushes: &[Repush], grid: &mut Grid<'_, I>) {
        let bars = self.indexes.bars.clone();
        let kept = to_u64(bars.len());
        let most = repushes.iter().map(|repush| repush.bars).max().unwrap_or(0);
        assert!(most <= kept, "a checkpoint has the bars that are in memory");
        let start = |bars_left: u64| match (kept - bars_left).checked_sub(1) {
            Some(before) => bars[u64_to_usize(before)],
            // All bars that there ever were.
            None => Lengths::default(),
        };
        let mut from = start(most);
        for bar in (kept - most)..=kept {
            let last = bar == kept;
            let to = if last {
                self.lengths()
            } else {
                bars[u64_to_usize(bar)]
            };
            let wanted = |number: u8| {
                let found = repushes.iter().find(|repush| repush.number == number);
                let repush = found.expect("every tree was restored");
                last || bar >= kept - repush.bars
            };
            self.push_again(from, to, &wanted, grid).await;
            if !last && !planted(Bug::RestoreWithoutBars) {
                self.indexes.bar_again(&wanted).await;
            }
            from = to;
        }
        self.indexes.indexed = from;
        self.indexes.counted = from;
        if planted(Bug::ForgetClock) {
            self.indexes.clock = Clock::default();
        }
        for tree in self.indexes.trees_mut() {
            tree.resume(grid).await;
        }
        for tree in self.indexes.id_trees_mut() {
            tree.resume(grid).await;
        }
    }

    /// Pushes the records between two lengths to the trees that lack them.
    async fn push_again<I: Io>(
        &mut self,
        from: Lengths,
        to: Lengths,
        wanted: &impl Fn(u8) -> bool,
        grid: &mut Grid<'_, I>,
    ) {
        let indexes = &mut self.indexes;
        let account_ids = wanted(tree::ACCOUNT_IDS);
        let visit = |position: u64, account: &Account| {
            let keys = account_fields(account).keys();
            push_fields(&mut indexes.accounts, keys, position, wanted);
            if account_ids {
                indexes.account_ids.push(account.id.get(), position);
            }
        };
        let accounts = from.accounts..to.accounts;
        self.accounts.created.visit(accounts, grid, visit).await;
        let (sides, ids) = (wanted(tree::TRANSFER_SIDES), wanted(tree::TRANSFER_IDS));
        let transfers = from.transfers..to.transfers;
        let visit = |position: u64, transfer: &Transfer| {
            let keys = transfer_fields(transfer).keys();
            push_fields(&mut indexes.transfers, keys, position, wanted);
            if sides {
                for account in sides_of(transfer) {
                    indexes.sides.push(key(account), position);
                }
            }
            if ids {
                indexes.ids.push(transfer.id.get(), position);
            }
        };
        self.transfers.visit(transfers, grid, visit).await;
        if ids {
            let failed = from.failed..to.failed;
            let visit = |position: u64, record: &FailedRecord| {
                indexes.ids.push(record.id.get(), FAILED | position);
            };
            self.failed.visit(failed, grid, visit).await;
        }
    }
}

/// Pushes the fields of a record to the trees that are wanted.
fn push_fields(
    trees: &mut [IndexTree; FIELDS],
    keys: [Option<u64>; FIELDS],
    position: u64,
    wanted: &impl Fn(u8) -> bool,
) {
    for (tree, key) in trees.iter_mut().zip(keys) {
        if let Some(key) = key
            && wanted(tree.number())
        {
            tree.push(key, position);
        }
    }
}

impl Indexes {
    async fn bar_again(&mut self, wanted: &impl Fn(u8) -> bool) {
        for tree in self.trees_mut().filter(|tree| wanted(tree.number())) {
            tree.bar().await;
        }
        for tree in self.id_trees_mut() {
            if wanted(tree.number()) {
                tree.bar();
            }
        }
    }
}

pub(super) fn account_fields(account: &Account) -> Fields {
    Fields {
        user_data_128: account.user_data_128.get(),
        user_data_64: account.user_data_64.get(),
        user_data_32: account.user_data_32.get(),
        ledger: account.ledger.get(),
        code: account.code.get(),
    }
}

pub(super) fn transfer_fields(transfer: &Transfer) -> Fields {
    Fields {
        user_data_128: transfer.user_data_128.get(),
        user_data_64: transfer.user_data_64.get(),
        user_data_32: transfer.user_data_32.get(),
        ledger: transfer.ledger.get(),
        code: transfer.code.get(),
    }
}
