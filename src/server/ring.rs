//! One io_uring of the replica core: reads and writes of the data file, timers, and the wait.
//!
//! * A buffer belongs to the ring from the submission to the completion. A future that is dropped in
//!   between leaves it here, so the kernel never writes to freed memory.
//! * A transfer is done when all of its bytes are; short ones are continued.
//! * Reads do not fail: after an error the rest is read sector by sector, and what still cannot be
//!   read is zeroed. Writes that fail end the process.
//! * Entries that do not fit the submission queue wait in a backlog, in order.
//! * Neither the file nor buffers are registered. A registered file is released only when the
//!   kernel takes the ring apart, some time after the process is gone, and with it the lock: the
//!   next start would find the file in use. Registered buffers gain nothing for 4 KiB (90 us a read
//!   and 180 us a write either way) and about a tenth for 1 MiB (470 against 415 us), but need one
//!   pool for all buffers of the core, pinned for ever.

use super::data_file::DataFile;
use super::fatal::{DiskFatal, fatal};
use super::wake::CoreWake;
use crate::constants::NANOSECONDS;
use crate::stdx::{SectorBuf, to_u64, u64_to_usize};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use storage_format::SECTOR_SIZE;

/// Entries of the submission queue; transfers beyond it wait in the backlog.
const ENTRIES: u32 = 256;
/// Completion of the read of the eventfd; transfers have their index.
const EVENTFD: u64 = u64::MAX;
/// The kernel moves at most this much at once, rounded down to pages.
const TRANSFER_MAX: usize = 1 << 30;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Read,
    Write,
}

/// A transfer that the ring owns.
#[derive(Debug)]
struct Transfer {
    direction: Direction,
    offset: u64,
    size: usize,
    done: usize,
    /// Bytes per entry: all that is left, or one sector after a read error.
    step_max: usize,
    buffer: SectorBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Under way; the waker is there once the future has been polled.
    Pending(Option<Waker>),
    /// Under way, and nobody waits any more.
    Abandoned,
    Complete,
}

/// What a completion means for its transfer.
enum Step {
    Again,
    Complete,
}

struct Inner {
    uring: IoUring,
    transfers: Vec<Option<Transfer>>,
    free: Vec<usize>,
    backlog: VecDeque<squeue::Entry>,
    /// Entries that the kernel has, without the read of the eventfd.
    in_flight: usize,
    /// Where the kernel puts the counter of the eventfd.
    eventfd_counter: Box<u64>,
    eventfd_armed: bool,
    timers: BTreeMap<(u64, u64), Waker>,
    timers_count: u64,
}

