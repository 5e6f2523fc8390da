//! A ledger over blocks in memory, which never waits: for tests, benchmarks and tools.

use super::{Ledger, LedgerOptions, Request};
use crate::grid::Grid;
use crate::io::{Io, MemoryIo};
use crate::stdx::run_to_end;
use crate::wire::Operation;
use storage_format::{Geometry, Superblock};

/// See the module.
#[derive(Debug)]
pub struct LedgerInMemory {
    io: &'static MemoryIo,
    options: LedgerOptions,
    /// The ledger.
    pub ledger: Ledger,
    grid: Grid<'static, MemoryIo>,
    op: u64,
}

impl LedgerInMemory {
    const CACHE_SIZE: u64 = 64 << 20;

    /// An empty ledger.
    #[must_use]
    pub fn new(options: LedgerOptions) -> Self {
        // Writes that are under way borrow the storage for as long as they like.
        let io: &'static MemoryIo = Box::leak(Box::default());
        Self {
            io,
            options,
            ledger: Ledger::new(options),
            grid: Self::grid(io, Self::CACHE_SIZE),
            op: 0,
        }
    }

    /// An empty grid with a cache of so many bytes.
    pub(super) fn grid(io: &MemoryIo, cache_size: u64) -> Grid<'_, MemoryIo> {
        let mut superblock = Superblock::zeroed();
        superblock.geometry = Geometry {
            block_size: u32::try_from(crate::constants::BLOCK_SIZE)
                .expect("a block is at most 1 MiB")
                .into(),
            file_size_max: (1 << 50).into(),
            ..Geometry::default()
        };
        Grid::new(io, &superblock, cache_size)
    }

    /// Executes a request as an op of its own, and appends the body of the reply.
    pub fn execute(
        &mut self,
        operation: Operation,
        timestamp: u64,
        body: &[u8],
        reply: &mut Vec<u8>,
    ) {
        self.op += 1;
        self.grid.op = self.op;
        let request = Request {
            operation,
            timestamp,
            body,
        };
        run_to_end(async {
            self.ledger.execute(&mut self.grid, &request, reply).await;
            self.ledger.finish(&mut self.grid).await;
        });
    }

    /// Expires what is due, as an op of its own.
    pub fn pulse(&mut self, timestamp: u64) {
        self.op += 1;
        self.grid.op = self.op;
        run_to_end(async {
            self.ledger.pulse(&mut self.grid, timestamp).await;
            self.ledger.finish(&mut self.grid).await;
        });
    }

    /// Makes a checkpoint, and opens what it wrote in place of this ledger.
    ///
    /// # Panics
    /// When a checkpoint cannot be opened.
    pub fn restart(&mut self) {
        let manifest = run_to_end(async {
            let manifest = self.ledger.checkpoint(&mut self.grid).await;
            self.grid.finish_writes().await;
            manifest
        });
        let state = self.ledger.state();
        self.ledger = Ledger::new(self.options);
        self.grid = Self::grid(self.io, Self::CACHE_SIZE);
        run_to_end(async {
            for record in storage_format::manifest::blocks(&manifest) {
                let restored = self.grid.free.restore(record.block.address.get());
                restored.expect("a checkpoint names each block once");
            }
            let restored = self.ledger.restore(&state, &manifest, &mut self.grid).await;
            restored.expect("what a checkpoint wrote can be restored");
        });
    }
}

impl Drop for LedgerInMemory {
    fn drop(&mut self) {
        self.io.storage().clear();
    }
}
