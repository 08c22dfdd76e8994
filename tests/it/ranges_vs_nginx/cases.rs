//! The requests, and the few answers in which we are not nginx.

/// The headers of a request; `ETAG` stands for the entity tag of the server that is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub headers: Vec<(&'static str, String)>,
}

/// A rule of RFC 9110 by which nginx does not go: we answer as if the request had been another one.
pub struct Difference {
    pub rule: &'static str,
    as_if: fn(&str, &Case) -> Option<Case>,
}

/// The files' own date, and others, in every form a date may have.
const SAME: &str = "Fri, 05 Jan 2024 07:08:09 GMT";
const SAME_RFC850: &str = "Friday, 05-Jan-24 07:08:09 GMT";
const SAME_ASCTIME: &str = "Fri Jan  5 07:08:09 2024";
const EARLIER: &str = "Fri, 05 Jan 2024 07:08:08 GMT";
const LATER: &str = "Fri, 05 Jan 2024 07:08:10 GMT";
const FUTURE: &str = "Thu, 05 Jan 2068 07:08:10 GMT";
const NO_DATE: [&str; 4] = ["yesterday", "2024-01-05T07:08:09Z", "0", "\"x\""];

const RANGES: [&str; 63] = [
    // One range.
    "bytes=0-0",
    "bytes=0-1",
    "bytes=1-1",
    "bytes=5-99",
    "bytes=0-1006",
    "bytes=0-1007",
    "bytes=0-1008",
    "bytes=0-",
    "bytes=1-",
    "bytes=1006-",
    "bytes=1007-",
    "bytes=1007-1007",
    "bytes=1000-5000",
    "bytes=1007-99999999999",
    "bytes=0-18446744073709551615",
    "bytes=0-9223372036854775807",
    "bytes=0-99999999999999999999999999",
    "bytes=000000000000000000000000001-2",
    // From the end.
    "bytes=-1",
    "bytes=-8",
    "bytes=-1007",
    "bytes=-1008",
    "bytes=-1009",
    "bytes=-99999999",
    "bytes=-0",
    // Past the end, or nothing at all.
    "bytes=1008-",
    "bytes=1008-1008",
    "bytes=2000-3000",
    "bytes=600000-",
    "bytes=99999999999-",
    "bytes=2-1",
    "bytes=1007-1",
    "bytes=5-4,0-0",
    // Several.
    "bytes=0-0,2-2",
    "bytes=0-0, 2-2",
    "bytes=0-0 ,2-2",
    "bytes=4-5,0-1",
    "bytes=0-9,5-14",
    "bytes=0-0,0-0",
    "bytes=0-1,-1",
    "bytes=-1,0-1",
    "bytes=0-1,2-3,4-5,6-7,8-9,10-11,12-13",
    "bytes=0-1,2000-3000",
    "bytes=2000-3000,0-1",
    "bytes=2000-,3000-",
    "bytes=0-599,0-599",
    "bytes=0-,0-",
    "bytes=0-1007,0-0",
    "bytes=0-503,504-1007",
    // Not understood.
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes=0-b",
    "bytes=1",
    "bytes=0-1,",
    "bytes=,0-1",
    "bytes=0-1,x",
    "bytes=0x0-0x1",
    "bytes=+0-1",
    "bytes=-+1",
    "bytes",
    "lines=0-1",
    "0-1",
];

