//! `GET`/`HEAD /db/:owner/:slug/*path`: the current revision's files, byte-exact, and with `?revision=N` those of
//! an earlier one. Who may read today's revision may read the earlier ones.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use axum::http::response::Builder;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::App;
use super::identity::admit;
use super::refusal::Refusal;
use crate::access::Standing;
use crate::manifest::{Entry, MANIFEST_PATH};
use crate::model::{BlockRoot, ByteRange, DbPath, DbRef, Revision, Sha256, provable};
use crate::store::{ContentStream, Database, Published, StoreError};
use crate::wire::{
    Answer, BLOCK_HASHES_HEADER, Conditions, ContentRange, REVISION_HEADER, Representation,
    WANT_PROOF_HEADER, content_type_of, evaluate,
};

/// Where a file's bytes are.
#[derive(Clone)]
enum Source {
    Content(Sha256),
    Memory(Bytes),
}

/// One file as it will be sent.
pub(super) struct Found {
    source: Source,
    size: u64,
    blocks: Option<BlockRoot>,
    etag: String,
    content_type: String,
    modified: Option<i64>,
    revision: Revision,
}

pub(super) async fn file(
    State(app): State<Arc<App>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    serve_file(&app, &method, &uri, &headers).await.map_err(Refusal::into_raw)
}

async fn serve_file(app: &App, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Response, Refusal> {
    let caller = app.caller(headers).await?;
    let (reference, path) = split_url(uri.path());
    let found = match &reference {
        Some(reference) => app.store.find(reference).await?,
        None => None,
    };
    let database = admit(&caller, found, Standing::Reads)?;
    let asked = asked_revision(uri)?;
    let is_manifest = path.as_ref().is_some_and(|path| path.as_str() == MANIFEST_PATH);
    let absent = || {
        let unpublished = database.revision().0 == Revision::NONE;
        let text = match asked {
            _ if unpublished => "Nothing is published here yet".to_owned(),
            Some(revision) if is_manifest => format!("There is no revision {revision}"),
            _ => "No such file".to_owned(),
        };
        Refusal::Api(StatusCode::NOT_FOUND, text)
    };
    let found = match path {
        Some(path) if path.as_str() == MANIFEST_PATH => {
            // Decided before a document that may be large is written: most callers have it already.
            match unchanged_manifest(&database, asked, headers) {
                Some(known) => Some(known),
                None => find(&database, &path, asked).await?,
            }
        }
        Some(path) => find(&database, &path, asked).await?,
        None => None,
    };
    let found = found.ok_or_else(absent)?;
    send(database, found, method, headers).await
}

/// Answers a request for what was found: all of it, parts, or by conditions nothing.
pub(super) async fn send(
    database: Arc<Database>,
    found: Found,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let header = |name: HeaderName| joined(headers, name);
    let (if_match, if_none_match) = (header(IF_MATCH), header(IF_NONE_MATCH));
    let (if_modified_since, if_unmodified_since) = (header(IF_MODIFIED_SINCE), header(IF_UNMODIFIED_SINCE));
    let (if_range, range) = (header(IF_RANGE), header(RANGE));
    let conditions = Conditions {
        if_match: if_match.as_deref(),
        if_none_match: if_none_match.as_deref(),
        if_modified_since: if_modified_since.as_deref(),
        if_unmodified_since: if_unmodified_since.as_deref(),
        if_range: if_range.as_deref(),
        // RFC 9110, 14.2: ranges are GET's alone, and are ignored with any other method.
        range: range.as_deref().filter(|_| *method == Method::GET),
    };
    let now = Representation { etag: &found.etag, modified: found.modified, size: found.size };
    let answer = evaluate(conditions, now);
    let wants_proof = headers.get(WANT_PROOF_HEADER).is_some_and(|value| value == "1");
    let proof = match &answer {
        Answer::Part(range) if wants_proof => proof(&database, &found, *range).await,
        _ => None,
    };
    respond(database, found, answer, proof, *method == Method::HEAD).await
}

/// A header's lines as one list. Bytes that are no text become a character no tag has, so such a condition does
/// not hold; taken for absent it would be one that was never made.
fn joined(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// `/db/owner/slug/a/b` into its name and path, each segment percent-decoded once, by itself: an encoded slash is
/// a character of a name, and no name has one.
fn split_url(url_path: &str) -> (Option<DbRef>, Option<DbPath>) {
    let mut segments = url_path.trim_start_matches('/').split('/').skip(1).map(|segment| {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
        (!decoded.contains('/')).then(|| decoded.into_owned())
    });
    let reference = match (segments.next().flatten(), segments.next().flatten()) {
        (Some(owner), Some(slug)) => DbRef::new(&owner, &slug).ok(),
        _ => None,
    };
    let components: Option<Vec<String>> = segments.collect();
    (reference, components.and_then(|components| DbPath::parse(&components.join("/")).ok()))
}

/// `?revision=N`, where it is asked for.
pub(super) fn asked_revision(uri: &Uri) -> Result<Option<Revision>, Refusal> {
    let query = uri.query().unwrap_or_default();
    let mut asked = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "revision").map(
        |(_, text)| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits).map(Revision);
            number.ok_or_else(|| Refusal::bad_request("revision must be a number"))
        },
    );
    match (asked.next().transpose()?, asked.next()) {
        (asked, None) => Ok(asked),
        (_, Some(_)) => Err(Refusal::bad_request("revision is given twice")),
    }
}

