//! What both programs share: the flags that stand everywhere, how a failure is told, and log set-up.

pub mod failure;
pub mod flags;
pub mod limits;
pub mod logging;
pub mod output;
pub mod size;
