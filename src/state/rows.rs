//! Local state as it survives a power cut: SQLite, in one transaction per commit, each synced before it is said to be done.
//!
//! In WAL mode a commit at `synchronous=FULL` syncs the log; at NORMAL it would not (rule 18). Every commit writes the
//! number it reaches, so none is without effect.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use crate::disk::point;

use super::change::{BaseEntry, Change, Content, NodeId, NodeRow};

const FORMAT: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE state(format INTEGER NOT NULL, committed INTEGER NOT NULL, next INTEGER NOT NULL, boot TEXT NOT NULL);
    CREATE TABLE nodes(id INTEGER PRIMARY KEY, row TEXT NOT NULL);
    CREATE TABLE contents(node INTEGER PRIMARY KEY, content TEXT NOT NULL);
    CREATE TABLE names(parent INTEGER NOT NULL, name BLOB NOT NULL, node INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;
    CREATE TABLE covers(path TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE xattrs(node INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY(node, name)) WITHOUT ROWID;
    CREATE TABLE locals(node INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, PRIMARY KEY(node, start)) WITHOUT ROWID;
    CREATE TABLE filled(node INTEGER NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL, PRIMARY KEY(node, start)) WITHOUT ROWID;
    CREATE TABLE synced(node INTEGER PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL);
    INSERT INTO state VALUES(1, 0, 2, '');
";

/// The tables.
#[derive(Debug)]
pub struct Rows {
    connection: Connection,
}

/// The tables could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct RowsError {
    #[source]
    error: rusqlite::Error,
    /// What the disk said.
    errno: Option<i32>,
}

impl RowsError {
    /// The disk's own number, if it was the disk.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl From<rusqlite::Error> for RowsError {
    fn from(error: rusqlite::Error) -> Self {
        let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        Self { error, errno: full.then_some(libc::ENOSPC) }
    }
}

/// Everything the tables say.
#[derive(Debug, Default)]
pub struct Stored {
    /// Journal records up to this number are in.
    pub committed: u64,
    /// Ids below this were given.
    pub next: u64,
    /// The boot in which the last commit was made.
    pub boot: String,
    /// All nodes.
    pub nodes: HashMap<NodeId, StoredNode>,
    /// All names: directory, name, node.
    pub names: Vec<(NodeId, Vec<u8>, NodeId)>,
    /// Entries of the remote that are not shown.
    pub covers: Vec<BaseEntry>,
}

/// What the tables say of one node.
#[derive(Debug)]
pub struct StoredNode {
    /// Its attributes.
    pub row: NodeRow,
    /// A file's bytes.
    pub content: Option<Content>,
    /// Its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Local ranges, of a file with a base: first byte, one past the last.
    pub locals: Vec<(u64, u64)>,
    /// Ranges that are here as the base has them.
    pub filled: Vec<(u64, u64)>,
    /// Bytes known to be on the disk and the file's own time then, of one without.
    pub synced: Option<(u64, i64)>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("state.sqlite")
}

/// Ids, sizes and offsets are below 2^63: file systems have no larger ones.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

impl Rows {
    /// Opens the tables in `dir`, made if they are not there.
    pub fn open(dir: &Path) -> Result<Self, RowsError> {
        let mut connection = Connection::open(path(dir))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Sorting and such need no files beside ours.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        let made = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        if made == 0 {
            let transaction = connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
            transaction.commit()?;
        }
        Ok(Self { connection })
    }

    /// Opens the tables in `dir` to look at them; nothing is changed, and a daemon may be writing.
    pub fn open_read_only(dir: &Path) -> Result<Self, RowsError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path(dir), flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Self { connection })
    }

    /// Reads everything, of one moment.
    pub fn load(&mut self) -> Result<Stored, RowsError> {
        let transaction = self.connection.transaction()?;
        Ok(read(&transaction)?)
    }

    /// The number that was reached last.
    pub fn committed(&self) -> Result<u64, RowsError> {
        let committed = self.connection.query_row("SELECT committed FROM state", [], |row| row.get(0))?;
        Ok(unsigned(committed))
    }

    /// Takes changes in, all or none; when this returns, they survive a power cut. `number`: that of the last journal record among
    /// them; `next`: ids below it were given.
    pub fn commit<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
        number: u64,
        next: u64,
        boot: &str,
    ) -> Result<(), RowsError> {
        self.take_in(changes, number, next, boot).map_err(|error| {
            let failed = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
            // SQLite has a code of its own for a full disk only, and none for a quota.
            // SAFETY: the connection is open as long as this is borrowed, and used by nobody else.
            let errno =
                failed.then(|| unsafe { rusqlite::ffi::sqlite3_system_errno(self.connection.handle()) });
            let known = RowsError::from(error);
            RowsError { errno: known.errno.or(errno.filter(|errno| *errno != 0)), ..known }
        })
    }

    fn take_in<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
        number: u64,
        next: u64,
        boot: &str,
    ) -> rusqlite::Result<()> {
        point().map_err(|error| match error.raw_os_error() {
            Some(libc::ENOSPC) => {
                rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None)
            }
            _ => rusqlite::Error::InvalidQuery,
        })?;
        let transaction = self.connection.transaction()?;
        for change in changes {
            apply(&transaction, change)?;
        }
        transaction
            .prepare_cached("UPDATE state SET committed = ?, next = ?, boot = ?")?
            .execute(params![signed(number), signed(next), boot])?;
        transaction.commit()
    }
}

