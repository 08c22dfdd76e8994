//! An object store that fails as real ones do: for tests. It refuses, loses its reply after it has done what was
//! asked, does it twice, is slow, lists what was there a while ago; and it dies, whereupon nothing works any more.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// It is refused, and nothing was done.
    Refused,
    /// It is done, and its answer is lost.
    ReplyLost,
    /// It is done twice, as by a client library that repeats what it had no answer to.
    Twice,
    /// It takes a while.
    Slow,
    /// A listing shows what was there at the one before.
    StaleList,
}

/// Whether the operation at which everything ends is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    Before,
    After,
}

/// The store, and what it does.
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

struct State {
    operations: AtomicU64,
    dies: Option<(u64, Death)>,
    /// Of how many operations one fails; zero: none.
    one_in: AtomicU64,
    seed: Mutex<u64>,
    fired: Mutex<HashMap<Fault, u64>>,
    listed: Mutex<HashMap<String, Vec<ObjectMeta>>>,
}

impl Faulty {
    /// A store that only counts.
    pub(super) fn counting(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Self::new(inner, None, 0, 1)
    }

    /// A store that dies at that operation.
    pub(super) fn dying(inner: Arc<dyn ObjectStore>, at: u64, death: Death) -> Arc<Self> {
        Self::new(inner, Some((at, death)), 0, 1)
    }

    /// A store of which one in so many operations fails, in some way.
    pub(crate) fn failing(inner: Arc<dyn ObjectStore>, one_in: u64, seed: u64) -> Arc<Self> {
        Self::new(inner, None, one_in, seed.max(1))
    }

    fn new(inner: Arc<dyn ObjectStore>, dies: Option<(u64, Death)>, one_in: u64, seed: u64) -> Arc<Self> {
        let state = State {
            operations: AtomicU64::new(0),
            dies,
            one_in: AtomicU64::new(one_in),
            seed: Mutex::new(seed),
            fired: Mutex::default(),
            listed: Mutex::default(),
        };
        Arc::new(Self { inner, state: Arc::new(state) })
    }

    /// From now on one in so many operations fails; zero: none.
    pub(crate) fn fail_one_in(&self, one_in: u64) {
        self.state.one_in.store(one_in, Ordering::SeqCst);
    }

    /// How many operations were asked for.
    pub(super) fn operations(&self) -> u64 {
        self.state.operations.load(Ordering::SeqCst)
    }

    /// How often each fault was met.
    pub(crate) fn fired(&self) -> HashMap<Fault, u64> {
        self.state.fired.lock().unwrap().clone()
    }
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "faulty", source: what.into() }
}

impl State {
    /// What is to happen to the next operation; an error, where it is not even begun.
    async fn begin(&self, possible: &[Fault]) -> Result<Option<Fault>> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        if let Some((at, death)) = self.dies
            && (number > at || (number == at && death == Death::Before))
        {
            return Err(failure("dead"));
        }
        let Some(fault) = self.draw(possible) else { return Ok(None) };
        *self.fired.lock().unwrap().entry(fault).or_default() += 1;
        match fault {
            Fault::Refused => Err(failure("refused")),
            Fault::Slow => {
                tokio::time::sleep(Duration::from_millis(self.random(5))).await;
                Ok(Some(fault))
            }
            _ => Ok(Some(fault)),
        }
    }

    /// The answer, unless it is lost.
    fn end<T>(&self, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
        let died = self.dies.is_some_and(|(at, _)| self.operations.load(Ordering::SeqCst) > at);
        if died || fault == Some(Fault::ReplyLost) {
            return Err(failure("no reply"));
        }
        answer
    }

    fn draw(&self, possible: &[Fault]) -> Option<Fault> {
        let one_in = self.one_in.load(Ordering::SeqCst);
        if one_in == 0 || self.random(one_in) != 0 {
            return None;
        }
        Some(possible[self.random(possible.len() as u64) as usize])
    }

    fn random(&self, below: u64) -> u64 {
        let mut seed = self.seed.lock().unwrap();
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed % below
    }
}

const WRITING: [Fault; 4] = [Fault::Refused, Fault::ReplyLost, Fault::Twice, Fault::Slow];
const READING: [Fault; 2] = [Fault::Refused, Fault::Slow];
const LISTING: [Fault; 3] = [Fault::Refused, Fault::StaleList, Fault::Slow];

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.state.begin(&WRITING).await?;
        let mut answer = self.inner.put_opts(at, payload.clone(), options.clone()).await;
        if fault == Some(Fault::Twice) {
            answer = self.inner.put_opts(at, payload, options).await;
        }
        self.state.end(fault, answer)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.state.begin(&[Fault::Refused, Fault::ReplyLost, Fault::Slow]).await?;
        let answer = self.inner.put_multipart_opts(at, options).await;
        let inner = self.state.end(fault, answer)?;
        Ok(Box::new(FaultyUpload { inner, state: self.state.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.state.begin(&READING).await?;
        let answer = self.inner.get_opts(at, options).await;
        self.state.end(fault, answer)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (self.inner.clone(), self.state.clone());
        let deleted = paths.then(move |path| {
            let (inner, state) = (inner.clone(), state.clone());
            async move {
                let path = path?;
                let fault = state.begin(&[Fault::Refused, Fault::ReplyLost, Fault::Slow]).await?;
                let one = futures::stream::iter([Ok(path)]).boxed();
                let answer = inner.delete_stream(one).next().await.unwrap_or(Err(failure("nothing deleted")));
                state.end(fault, answer)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (state, key) = (self.state.clone(), prefix.map(ToString::to_string).unwrap_or_default());
        let listed = self.inner.list(prefix);
        let listing = async move {
            let fault = state.begin(&LISTING).await?;
            let now: Vec<ObjectMeta> = listed.try_collect().await?;
            let before = state.listed.lock().unwrap().insert(key, now.clone());
            let shown = if fault == Some(Fault::StaleList) { before.unwrap_or_default() } else { now };
            state.end(fault, Ok(futures::stream::iter(shown.into_iter().map(Ok))))
        };
        futures::stream::once(listing).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.state.begin(&READING).await?;
        let answer = self.inner.list_with_delimiter(prefix).await;
        self.state.end(fault, answer)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.state.begin(&WRITING).await?;
        let answer = self.inner.copy_opts(from, to, options).await;
        self.state.end(fault, answer)
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, state) = (self.inner.put_part(data), self.state.clone());
        Box::pin(async move {
            let fault = state.begin(&[Fault::Refused, Fault::ReplyLost, Fault::Slow]).await?;
            let answer = part.await;
            state.end(fault, answer)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.state.begin(&[Fault::Refused, Fault::ReplyLost, Fault::Slow]).await?;
        let answer = self.inner.complete().await;
        self.state.end(fault, answer)
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.state.begin(&[Fault::Refused, Fault::Slow]).await?;
        let answer = self.inner.abort().await;
        self.state.end(fault, answer)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, with faults", self.inner)
    }
}
