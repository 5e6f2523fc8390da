//! Cores that compute merges beside the replica core.
//!
//! Jobs touch nothing in common, and the caller waits for all: what comes of them is the same with any
//! number of threads, and with none.
#![expect(
    clippy::disallowed_types,
    reason = "the jobs are handed out under a lock, which is held for an instant"
)]

use std::io;
use std::sync::Mutex;

/// See the module.
#[derive(Debug)]
pub struct Workers {
    pool: Option<rayon::ThreadPool>,
}

impl Workers {
    /// So many threads beside the calling one.
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
            .build();
        Ok(Self {
            pool: Some(pool.map_err(io::Error::other)?),
        })
    }

    /// Runs all jobs, the calling thread among others.
    ///
    /// # Panics
    /// When a job does.
    pub fn run(&self, jobs: &mut [&mut (dyn FnMut() + Send)]) {
        let pool = match &self.pool {
            Some(pool) if jobs.len() > 1 => pool,
            Some(_) | None => {
                jobs.iter_mut().for_each(|job| job());
                return;
            }
        };
        let others = pool.current_num_threads().min(jobs.len() - 1);
        let queue = Mutex::new(jobs.iter_mut());
        let work = || loop {
            let next = queue.lock().expect("no job runs under the lock").next();
            match next {
                Some(job) => job(),
                None => return,
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..others {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::Workers;

    #[test]
    fn every_job_runs_once_with_any_number_of_threads() {
        for threads in [0, 1, 3] {
            let workers = Workers::new(threads).unwrap();
            for count in [0, 1, 2, 50] {
                let mut runs = vec![0; count];
                let mut jobs: Vec<_> = runs.iter_mut().map(|run| move || *run += 1).collect();
                let mut jobs: Vec<&mut (dyn FnMut() + Send)> = jobs
                    .iter_mut()
                    .map(|job| {
                        let job: &mut (dyn FnMut() + Send) = job;
                        job
                    })
                    .collect();
                workers.run(&mut jobs);
                assert_eq!(runs, vec![1; count], "{threads} threads");
            }
        }
    }
}
