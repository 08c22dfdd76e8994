//! RFC 9110's conditions and ranges for one stored file, as a pure function: request headers in, answer out.
//! Where the RFC leaves a choice, nginx's is taken: it is what clients have been tried against.

use super::content_range::digits;
use crate::model::ByteRange;

/// More parts than these are answered with the whole file: each costs the server work of its own.
const MAX_PARTS: usize = 64;

/// The headers of a GET or HEAD that ask for less than the whole file, as sent; absent ones are `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a str>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
    /// `Range`.
    pub range: Option<&'a str>,
}

/// What the file is now.
#[derive(Debug, Clone, Copy)]
pub struct Representation<'a> {
    /// The strong entity tag, with its quotes.
    pub etag: &'a str,
    /// When the content last changed, in whole seconds since 1970.
    pub modified: Option<i64>,
    /// Size in bytes.
    pub size: u64,
}

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 with everything.
    Whole,
    /// 206 with one range.
    Part(ByteRange),
    /// 206 with several, as `multipart/byteranges`, in the order asked.
    Parts(Vec<ByteRange>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Decides the answer, in the order of RFC 9110, 13.2.2.
pub fn evaluate(conditions: Conditions<'_>, now: Representation<'_>) -> Answer {
    if let Some(tags) = conditions.if_match {
        if !any_tag(tags, |tag| tag == now.etag) {
            return Answer::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) =
        (conditions.if_unmodified_since.and_then(http_date), now.modified)
        && modified > since
    {
        return Answer::PreconditionFailed;
    }
    if let Some(tags) = conditions.if_none_match {
        // The weak comparison: W/"x" matches "x".
        if any_tag(tags, |tag| tag.strip_prefix("W/").unwrap_or(tag) == now.etag) {
            return Answer::NotModified;
        }
    } else if let (Some(since), Some(modified)) =
        (conditions.if_modified_since.and_then(http_date), now.modified)
        && modified <= since
    {
        return Answer::NotModified;
    }
    let Some(range) = conditions.range else { return Answer::Whole };
    if conditions.if_range.is_some_and(|condition| !same_representation(condition.trim(), now)) {
        return Answer::Whole;
    }
    ranges(range, now.size)
}

/// `If-Range`: only this very strong tag. A date never holds: it is the publisher's, two versions may bear the
/// same one, and a mixed file would be the price (RFC 9110, 13.1.5, wants a strong validator).
fn same_representation(condition: &str, now: Representation<'_>) -> bool {
    condition == now.etag
}

/// Whether the list of entity tags is `*` or has one that `matches`. Commas may stand inside a tag.
fn any_tag(list: &str, matches: impl Fn(&str) -> bool) -> bool {
    let mut rest = list.trim();
    if rest == "*" {
        return true;
    }
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let opening = if rest.starts_with("W/\"") { 3 } else { 1 };
        if !rest.starts_with('"') && opening == 1 {
            return false;
        }
        let Some(closing) = rest[opening..].find('"') else { return false };
        let (tag, after) = rest.split_at(opening + closing + 1);
        if matches(tag) {
            return true;
        }
        rest = after;
    }
}

fn http_date(text: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// The `Range` header against a file of `size` bytes. A unit other than bytes is ignored. Ranges past the end are
/// dropped; more bytes in all than the file has are answered with the whole file, so that overlapping ranges
/// cannot multiply the work.
fn ranges(header: &str, size: u64) -> Answer {
    let header = header.trim();
    let set = header.get(..6).filter(|unit| unit.eq_ignore_ascii_case("bytes=")).map(|_| &header[6..]);
    let Some(set) = set.filter(|set| !set.is_empty()) else { return Answer::Whole };
    let mut wanted = Vec::new();
    for item in set.split(',') {
        let item = item.trim_matches([' ', '\t']);
        let Some((first, last)) = item.split_once('-') else { return Answer::Unsatisfiable };
        let (first, last) = (first.trim_end_matches([' ', '\t']), last.trim_start_matches([' ', '\t']));
        let range = match (first, last) {
            ("", length) => match digits(length) {
                Some(length) => ByteRange::new(size.saturating_sub(length), size),
                None => return Answer::Unsatisfiable,
            },
            (first, "") => match digits(first) {
                Some(first) => ByteRange { start: first, end: size },
                None => return Answer::Unsatisfiable,
            },
            (first, last) => match (digits(first), digits(last)) {
                (Some(first), Some(last)) => {
                    ByteRange { start: first, end: last.saturating_add(1).min(size) }
                }
                _ => return Answer::Unsatisfiable,
            },
        };
        if range.start < range.end {
            wanted.push(range);
        } else if range.start == 0 && size == 0 {
            // Nothing can be satisfied in an empty file; like nginx, answer it whole.
            return Answer::Whole;
        }
    }
    let total = wanted.iter().fold(0_u64, |sum, range| sum.saturating_add(range.len()));
    match wanted.as_slice() {
        [] => Answer::Unsatisfiable,
        _ if total > size || wanted.len() > MAX_PARTS => Answer::Whole,
        [one] => Answer::Part(*one),
        _ => Answer::Parts(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Representation<'_> =
        Representation { etag: "\"abc\"", modified: Some(1_000_000_000), size: 1008 };
    const THEN: &str = "Sun, 09 Sep 2001 01:46:40 GMT";
    const EARLIER: &str = "Sun, 09 Sep 2001 01:46:39 GMT";

    fn range(header: &str) -> Answer {
        evaluate(Conditions { range: Some(header), ..Conditions::default() }, NOW)
    }

    fn part(start: u64, end: u64) -> Answer {
        Answer::Part(ByteRange { start, end })
    }

    #[test]
    fn ranges_by_the_book() {
        assert_eq!(range("bytes=-8"), part(1000, 1008));
        assert_eq!(range("bytes=0-0"), part(0, 1));
        assert_eq!(range("bytes=5-"), part(5, 1008));
        assert_eq!(range("bytes=1000-5000"), part(1000, 1008));
        assert_eq!(range("bytes=-5000"), part(0, 1008));
        assert_eq!(range("bytes=0-18446744073709551615"), part(0, 1008));
        for past in ["bytes=1008-", "bytes=-0", "bytes=2000-3000"] {
            assert_eq!(range(past), Answer::Unsatisfiable, "{past}");
        }
        assert_eq!(range("lines=1-2"), Answer::Whole);
        assert_eq!(range("bytes=0-99,2000-"), part(0, 100), "a range past the end is dropped");
        assert_eq!(range("bytes=0-599,0-599"), Answer::Whole, "more than the file in all");
        let parts = vec![ByteRange { start: 4, end: 5 }, ByteRange { start: 0, end: 2 }];
        assert_eq!(range("bytes=4-4, 0-1"), Answer::Parts(parts));
    }

    #[test]
    fn conditions_in_their_order() {
        let ask = |c: Conditions<'_>| evaluate(c, NOW);
        let none = Conditions::default();
        let r = Some("bytes=0-1");
        assert_eq!(ask(Conditions { if_match: Some("\"abc\""), range: r, ..none }), part(0, 2));
        assert_eq!(ask(Conditions { if_match: Some("\"x\", \"a,b\",\"abc\""), ..none }), Answer::Whole);
        assert_eq!(ask(Conditions { if_match: Some("*"), ..none }), Answer::Whole);
        assert_eq!(
            ask(Conditions { if_match: Some("\"old\""), range: r, ..none }),
            Answer::PreconditionFailed
        );
        assert_eq!(ask(Conditions { if_match: Some("W/\"abc\""), ..none }), Answer::PreconditionFailed);
        assert_eq!(ask(Conditions { if_match: Some("abc"), ..none }), Answer::PreconditionFailed);
        assert_eq!(
            ask(Conditions { if_none_match: Some("W/\"abc\""), range: r, ..none }),
            Answer::NotModified
        );
        assert_eq!(
            ask(Conditions { if_none_match: Some("\"x\""), if_modified_since: Some(THEN), ..none }),
            Answer::Whole
        );
        assert_eq!(ask(Conditions { if_modified_since: Some(THEN), ..none }), Answer::NotModified);
        assert_eq!(ask(Conditions { if_modified_since: Some(EARLIER), ..none }), Answer::Whole);
        assert_eq!(
            ask(Conditions { if_unmodified_since: Some(EARLIER), ..none }),
            Answer::PreconditionFailed
        );
        assert_eq!(ask(Conditions { if_unmodified_since: Some(THEN), ..none }), Answer::Whole);
        assert_eq!(ask(Conditions { if_range: Some("\"abc\""), range: r, ..none }), part(0, 2));
        assert_eq!(ask(Conditions { if_range: Some("\"old\""), range: r, ..none }), Answer::Whole);
        assert_eq!(ask(Conditions { if_range: Some("W/\"abc\""), range: r, ..none }), Answer::Whole);
        assert_eq!(ask(Conditions { if_range: Some(THEN), range: r, ..none }), Answer::Whole);
        assert_eq!(ask(Conditions { if_range: Some(EARLIER), range: r, ..none }), Answer::Whole);
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics_or_yields_bytes_outside_the_file(header in ".{0,60}", size in 0_u64..50) {
            let c = Conditions { range: Some(&header), if_match: None, if_none_match: Some(&header), ..Conditions::default() };
            let now = Representation { size, ..NOW };
            let parts = match evaluate(c, now) {
                Answer::Part(part) => vec![part],
                Answer::Parts(parts) => parts,
                _ => vec![],
            };
            for part in parts {
                proptest::prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn numeric_ranges_stay_inside(a in 0_u64..60, b in 0_u64..60, size in 0_u64..50) {
            for header in [format!("bytes={a}-{b}"), format!("bytes=-{a}"), format!("bytes={a}-,{b}-{b}")] {
                let c = Conditions { range: Some(&header), ..Conditions::default() };
                if let Answer::Part(part) = evaluate(c, Representation { size, ..NOW }) {
                    proptest::prop_assert!(part.start < part.end && part.end <= size);
                }
            }
        }
    }
}
