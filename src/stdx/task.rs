//! Work that needs nothing but what it is given: it may run on another core while the state goes on.
//!
//! Who began it waits for it at a point of its own, so what comes of it is the same wherever it ran.

use futures_channel::oneshot;

/// What is handed to another core.
pub type Job = Box<dyn FnOnce() + Send>;

/// Work that was begun. When it is dropped, the work goes on in vain.
#[derive(Debug)]
pub struct Task<T>(oneshot::Receiver<T>);

impl<T: Send + 'static> Task<T> {
    /// Hands the work to `spawn`, which runs it, sooner or later.
    pub fn new(spawn: impl FnOnce(Job), work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, receiver) = oneshot::channel();
        // All that the work was given is gone when its result arrives.
        spawn(Box::new(move || drop(sender.send(work()))));
        Self(receiver)
    }

    /// Waits for what comes of it.
    ///
    /// # Panics
    /// When the work did.
    pub async fn join(self) -> T {
        self.0.await.expect("a job runs to its end")
    }
}

#[cfg(test)]
mod tests {
    use super::{Job, Task};
    use crate::stdx::run_to_end;
    use futures_util::FutureExt;

    #[test]
    fn a_task_is_done_when_its_job_has_run_and_not_before() {
        let mut jobs: Vec<Job> = Vec::new();
        let shared = std::sync::Arc::new(5);
        let given = std::sync::Arc::clone(&shared);
        let task = Task::new(|job| jobs.push(job), move || *given + 1);
        let mut join = Box::pin(task.join());
        assert_eq!(join.as_mut().now_or_never(), None);
        std::thread::scope(|scope| drop(scope.spawn(jobs.pop().unwrap())));
        assert_eq!(run_to_end(join), 6);
        assert_eq!(std::sync::Arc::try_unwrap(shared), Ok(5));
        assert_eq!(run_to_end(Task::new(|job| job(), || 7).join()), 7);
    }
}
