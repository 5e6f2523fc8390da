//! Jobs that the core hands to other cores: they run at once, or a while later.

use crate::random::Random;
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use daftari::stdx::Job;
use std::time::Duration;

/// How long a job takes, in nanoseconds.
pub fn time(random: &mut Random) -> u64 {
    if random.chance(500) {
        return 0;
    }
    random.exponential(2 * MS)
}

/// Runs a job in that time; it dies with the process.
pub fn run(job: Job, time: u64) {
    if time == 0 {
        return job();
    }
    drop(madsim::task::spawn(async move {
        madsim::time::sleep(Duration::from_nanos(time)).await;
        job();
    }));
}
