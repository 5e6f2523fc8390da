//! A bound on the bytes of frames between the socket and the core.
//!
//! A reader takes a permit before it reads a body, and waits, without reading from its socket, as
//! long as there is none: that is the back-pressure. The permit travels with the body and comes
//! back when the last reference to it goes, on whichever thread that is.
//!
//! Permits are given in the order in which they were asked for, so a large frame is not starved by
//! small ones. Who must not wait gets one only if nobody does.

use super::link::Link;
use crate::constants::HEADER_SIZE;
use crate::stdx::to_u64;
use bytes::Bytes;
use futures_util::FutureExt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

/// What a frame costs at least: header, allocations and its place in the ring. It also bounds the
/// number of frames in the ring.
pub const CHARGE_MIN: u64 = 1024;

/// What a frame with such a body costs.
#[must_use]
pub fn charge(body_size: usize) -> u64 {
    CHARGE_MIN.max(to_u64(body_size + 2 * HEADER_SIZE))
}

/// Bytes on their way back to a budget, from any thread.
#[derive(Debug)]
struct Returns {
    /// Wakes the pump, which gives permits.
    link: Arc<Link>,
    released: AtomicU64,
    /// Whether somebody waits for bytes.
    starved: AtomicBool,
}

impl Returns {
    fn release(&self, bytes: u64) {
        self.released.fetch_add(bytes, Ordering::SeqCst);
        if self.starved.load(Ordering::SeqCst) {
            self.link.wake();
        }
    }

    fn take(&self) -> u64 {
        self.released.swap(0, Ordering::SeqCst)
    }

    /// Says whether somebody waits for bytes; true if some came back meanwhile that have to be
    /// looked at.
    fn set_starved(&self, starved: bool) -> bool {
        self.starved.store(starved, Ordering::SeqCst);
        starved && self.released.load(Ordering::SeqCst) > 0
    }
}

/// The bytes of one kind of frames on one network core.
#[derive(Debug)]
pub struct Budget {
    returns: Arc<Returns>,
    available: Cell<u64>,
    queue: RefCell<VecDeque<Rc<Waiting>>>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Waiting {
    bytes: u64,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Budget {
    /// A budget of so many bytes; `link` wakes who calls [`Budget::grant`].
    pub fn new(link: Arc<Link>, bytes: u64) -> Rc<Self> {
        let returns = Arc::new(Returns {
            link,
            released: AtomicU64::new(0),
            starved: AtomicBool::new(false),
        });
        let (available, queue) = (Cell::new(bytes), RefCell::new(VecDeque::new()));
        Rc::new(Self {
            returns,
            available,
            queue,
            closed: Cell::new(false),
        })
    }

    /// A permit for so many bytes, or `None` when the budget is closed.
    pub fn acquire(self: &Rc<Self>, bytes: u64) -> Acquire {
        Acquire {
            budget: Rc::clone(self),
            bytes,
            waiting: None,
        }
    }

    /// A permit for so many bytes, if it can be had at once.
    pub fn try_acquire(self: &Rc<Self>, bytes: u64) -> Option<Permit> {
        // Who is dropped while it waits leaves the queue.
        self.acquire(bytes).now_or_never().flatten()
    }

    /// Whether bytes came back that somebody waits for.
    #[must_use]
    pub fn has_returns(&self) -> bool {
        let returns = &self.returns;
        returns.starved.load(Ordering::SeqCst) && returns.released.load(Ordering::SeqCst) > 0
    }

    /// Gives permits to those who wait, as far as they go.
    pub fn grant(&self) {
        let mut queue = self.queue.borrow_mut();
        loop {
            let returned = self.returns.take();
            self.available.set(self.available.get() + returned);
            while let Some(first) = queue.front()
                && (first.bytes <= self.available.get() || self.closed.get())
            {
                if !self.closed.get() {
                    self.available.set(self.available.get() - first.bytes);
                    first.granted.set(true);
                }
                if let Some(waker) = first.waker.take() {
                    waker.wake();
                }
                queue.pop_front();
            }
            // What was released before the flag went up has not woken anybody.
            if !self.returns.set_starved(!queue.is_empty()) {
                break;
            }
        }
    }

    /// No permits any more; whoever waits gets none.
    pub fn close(&self) {
        self.closed.set(true);
        self.grant();
    }
}

/// Waits for a permit.
#[derive(Debug)]
pub struct Acquire {
    budget: Rc<Budget>,
    bytes: u64,
    waiting: Option<Rc<Waiting>>,
}

impl Future for Acquire {
    type Output = Option<Permit>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Permit>> {
        let this = &mut *self;
        let waiting = this.waiting.get_or_insert_with(|| {
            let (granted, waker) = (Cell::new(false), RefCell::new(None));
            let waiting = Rc::new(Waiting {
                bytes: this.bytes,
                granted,
                waker,
            });
            this.budget
                .queue
                .borrow_mut()
                .push_back(Rc::clone(&waiting));
            waiting
        });
        if !waiting.granted.get() {
            this.budget.grant();
        }
        if waiting.granted.take() {
            this.waiting = None;
            let returns = Arc::clone(&this.budget.returns);
            return Poll::Ready(Some(Permit {
                bytes: this.bytes,
                returns,
            }));
        }
        if this.budget.closed.get() {
            return Poll::Ready(None);
        }
        *waiting.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        if waiting.granted.get() {
            self.budget
                .available
                .set(self.budget.available.get() + waiting.bytes);
        } else {
            self.budget
                .queue
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, &waiting));
        }
        self.budget.grant();
    }
}

