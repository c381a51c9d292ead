//! What every export shares: a result that owns its bytes, and the guard that
//! turns errors and panics into text.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Once;

/// `mr_result` of the header: an answer, or with `failed` set the reason why there is none.
#[repr(C)]
pub struct MrResult {
    data: *mut u8,
    len: usize,
    failed: u8,
}

/// Why there is no answer.
pub enum Fault {
    Failed(String),
    /// The input asks for more than it may have.
    Limit(String),
    /// The answer is longer than the caller allows.
    TooLong,
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Failed(reason)
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Fault {
        Fault::Failed(reason.to_string())
    }
}

/// Runs `f`; its bytes, its error or its panic become the result.
pub fn answer<T: Into<Vec<u8>>>(f: impl FnOnce() -> Result<T, String>) -> MrResult {
    answer_within(|| Ok(f()?))
}

/// As [`answer`], for functions that have limits.
pub fn answer_within<T: Into<Vec<u8>>>(f: impl FnOnce() -> Result<T, Fault>) -> MrResult {
    match guard(f) {
        Ok(v) => own(v.into(), 0),
        Err(e) => fault(e),
    }
}

/// As [`answer_within`], for functions that make an object; the object is the caller's.
pub fn answer_object<T>(f: impl FnOnce() -> Result<T, Fault>) -> MrResult {
    match guard(f) {
        Ok(v) => MrResult { data: Box::into_raw(Box::new(v)).cast(), len: 0, failed: 0 },
        Err(e) => fault(e),
    }
}

fn fault(f: Fault) -> MrResult {
    match f {
        Fault::Failed(reason) => own(reason.into_bytes(), 1),
        Fault::Limit(reason) => own(reason.into_bytes(), 2),
        Fault::TooLong => own(Vec::new(), 3),
    }
}

fn guard<T>(f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    static QUIET: Once = Once::new();
    QUIET.call_once(quiet_panics);
    // Unwind safety: the objects behind the exports are only read after they
    // are made, and their caches lie behind locks that a panic poisons.
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|p| Err(Fault::Failed(panic_text(p))))
}

/// A panic's message may quote the text it stumbled over, and prompts must
/// not reach the log: the log gets the place, the caller gets the message.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| l.to_string()).unwrap_or_default();
        say(format!("native library: panic at {place}\n").as_bytes());
    }));
}

/// Writes a line to standard error, unless its reader has stalled: nothing waits for that.
pub fn say(line: &[u8]) {
    let mut stderr = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
    unsafe {
        if libc::poll(&mut stderr, 1, 0) > 0 {
            libc::write(2, line.as_ptr().cast(), line.len());
        }
    }
}

fn panic_text(p: Box<dyn Any + Send>) -> String {
    let reason = p
        .downcast_ref::<&str>()
        .map(|s| s.to_string())
        .or_else(|| p.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no reason given".to_string());
    // The payload's destructor may panic too, outside of the guard.
    std::mem::forget(p);
    format!("internal error: {reason}")
}

fn own(bytes: Vec<u8>, failed: u8) -> MrResult {
    if bytes.is_empty() {
        return MrResult { data: ptr::null_mut(), len: 0, failed };
    }
    let b = bytes.into_boxed_slice();
    MrResult { len: b.len(), data: Box::into_raw(b).cast(), failed }
}

/// # Safety
/// `p` points to `len` bytes that outlive the call, or `len` is 0.
pub unsafe fn input<'a>(p: *const u8, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    std::slice::from_raw_parts(p, len)
}

/// # Safety
/// `data` and `len` are those of a result that was not freed before and does not hold an object.
#[no_mangle]
pub unsafe extern "C" fn mr_free(data: *mut u8, len: usize) {
    if !data.is_null() {
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut(data, len)));
    }
}
