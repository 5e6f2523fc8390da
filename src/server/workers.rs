//! Cores that sort, merge and checksum beside the replica core.
//!
//! Jobs touch nothing in common, and whoever begins one waits for it at a point of its own: what comes
//! of them is the same with any number of threads, and with none.

use crate::stdx::{Job, Slab};
use std::io;

/// See the module.
#[derive(Debug)]
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// So many threads beside the calling one. A job that panics ends the process.
    ///
    /// # Errors
    /// When the system has no threads to offer.
    pub fn new(threads: usize) -> io::Result<Self> {
        if threads == 0 {
            return Ok(Self { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|number| format!("compaction-{number}"))
            .start_handler(|_| Slab::give_back())
            .build();
        Ok(Self {
            pool: Some(pool.map_err(io::Error::other)?),
        })
    }

    /// Runs a job on one of the threads, in the order of the calls, or at once if there is none.
    pub fn spawn(&self, job: Job) {
        match &self.pool {
            Some(pool) => pool.spawn_fifo(job),
            None => job(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Workers;
    use crate::stdx::{Task, run_to_end};

    #[test]
    fn every_job_runs_once_with_any_number_of_threads() {
        for threads in [0, 1, 3] {
            let workers = Workers::new(threads).unwrap();
            let spawn = |number: u64| Task::new(|job| workers.spawn(job), move || number * number);
            let tasks: Vec<Task<u64>> = (0..50).map(spawn).collect();
            let squares = tasks.into_iter().map(|task| run_to_end(task.join()));
            assert!(squares.eq((0..50).map(|number| number * number)));
        }
    }
}
