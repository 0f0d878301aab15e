//! Worker threads that wait ready: a short spin, then sleep.
//!
//! A job is a number of parts. Each thread, the caller too, has a share of them, one after the other, and takes from the
//! shares of others when its own is done: what lies in order in memory is then read in order. A thread whose core was
//! taken away delays the job by the one part it holds and no more: a worker that has not joined when the parts run out
//! is not waited for. Which thread computes a part never changes what it computes.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

/// `pause` instructions before a worker sleeps: some 50 us, longer than the caller needs between two jobs.
const SPINS: u32 = 1500;
/// More threads than this are not started.
const MAX_THREADS: usize = 1024;

/// Set in `Shared::state` while a job may be joined. Below it: number of workers inside; above it: the job's number.
const OPEN: u64 = 1 << 16;
const INSIDE: u64 = OPEN - 1;
const NUMBER: u64 = OPEN << 1;

type Task = dyn Fn(usize) + Sync;

struct Shared {
    state: AtomicU64,
    /// The next part of each thread's share.
    next: Box<[Next]>,
    parts: AtomicUsize,
    /// Written by the caller while no worker is inside and the job is closed; read by workers inside.
    task: UnsafeCell<*const Task>,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// SAFETY: `task` is the only member that is not Sync. It is written only between jobs, when `state` says that nobody
// is inside, and read only by workers that `state` counts as inside; `state` orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `task` is used only as above, by whichever thread.
unsafe impl Send for Shared {}

/// On a line of the cache of its own: others write there only when their own shares are done.
#[derive(Default)]
#[repr(align(64))]
struct Next(AtomicUsize);

/// Threads that compute parts of jobs. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    submit: Mutex<()>,
}

impl Pool {
    /// A pool in which `threads` compute, the caller among them; 0 counts as 1. Threads that cannot be started are
    /// left out.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            next: (0..threads.clamp(1, MAX_THREADS)).map(|_| Next::default()).collect(),
            parts: AtomicUsize::new(0),
            task: UnsafeCell::new(&raw const NOTHING),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        let start = |index| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("kernel-{index}")).spawn(move || work(&shared, index)).ok()
        };
        let workers = (1..shared.next.len()).map_while(start).collect();
        Self { shared, workers, submit: Mutex::new(()) }
    }

    /// Threads that compute, the caller included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once with each number below `parts`, on all threads, and returns when all calls have.
    ///
    /// # Panics
    /// If a call does.
    pub fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        let guard = match self.submit.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        // A job inside a job, or beside one, runs where it is.
        if parts <= 1 || self.workers.is_empty() || guard.is_none() {
            (0..parts).for_each(task);
            return;
        }
        let shared = &*self.shared;
        let task: *const (dyn Fn(usize) + Sync + '_) = task;
        // SAFETY: only the lifetime changes. `Close` below closes the job and waits until no worker is inside, also
        // when a call panics, so no worker uses the pointer after `task`'s borrow ends.
        let task: *const Task = unsafe { std::mem::transmute(task) };
        // SAFETY: the submit lock is held and the last job is closed with nobody inside, so nobody reads.
        unsafe { *shared.task.get() = task };
        for (index, next) in shared.next.iter().enumerate() {
            next.0.store(share(parts, index, shared.next.len()).start, Ordering::Relaxed);
        }
        shared.parts.store(parts, Ordering::Relaxed);
        let number = shared.state.load(Ordering::Relaxed) & !(NUMBER - 1);
        shared.state.store(number.wrapping_add(NUMBER) | OPEN, Ordering::SeqCst);
        let close = Close(shared);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            let _held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.parts_of(task, 0);
        drop(close);
        if shared.panicked.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a part of a job panicked"));
        }
    }

    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and calls `task` with each.
    ///
    /// # Panics
    /// If `chunk` is 0 or a call panics.
    pub fn chunks_mut<T: Send>(&self, data: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
        self.cells(data, chunk, data.len().div_ceil(chunk), |part, cells| task(part, cells.take(part)));
    }

    /// Calls `task` with each number below `parts` and access to `data` in cells of `cell` elements, each of which
    /// can be taken once.
    ///
    /// # Panics
    /// If `cell` is 0 or a call panics.
    pub fn cells<T: Send>(
        &self,
        data: &mut [T],
        cell: usize,
        parts: usize,
        task: impl Fn(usize, &Cells<'_, T>) + Sync,
    ) {
        let taken = (0..data.len().div_ceil(cell)).map(|_| AtomicBool::new(false)).collect();
        let cells = Cells { start: data.as_mut_ptr(), len: data.len(), cell, taken, borrow: PhantomData };
        self.run(parts, &|part| task(part, &cells));
    }
}

/// A slice in cells that are handed out once each. Made by [`Pool::cells`].
pub struct Cells<'data, T> {
    start: *mut T,
    len: usize,
    cell: usize,
    taken: Vec<AtomicBool>,
    /// Not the borrow itself: to move that would end what `start` may do.
    borrow: PhantomData<&'data mut [T]>,
}

// SAFETY: a shared `Cells` only hands out disjoint exclusive parts of a slice of Send elements.
unsafe impl<T: Send> Sync for Cells<'_, T> {}

