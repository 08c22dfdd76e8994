//! What glibc's allocator is told: it would keep freed memory for the process, and more of it the more threads there
//! are.

/// Memory freed in one arena does not serve another. Bytes of contents are allocated by whichever thread receives
/// them, so with an arena a thread the process grows to a multiple of what it ever held at once. Two are enough: what
/// is allocated is large. Called before threads are made.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's own, under its own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// A manifest that was read leaves much memory free.
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only looks through the allocator's own lists, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
