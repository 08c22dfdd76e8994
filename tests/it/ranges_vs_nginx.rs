//! F18: ranges and conditions on raw files, compared with nginx over the same files and the same requests, each
//! server asked with its own entity tags. Needs Debian's package nginx-light.

mod cases;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use cases::{Case, DIFFERENCES, as_nginx_has_it};

use crate::harness::{
    Cli, Nginx, Request, Response, Server, TempTree, get, head, noise, request, run_to_end, set_modified,
};

/// `Fri, 05 Jan 2024 07:08:09 GMT`: past, and the same on both sides.
const MODIFIED: u64 = 1_704_438_489;

const FILES: [(&str, usize); 5] = [("file", 1008), ("empty", 0), ("one", 1), ("large", 600_000), ("ten", 10)];

/// The same files on both servers.
fn both() -> (Server, Nginx, TempTree) {
    let tree = TempTree::new();
    for (name, size) in FILES {
        let bytes = noise(size as u64, size);
        std::fs::write(tree.at(name), bytes).unwrap();
        set_modified(&tree.at(name), UNIX_EPOCH + Duration::from_secs(MODIFIED));
    }
    let server = Server::start();
    Cli::owner(&server).push(tree.path(), &["--slug", "x", "--visibility", "public"]).expect(0);
    let nginx = Nginx::start(tree.path());
    (server, nginx, tree)
}

/// What of an answer is compared.
#[derive(PartialEq)]
struct Seen {
    status: u16,
    content_range: Option<String>,
    content_length: Option<String>,
    accept_ranges: Option<String>,
    last_modified: Option<String>,
    has_etag: bool,
    body: Vec<u8>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, content_range, content_length, accept_ranges, last_modified, has_etag, body } =
            self;
        let told = (content_range, content_length, accept_ranges, last_modified, has_etag);
        write!(f, "{status} {told:?}, {} bytes", body.len())
    }
}

/// An answer without what may rightly differ: the text of an error, a multipart's boundary.
fn seen(response: Response, own_etag: &str) -> Seen {
    let header = |name: &str| response.header(name).map(str::to_owned);
    let mut body = response.body.clone();
    let mut content_length = header("content-length");
    let content_type = header("content-type").unwrap_or_default();
    if let Some(boundary) = content_type.strip_prefix("multipart/byteranges; boundary=").map(str::as_bytes) {
        let length: usize = content_length.as_deref().unwrap().parse().unwrap();
        let parts = body.windows(boundary.len()).filter(|part| *part == boundary).count();
        assert!(parts > 0 || body.is_empty(), "the boundary is not in the body");
        body = replace(&body, boundary, b"BOUNDARY");
        // Without a body (HEAD) its boundaries cannot be counted.
        content_length = (parts > 0).then(|| (length - parts * boundary.len()).to_string());
    }
    let failed = response.status >= 400;
    if failed {
        body.clear();
        content_length = None;
    }
    if let Some(etag) = response.header("etag") {
        assert_eq!(etag, own_etag);
    }
    Seen {
        status: response.status,
        content_range: header("content-range"),
        content_length,
        // On a 206 it says nothing new, and nginx leaves it out.
        accept_ranges: header("accept-ranges").filter(|_| response.status == 200),
        last_modified: header("last-modified").filter(|_| !failed),
        has_etag: response.header("etag").is_some() && !failed,
        body,
    }
}

fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(what) {
            result.extend_from_slice(with);
            at += what.len();
        } else {
            result.push(text[at]);
            at += 1;
        }
    }
    result
}

/// The case's request, with the entity tag of the server it goes to.
fn ask(method: &str, target: &str, case: &Case, etag: &str) -> Request {
    let ask = request(method, target);
    case.headers.iter().fold(ask, |ask, (name, value)| ask.with(name, &value.replace("ETAG", etag)))
}

