//! The moments at which a process may die between two changes of what is on the disk, or find it full. Nothing, but for tests.

use std::io;

#[cfg(test)]
thread_local! {
    static LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    static ROOM: std::cell::RefCell<Option<std::sync::Arc<TestRoom>>> = const { std::cell::RefCell::new(None) };
}

/// Whether a test's disk has room, for all threads that [count on it](count_on).
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct TestRoom {
    full: std::sync::atomic::AtomicBool,
    /// After so many more changes there is none, if that is so.
    left: std::sync::Mutex<Option<u32>>,
    refused: std::sync::atomic::AtomicU32,
}

#[cfg(test)]
impl TestRoom {
    /// From now on there is none, or some again.
    pub(crate) fn is_full(&self, full: bool) {
        self.full.store(full, std::sync::atomic::Ordering::SeqCst);
    }

    /// After so many more changes there is none any more.
    pub(crate) fn ends_after(&self, changes: Option<u32>) {
        *self.left.lock().unwrap() = changes;
    }

    /// Whether it has come to that.
    pub(crate) fn has_ended(&self) -> bool {
        *self.left.lock().unwrap() == Some(0)
    }

    /// How often there was none.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(std::sync::atomic::Ordering::SeqCst)
    }

    fn check(&self) -> io::Result<()> {
        let mut left = self.left.lock().unwrap();
        if *left == Some(0) || self.full.load(std::sync::atomic::Ordering::SeqCst) {
            self.refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if let Some(left) = &mut *left {
            *left -= 1;
        }
        Ok(())
    }
}

/// What this thread changes on the disk takes that room.
#[cfg(test)]
pub(crate) fn count_on(room: &std::sync::Arc<TestRoom>) {
    ROOM.with(|known| *known.borrow_mut() = Some(room.clone()));
}

/// Called before something on the disk is changed. Fails in a test's process that is to be dead from here on.
#[inline]
pub(crate) fn point() -> io::Result<()> {
    #[cfg(test)]
    ROOM.with(|room| room.borrow().as_ref().map_or(Ok(()), |room| room.check()))?;
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
