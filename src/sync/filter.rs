//! Which paths a sync is about (rule 11). What it is not about passes through: it stays on both sides as it is.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::manifest::stays_put;
use crate::model::DbPath;

/// Which paths are synced: those that `include` matches, or all, but for those that `exclude` matches, and for names that
/// never travel.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Option<GlobSet>,
    /// Of those, only some.
    narrowed: Option<GlobSet>,
    exclude: Option<GlobSet>,
}

/// A pattern that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("'{pattern}' is no pattern: {reason}")]
pub struct BadPattern {
    /// As it was given.
    pub pattern: String,
    /// Why not.
    pub reason: String,
}

impl Filter {
    /// Of patterns: `*` and `?` within a name, `**` across directories, `[abc]`, `{a,b}`. One without `/` matches a name
    /// anywhere; one that matches a directory matches all that is below it.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, BadPattern> {
        let set =
            |patterns: &[String]| if patterns.is_empty() { Ok(None) } else { globs(patterns).map(Some) };
        Ok(Self { include: set(include)?, narrowed: None, exclude: set(exclude)? })
    }

    /// The same, for those paths only that one of the patterns matches.
    pub fn narrowed(&self, patterns: &[String]) -> Result<Self, BadPattern> {
        Ok(Self { narrowed: Some(globs(patterns)?), ..self.clone() })
    }

    /// Whether a path is synced.
    pub fn takes(&self, path: &DbPath) -> bool {
        let matches = |set: &GlobSet| set.is_match(path.as_str());
        !stays_put(path)
            && self.include.as_ref().is_none_or(matches)
            && self.narrowed.as_ref().is_none_or(matches)
            && !self.exclude.as_ref().is_some_and(matches)
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, BadPattern> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let bad = |reason: String| BadPattern { pattern: pattern.clone(), reason };
        let path = pattern.trim_end_matches('/');
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Err(bad("it is empty".into()));
        }
        let anywhere = if pattern.trim_end_matches('/').contains('/') { "" } else { "**/" };
        for below in ["", "/**"] {
            let text = format!("{anywhere}{path}{below}");
            let glob = GlobBuilder::new(&text).literal_separator(true).build();
            set.add(glob.map_err(|error| bad(error.kind().to_string()))?);
        }
    }
    set.build().map_err(|error| BadPattern { pattern: patterns.join(", "), reason: error.kind().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Filter {
        let owned = |patterns: &[&str]| patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Filter::new(&owned(include), &owned(exclude)).unwrap()
    }

    #[test]
    fn patterns_match_names_anywhere_and_paths_from_the_root() {
        for (pattern, matched, other) in [
            ("*.tmp", &["a.tmp", "d/e/a.tmp", "x.tmp/below"][..], &["a.tmp2", "tmp"][..]),
            ("cache", &["cache", "d/cache/f"], &["caches", "d/cache2"]),
            ("/cache", &["cache", "cache/f"], &["d/cache"]),
            ("data/*", &["data/a", "data/a/b"], &["data", "d/data/a"]),
            ("data/", &["data/a", "d/data/a"], &["data2/a"]),
            ("a/**/z", &["a/z", "a/b/c/z"], &["a/b", "z"]),
            ("{x,y}.[ab]", &["x.a", "d/y.b"], &["x.c"]),
        ] {
            let filter = filter(&[], &[pattern]);
            let takes = |text: &&str| filter.takes(&DbPath::parse(text).unwrap());
            assert!(!matched.iter().any(takes), "{pattern}");
            assert!(other.iter().all(takes), "{pattern}");
        }
    }

    #[test]
    fn excluding_is_stronger_and_secrets_never_travel() {
        let filter = filter(&["data/**", ".env"], &["*.csv"]);
        let takes = |text: &str| filter.takes(&DbPath::parse(text).unwrap());
        assert!(takes("data/a.parquet"));
        assert!(!takes("data/a.csv") && !takes("other/a.parquet") && !takes(".env"));
        assert!(Filter::default().takes(&DbPath::parse("x").unwrap()));
    }

    #[test]
    fn a_pattern_that_is_none_is_told() {
        for bad in ["[a", "", "/", "{a"] {
            let error = Filter::new(&[bad.to_owned()], &[]).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
