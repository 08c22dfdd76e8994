//! A database as a plain tree: the seed's layout, which any web server can serve and any tool can read. Out of a
//! store and into one.

mod error;
mod export;
mod import;

pub use error::PlainError;
pub use export::{ExportReport, export};
pub use import::{ImportOptions, ImportReport, import};