fn read(transaction: &Transaction<'_>) -> rusqlite::Result<Stored> {
    let mut stored = transaction.query_row("SELECT committed, next, boot FROM state", [], |row| {
        let (committed, next) = (unsigned(row.get(0)?), unsigned(row.get(1)?));
        Ok(Stored { committed, next, boot: row.get(2)?, ..Stored::default() })
    })?;
    let mut select = transaction.prepare("SELECT id, row FROM nodes")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let id = NodeId(unsigned(row.get(0)?));
        let text = row.get_ref(1)?.as_str()?;
        let row = serde_json::from_str(text).map_err(corrupt)?;
        let node = StoredNode {
            row,
            content: None,
            xattrs: Vec::new(),
            locals: Vec::new(),
            filled: Vec::new(),
            synced: None,
        };
        stored.nodes.insert(id, node);
    }
    let mut select = transaction.prepare("SELECT node, content FROM contents")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(node) = stored.nodes.get_mut(&NodeId(unsigned(row.get(0)?))) {
            node.content = Some(serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(corrupt)?);
        }
    }
    let mut select = transaction.prepare("SELECT parent, name, node FROM names")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        stored.names.push((NodeId(unsigned(row.get(0)?)), row.get(1)?, NodeId(unsigned(row.get(2)?))));
    }
    let mut select = transaction.prepare("SELECT entry FROM covers")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        stored.covers.push(serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(corrupt)?);
    }
    let mut select = transaction.prepare("SELECT node, name, value FROM xattrs")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(node) = stored.nodes.get_mut(&NodeId(unsigned(row.get(0)?))) {
            node.xattrs.push((row.get(1)?, row.get(2)?));
        }
    }
    let mut select = transaction.prepare("SELECT node, start, end FROM locals")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(node) = stored.nodes.get_mut(&NodeId(unsigned(row.get(0)?))) {
            node.locals.push((unsigned(row.get(1)?), unsigned(row.get(2)?)));
        }
    }
    let mut select = transaction.prepare("SELECT node, start, end FROM filled")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(node) = stored.nodes.get_mut(&NodeId(unsigned(row.get(0)?))) {
            node.filled.push((unsigned(row.get(1)?), unsigned(row.get(2)?)));
        }
    }
    let mut select = transaction.prepare("SELECT node, size, changed FROM synced")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(node) = stored.nodes.get_mut(&NodeId(unsigned(row.get(0)?))) {
            node.synced = Some((unsigned(row.get(1)?), row.get(2)?));
        }
    }
    Ok(stored)
}

