//! F06: passing trouble on the way to the server is ridden out, and what came before it is not asked for again.

use std::time::{Duration, Instant};

use super::proxy::{Proxy, asked, framed};
use super::relay::Relay;
use super::{assert_right, database_of, errno, impatient, read_directly};
use crate::harness::{Reply, Request, Response, answer};

#[test]
fn f06_passing_trouble_is_ridden_out() {
    type Spoil = fn(&Request, Response) -> Reply;
    let troubles: [(&str, Spoil); 4] = [
        ("503", |_, _| answer(503, &[], b"overloaded")),
        ("429", |_, _| answer(429, &[("Retry-After", "0")], b"slow down")),
        ("502", |_, _| answer(502, &[("Content-Type", "text/html")], b"<html>bad gateway</html>")),
        ("hang-up", |_, _| Reply::HangUp),
    ];
    for (what, trouble) in troubles {
        let (server, files) = database_of(&[("x", 300_000)]);
        let proxy = Proxy::before(&server);
        let mount = impatient(&proxy.url()).mount();
        proxy.spoil_first(2, trouble);
        assert_right(&mount.path(), &files);
        let stats = mount.stats();
        assert_eq!((stats.requests, stats.bytes_fetched), (4, 300_000), "{what}: {stats:?}");
        assert_eq!(stats.responses_refused, 0, "{what}: trouble is no wrong answer");
    }
}

#[test]
fn f06_a_broken_answer_is_gone_on_with_and_not_begun_again() {
    let (server, files) = database_of(&[("x", 1 << 20)]);
    let proxy = Proxy::before(&server);
    let mount = impatient(&proxy.url()).mount();
    let cut = 700 << 10;
    proxy.spoil_first(1, move |request, honest| {
        assert_eq!(asked(request), (0, (1 << 20) - 1));
        framed(&honest, &format!("Content-Length: {}", honest.body.len()), &honest.body[..cut])
    });
    assert_right(&mount.path(), &files);
    let ranges = proxy.ranges();
    let [_, (first, last)] = ranges[..] else { panic!("{ranges:?}") };
    let missed = cut as u64 - (256 << 10)..=cut as u64;
    assert!(missed.contains(&first) && last == (1 << 20) - 1, "only the rest is asked for again: {ranges:?}");
}

#[test]
fn f06_an_answer_that_trickles_is_not_waited_for_longer() {
    let (server, files) = database_of(&[("fast", 100_000), ("x", 500_000)]);
    let relay = Relay::before(&server);
    let mount = impatient(&relay.url()).mount();
    assert!(mount.read("fast").unwrap() == files[0].1);
    relay.trickle(true);
    let began = Instant::now();
    assert_eq!(errno(read_directly(&mount.at("x"), 0, 500_000)), Some(libc::EIO));
    let waited = began.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
    assert!(read_directly(&mount.at("fast"), 0, 100_000).unwrap() == files[0].1, "nobody else waits");
    relay.trickle(false);
    assert_right(&mount.path(), &files);
}
