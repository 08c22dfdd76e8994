//! The daemon's side of the door.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::messages::{Answer, Failed, Order, Request, Standing, SyncEvent};
use crate::model::ExitCode;

/// The socket's name in the replica's directory.
pub(super) const SOCKET: &str = "control";
/// More than a request has.
const LONGEST: u64 = 4096;

/// What is behind the door.
#[derive(Debug, Clone)]
pub struct Door {
    /// How things stand.
    pub standing: watch::Receiver<Standing>,
    /// What happens.
    pub events: broadcast::Sender<SyncEvent>,
    /// Where wishes go.
    pub orders: mpsc::Sender<Order>,
}

impl Door {
    fn stands(&self) -> Standing {
        self.standing.borrow().clone()
    }
}

/// A socket's path that is short enough, whatever the directory's is; and what keeps it valid.
pub(super) fn short_path(directory: &Path) -> io::Result<(PathBuf, OwnedFd)> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let open = rustix::fs::open(directory, flags, rustix::fs::Mode::empty())?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())), open))
}

/// The socket of a replica's directory, whose lock the caller holds: from now on, whoever asks is answered some time.
pub fn bind(directory: &Path) -> io::Result<UnixListener> {
    let (path, _open) = short_path(directory)?;
    // Of a daemon that was killed.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path)
}

/// Answers whoever asks, for as long as it is polled.
pub async fn listen(listener: UnixListener, door: Door) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let door = door.clone();
        tokio::spawn(async move {
            // Whoever has gone needs no answer.
            let _ = answer(stream, door).await;
        });
    }
}

async fn answer(stream: UnixStream, door: Door) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LONGEST));
    // Subscribed before anything is answered: what is asked for next is among it.
    let mut events = door.events.subscribe();
    reader.read_line(&mut line).await?;
    let request: Request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("not understood: {error}; is parquedb of another version than the mount?");
            return say(&mut writer, &Answer::Failed(failed(message))).await;
        }
    };
    match request {
        Request::Events => {
            say(&mut writer, &door.stands()).await?;
            let mut gone = [0];
            loop {
                let event = tokio::select! {
                    event = events.recv() => event,
                    // Whoever listens says nothing more: this is the end.
                    _ = reader.read(&mut gone) => return Ok(()),
                };
                match event {
                    Ok(event) => say(&mut writer, &event).await?,
                    // Events that a slow listener has missed: how things stand by now.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        say(&mut writer, &door.stands()).await?;
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                }
            }
        }
        Request::Status => {
            say(&mut writer, &Answer::Done { counts: None, standing: Box::new(door.stands()) }).await
        }
        request => {
            let (reply, done) = oneshot::channel();
            let sent = door.orders.send(Order { request, reply }).await.is_ok();
            let done = if sent { done.await.ok() } else { None };
            let answer = match done {
                Some(Ok(counts)) => Answer::Done { counts, standing: Box::new(door.stands()) },
                Some(Err(failed)) => Answer::Failed(failed),
                None => Answer::Failed(failed("the mount is being taken away".into())),
            };
            say(&mut writer, &answer).await
        }
    }
}

fn failed(message: String) -> Failed {
    Failed { message, code: ExitCode::Failure.number() }
}

async fn say(writer: &mut (impl AsyncWriteExt + Unpin), what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