/// Bytes that are in use; they go back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    bytes: u64,
    returns: Arc<Returns>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.returns.release(self.bytes);
    }
}

/// A body with the permit that it was read under.
struct Body {
    bytes: Vec<u8>,
    _permit: Permit,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body as the core sees it; the permit goes back with its last reference.
pub fn guard(bytes: Vec<u8>, permit: Permit) -> Bytes {
    Bytes::from_owner(Body {
        bytes,
        _permit: permit,
    })
}

#[cfg(test)]
mod tests {
    use super::{Budget, guard};
    use crate::server::network::link::Link;
    use futures_util::FutureExt;
    use std::pin::pin;

    #[test]
    fn permits_come_back_in_order_when_the_body_goes() {
        let budget = Budget::new(Link::new().unwrap().0, 10);
        let permit = budget.acquire(8).now_or_never().unwrap().unwrap();
        let body = guard(vec![7; 4], permit);
        let mut large = pin!(budget.acquire(9));
        let mut small = pin!(budget.acquire(1));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(
            small.as_mut().now_or_never().is_none(),
            "it is behind the large one"
        );
        let part = body.slice(1..2);
        drop(body);
        assert!(
            large.as_mut().now_or_never().is_none(),
            "a part of the body is in use"
        );
        std::thread::scope(|scope| scope.spawn(move || drop(part)).join().unwrap());
        budget.grant();
        let permit = large.as_mut().now_or_never().unwrap();
        assert!(permit.is_some());
        assert!(small.as_mut().now_or_never().unwrap().is_some());
        drop(permit);
    }

    #[test]
    fn who_gives_up_waiting_holds_nobody_up() {
        let budget = Budget::new(Link::new().unwrap().0, 10);
        let held = budget.acquire(5).now_or_never().unwrap();
        {
            let mut large = Box::pin(budget.acquire(10));
            assert!((&mut large).now_or_never().is_none());
        }
        assert!(budget.acquire(5).now_or_never().unwrap().is_some());
        let mut waiting = pin!(budget.acquire(10));
        assert!(waiting.as_mut().now_or_never().is_none());
        budget.close();
        assert!(waiting.as_mut().now_or_never().unwrap().is_none());
        drop(held);
    }
}
