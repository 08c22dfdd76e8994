//! The time, as it is kept.

use std::time::SystemTime;

/// Now, in nanoseconds since 1970.
pub fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