impl<T> Cells<'_, T> {
    /// The cell of this number.
    ///
    /// # Panics
    /// If there is none, or it was taken before.
    #[expect(clippy::mut_from_ref, reason = "each cell is handed out once")]
    #[must_use]
    pub fn take(&self, index: usize) -> &mut [T] {
        assert!(!self.taken[index].swap(true, Ordering::Relaxed), "a cell is taken once");
        let from = index * self.cell;
        let len = self.cell.min(self.len - from);
        // SAFETY: `from + len <= self.len` elements of an exclusively borrowed slice, and the flag above lets this
        // index through once, so no other reference to these elements exists while the borrow lasts.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

/// Closes the job and waits until no worker is inside.
struct Close<'shared>(&'shared Shared);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while self.0.state.load(Ordering::Acquire) & INSIDE != 0 {
            spins += 1;
            // Behind a worker whose core was taken, spinning only takes more of it.
            if spins > SPINS { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }
}

impl Shared {
    /// Parts of the share of thread `index`, then of those of the threads after it.
    fn parts_of(&self, task: *const Task, index: usize) {
        let (parts, shares) = (self.parts.load(Ordering::Relaxed), self.next.len());
        for index in (index..shares).chain(0..index) {
            let (next, end) = (&self.next[index].0, share(parts, index, shares).end);
            // A look first: only who may get a part writes.
            while next.load(Ordering::Relaxed) < end {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part < end {
                    // SAFETY: the job is open or this thread is inside, so the borrow behind the pointer lasts.
                    unsafe { (*task)(part) }
                }
            }
        }
    }
}

/// Share `index` of `shares` of `len` things, which differ by one at most.
pub(super) fn share(len: usize, index: usize, shares: usize) -> Range<usize> {
    len * index / shares..len * (index + 1) / shares
}

static NOTHING: fn(usize) = |_| {};

fn work(shared: &Shared, index: usize) {
    let mut last = 0;
    let mut spins = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let state = shared.state.load(Ordering::Acquire);
        let number = state & !(NUMBER - 1);
        if state & OPEN != 0 && number != last {
            if shared.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                last = number;
                // SAFETY: this thread is counted as inside a job, and `task` was written before it opened.
                let task = unsafe { *shared.task.get() };
                if catch_unwind(AssertUnwindSafe(|| shared.parts_of(task, index))).is_err() {
                    shared.panicked.store(true, Ordering::Relaxed);
                }
                shared.state.fetch_sub(1, Ordering::AcqRel);
                spins = 0;
            }
            continue;
        }
        spins += 1;
        if spins < SPINS {
            std::hint::spin_loop();
            continue;
        }
        spins = 0;
        let held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        shared.sleeping.fetch_add(1, Ordering::SeqCst);
        // The caller opens, then looks for sleepers; a sleeper counts itself, then looks again: one sees the other.
        let state = shared.state.load(Ordering::SeqCst);
        let idle = state & OPEN == 0 || state & !(NUMBER - 1) == last;
        let held = if idle && !shared.stop.load(Ordering::SeqCst) {
            shared.wake.wait(held).unwrap_or_else(PoisonError::into_inner)
        } else {
            held
        };
        shared.sleeping.fetch_sub(1, Ordering::SeqCst);
        drop(held);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        {
            let _held = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its parts.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_once_with_any_number_of_threads() {
        let rounds = if cfg!(miri) { 20 } else { 3000 };
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            let mut data = vec![0usize; 37];
            for round in 0..rounds {
                pool.chunks_mut(&mut data, 5, |part, chunk| {
                    chunk.iter_mut().for_each(|x| *x += part + 1);
                });
                if round == rounds / 2 {
                    // Long enough for the workers to fall asleep.
                    thread::sleep(std::time::Duration::from_millis(20));
                }
            }
            for (index, x) in data.iter().enumerate() {
                assert_eq!(*x, rounds * (index / 5 + 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(3);
        for _ in 0..if cfg!(miri) { 1 } else { 20 } {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(16, &|part| assert!(part != 7, "part seven"));
            }));
            assert!(result.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(16, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 120);
        }
    }

    #[test]
    fn others_take_what_a_thread_that_is_held_up_has_left() {
        let pool = Pool::new(2);
        for held in [0, 4] {
            // The first part of a share does not end before all others have: of both shares.
            let others = AtomicUsize::new(0);
            pool.run(8, &|part| {
                if part != held {
                    others.fetch_add(1, Ordering::Relaxed);
                }
                while part == held && others.load(Ordering::Relaxed) < 7 {
                    thread::yield_now();
                }
            });
            assert_eq!(others.into_inner(), 7);
        }
    }

    #[test]
    fn a_job_inside_a_job_runs() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        pool.run(4, &|_| {
            pool.run(4, &|part| {
                sum.fetch_add(part, Ordering::Relaxed);
            });
        });
        assert_eq!(sum.into_inner(), 24);
    }

    #[test]
    #[should_panic(expected = "taken once")]
    fn a_cell_is_not_handed_out_twice() {
        Pool::new(1).cells(&mut [0; 4], 2, 1, |_, cells| {
            let _ = cells.take(1);
            let _ = cells.take(1);
        });
    }
}
