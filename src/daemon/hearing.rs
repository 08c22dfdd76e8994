//! Hearing of news at once, where the server tells of them; it is only told that there are some.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::random_below_one;
use crate::remote::{Remote, RemoteError, RemoteEvent};

/// After a stream has broken, the first wait, which doubles...
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// ...up to this one.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A remote that has no such stream may have one some day.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// What was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The server would tell of news right now: asking for them is not needed.
    pub(super) listens: bool,
    /// How often there were news, or may have been.
    pub(super) news: u64,
}

/// Listens for as long as it lives.
pub(super) struct Ear {
    heard: watch::Receiver<Heard>,
    task: JoinHandle<()>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ear {
    /// Listens to database `id`.
    pub(super) fn new(remote: Remote, id: String) -> Self {
        let (tell, heard) = watch::channel(Heard::default());
        Self { heard, task: tokio::spawn(listen(remote, id, tell)) }
    }

    /// What was heard so far.
    pub(super) fn heard(&mut self) -> Heard {
        *self.heard.borrow_and_update()
    }

    /// Waits until more is heard.
    pub(super) async fn hears(&mut self) {
        if self.heard.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn listen(remote: Remote, id: String, tell: watch::Sender<Heard>) {
    let mut wait = FIRST_WAIT;
    loop {
        let error = hear(&remote, &id, &tell, &mut wait).await;
        tell.send_if_modified(|heard| std::mem::take(&mut heard.listens));
        let pause = if error.is_transient() { wait } else { ASK_AGAIN };
        tracing::debug!(%error, ?pause, "the remote's events are not heard");
        // Not all at the same moment.
        tokio::time::sleep(pause.mul_f64(0.5 + random_below_one() / 2.0)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Listens until that ends.
async fn hear(remote: &Remote, id: &str, tell: &watch::Sender<Heard>, wait: &mut Duration) -> RemoteError {
    let mut events = match remote.events(id, None).await {
        Ok(events) => events,
        Err(error) => return error,
    };
    loop {
        let news = match events.next().await {
            // What was missed before is asked for.
            Ok(RemoteEvent::Connected(_)) => {
                *wait = FIRST_WAIT;
                true
            }
            Ok(RemoteEvent::Change(_) | RemoteEvent::Outdated(_)) => true,
            Ok(RemoteEvent::CaughtUp(_) | RemoteEvent::Ping(_)) => false,
            Err(error) => return error,
        };
        if news {
            tell.send_modify(|heard| *heard = Heard { listens: true, news: heard.news + 1 });
        }
    }
}
