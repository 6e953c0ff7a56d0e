//! Marks freed parts of the arena, so that a use of them is seen: by the address sanitizer when built with
//! `--cfg kiln_asan`, by a fill pattern in debug builds. Nothing at all in a release build.
//!
//! `RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg kiln_asan" cargo test -p kiln-heap --lib --tests --target
//! x86_64-unknown-linux-gnu`
#![expect(unsafe_code, reason = "fills freed blocks, and tells the address sanitizer about them")]

/// What freed bytes hold in builds that fill them.
#[cfg(any(debug_assertions, kiln_asan))]
const FREED: u8 = 0xDB;

#[cfg(kiln_asan)]
unsafe extern "C" {
    fn __asan_poison_memory_region(start: *const core::ffi::c_void, bytes: usize);
    fn __asan_unpoison_memory_region(start: *const core::ffi::c_void, bytes: usize);
}

/// Fills a freed part.
///
/// # Safety
/// The part is mapped, and nobody reads or writes it meanwhile.
#[cfg_attr(not(any(debug_assertions, kiln_asan)), expect(unused_variables, reason = "does nothing in this build"))]
#[inline]
pub(crate) unsafe fn fill(start: *mut u8, bytes: usize) {
    #[cfg(any(debug_assertions, kiln_asan))]
    // SAFETY: the caller's promise.
    unsafe {
        start.write_bytes(FREED, bytes);
    }
}

/// From now on nothing may touch this part.
#[cfg_attr(not(kiln_asan), expect(unused_variables, reason = "does nothing in this build"))]
#[cfg_attr(not(kiln_asan), expect(clippy::missing_const_for_fn, reason = "does something under the sanitizer"))]
#[inline]
pub(crate) fn close(start: *const u8, bytes: usize) {
    #[cfg(kiln_asan)]
    // SAFETY: only writes the sanitizer's shadow memory.
    unsafe {
        __asan_poison_memory_region(start.cast(), bytes);
    }
}

/// Lets this part be used again.
#[cfg_attr(not(kiln_asan), expect(unused_variables, reason = "does nothing in this build"))]
#[cfg_attr(not(kiln_asan), expect(clippy::missing_const_for_fn, reason = "does something under the sanitizer"))]
#[inline]
pub(crate) fn open(start: *const u8, bytes: usize) {
    #[cfg(kiln_asan)]
    // SAFETY: only writes the sanitizer's shadow memory.
    unsafe {
        __asan_unpoison_memory_region(start.cast(), bytes);
    }
}
