//! Opening a replica's state: the tables, what the journal says beyond them, and what a death has left to be done.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::OverlayError;
use super::local_file::LocalFile;
use super::overlay::{Log, Overlay, Pending, implied_directory};
use super::staged::StagedFiles;
use super::upper::Upper;
use crate::state::{Boot, Change, Journal, NodeId, Rows, StagedId, StateDir};

/// What was found when the state was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Changes that had been acknowledged and not committed when the last daemon died.
    pub replayed: usize,
    /// Changes that had been acknowledged and not committed when the machine stopped, as far as it is known of them: they are
    /// lost.
    pub lost: usize,
    /// Files of which something was written and not synced before the machine stopped: it was given up.
    pub given_up: BTreeSet<NodeId>,
}

impl Recovered {
    /// What the journal of a boot that is over says beyond the tables cannot be relied on (rule 18), but it can be told.
    fn note_lost(&mut self, records: Vec<(u64, Vec<Change>)>, upper: &Upper) {
        for change in records.iter().flat_map(|(_, changes)| changes) {
            self.lost += 1;
            if let Change::Local { node, .. } | Change::Size { node, .. } | Change::Content(node, _) = change
                && upper.node(*node).is_some()
            {
                self.given_up.insert(*node);
            }
        }
    }
}

impl Overlay {
    /// Opens a replica's state.
    pub fn open(dir: StateDir) -> Result<(Arc<Self>, Upper, Recovered), OverlayError> {
        let boot = Boot::current()?;
        let staged = StagedFiles::below(dir.path())?;
        let mut rows = Rows::open(dir.path())?;
        let stored = rows.load()?;
        let last_boot = Boot::named(&stored.boot);
        let same_boot = stored.boot.is_empty() || last_boot == boot;
        let (committed, mut next) = (stored.committed, stored.next);
        let mut upper = Upper::load(stored);
        let records = Journal::read(dir.path(), &boot, committed)?;
        let number = records.last().map_or(committed, |(number, _)| *number);
        let mut changes: Vec<Change> = records.into_iter().flat_map(|(_, changes)| changes).collect();
        let mut recovered = Recovered { replayed: changes.len(), ..Recovered::default() };
        if !same_boot {
            recovered.note_lost(Journal::read(dir.path(), &last_boot, committed)?, &upper);
        }
        for change in &changes {
            upper.apply(change);
        }
        for (id, node) in upper.nodes() {
            let staged = node.file.as_ref().and_then(|file| file.staged()).map_or(0, |file| file.0);
            next = next.max(id.0 + 1).max(staged + 1);
        }
        let on_disk = staged.all()?;
        next = on_disk.iter().fold(next, |next, file| next.max(file.0 + 1));
        let overlay = Self {
            staged,
            next: AtomicU64::new(next),
            log: Mutex::new(Log {
                journal: None,
                pending: Pending { last: number + 1, turn: 1, ..Pending::default() },
            }),
            rows: Mutex::new(rows),
            committed: AtomicU64::new(0),
            waiting: Mutex::default(),
            dirty: Mutex::default(),
            syncing: Mutex::default(),
            failed: Mutex::default(),
            noted: Mutex::default(),
            measures: AtomicU64::new(0),
            fresh: Mutex::default(),
            dependent: Mutex::default(),
            committer: Mutex::default(),
            stirs: watch::channel(0).0,
            dir,
            boot,
        };
        if upper.node(NodeId::ROOT).is_none() {
            changes.push(Change::Node(NodeId::ROOT, implied_directory()));
        }
        // Nobody can have open what the last daemon had.
        let lost = upper.nodes().filter(|(id, node)| *id != NodeId::ROOT && node.names.is_empty());
        changes.extend(lost.map(|(id, _)| Change::NodeGone(id)));
        for change in changes.iter().skip(recovered.replayed) {
            upper.apply(change);
        }
        let files: Vec<Arc<LocalFile>> = upper.nodes().filter_map(|(_, node)| node.file.clone()).collect();
        // What follows may have to commit, and then all of it.
        overlay.log().pending.changes = changes;
        if same_boot {
            overlay.sync_all(&files);
        }
        for file in &files {
            // One that cannot be had is no reason to show none.
            let looked = if same_boot {
                file.finish(&overlay).map(|()| false)
            } else {
                file.give_up_what_was_not_synced(&overlay)
            };
            match looked {
                Ok(false) => {}
                Ok(true) => {
                    recovered.given_up.insert(file.node());
                }
                Err(error) => {
                    tracing::error!(%error, node = file.node().0, "a file with local bytes cannot be had")
                }
            }
        }
        if !same_boot {
            overlay.sync_all(&files);
        }
        overlay.log().pending.turn += 1;
        overlay.commit()?;
        let mut log = overlay.log();
        log.journal = Some(Journal::begin(overlay.dir.path(), &overlay.boot, log.pending.last)?);
        drop(log);
        let used: HashSet<StagedId> = files.iter().filter_map(|file| file.staged()).collect();
        for file in on_disk.into_iter().filter(|file| !used.contains(file)) {
            if let Err(error) = overlay.staged.remove(file) {
                tracing::warn!(%error, file = file.0, "a staged file that nobody needs is still there");
            }
        }
        overlay.dir.set_room_aside();
        for file in files.iter().filter(|file| file.missing(0).is_some()) {
            overlay.depends_on_remote(file.node());
        }
        Ok((Arc::new(overlay), upper, recovered))
    }
}
