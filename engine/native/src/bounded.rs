//! Work that nobody has looked at, chat templates above all, within bounds of
//! memory, stack and time.
//!
//! Such work runs on a thread of its own. The allocator counts what that thread
//! holds and looks at its stack and its clock: an allocation is the one thing
//! that all such work does again and again. A thread that goes beyond a bound
//! stops right there, forever, since Rust has no way to end one that is safe
//! inside an allocation. What it holds is lost, and is less than the bound.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// What a run may take.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Bytes that the run holds at a time.
    pub memory: usize,
    /// How much of its stack a run may use where it allocates.
    pub depth: usize,
    /// The rest of its stack, for what cannot be stopped, the end of deeply nested
    /// values above all: each level of one holds memory, so their depth has a bound
    /// too. This is address space; what is not used costs nothing.
    pub stack: usize,
    /// Of a CPU.
    pub time: Duration,
}

/// Why a run did not end.
#[derive(Debug)]
pub enum Failure {
    Memory,
    Stack,
    Time,
    NoThread(String),
}

/// The time, as a multiple of the bound, that a run may wait for a CPU or spend without an allocation.
const PATIENCE: u32 = 20;

/// How many allocations pass between two looks at the clock.
const CLOCK_EVERY: usize = 512;

/// The states of a watch.
const RUNS: usize = 0;
const ENDED: usize = 1;
const OUT_OF_MEMORY: usize = 2;
const OUT_OF_STACK: usize = 3;
const OUT_OF_TIME: usize = 4;

struct Watch {
    bounds: Bounds,
    state: AtomicUsize,
    waiter: Thread,
}

/// Runs `work`, whose panic continues in the caller.
pub fn run<T: Send + 'static>(bounds: Bounds, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let watch = Arc::new(Watch { bounds, state: AtomicUsize::new(RUNS), waiter: thread::current() });
    let slot: Arc<Mutex<Option<Result<T, Box<dyn Any + Send>>>>> = Arc::default();
    let (its_watch, its_slot) = (watch.clone(), slot.clone());
    let thread = thread::Builder::new()
        .name("bounded".to_string())
        .stack_size(bounds.depth + bounds.stack)
        .spawn(move || {
            let result = its_watch.over(work);
            *its_slot.lock().unwrap() = Some(result);
            its_watch.end(ENDED);
        })
        .map_err(|e| Failure::NoThread(e.to_string()))?;

    let begin = Instant::now();
    loop {
        match watch.state.load(Ordering::Acquire) {
            RUNS if begin.elapsed() > bounds.time * PATIENCE => {
                // The watch ends only once: either the run has, or it is told to stop at its next allocation.
                let _ = watch.state.compare_exchange(RUNS, OUT_OF_TIME, Ordering::AcqRel, Ordering::Acquire);
            }
            RUNS => thread::park_timeout(bounds.time),
            ENDED => break,
            OUT_OF_MEMORY => return Err(Failure::Memory),
            OUT_OF_STACK => return Err(Failure::Stack),
            _ => return Err(Failure::Time),
        }
    }
    let _ = thread.join(); // gives back its stack
    let result = slot.lock().unwrap().take();
    match result {
        Some(Ok(v)) => Ok(v),
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => unreachable!("a run that ended has a result"),
    }
}

thread_local! {
    static WATCH: Cell<*const Watch> = const { Cell::new(ptr::null()) };
    static HELD: Cell<usize> = const { Cell::new(0) };
    static FLOOR: Cell<usize> = const { Cell::new(0) }; // of the stack
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

impl Watch {
    /// Runs `work` on this thread, which is new, under the watch.
    fn over<T>(&self, work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
        let here = 0u8;
        FLOOR.set((&raw const here as usize).saturating_sub(self.bounds.depth));
        WATCH.set(self);
        let result = catch_unwind(AssertUnwindSafe(work));
        WATCH.set(ptr::null());
        result
    }

    fn end(&self, state: usize) {
        let _ = self.state.compare_exchange(RUNS, state, Ordering::AcqRel, Ordering::Acquire);
        self.waiter.unpark();
    }

    /// Called before each allocation of a watched thread; returns if it may go on.
    #[inline]
    fn look(&self, held: usize) {
        let here = 0u8;
        let n = ALLOCATIONS.get().wrapping_add(1);
        ALLOCATIONS.set(n);
        let state = if held > self.bounds.memory {
            OUT_OF_MEMORY
        } else if (&raw const here as usize) < FLOOR.get() {
            OUT_OF_STACK
        } else if n % CLOCK_EVERY == 0 && (self.state.load(Ordering::Relaxed) != RUNS || cpu_time() > self.bounds.time) {
            OUT_OF_TIME
        } else {
            return;
        };
        WATCH.set(ptr::null());
        self.end(state);
        loop {
            thread::park();
        }
    }
}

/// The time that this thread has computed for.
fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The allocator of the library: malloc, watched.
struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

#[inline]
fn grow(n: usize) {
    let held = HELD.get().wrapping_add(n);
    let watch = WATCH.get();
    if !watch.is_null() {
        unsafe { &*watch }.look(held);
    }
    HELD.set(held);
}

#[inline]
fn shrink(n: usize) {
    // A thread may free what another has allocated.
    HELD.set(HELD.get().saturating_sub(n));
}

/// A full machine ends the process in one line: to abort, as Rust would, makes
/// Go print the stacks of all goroutines.
#[cold]
fn out_of_memory(n: usize) -> ! {
    let mut line = [0u8; 96];
    let mut rest = &mut line[..];
    let _ = std::io::Write::write_fmt(&mut rest, format_args!("millrace: out of memory: no {n} bytes for the native library\n"));
    let unused = rest.len();
    crate::abi::say(&line[..line.len() - unused]);
    unsafe { libc::_exit(1) }
}

#[inline]
fn checked(p: *mut u8, n: usize) -> *mut u8 {
    if p.is_null() {
        out_of_memory(n);
    }
    p
}

unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        checked(System.alloc(layout), layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        checked(System.alloc_zeroed(layout), layout.size())
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        System.dealloc(p, layout);
        shrink(layout.size());
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may exist for a moment.
        grow(size);
        let p = checked(System.realloc(p, layout, size), size);
        shrink(layout.size());
        p
    }
}
