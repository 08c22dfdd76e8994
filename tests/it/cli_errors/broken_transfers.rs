//! F5 for pulls: an answer that is cut short, shifted, of another version or of other bytes leaves nothing behind.

use std::sync::Arc;

use super::{assert_untouched, fake_remote, manifest};
use crate::harness::{Cli, Reply, Request, TempTree, answer, put_entry, sha256};

const CONTENT: &[u8] = b"0123456789";

/// The headers of a right answer, of which a case changes one.
struct Right {
    etag: String,
    range: &'static str,
}

fn right() -> Right {
    Right { etag: format!("\"{}\"", sha256(CONTENT)), range: "bytes 0-9/10" }
}

impl Right {
    fn answer(&self, status: u16, body: &[u8]) -> Reply {
        answer(status, &[("ETag", &self.etag), ("Content-Range", self.range)], body)
    }
}

/// Pulls two files, one answered rightly and one by `respond`, and gives the exit code.
fn pull(respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (i32, TempTree) {
    let files = [("good", put_entry("good", CONTENT)), ("sub/bad", put_entry("sub/bad", CONTENT))];
    let remote = fake_remote(manifest(&files), move |request| {
        if request.target.ends_with("/good") { right().answer(206, CONTENT) } else { respond(request) }
    });
    let copy = TempTree::new();
    let code = Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]).code;
    (code, copy)
}

