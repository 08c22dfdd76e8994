//! Noticing that a reader was killed. The kernel keeps a killed thread until its read is answered, and `fuser` knows no
//! interrupts: Ctrl-C would last as long as the remote is silent.

use std::time::Duration;

/// A read that is answered sooner is not looked after.
const LOOK: Duration = Duration::from_millis(200);
const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);

/// Comes back once the thread is about to die or is not there; never, where the kernel does not say which it is.
pub(super) async fn gone(thread: u32) {
    loop {
        tokio::time::sleep(LOOK).await;
        if thread != 0 && is_dying(thread) {
            return;
        }
    }
}

/// Any signal that ends a process becomes a SIGKILL for each of its threads.
fn is_dying(thread: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => has_kill_pending(&status),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn has_kill_pending(status: &str) -> bool {
    let pending = status.lines().filter_map(|line| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    });
    pending.fold(0, |all, set| all | set) & SIGKILL != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_kill_is_seen() {
        let status =
            |own: &str, shared: &str| format!("Name:\tcat\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0\n");
        assert!(!has_kill_pending(&status("0000000000000000", "0000000000000000")));
        assert!(has_kill_pending(&status("0000000000000100", "0000000000000000")));
        assert!(has_kill_pending(&status("0000000000000000", "0000000000004100")));
        assert!(!has_kill_pending(&status("0000000000000002", "0000000000004000")), "others may be handled");
        assert!(!is_dying(std::process::id()));
    }
}
