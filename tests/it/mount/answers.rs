//! F05: an answer that is not what was asked for is refused: it is EIO, or made good by asking again, never wrong
//! bytes, and nothing of it is kept as good.

use std::time::{Duration, Instant};

use super::proxy::{Proxy, chunks, framed, with_header};
use super::{assert_right, database_of, errno, impatient, read_directly};
use crate::harness::{Reply, Request, Response, answer, noise};

const MIB: usize = 1 << 20;

type Spoil = fn(&Request, Response) -> Reply;

/// Whether asking again brings what is missing, where every answer is spoiled in this way.
#[derive(PartialEq)]
enum Always {
    /// It never reads.
    Fails,
    /// It may read: what came was right as far as it came.
    MayRead,
}

fn length(body: &[u8]) -> String {
    format!("Content-Length: {}", body.len())
}

/// As many other bytes.
fn others(body: &[u8]) -> Vec<u8> {
    noise(99, body.len())
}

/// The body as gzip, in stored pieces.
fn gzip(body: &[u8]) -> Vec<u8> {
    let mut zipped = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (pieces, mut crc) = (body.chunks(60_000), u32::MAX);
    for (n, piece) in pieces.enumerate() {
        let (last, length) = (u8::from((n + 1) * 60_000 >= body.len()), piece.len() as u16);
        zipped.push(last);
        zipped.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        zipped.extend_from_slice(piece);
    }
    for byte in body {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    }
    zipped.extend((!crc).to_le_bytes());
    zipped.extend((body.len() as u32).to_le_bytes());
    zipped
}

fn content_range(honest: &Response) -> (u64, u64, u64) {
    let value = honest.header("content-range").unwrap().strip_prefix("bytes ").unwrap();
    let (range, total) = value.split_once('/').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().unwrap(), total.parse().unwrap())
}

/// Every answer here carries bytes that must not be taken for those asked for.
const SPOILT: &[(&str, Spoil)] = &[
    ("200 instead of 206", |_, mut honest| {
        honest.status = 200;
        let whole = others(&honest.body);
        framed(&with_header(honest, "content-range", None), &length(&whole), &whole)
    }),
    ("200, with all else as it should be", |_, mut honest| {
        honest.status = 200;
        let body = others(&honest.body);
        framed(&honest, &length(&body), &body)
    }),
    ("206 without a Content-Range", |_, honest| {
        let body = others(&honest.body);
        framed(&with_header(honest, "content-range", None), &length(&body), &body)
    }),
    ("another start", |_, honest| {
        let (first, last, total) = content_range(&honest);
        let (body, range) = (others(&honest.body), format!("bytes {}-{}/{total}", first + 1, last + 1));
        framed(&with_header(honest, "content-range", Some(&range)), &length(&body), &body)
    }),
    ("another end", |_, honest| {
        let (first, last, total) = content_range(&honest);
        let (body, range) = (others(&honest.body[1..]), format!("bytes {first}-{}/{total}", last - 1));
        framed(&with_header(honest, "content-range", Some(&range)), &length(&body), &body)
    }),
    ("another total", |_, honest| {
        let (first, last, total) = content_range(&honest);
        let (body, range) = (others(&honest.body), format!("bytes {first}-{last}/{}", total + 1));
        framed(&with_header(honest, "content-range", Some(&range)), &length(&body), &body)
    }),
    ("another version's ETag", |_, honest| {
        let body = others(&honest.body);
        framed(&with_header(honest, "etag", Some("\"other\"")), &length(&body), &body)
    }),
    ("a weak ETag", |_, honest| {
        let (body, etag) = (others(&honest.body), format!("W/{}", honest.header("etag").unwrap()));
        framed(&with_header(honest, "etag", Some(&etag)), &length(&body), &body)
    }),
    ("no ETag", |_, honest| {
        let body = others(&honest.body);
        framed(&with_header(honest, "etag", None), &length(&body), &body)
    }),
    ("a Content-Length too large", |_, honest| {
        let body = [others(&honest.body), vec![7]].concat();
        framed(&honest, &length(&body), &body)
    }),
    ("a Content-Length too small", |_, honest| {
        let body = others(&honest.body[1..]);
        framed(&honest, &length(&body), &body)
    }),
    ("an unknown encoding", |_, honest| {
        let body = others(&honest.body);
        framed(&with_header(honest, "content-encoding", Some("br")), &length(&body), &body)
    }),
    ("gzip that is none", |_, honest| {
        let body = others(&honest.body);
        framed(&with_header(honest, "content-encoding", Some("gzip")), &length(&body), &body)
    }),
    ("several ranges", |_, honest| {
        let kind = "multipart/byteranges; boundary=x";
        let body = others(&honest.body);
        let honest = with_header(with_header(honest, "content-range", None), "content-type", Some(kind));
        framed(&honest, &length(&body), &body)
    }),
    ("a page that says all is well", |_, _| {
        answer(200, &[("Content-Type", "text/html")], b"<html>log in</html>")
    }),
    ("an answer without a body", |_, _| answer(204, &[], b"")),
    ("not modified", |_, _| answer(304, &[], b"")),
    ("unsatisfiable", |_, _| answer(416, &[], b"")),
    ("a redirect elsewhere", |_, _| answer(302, &[("Location", "http://localhost:1/")], b"")),
    ("not HTTP", |_, _| Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
    ("nothing", |_, _| Reply::HangUp),
];

/// These bytes are right as far as they go; their number is not.
const CUT_OR_OVERLONG: &[(&str, Always, Spoil)] = &[
    ("broken off", Always::MayRead, |_, honest| {
        framed(&honest, &length(&honest.body), &honest.body[..honest.body.len() / 2])
    }),
    ("broken off before the first byte", Always::Fails, |_, honest| {
        framed(&honest, &length(&honest.body), b"")
    }),
    ("too short by a byte, in chunks", Always::Fails, |_, honest| {
        let body = chunks(&honest.body[..honest.body.len() - 1], 100_000);
        framed(&honest, "Transfer-Encoding: chunked", &[body, b"0\r\n\r\n".to_vec()].concat())
    }),
    ("too long, in chunks", Always::Fails, |_, honest| {
        let body = [chunks(&honest.body, 100_000), b"3\r\nxyz\r\n0\r\n\r\n".to_vec()].concat();
        framed(&honest, "Transfer-Encoding: chunked", &body)
    }),
    ("too long, until the connection ends", Always::Fails, |_, honest| {
        framed(&honest, "X-Length: unknown", &[&*honest.body, b"xyz"].concat())
    }),
    ("compressed", Always::MayRead, |_, honest| {
        let body = gzip(&honest.body);
        framed(&with_header(honest, "content-encoding", Some("gzip")), &length(&body), &body)
    }),
    ("complete, but the closing chunk is missing", Always::MayRead, |_, honest| {
        framed(&honest, "Transfer-Encoding: chunked", &chunks(&honest.body, 100_000))
    }),
];

/// A file fetched whole, one in parts, and one smaller than a block.
const FILES: &[(&str, usize)] = &[("whole", MIB - 5), ("parts", 2 * MIB + 99), ("small", 1000)];

fn each(what: &str, always: &Always, spoil: Spoil) {
    let (server, files) = database_of(FILES);
    let proxy = Proxy::before(&server);
    let mounting = impatient(&proxy.url());

    proxy.spoil(spoil);
    let mount = mounting.mount();
    for (name, bytes) in &files {
        let began = Instant::now();
        match mount.read(name) {
            Ok(read) => assert!(read == *bytes && *always == Always::MayRead, "{what}: {name} reads"),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EIO), "{what}: {name}"),
        }
        // Each of the reads that make it up has its own two seconds.
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
    }
    // Nothing of it was kept: the same cache serves the next mount.
    mount.unmount();
    proxy.honest();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    assert_eq!(mount.stats().responses_refused, 0);
    mount.unmount();

    // One bad answer is made good by asking again, and where it is not, nothing wrong is shown.
    proxy.spoil_first(1, spoil);
    let mount = mounting.clone().cache_in(&mounting.beside().join("another")).mount();
    for (name, bytes) in &files {
        // Directly, for the kernel by itself asks twice.
        match read_directly(&mount.at(name), 0, bytes.len()) {
            Ok(read) => assert!(read == *bytes, "{what}: {name}"),
            Err(error) => {
                assert_eq!((error.raw_os_error(), what), (Some(libc::EIO), "unsatisfiable"), "{name}")
            }
        }
    }
    assert_right(&mount.path(), &files);
    mount.unmount();
    let ranges = proxy.ranges();
    assert!(ranges.iter().all(|(first, last)| first <= last), "{what}: no range is asked for that is none");
}