/// The ring, the file that it reads and writes, and the timers.
pub struct Ring {
    inner: RefCell<Inner>,
    file: DataFile,
    wake: Arc<CoreWake>,
    woken: Cell<bool>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Nanoseconds of the clock that timers use. It goes on while the machine is suspended, so that a
/// replica that slept notices.
#[must_use]
pub fn monotonic() -> u64 {
    clock(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds since 1970.
#[must_use]
pub fn realtime() -> u64 {
    clock(libc::CLOCK_REALTIME)
}

#[expect(unsafe_code, reason = "std does not tell the value of a clock")]
fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to.
    let result = unsafe { libc::clock_gettime(id, &raw mut time) };
    assert!(result == 0, "the clock exists");
    // A host whose clock stands before 1970 has other troubles: it counts as 1970.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * NANOSECONDS + u64::try_from(time.tv_nsec).expect("not negative")
}

/// A ring with the best set of options that the kernel has: each entry lacks what the one before
/// needs (6.1, 6.0 and 5.19).
fn build() -> io::Result<IoUring> {
    let mut error = None;
    for attempt in 0..4 {
        let mut builder = IoUring::builder();
        match attempt {
            0 => builder
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag(),
            1 => builder
                .setup_single_issuer()
                .setup_coop_taskrun()
                .setup_taskrun_flag(),
            2 => builder.setup_coop_taskrun().setup_taskrun_flag(),
            _ => &mut builder,
        };
        match builder.build(ENTRIES) {
            Ok(ring) => {
                tracing::debug!(attempt, "ring of the replica core");
                return Ok(ring);
            }
            Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => error = Some(refused),
            Err(refused) => return Err(refused),
        }
    }
    Err(error.expect("the loop ends with an error"))
}

impl Ring {
    /// A ring for the calling thread, which must be the only one to use it.
    ///
    /// # Errors
    /// When the kernel refuses it; `host::check` tells why.
    pub fn new(file: DataFile, wake: Arc<CoreWake>) -> io::Result<Rc<Self>> {
        let uring = build()?;
        let inner = RefCell::new(Inner {
            uring,
            transfers: Vec::new(),
            free: Vec::new(),
            backlog: VecDeque::new(),
            in_flight: 0,
            eventfd_counter: Box::new(0),
            eventfd_armed: false,
            timers: BTreeMap::new(),
            timers_count: 0,
        });
        Ok(Rc::new(Self {
            inner,
            file,
            wake,
            woken: Cell::new(false),
        }))
    }

    /// The data file.
    #[must_use]
    pub fn file(&self) -> &DataFile {
        &self.file
    }

    /// Fills `buffer` from `offset` on.
    pub fn read(self: &Rc<Self>, offset: u64, buffer: SectorBuf) -> TransferFuture {
        let size = buffer.len();
        self.transfer(Direction::Read, offset, size, buffer)
    }

    /// Writes the first `size` bytes of `buffer` at `offset`. A plain file grows; at the end of a
    /// device or a full disk the process stops with a named reason.
    pub fn write(self: &Rc<Self>, offset: u64, buffer: SectorBuf, size: usize) -> TransferFuture {
        assert!(
            size > 0 && size <= buffer.len(),
            "the buffer holds what is written"
        );
        self.transfer(Direction::Write, offset, size, buffer)
    }

    fn transfer(
        self: &Rc<Self>,
        direction: Direction,
        offset: u64,
        size: usize,
        buffer: SectorBuf,
    ) -> TransferFuture {
        let sector = to_u64(SECTOR_SIZE);
        assert!(
            offset.is_multiple_of(sector) && size.is_multiple_of(SECTOR_SIZE),
            "whole sectors"
        );
        let state = State::Pending(None);
        let step_max = TRANSFER_MAX;
        let transfer = Transfer {
            direction,
            offset,
            size,
            done: 0,
            step_max,
            buffer,
            state,
        };
        TransferFuture {
            ring: Rc::clone(self),
            step: FutureStep::Start(Some(transfer)),
        }
    }

    /// Completes when so many nanoseconds have passed.
    pub fn sleep(self: &Rc<Self>, nanoseconds: u64) -> Sleep {
        let deadline = monotonic().saturating_add(nanoseconds);
        Sleep {
            ring: Rc::clone(self),
            deadline,
            key: None,
        }
    }

    /// Whether the eventfd has been written since the last call.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.take()
    }

    /// Submits what is queued and hands out completions and due timers, without waiting.
    pub(super) fn poll(&self) {
        self.enter(false);
    }

    /// As [`Ring::poll`], but waits until something completes, a timer is due, or the eventfd is
    /// written.
    pub(super) fn wait(&self) {
        self.enter(true);
    }

    fn enter(&self, mut wait: bool) {
        let mut wakers = Vec::new();
        {
            let mut inner = self.inner.borrow_mut();
            inner.arm_eventfd(&self.wake);
            let timeout = inner
                .timers
                .first_key_value()
                .map(|((deadline, _), _)| *deadline);
            loop {
                inner.fill();
                let idle = inner.backlog.is_empty();
                inner.submit(wait && idle, timeout);
                wait = false;
                if self.reap(&mut inner, &mut wakers) {
                    self.woken.set(true);
                }
                if inner.backlog.is_empty() {
                    break;
                }
            }
            inner.take_due(&mut wakers);
        }
        // The core is back: what it wakes from here on needs no eventfd.
        self.wake.unpark();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes all completions; true if the eventfd was among them.
    fn reap(&self, inner: &mut Inner, wakers: &mut Vec<Waker>) -> bool {
        let mut eventfd = false;
        loop {
            let completion = inner.uring.completion().next();
            let Some(completion) = completion else {
                break;
            };
            if completion.user_data() == EVENTFD {
                inner.eventfd_armed = false;
                eventfd = true;
                continue;
            }
            inner.in_flight -= 1;
            let index = u64_to_usize(completion.user_data());
            let transfer = inner.transfers[index].as_mut().expect("it is under way");
            let step = match transfer.direction {
                Direction::Read => transfer.on_read(completion.result()),
                Direction::Write => transfer.on_write(completion.result(), &self.file),
            };
            match step {
                Step::Again => inner.queue(index, &self.file),
                Step::Complete => match std::mem::replace(&mut transfer.state, State::Complete) {
                    State::Pending(waker) => wakers.extend(waker),
                    State::Abandoned => drop(inner.release(index)),
                    State::Complete => unreachable!("a transfer completes once"),
                },
            }
        }
        eventfd
    }
}

impl Inner {
    /// Queues what is left of a transfer.
    fn queue(&mut self, index: usize, file: &DataFile) {
        let transfer = self.transfers[index].as_mut().expect("it is under way");
        let step = (transfer.size - transfer.done).min(transfer.step_max);
        let offset = transfer.offset + to_u64(transfer.done);
        let memory = transfer.buffer[transfer.done..].as_mut_ptr();
        let length = u32::try_from(step).expect("a step is at most TRANSFER_MAX");
        let fd = Fd(file.raw_fd());
        let entry = match transfer.direction {
            Direction::Read => opcode::Read::new(fd, memory, length).offset(offset).build(),
            Direction::Write => opcode::Write::new(fd, memory, length)
                .offset(offset)
                .build(),
        };
        self.backlog.push_back(entry.user_data(to_u64(index)));
        self.in_flight += 1;
    }

    fn start(&mut self, transfer: Transfer, file: &DataFile) -> usize {
        let index = self.free.pop().unwrap_or_else(|| {
            self.transfers.push(None);
            self.transfers.len() - 1
        });
        assert!(self.transfers[index].is_none(), "a free place is empty");
        self.transfers[index] = Some(transfer);
        self.queue(index, file);
        index
    }

    fn release(&mut self, index: usize) -> Option<SectorBuf> {
        self.free.push(index);
        self.transfers[index].take().map(|transfer| transfer.buffer)
    }

    fn arm_eventfd(&mut self, wake: &CoreWake) {
        if self.eventfd_armed {
            return;
        }
        let memory: *mut u64 = &raw mut *self.eventfd_counter;
        let entry = opcode::Read::new(Fd(wake.eventfd()), memory.cast(), 8).build();
        self.backlog.push_front(entry.user_data(EVENTFD));
        self.eventfd_armed = true;
    }

    /// Moves the backlog to the submission queue as far as it has room.
    #[expect(unsafe_code, reason = "the kernel gets addresses")]
    fn fill(&mut self) {
        let mut queue = self.uring.submission();
        while !queue.is_full()
            && let Some(entry) = self.backlog.pop_front()
        {
            // SAFETY: the memory belongs to `transfers` or `eventfd_counter` until the completion,
            // and `Ring` waits for all completions before it is dropped.
            let pushed = unsafe { queue.push(&entry) };
            pushed.expect("there is room");
        }
    }

    fn submit(&mut self, wait: bool, deadline: Option<u64>) {
        let result = match (wait, deadline) {
            (false, _) => {
                let queue = self.uring.submission();
                let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
                drop(queue);
                if idle {
                    Ok(0)
                } else {
                    self.uring.submitter().submit()
                }
            }
            (true, None) => self.uring.submitter().submit_and_wait(1),
            (true, Some(deadline)) => {
                let left = deadline.saturating_sub(monotonic());
                let nanoseconds = u32::try_from(left % NANOSECONDS).expect("below a second");
                let time = Timespec::new().sec(left / NANOSECONDS).nsec(nanoseconds);
                let arguments = SubmitArgs::new().timespec(&time);
                self.uring.submitter().submit_with_args(1, &arguments)
            }
        };
        match result {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                // Time is up; a signal; completions have to be taken first.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => panic!("io_uring_enter: {error}"),
            },
        }
    }

    fn take_due(&mut self, wakers: &mut Vec<Waker>) {
        if self.timers.is_empty() {
            return;
        }
        let now = monotonic();
        while let Some(timer) = self.timers.first_entry()
            && timer.key().0 <= now
        {
            wakers.push(timer.remove());
        }
    }
}

impl Drop for Ring {
    /// Waits for all that the kernel still has: only then the memory may go.
    fn drop(&mut self) {
        self.wake.write_eventfd();
        let mut inner = self.inner.borrow_mut();
        let mut wakers = Vec::new();
        while inner.in_flight > 0 || inner.eventfd_armed {
            inner.fill();
            inner.submit(true, None);
            self.reap(&mut inner, &mut wakers);
        }
    }
}

impl Transfer {
    fn on_read(&mut self, result: i32) -> Step {
        let left = self.size - self.done;
        if let Ok(count) = usize::try_from(result) {
            assert!(count <= left, "no more than asked for");
            self.done += count;
            // The end of the file: it comes as 0, or as a part of a sector.
            if count == 0 || !count.is_multiple_of(SECTOR_SIZE) {
                self.buffer[self.done..self.size].fill(0);
                self.done = self.size;
            }
        } else {
            match -result {
                libc::EINTR | libc::EAGAIN => {}
                errno @ (libc::EBADF | libc::EFAULT | libc::EINVAL) => {
                    panic!("a read of the data file is wrong in itself: errno {errno}")
                }
                errno if left.min(self.step_max) > SECTOR_SIZE => {
                    tracing::warn!(offset = self.offset, left, errno, "read error");
                    self.step_max = SECTOR_SIZE;
                }
                _ => {
                    self.buffer[self.done..self.done + SECTOR_SIZE].fill(0);
                    self.done += SECTOR_SIZE;
                }
            }
        }
        if self.done == self.size {
            Step::Complete
        } else {
            Step::Again
        }
    }