fn raw(head: &str, body: &[u8]) -> Reply {
    let mut bytes = format!("HTTP/1.1 206 X\r\nConnection: close\r\n{head}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

#[test]
fn the_control_a_right_answer_is_kept() {
    let (code, copy) = pull(|_| right().answer(206, CONTENT));
    assert_eq!((code, copy.names()), (0, vec!["good".to_owned(), "sub/bad".to_owned()]));
}

#[test]
fn a_request_names_its_range_and_its_version() {
    let files = [("f", put_entry("f", CONTENT))];
    let remote = fake_remote(manifest(&files), |_| right().answer(206, CONTENT));
    Cli::at(&remote.url()).pull("alice/x", TempTree::new().path(), &[]).expect(0);
    let seen = remote.seen();
    let asked = seen.iter().find(|request| request.target == "/db/alice/x/f").unwrap();
    assert_eq!(asked.header("range"), Some("bytes=0-9"));
    assert_eq!(asked.header("if-match"), Some(right().etag.as_str()));
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
}

#[test]
fn answers_that_are_not_what_was_asked_for() {
    type Case = (&'static str, fn(&Request) -> Reply, i32);
    let cases: [Case; 13] = [
        ("other bytes", |_| right().answer(206, b"012345678X"), 8),
        ("200 with everything", |_| right().answer(200, CONTENT), 8),
        ("another range", |_| Right { range: "bytes 1-10/11", ..right() }.answer(206, CONTENT), 8),
        ("another size", |_| Right { range: "bytes 0-9/11", ..right() }.answer(206, CONTENT), 8),
        ("unknown size", |_| Right { range: "bytes 0-9/*", ..right() }.answer(206, CONTENT), 8),
        ("fewer bytes, told", |_| Right { range: "bytes 0-8/10", ..right() }.answer(206, &CONTENT[..9]), 8),
        ("fewer bytes, length only", |_| right().answer(206, &CONTENT[..9]), 8),
        ("more bytes", |_| right().answer(206, b"0123456789A"), 8),
        ("another version", |_| Right { etag: "\"old\"".into(), ..right() }.answer(206, CONTENT), 8),
        ("a weak tag", |_| Right { etag: format!("W/{}", right().etag), ..right() }.answer(206, CONTENT), 8),
        ("no range", |_| answer(206, &[("ETag", &right().etag)], CONTENT), 8),
        ("no tag", |_| answer(206, &[("Content-Range", "bytes 0-9/10")], CONTENT), 8),
        ("gone", |_| answer(404, &[], b"No such file\n"), 7),
    ];
    for (what, respond, expected) in cases {
        let (code, copy) = pull(respond);
        assert_eq!(code, expected, "{what}");
        assert_untouched(&copy);
    }
}

type Respond = dyn Fn(&Request) -> Reply + Send + Sync;

/// Half of what was asked for.
fn half(request: &Request, length: impl Fn(usize) -> String) -> Reply {
    let rest = &CONTENT[request.first_byte() as usize..];
    let range = format!("Content-Range: bytes {}-9/10", 10 - rest.len());
    let head = format!("ETag: {}\r\n{range}\r\n{}", right().etag, length(rest.len()));
    raw(&head, &rest[..rest.len() / 2])
}

#[test]
fn answers_that_break_off() {
    let etag = right().etag;
    let head = format!("ETag: {etag}\r\nContent-Range: bytes 0-9/10\r\n");
    let cases: [(&str, Arc<Respond>); 5] = [
        ("not what its Content-Encoding says", {
            let head = format!("{head}Content-Encoding: gzip\r\nContent-Length: 10\r\n");
            Arc::new(move |_| raw(&head, CONTENT))
        }),
        ("hung up", Arc::new(|_| Reply::HangUp)),
        ("in the headers", Arc::new(|_| Reply::Bytes(b"HTTP/1.1 206 X\r\nETag: ".to_vec()))),
        ("after half", {
            Arc::new(|request| half(request, |length| format!("Content-Length: {length}\r\n")))
        }),
        ("after half, length untold", Arc::new(|request| half(request, |_| String::new()))),
    ];
    // Each is asked for several times over, so they wait side by side.
    std::thread::scope(|scope| {
        for (what, respond) in cases {
            scope.spawn(move || {
                let (code, copy) = pull(move |request| respond(request));
                assert_eq!(code, 6, "{what}");
                assert_untouched(&copy);
            });
        }
    });
}

#[test]
fn an_answer_that_broke_off_once_is_asked_for_again() {
    let again = std::sync::atomic::AtomicBool::new(false);
    let (code, copy) = pull(move |request| {
        if again.swap(true, std::sync::atomic::Ordering::SeqCst) {
            assert_eq!(request.first_byte(), 3, "from where it broke off");
            return Right { range: "bytes 3-9/10", ..right() }.answer(206, &CONTENT[3..]);
        }
        let head = format!("ETag: {}\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\n", right().etag);
        raw(&head, &CONTENT[..3])
    });
    assert_eq!((code, copy.read("sub/bad").as_deref()), (0, Some("0123456789")));
}

#[test]
fn a_failed_pull_keeps_what_was_there_before() {
    let files = [("sub/bad", put_entry("sub/bad", CONTENT))];
    let remote = fake_remote(manifest(&files), |_| right().answer(206, CONTENT));
    let copy = TempTree::new();
    Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]).expect(0);
    let before = crate::harness::bytes_of(copy.path());
    let newer = [("sub/bad", put_entry("sub/bad", b"ABCDEFGHIJ"))];
    let remote = fake_remote(manifest(&newer), |_| {
        let etag = format!("\"{}\"", sha256(b"ABCDEFGHIJ"));
        answer(206, &[("ETag", &etag), ("Content-Range", "bytes 0-9/10")], b"ABCDE12345")
    });
    Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]).expect(8);
    assert_eq!(crate::harness::bytes_of(copy.path()), before);
}

#[test]
fn a_manifest_cut_short_is_not_a_shorter_manifest() {
    let whole = manifest(&[("a", put_entry("a", CONTENT)), ("b", put_entry("b", CONTENT))]);
    let remote = crate::harness::Responder::start(move |request| match request.target.as_str() {
        "/api/db/alice/x" => crate::harness::json_answer(200, &super::description()),
        _ => {
            let mut bytes = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", whole.len()).into_bytes();
            bytes.extend_from_slice(&whole[..whole.len() - 20]);
            Reply::Bytes(bytes)
        }
    });
    let copy = TempTree::new();
    Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]).expect(6);
    assert_untouched(&copy);
}
