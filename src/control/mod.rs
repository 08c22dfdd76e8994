//! The door of a mount's daemon for the commands of the same user: a socket beside the replica's state. A request is a line of
//! JSON; so is each answer. Who may open the directory may ask.

mod client;
mod listener;
mod messages;

pub use client::{Control, ControlError};
pub use listener::{Door, bind, listen};
pub use messages::{
    Answer, Counts, Failed, HeldBack, LastError, Order, Request, Standing, SyncEvent, SyncPhase,
};