fn apply(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<()> {
        transaction.prepare_cached(sql)?.execute(values).map(|_| ())
    };
    match change {
        Change::Node(id, row) => {
            let id = signed(id.0);
            let text = serde_json::to_string(row).map_err(corrupt)?;
            run("INSERT OR REPLACE INTO nodes VALUES(?, ?)", &[&id, &text])
        }
        Change::Content(id, content) => {
            let id = signed(id.0);
            let text = serde_json::to_string(content).map_err(corrupt)?;
            run("INSERT OR REPLACE INTO contents VALUES(?, ?)", &[&id, &text])?;
            if !matches!(content, Content::Staged { under: Some(_), .. }) {
                run("DELETE FROM locals WHERE node = ?", &[&id])?;
                run("DELETE FROM filled WHERE node = ?", &[&id])?;
            }
            Ok(())
        }
        Change::NodeGone(id) => {
            let id = signed(id.0);
            run("DELETE FROM nodes WHERE id = ?", &[&id])?;
            run("DELETE FROM contents WHERE node = ?", &[&id])?;
            run("DELETE FROM xattrs WHERE node = ?", &[&id])?;
            run("DELETE FROM locals WHERE node = ?", &[&id])?;
            run("DELETE FROM filled WHERE node = ?", &[&id])?;
            run("DELETE FROM synced WHERE node = ?", &[&id])
        }
        Change::Name { parent, name, node } => {
            run("INSERT OR REPLACE INTO names VALUES(?, ?, ?)", &[&signed(parent.0), name, &signed(node.0)])
        }
        Change::NameGone { parent, name } => {
            run("DELETE FROM names WHERE parent = ? AND name = ?", &[&signed(parent.0), name])
        }
        Change::Cover(entry) => {
            let text = serde_json::to_string(entry).map_err(corrupt)?;
            run("INSERT OR REPLACE INTO covers VALUES(?, ?)", &[&entry.path.as_str(), &text])
        }
        Change::CoverGone(path) => run("DELETE FROM covers WHERE path = ?", &[&path.as_str()]),
        Change::Xattr { node, name, value } => {
            run("INSERT OR REPLACE INTO xattrs VALUES(?, ?, ?)", &[&signed(node.0), name, value])
        }
        Change::XattrGone { node, name } => {
            run("DELETE FROM xattrs WHERE node = ? AND name = ?", &[&signed(node.0), name])
        }
        Change::Local { node, start, end } => {
            let (node, start, end) = (signed(node.0), signed(*start), signed(*end));
            // One that begins at the same place may be longer. That the file is as long follows from the ranges.
            run(
                "INSERT INTO locals VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET end = max(end, excluded.end)",
                &[&node, &start, &end],
            )
        }
        Change::Filled { node, start, end } => run(
            "INSERT INTO filled VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET end = max(end, excluded.end)",
            &[&signed(node.0), &signed(*start), &signed(*end)],
        ),
        Change::Size { node, size } => {
            let (node, at) = (signed(node.0), signed(*size));
            run("DELETE FROM locals WHERE node = ? AND start >= ?", &[&node, &at])?;
            run("UPDATE locals SET end = ? WHERE node = ? AND end > ?", &[&at, &node, &at])?;
            run("DELETE FROM filled WHERE node = ? AND start >= ?", &[&node, &at])?;
            run("UPDATE filled SET end = ? WHERE node = ? AND end > ?", &[&at, &node, &at])?;
            cut_under(transaction, node, *size)
        }
        Change::Synced { node, size, changed } => run(
            "INSERT OR REPLACE INTO synced SELECT ?1, ?2, ?3 WHERE EXISTS(SELECT 1 FROM nodes WHERE id = ?1)",
            &[&signed(node.0), &signed(*size), changed],
        ),
    }
}

fn cut_under(transaction: &Transaction<'_>, node: i64, size: u64) -> rusqlite::Result<()> {
    let mut select = transaction.prepare_cached("SELECT content FROM contents WHERE node = ?")?;
    let Some(text) = select.query_row([node], |row| row.get::<_, String>(0)).optional()? else {
        return Ok(());
    };
    let mut content: Content = serde_json::from_str(&text).map_err(corrupt)?;
    let Content::Staged { under: Some(under), .. } = &mut content else { return Ok(()) };
    under.size = size;
    under.visible = under.visible.min(size);
    let text = serde_json::to_string(&content).map_err(corrupt)?;
    transaction
        .prepare_cached("UPDATE contents SET content = ? WHERE node = ?")?
        .execute(params![text, node])?;
    Ok(())
}
