//! The moments at which a process may die between two changes of what is on the disk. Nothing, but for tests.

use std::io;

#[cfg(test)]
thread_local! {
    static LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Called before something on the disk is changed. Fails in a test's process that is to be dead from here on.
#[inline]
pub(crate) fn point() -> io::Result<()> {
    #[cfg(test)]
    return LEFT.with(|left| match left.get() {
        None => Ok(()),
        Some(0) => Err(io::Error::other("the process is dead")),
        Some(more) => {
            left.set(Some(more - 1));
            Ok(())
        }
    });
    #[cfg(not(test))]
    Ok(())
}

/// Runs `act` in a process that dies at its point of that number. `true`: it did, and what came after it failed.
#[cfg(test)]
pub(crate) fn dying_at<T>(number: u32, act: impl FnOnce() -> T) -> (T, bool) {
    LEFT.with(|left| left.set(Some(number)));
    let done = act();
    let died = LEFT.with(|left| left.replace(None)) == Some(0);
    (done, died)
}