/// A path at the current revision, or at the one asked for.
pub(super) async fn find(
    database: &Arc<Database>,
    path: &DbPath,
    asked: Option<Revision>,
) -> Result<Option<Found>, StoreError> {
    let manifest = path.as_str() == MANIFEST_PATH;
    if asked.is_none_or(|asked| asked == database.revision().0) {
        let found = if manifest {
            database.published().await.map(Found::manifest)
        } else {
            database.file(path).and_then(|(entry, revision)| Found::file(path, &entry, revision))
        };
        // Another request may have moved us on meanwhile.
        if asked.is_none() || found.as_ref().map(|found| found.revision) == asked {
            return Ok(found);
        }
    }
    let Some(revision) = asked else { return Ok(None) };
    if manifest {
        return Ok(database.published_at(revision).await?.map(Found::manifest));
    }
    let entry = database.file_at(path, revision).await?;
    Ok(entry.and_then(|entry| Found::file(path, &entry, revision)))
}

/// The current manifest without its document, where the caller has that.
fn unchanged_manifest(database: &Database, asked: Option<Revision>, headers: &HeaderMap) -> Option<Found> {
    let (revision, time) = database.revision();
    let if_none_match = joined(headers, IF_NONE_MATCH)?;
    let conditional = [IF_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE, RANGE];
    if asked.is_some()
        || revision == Revision::NONE
        || conditional.iter().any(|name| headers.contains_key(name))
    {
        return None;
    }
    let json = Bytes::new();
    let found = Found::manifest(Published { json, etag: database.manifest_etag(), revision, time });
    let conditions = Conditions { if_none_match: Some(&if_none_match), ..Conditions::default() };
    let now = Representation { etag: &found.etag, modified: found.modified, size: 0 };
    matches!(evaluate(conditions, now), Answer::NotModified).then_some(found)
}

impl Found {
    fn manifest(published: Published) -> Self {
        Self {
            size: published.json.len() as u64,
            source: Source::Memory(published.json),
            blocks: None,
            etag: published.etag,
            content_type: "application/json".into(),
            modified: published.time.parse::<jiff::Timestamp>().ok().map(|time| time.as_second()),
            revision: published.revision,
        }
    }

    /// A content by itself.
    pub(super) fn content(hash: Sha256, size: u64, revision: Revision) -> Self {
        Self {
            source: Source::Content(hash),
            size,
            blocks: None,
            etag: format!("\"{hash}\""),
            content_type: "application/octet-stream".to_owned(),
            modified: None,
            revision,
        }
    }

    fn file(path: &DbPath, entry: &Entry, revision: Revision) -> Option<Self> {
        let hash = entry.hash.sha256()?;
        Some(Self {
            source: Source::Content(hash),
            size: entry.size,
            blocks: entry.blocks,
            etag: format!("\"{hash}\""),
            content_type: content_type_of(path.as_str()).to_owned(),
            modified: entry.modified().map(|time| time.as_second()),
            revision,
        })
    }
}