    fn on_write(&mut self, result: i32, file: &DataFile) -> Step {
        let size = self.size - self.done;
        let offset = self.offset + to_u64(self.done);
        let path = || file.path().to_path_buf();
        match usize::try_from(result) {
            // A part of a sector is written again.
            Ok(count) if count >= SECTOR_SIZE => {
                assert!(count <= size, "no more than asked for");
                self.done += count - count % SECTOR_SIZE;
            }
            Ok(_) => {
                let error = io::ErrorKind::WriteZero.into();
                fatal(&DiskFatal::Refused {
                    path: path(),
                    offset,
                    size,
                    error,
                })
            }
            Err(_) => match -result {
                libc::EINTR | libc::EAGAIN => {}
                libc::ENOSPC | libc::EDQUOT => fatal(&DiskFatal::Full {
                    path: path(),
                    offset,
                }),
                errno => {
                    let error = io::Error::from_raw_os_error(errno);
                    fatal(&DiskFatal::Refused {
                        path: path(),
                        offset,
                        size,
                        error,
                    })
                }
            },
        }
        if self.done == self.size {
            Step::Complete
        } else {
            Step::Again
        }
    }
}

/// A read or a write; it starts with the first poll, and runs to its end even if the future is
/// dropped.
#[derive(Debug)]
pub struct TransferFuture {
    ring: Rc<Ring>,
    step: FutureStep,
}

#[derive(Debug)]
enum FutureStep {
    Start(Option<Transfer>),
    Running(usize),
    Done,
}

impl Future for TransferFuture {
    type Output = SectorBuf;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<SectorBuf> {
        let this = &mut *self;
        let mut inner = this.ring.inner.borrow_mut();
        if let FutureStep::Start(transfer) = &mut this.step {
            let transfer = transfer.take().expect("it starts once");
            this.step = FutureStep::Running(inner.start(transfer, &this.ring.file));
        }
        let FutureStep::Running(index) = this.step else {
            panic!("polled after completion");
        };
        let transfer = inner.transfers[index]
            .as_mut()
            .expect("it is ours until it is taken");
        match &mut transfer.state {
            State::Pending(Some(waker)) => waker.clone_from(context.waker()),
            State::Pending(waker) => *waker = Some(context.waker().clone()),
            State::Abandoned => unreachable!("only by dropping the future"),
            State::Complete => {
                this.step = FutureStep::Done;
                return Poll::Ready(inner.release(index).expect("it has a buffer"));
            }
        }
        Poll::Pending
    }
}

impl Drop for TransferFuture {
    fn drop(&mut self) {
        let FutureStep::Running(index) = self.step else {
            return;
        };
        let mut inner = self.ring.inner.borrow_mut();
        let transfer = inner.transfers[index]
            .as_mut()
            .expect("it is ours until it is taken");
        match transfer.state {
            State::Pending(_) => transfer.state = State::Abandoned,
            State::Abandoned => unreachable!("only by dropping the future"),
            State::Complete => drop(inner.release(index)),
        }
    }
}

/// A timer.
#[derive(Debug)]
pub struct Sleep {
    ring: Rc<Ring>,
    deadline: u64,
    key: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if monotonic() >= this.deadline {
            return Poll::Ready(());
        }
        let mut inner = this.ring.inner.borrow_mut();
        let key = *this.key.get_or_insert_with(|| {
            inner.timers_count += 1;
            (this.deadline, inner.timers_count)
        });
        inner.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.ring.inner.borrow_mut().timers.remove(&key);
            drop(waker);
        }
    }
}
