//! F05: a content that is fetched whole is checked whole, and nothing of it is shown or kept before, however its
//! answers break off.

use super::proxy::{Proxy, asked, framed};
use super::{assert_right, database_of, impatient, read_directly};
use crate::harness::{Reply, Response, noise};

const SIZE: usize = 900_000;

/// The answer's first bytes, so many, or as many others; then the connection ends.
fn cut(honest: &Response, length: usize, altered: bool) -> Reply {
    let announced = format!("Content-Length: {}", honest.body.len());
    let body = if altered { noise(99, length) } else { honest.body[..length].to_vec() };
    framed(honest, &announced, &body)
}

#[test]
fn f05_nothing_of_a_small_content_is_shown_before_all_of_it_was_checked() {
    let (server, files) = database_of(&[("x", SIZE)]);
    let proxy = Proxy::before(&server);
    let mount = impatient(&proxy.url()).mount();
    proxy.spoil_first(1, |_, honest| cut(&honest, 600_000, true));
    let began = read_directly(&mount.at("x"), 0, 4096).unwrap();
    assert!(began == files[0].1[..4096], "altered bytes were shown");
    assert_right(&mount.path(), &files);
    let (ranges, last) = (proxy.ranges(), SIZE as u64 - 1);
    let [first, (rest, end), anew] = ranges[..] else { panic!("{ranges:?}") };
    assert_eq!(
        (first, end, anew),
        ((0, last), last, (0, last)),
        "with the rest it is wrong, so it is begun anew"
    );
    assert!(rest > 0, "what had come is not asked for again");
    assert_eq!(mount.stats().responses_refused, 1);
}

#[test]
fn f05_the_rest_of_a_small_content_is_checked_with_its_beginning() {
    let (server, files) = database_of(&[("x", SIZE)]);
    let proxy = Proxy::before(&server);
    let mount = impatient(&proxy.url()).mount();
    // Broken off, altered, and broken off once more.
    let mut answers = 0;
    proxy.spoil_first(3, move |request, honest| {
        answers += 1;
        let length = honest.body.len();
        match answers {
            1 => cut(&honest, length / 2, false),
            2 => {
                assert!(asked(request).0 > 0);
                cut(&honest, length, true)
            }
            _ => cut(&honest, length - 1, false),
        }
    });
    for offset in [0, SIZE as u64 - 4096] {
        let read = read_directly(&mount.at("x"), offset, 4096).unwrap();
        assert!(read == super::slice(&files[0].1, offset, 4096), "at {offset}");
    }
    assert_right(&mount.path(), &files);
    let ranges = proxy.ranges();
    let starts: Vec<bool> = ranges.iter().map(|(first, _)| *first == 0).collect();
    assert_eq!(starts, [true, false, true, false], "{ranges:?}");
    assert_eq!(mount.stats().responses_refused, 1);
}

#[test]
fn f05_a_small_content_that_breaks_off_again_and_again_comes_in_the_end() {
    let (server, files) = database_of(&[("x", 1 << 20)]);
    let proxy = Proxy::before(&server);
    let mount = impatient(&proxy.url()).mount();
    // Each answer brings a little, and all of them together take longer than one read is waited for.
    proxy.spoil(|_, honest| {
        let length = honest.body.len();
        cut(&honest, length.min(40_000), false)
    });
    let _ = read_directly(&mount.at("x"), 0, 4096);
    proxy.honest();
    assert_right(&mount.path(), &files);
    let ranges = proxy.ranges();
    assert!(ranges.windows(2).all(|pair| pair[1].0 >= pair[0].0), "it was begun anew: {ranges:?}");
}