/// Every request.
pub fn all() -> Vec<Case> {
    let mut cases = vec![Vec::new()];
    cases.extend(RANGES.map(|range| vec![("Range", range.to_owned())]));
    for unit in ["BYTES=0-1", "Bytes=0-1", "bytes =0-1", "bytes= 0-1", "bytes=0 - 1", "bytes=0-1 "] {
        cases.push(vec![("Range", unit.to_owned())]);
    }
    let tags = [
        "ETAG",
        "W/ETAG",
        "*",
        "\"other\"",
        "W/\"other\"",
        "\"other\", ETAG",
        "ETAG,\"other\"",
        "\"a,b\", ETAG",
        "\"other\" , W/ETAG",
        "\"\"",
        "\"other\",\"another\"",
        ",ETAG",
        "\"other\",,ETAG",
    ];
    for tag in tags {
        cases.push(vec![("If-None-Match", tag.to_owned())]);
        cases.push(vec![("If-None-Match", tag.to_owned()), ("Range", "bytes=0-0".into())]);
        cases.push(vec![("If-Match", tag.to_owned())]);
        cases.push(vec![("If-Match", tag.to_owned()), ("Range", "bytes=0-0".into())]);
    }
    let dates = [SAME, SAME_RFC850, SAME_ASCTIME, EARLIER, LATER, FUTURE].into_iter().chain(NO_DATE);
    for date in dates {
        for header in ["If-Modified-Since", "If-Unmodified-Since"] {
            cases.push(vec![(header, date.to_owned())]);
            cases.push(vec![(header, date.to_owned()), ("Range", "bytes=0-0".into())]);
        }
        cases.push(vec![("If-Range", date.to_owned()), ("Range", "bytes=0-0".into())]);
    }
    for tag in ["ETAG", "W/ETAG", "\"other\"", "*", "other", ""] {
        cases.push(vec![("If-Range", tag.to_owned()), ("Range", "bytes=0-0".into())]);
        cases.push(vec![("If-Range", tag.to_owned()), ("Range", "bytes=99999999-".into())]);
        cases.push(vec![("If-Range", tag.to_owned()), ("Range", "bytes=0-0,2-2".into())]);
        cases.push(vec![("If-Range", tag.to_owned())]);
    }
    for (if_none_match, if_match) in
        [("ETAG", "ETAG"), ("ETAG", "\"other\""), ("\"other\"", "ETAG"), ("*", "*")]
    {
        cases.push(vec![("If-None-Match", if_none_match.to_owned()), ("If-Match", if_match.to_owned())]);
    }
    for tag in ["ETAG", "\"other\""] {
        for date in [SAME, EARLIER, LATER] {
            cases.push(vec![("If-None-Match", tag.to_owned()), ("If-Modified-Since", date.to_owned())]);
            cases.push(vec![("If-Match", tag.to_owned()), ("If-Unmodified-Since", date.to_owned())]);
            cases.push(vec![("If-Match", tag.to_owned()), ("If-Modified-Since", date.to_owned())]);
            cases.push(vec![("If-None-Match", tag.to_owned()), ("If-Unmodified-Since", date.to_owned())]);
        }
    }
    cases.into_iter().map(|headers| Case { headers }).collect()
}

/// The whole list of what is deliberately not as nginx has it.
pub const DIFFERENCES: [Difference; 6] = [
    Difference {
        rule: "14.2: a range is ignored with any method but GET; nginx answers HEAD with 206",
        as_if: |method, case| (method == "HEAD").then(|| case.without("Range")).flatten(),
    },
    Difference {
        rule: "14.1.2: a last position past the end is the end, however large; nginx refuses what it cannot count",
        as_if: |_, case| {
            case.with("Range", |range| (range == "bytes=0-18446744073709551615").then_some("bytes=0-"))
        },
    },
    Difference {
        rule: "13.1.3: If-Modified-Since is ignored beside If-None-Match; nginx wants both",
        as_if: |_, case| case.value("If-None-Match").and_then(|_| case.without("If-Modified-Since")),
    },
    Difference {
        rule: "13.1.4: If-Unmodified-Since is ignored beside If-Match; nginx wants both",
        as_if: |_, case| case.value("If-Match").and_then(|_| case.without("If-Unmodified-Since")),
    },
    Difference {
        rule: "13.1.4: If-Unmodified-Since is ignored if it is no date; nginx answers 412",
        as_if: |_, case| {
            let no_date = case.value("If-Unmodified-Since").is_some_and(|value| NO_DATE.contains(&value));
            no_date.then(|| case.without("If-Unmodified-Since")).flatten()
        },
    },
    Difference {
        rule: "13.1.5: If-Range wants a strong validator; the date of a file is its publisher's, so it is none",
        as_if: |_, case| {
            let date = case.value("If-Range").is_some_and(|v| [SAME, SAME_RFC850, SAME_ASCTIME].contains(&v));
            date.then(|| case.without("Range")).flatten()
        },
    },
];

impl Case {
    fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The request without that header, if it has it.
    fn without(&self, name: &str) -> Option<Self> {
        self.value(name)?;
        let headers = self.headers.iter().filter(|(key, _)| *key != name);
        Some(Self { headers: headers.cloned().collect() })
    }

    /// The request with that header changed, if it is to be.
    fn with(&self, name: &'static str, change: fn(&str) -> Option<&'static str>) -> Option<Self> {
        let value = change(self.value(name)?)?;
        let mut changed = self.without(name)?;
        changed.headers.push((name, value.to_owned()));
        Some(changed)
    }
}

/// The request nginx has to be asked instead to answer as we do, by every rule that applies; `met` notes them.
pub fn as_nginx_has_it(method: &str, case: &Case, met: &mut [bool; DIFFERENCES.len()]) -> Case {
    let mut case = case.clone();
    for (difference, met) in DIFFERENCES.iter().zip(met) {
        if let Some(other) = (difference.as_if)(method, &case) {
            (case, *met) = (other, true);
        }
    }
    case
}
