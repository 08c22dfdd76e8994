//! Which files belong together: a database's file, and its logs beside it. One without the others is another database (rule 21).

use crate::model::DbPath;

/// What a database's log is called after its file.
const LOGS: [&str; 4] = ["-wal", "-shm", "-journal", ".wal"];

/// The path of the file that this one belongs with: of a log, its database's; of any other, its own.
pub fn family(path: &DbPath) -> &str {
    let text = path.as_str();
    LOGS.iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_belongs_with_its_database() {
        for (path, with) in [
            ("a/x.db", "a/x.db"),
            ("a/x.db-wal", "a/x.db"),
            ("a/x.db-shm", "a/x.db"),
            ("a/x.db-journal", "a/x.db"),
            ("a/x.duckdb.wal", "a/x.duckdb"),
            ("a/wal", "a/wal"),
        ] {
            assert_eq!(family(&DbPath::parse(path).unwrap()), with);
        }
    }
}