#[test]
fn f05_an_answer_of_other_bytes_is_never_shown_nor_kept() {
    in_turns(SPOILT.iter().map(|(what, spoil)| move || each(what, &Always::Fails, *spoil)));
}

#[test]
fn f05_an_answer_of_another_length_is_never_shown_nor_kept() {
    in_turns(CUT_OR_OVERLONG.iter().map(|(what, always, spoil)| move || each(what, always, *spoil)));
}

/// Most of each is waiting: a few at once.
fn in_turns(cases: impl Iterator<Item = impl FnOnce() + Send>) {
    let cases: Vec<_> = cases.collect();
    let mut cases = cases.into_iter().peekable();
    while cases.peek().is_some() {
        std::thread::scope(|scope| {
            for case in cases.by_ref().take(6) {
                scope.spawn(case);
            }
        });
    }
}

#[test]
fn f05_altered_bytes_of_a_file_that_comes_whole_are_noticed_under_right_headers() {
    let (server, files) = database_of(&[("small", 1000), ("whole", MIB - 5)]);
    let proxy = Proxy::before(&server);
    let mounting = impatient(&proxy.url());
    proxy.spoil(|_, mut honest| {
        let middle = honest.body.len() / 2;
        honest.body[middle] ^= 1;
        honest.into()
    });
    let mount = mounting.mount();
    for (name, _) in &files {
        assert_eq!(errno(mount.read(name)), Some(libc::EIO), "{name}");
    }
    assert!(mount.stats().responses_refused > 0);
    mount.unmount();
    proxy.honest();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    mount.unmount();
}

#[test]
fn f05_what_was_refused_is_counted_and_the_same_mount_recovers() {
    let (server, files) = database_of(&[("x", 100_000)]);
    let proxy = Proxy::before(&server);
    let mount = impatient(&proxy.url()).mount();
    proxy.spoil(|_, honest| with_header(honest, "etag", Some("\"other\"")).into());
    assert_eq!(errno(mount.read("x")), Some(libc::EIO));
    assert!(mount.stats().responses_refused > 0, "{:?}", mount.stats());
    assert_eq!(mount.stats().bytes_fetched, 0, "not a byte of such an answer is taken");
    assert!(mount.log().contains("ETag"), "the log says why: {}", mount.log());
    proxy.honest();
    assert_right(&mount.path(), &files);
}
