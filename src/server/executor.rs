//! The executor of the replica core: one thread, one root future, one ring.
//!
//! The root is polled when a waker has fired; tasks below it are its own affair (`join!`,
//! `FuturesUnordered`). When nothing is ready, the thread waits in the kernel for a completion, a
//! timer or the eventfd. It does not spin before: on a machine with few cores that takes time from
//! the network.

use super::ring::Ring;
use super::wake::CoreWake;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Runs `root` to its end. `on_eventfd` is called when something outside wrote the eventfd: for
/// those that cannot call a waker, as a signal handler cannot.
pub fn block_on<F: Future>(
    ring: &Ring,
    wake: &Arc<CoreWake>,
    on_eventfd: impl Fn(),
    root: F,
) -> F::Output {
    let mut root = pin!(root);
    let waker = Waker::from(Arc::clone(wake));
    let mut context = Context::from_waker(&waker);
    loop {
        if wake.take_ready() {
            if let Poll::Ready(output) = root.as_mut().poll(&mut context) {
                return output;
            }
            ring.poll();
        } else if wake.park() {
            ring.wait();
        }
        if ring.take_woken() {
            on_eventfd();
        }
    }
}
