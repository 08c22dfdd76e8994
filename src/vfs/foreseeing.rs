//! Tells [`Walks`] what is opened, and has what they foresee sent for: of the revision that is shown, in the directories
//! where the walk has been, files of the kind it reads.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::revisions::Shown;
use super::walks::{Lacks, Prospect, Walks};
use crate::fetch::{Fetcher, OpenContent, read_first};
use crate::model::{ContentHash, DbRef};
use crate::namespace::{FileOrder, Flip, Ino, NodeKind, Rank, Tree};

/// The files of a revision are put in line when so many were opened that lacked something: for a single one it is not
/// worth it.
const WORTH_AN_ORDER: usize = 3;

/// What was opened of the revision shown.
#[derive(Default)]
pub(super) struct Foreseeing(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    flip: Flip,
    /// Opened before there was an order.
    early: Vec<Ino>,
    order: Option<FileOrder>,
    walks: Walks,
}

impl Foreseeing {
    /// A file was opened; sends for what will be opened next.
    pub(super) fn opened(
        &self,
        database: &DbRef,
        shown: &Shown,
        ino: Ino,
        content: &OpenContent,
        fetcher: &Arc<Fetcher>,
    ) {
        let tree = &shown.tree.base;
        let lacks = if content.lacks_what_is_read_first() { Lacks::Something } else { Lacks::Nothing };
        let mut seen = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if seen.flip != tree.flip() {
            *seen = Seen { flip: tree.flip(), ..Seen::default() };
        }
        if seen.order.is_none() {
            if lacks == Lacks::Nothing {
                return;
            }
            if !seen.early.contains(&ino) {
                seen.early.push(ino);
            }
            if seen.early.len() < WORTH_AN_ORDER {
                return;
            }
        }
        let Seen { order, early, walks, .. } = &mut *seen;
        let order = order.get_or_insert_with(|| tree.in_order());
        let now = Instant::now();
        let mut keys = Vec::new();
        let last = if early.is_empty() { vec![ino] } else { std::mem::take(early) };
        for ino in last {
            let Some(rank) = tree.rank(order, ino) else { continue };
            let mut ahead = Ahead::of(tree, order, ino, fetcher.room_ahead());
            for next in walks.opened(rank, lacks, now, |from, next| ahead.look(from, next)) {
                let key = tree.ranked(order, next);
                let key = key.and_then(|next| shown.content_key(database, next, shown.revision));
                keys.extend(key);
            }
        }
        drop(seen);
        fetcher.foresee_opens(keys);
    }
}

/// What lies ahead of a file that was opened.
struct Ahead<'a> {
    tree: &'a Tree,
    order: &'a FileOrder,
    kind: &'a str,
    directories: Vec<Ino>,
    room: u64,
}

impl<'a> Ahead<'a> {
    fn of(tree: &'a Tree, order: &'a FileOrder, ino: Ino, room: u64) -> Self {
        Self { tree, order, kind: kind(tree, ino), directories: tree.directories(ino), room }
    }

    /// Whether the walk that came here `from` another file may open the `next`.
    fn look(&mut self, from: Rank, next: Rank) -> Prospect {
        let tree = self.tree;
        let ranked = |rank| tree.ranked(self.order, rank);
        let (Some(from), Some(next)) = (ranked(from), ranked(next)) else { return Prospect::End };
        let directories = tree.directories(next);
        // The deepest directory that all of the walk lies in.
        let both = self.directories.iter().zip(tree.directories(from)).take_while(|(a, b)| **a == *b).count();
        if !directories.starts_with(&self.directories[..both]) {
            return Prospect::End;
        }
        if directories.len() != self.directories.len() || kind(tree, next) != self.kind {
            return Prospect::Pass;
        }
        let Some(NodeKind::File { size, hash: ContentHash::Sha256(_), .. }) =
            tree.node(next).map(|node| &node.kind)
        else {
            return Prospect::Pass;
        };
        let first = tree.path(next).and_then(|path| read_first(&path, *size));
        let Some(first) = first else { return Prospect::Pass };
        match self.room.checked_sub(first.len()) {
            Some(left) => {
                self.room = left;
                Prospect::Worth
            }
            None => Prospect::End,
        }
    }
}

/// What a name ends with.
fn kind(tree: &Tree, ino: Ino) -> &str {
    tree.node(ino).and_then(|node| node.name().rsplit_once('.')).map_or("", |(_, kind)| kind)
}
