//! Bytes coming down: reading a content through the cache. A block is asked for once however many want it, what
//! comes is stored as it comes, passing faults are ridden out until the reader's deadline, and what readers will want
//! next is sent for before they ask, as far as it can be foreseen and the link has room.

mod ahead;
mod around;
mod before_opens;
mod end;
mod error;
mod fetcher;
mod flight;
mod fly;
mod foresight;
mod link;
mod memory;
mod open_content;
mod scan;
mod shared;
mod streams;
mod taken_in;
mod traffic;
mod verify;

pub use end::read_first;
pub use error::FetchError;
pub use fetcher::{FetchOptions, Fetcher};
pub use memory::{MemoryBudget, TooLittleMemory};
pub use open_content::OpenContent;
pub use streams::ReaderThread;