#[test]
fn the_same_requests_get_the_same_answers() {
    let (server, nginx, _tree) = both();
    let cases = cases::all();
    assert!(cases.len() > 100, "{}", cases.len());
    let (mut wrong, mut stale) = (Vec::new(), [true; DIFFERENCES.len()]);
    for file in ["file", "empty", "one", "large"] {
        let (ours, theirs) = (format!("/db/alice/x/{file}"), format!("/{file}"));
        let our_etag = head(&ours).send(&server.address).expect(200).header("etag").unwrap().to_owned();
        let their_etag = nginx.send(&head(&theirs)).expect(200).header("etag").unwrap().to_owned();
        for case in &cases {
            for method in ["GET", "HEAD"] {
                let ours = seen(ask(method, &ours, case, &our_etag).send(&server.address), &our_etag);
                let nginx = |case| seen(nginx.send(&ask(method, &theirs, case, &their_etag)), &their_etag);
                let mut rules = [false; DIFFERENCES.len()];
                let asked = as_nginx_has_it(method, case, &mut rules);
                let theirs = nginx(&asked);
                if ours != theirs {
                    wrong.push(format!(
                        "{method} {file} {:?}:\n  ours  {ours:?}\n  nginx {theirs:?}",
                        case.headers
                    ));
                }
                // A rule stays on the list only while nginx does otherwise.
                if asked != *case && nginx(case) != theirs {
                    rules.iter().zip(&mut stale).for_each(|(rule, stale)| *stale &= !rule);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    for (difference, stale) in DIFFERENCES.iter().zip(stale) {
        assert!(!stale, "nginx goes by this rule too: {}", difference.rule);
    }
}

#[test]
fn every_range_of_a_small_file() {
    let (server, nginx, tree) = both();
    let content = std::fs::read(tree.at("ten")).unwrap();
    for first in 0..=11_usize {
        let mut headers = vec![format!("bytes={first}-"), format!("bytes=-{first}")];
        headers.extend((0..=11).map(|last| format!("bytes={first}-{last}")));
        for range in headers {
            let ours = get("/db/alice/x/ten").with("Range", &range).send(&server.address);
            let theirs = nginx.send(&get("/ten").with("Range", &range));
            assert_eq!(ours.status, theirs.status, "{range}");
            assert_eq!(ours.header("content-range"), theirs.header("content-range"), "{range}");
            if ours.status == 206 {
                assert_eq!(ours.body, theirs.body, "{range}");
                let bytes = ours.header("content-range").unwrap().strip_prefix("bytes ").unwrap();
                let (first, last) = bytes.strip_suffix("/10").unwrap().split_once('-').unwrap();
                let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
                assert_eq!(ours.body, content[first..=last], "{range}");
            }
        }
    }
}

#[test]
fn several_parts_are_the_bytes_they_say() {
    let (server, _nginx, tree) = both();
    let content = std::fs::read(tree.at("large")).unwrap();
    // Parts longer than the pieces a file is read in.
    let response = get("/db/alice/x/large")
        .with("Range", "bytes=599000-,0-299999,300000-300000")
        .send(&server.address)
        .expect(206);
    let content_type = response.header("content-type").unwrap();
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut expected = Vec::new();
    for (first, last) in [(599_000, 599_999), (0, 299_999), (300_000, 300_000)] {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/600000\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content[first..=last]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(response.body == expected, "{} and {} bytes", response.body.len(), expected.len());
    assert_eq!(response.header("content-range"), None);
}

#[test]
fn the_seeds_example_with_curl() {
    let server = Server::start();
    let id = server.register("my-dataset", "public");
    let content = noise(8, 1008);
    server.publish(&id, &[("data/posts/data.parquet", &content)]);
    let url = format!("{}/db/alice/my-dataset/data/posts/data.parquet", server.url());
    let dir = tempfile::tempdir().unwrap();
    let (headers, body) = (dir.path().join("headers"), dir.path().join("body"));
    assert!(Path::new("/usr/bin/curl").exists(), "this test needs curl");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "-H", "Range: bytes=-8", &url]);
    curl.arg("--dump-header").arg(&headers).arg("--output").arg(&body).env_clear();
    let ended = run_to_end(&mut curl, b"");
    assert_eq!(ended.code, 0, "{ended:?}");
    let headers = std::fs::read_to_string(headers).unwrap().to_lowercase();
    assert!(headers.starts_with("http/1.1 206 partial content\r\n"), "{headers}");
    for line in [
        "content-range: bytes 1000-1007/1008",
        "content-length: 8",
        "accept-ranges: bytes",
        "content-type: application/vnd.apache.parquet",
    ] {
        assert!(headers.contains(&format!("\r\n{line}\r\n")), "{line}: {headers}");
    }
    let etag = format!("etag: \"{}\"", crate::harness::sha256(&content));
    assert!(headers.contains(&format!("\r\n{etag}\r\n")), "{headers}");
    assert_eq!(std::fs::read(body).unwrap(), content[1000..]);
}
