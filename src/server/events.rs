//! The stream of events: who listens to a database is told of each revision as it is published, by this server or by another
//! one on the same store. After a gap, what was published meanwhile comes first.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::App;
use super::identity::admit;
use super::refusal::Refusal;
use crate::access::Standing;
use crate::model::{DbPath, Revision};
use crate::store::{Database, RevisionRecord, StoreError};
use crate::wire::{ChangeEvent, MAX_EVENT_PATHS, RevisionEvent, event};

/// How many may listen at once; each holds a connection.
pub(super) const MAX_LISTENERS: usize = 1024;
/// How often it is looked whether another server has published.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same where a look is a request.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How often a listener hears something at least.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Revisions told one by one after a gap; a longer one is to be made up for by asking.
const MAX_REPLAYED: u64 = 1000;
/// Told as to whoever listens through a proxy that would hold the stream back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(super) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let caller = app.caller(&headers).await?;
    let database = admit(&caller, app.store.open(&id).await?, Standing::Reads)?;
    let Ok(place) = app.listeners.clone().try_acquire_owned() else {
        return Err(Refusal::Api(StatusCode::SERVICE_UNAVAILABLE, "Too many listen already".into()));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let last = last.map(|id| id.parse().map(Revision));
    let last = last.transpose().map_err(|_| Refusal::bad_request("Last-Event-ID must be a revision"))?;
    let (newest, current) = (database.newest(), database.revision().0);
    let mut listener = Listener {
        closing: app.closing.subscribe(),
        app,
        headers,
        database,
        newest,
        told: last.unwrap_or(current),
        ready: VecDeque::new(),
        next_ping: Instant::now() + PING_EVERY,
        _place: place,
    };
    listener.say(event::CONNECT, current, &RevisionEvent { revision: current });
    listener.catch_up().await?;
    let told = listener.told;
    listener.say(event::CAUGHT_UP, told, &RevisionEvent { revision: told });
    let stream = futures::stream::unfold(listener, async |mut listener| {
        let event = listener.next().await?;
        Some((Ok::<_, Infallible>(event), listener))
    });
    let mut response = Sse::new(stream).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Somebody who listens to a database.
struct Listener {
    app: Arc<App>,
    /// Of the request: who listens may lose the right to.
    headers: HeaderMap,
    database: Arc<Database>,
    newest: watch::Receiver<Revision>,
    closing: watch::Receiver<bool>,
    /// The last revision it was told of.
    told: Revision,
    ready: VecDeque<Event>,
    next_ping: Instant,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    /// The next event; none where the stream ends, because the server does, or its listener may not hear more.
    async fn next(&mut self) -> Option<Event> {
        let look_every = if self.database.is_in_files() { LOOK_EVERY } else { ASK_EVERY };
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.next_ping = Instant::now() + PING_EVERY;
                return Some(event);
            }
            tokio::select! {
                () = closed(&mut self.closing) => return None,
                changed = self.newest.changed() => changed.ok()?,
                () = tokio::time::sleep(look_every) => {
                    if let Err(error) = self.database.refresh_within(look_every).await {
                        tracing::warn!(%error, "listeners are not told: the store cannot be read");
                    }
                }
            }
            if self.database.revision().0 != self.told {
                // What was allowed once may not be any more.
                let caller = self.app.caller(&self.headers).await.ok()?;
                admit(&caller, Some(self.database.clone()), Standing::Reads).ok()?;
                self.catch_up().await.ok()?;
            }
            if self.ready.is_empty() && Instant::now() >= self.next_ping {
                self.say(event::PING, self.told, &RevisionEvent { revision: self.told });
            }
        }
    }

    /// Tells of every revision that it was not told of.
    async fn catch_up(&mut self) -> Result<(), Refusal> {
        let (current, told) = (self.database.revision().0, self.told);
        self.told = current;
        if current == told {
            return Ok(());
        }
        let changes = match told < current && current.0 - told.0 <= MAX_REPLAYED {
            true => self.database.log(told.next(), current, |record, _| change_of(record)).await,
            false => Ok(Vec::new()),
        };
        match changes.map(|changes| changes.into_iter().collect::<Option<Vec<_>>>()) {
            Ok(Some(changes)) if !changes.is_empty() => {
                for change in changes {
                    self.say(event::CHANGE, change.revision, &change);
                }
            }
            // It was told of another history, or of too long ago.
            Ok(_) | Err(StoreError::Expired { .. }) => {
                self.say(event::OUTDATED, current, &RevisionEvent { revision: current });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn say(&mut self, name: &str, id: Revision, data: &impl Serialize) {
        // Numbers and valid names: it cannot fail.
        if let Ok(event) = Event::default().event(name).id(id.0.to_string()).json_data(data) {
            self.ready.push_back(event);
        }
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// What a revision changed; none where that is not kept.
fn change_of(record: RevisionRecord) -> Option<ChangeEvent> {
    if record.expired.is_some() {
        return None;
    }
    let paths = || record.put.iter().map(|put| &put.path).chain(&record.delete);
    let collections: BTreeSet<&str> = paths().filter_map(DbPath::collection).collect();
    Some(ChangeEvent {
        revision: record.revision,
        collections: collections.into_iter().map(str::to_owned).collect(),
        paths: paths().take(MAX_EVENT_PATHS).cloned().collect(),
        more: paths().count().saturating_sub(MAX_EVENT_PATHS) as u64,
    })
}