async fn respond(
    database: Arc<Database>,
    found: Found,
    answer: Answer,
    proof: Option<String>,
    head: bool,
) -> Result<Response, Refusal> {
    let size = found.size;
    let base = Response::builder().header(ETAG, &found.etag).header(REVISION_HEADER, found.revision.0);
    let base = match found.modified.and_then(last_modified) {
        Some(date) => base.header(LAST_MODIFIED, date),
        None => base,
    };
    let described =
        |base: Builder| base.header(ACCEPT_RANGES, "bytes").header(CONTENT_TYPE, &found.content_type);
    let built = match answer {
        Answer::NotModified => base.status(StatusCode::NOT_MODIFIED).body(unsized_body()),
        Answer::PreconditionFailed => {
            return Err(Refusal::Raw(StatusCode::PRECONDITION_FAILED, "The file is another version".into()));
        }
        Answer::Unsatisfiable => base
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .header(CONTENT_RANGE, format!("bytes */{size}"))
            .body(Body::empty()),
        Answer::Whole => {
            let body = if head {
                Body::empty()
            } else {
                body(&database, &found.source, ByteRange::new(0, size)).await?
            };
            described(base).header(CONTENT_LENGTH, size).body(body)
        }
        Answer::Part(range) => {
            let body = if head { Body::empty() } else { body(&database, &found.source, range).await? };
            let base = match proof {
                Some(proof) => base.header(BLOCK_HASHES_HEADER, proof),
                None => base,
            };
            described(base)
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_LENGTH, range.len())
                .header(CONTENT_RANGE, ContentRange { range, total: size }.to_header())
                .body(body)
        }
        Answer::Parts(ranges) => {
            let boundary = crate::disk::random_hex::<12>();
            let (heads, closing) = multipart_frame(&boundary, &found.content_type, &ranges, size);
            let framing = heads.iter().map(Bytes::len).sum::<usize>() + closing.len();
            let length = ranges.iter().map(ByteRange::len).sum::<u64>() + framing as u64;
            // Each part is opened when its turn comes: one request must not hold many files open.
            let source = found.source.clone();
            let parts = futures::stream::iter(heads.into_iter().zip(ranges)).then(move |(frame, range)| {
                let (database, source) = (database.clone(), source.clone());
                async move {
                    let part = stream(&database, &source, range).await?;
                    Ok::<_, StoreError>(futures::stream::iter([Ok(frame)]).chain(part))
                }
            });
            let pieces = parts.try_flatten().chain(futures::stream::iter([Ok(closing)]));
            base.header(ACCEPT_RANGES, "bytes")
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_LENGTH, length)
                .header(CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"))
                .body(Body::from_stream(pieces))
        }
    };
    // Every header above is made of digits, dates and checked names.
    Ok(built.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response()))
}

/// What proves a range of whole blocks, as a header. Where it cannot be had, the bytes go out without.
async fn proof(database: &Database, found: &Found, range: ByteRange) -> Option<String> {
    let (Some(root), Source::Content(hash)) = (&found.blocks, &found.source) else { return None };
    let blocks = provable(range, found.size)?;
    let proof = database.prove(hash, found.size, root, blocks).await.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "a range is sent without its proof");
        None
    });
    proof.map(|proof| proof.to_header())
}

/// Nothing, of no known length: a 304 must not say `Content-Length: 0` of a file that is not empty, which is what
/// becomes of an empty body where HEAD is asked (RFC 9110, 8.6).
pub(super) fn unsized_body() -> Body {
    Body::from_stream(futures::stream::empty::<Result<Bytes, StoreError>>())
}

async fn body(database: &Database, source: &Source, range: ByteRange) -> Result<Body, StoreError> {
    Ok(Body::from_stream(stream(database, source, range).await?.inspect_err(|error| {
        tracing::error!(error = error as &dyn std::error::Error, "a file was sent in part only");
    })))
}

async fn stream(database: &Database, source: &Source, range: ByteRange) -> Result<ContentStream, StoreError> {
    match source {
        Source::Content(hash) => database.read_content(hash, range).await,
        Source::Memory(bytes) => {
            let index = |at: u64| usize::try_from(at).unwrap_or(bytes.len()).min(bytes.len());
            let part = bytes.slice(index(range.start)..index(range.end));
            Ok(futures::stream::iter([Ok(part)]).boxed())
        }
    }
}

/// The lines before each part, and those after the last.
fn multipart_frame(
    boundary: &str,
    content_type: &str,
    ranges: &[ByteRange],
    total: u64,
) -> (Vec<Bytes>, Bytes) {
    let head = |range: &ByteRange| {
        let range = ContentRange { range: *range, total }.to_header();
        Bytes::from(format!(
            "\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {range}\r\n\r\n"
        ))
    };
    (ranges.iter().map(head).collect(), Bytes::from(format!("\r\n--{boundary}--\r\n")))
}

/// An HTTP date. One in the future is not sent: a client would compare with its own clock (RFC 9110, 8.8.2.1).
fn last_modified(seconds: i64) -> Option<String> {
    let seconds = u64::try_from(seconds).ok()?;
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))?;
    (time <= std::time::SystemTime::now()).then(|| httpdate::fmt_http_date(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_segments_are_decoded_once_each() {
        let path = |url: &str| split_url(url).1.map(|path| path.as_str().to_owned());
        assert_eq!(path("/db/a/b/x%20y/%C3%BC%2B%25"), Some("x y/ü+%".into()));
        assert_eq!(path("/db/a/b/%2541"), Some("%41".into()), "once only");
        assert_eq!(path("/db/a/b/a+b"), Some("a+b".into()));
        for hostile in
            ["/db/a/b/x%2Fy", "/db/a/b/%2e%2e/x", "/db/a/b/..", "/db/a/b//x", "/db/a/b/%00", "/db/a/b/%ff"]
        {
            assert_eq!(path(hostile), None, "{hostile}");
        }
        assert_eq!(split_url("/db/a%2Fb/c/d").0, None);
    }
}
