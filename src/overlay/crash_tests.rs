//! The daemon dies at every moment between two changes on the disk, in every workload of one or two operations, and again
//! while it recovers: what was acknowledged is there, and what was not is there wholly or not at all, but for a
//! write, of which any bytes may be.

use std::path::Path;

use super::syncing::Durably;
use super::*;
use crate::disk::dying_at;
use crate::model::{ByteRange, ContentHash, DbPath, Sha256};
use crate::state::{BaseEntry, Change, Content, Kind, NodeId, NodeRow, Place, StagedId};

const NAMES: [&str; 2] = ["base", "whole"];

/// The content of the file that has a base.
fn base() -> Vec<u8> {
    (0..10_000_u32).map(|n| (n % 250 + 1) as u8).collect()
}

/// One operation on one of the two files.
#[derive(Debug, Clone, Copy)]
enum Op {
    Write(u64, u64),
    SetSize(u64),
    Hole(u64, u64),
    Zeros(u64, u64),
    /// As the base has them.
    Fill(u64, u64),
    Remove,
    /// By the other file, with its name.
    ReplaceByOther,
    Fsync,
}

const OPS: [Op; 13] = [
    Op::Write(100, 200),
    Op::Write(0, 10_000),
    Op::Write(9_990, 100),
    Op::Write(20_000, 10),
    Op::SetSize(0),
    Op::SetSize(5_000),
    Op::SetSize(15_000),
    Op::Hole(50, 6_000),
    Op::Zeros(9_000, 2_000),
    Op::Fill(0, 10_000),
    Op::Remove,
    Op::ReplaceByOther,
    Op::Fsync,
];

/// What the two names lead to.
type Files = [Option<Vec<u8>>; 2];

struct Life {
    overlay: std::sync::Arc<Overlay>,
    upper: Upper,
}

fn wake(dir: &Path) -> Result<Life, OverlayError> {
    let place = Place::new("http://test", &"a/b".parse().unwrap(), "id", "main");
    let (overlay, upper, _) = Overlay::open(place.take_at(dir.to_owned())?)?;
    Ok(Life { overlay, upper })
}

impl Life {
    fn node(&self, at: usize) -> Option<NodeId> {
        self.upper.child(NodeId::ROOT, NAMES[at].as_ref())
    }

    fn change(&mut self, changes: Vec<Change>) -> Result<(), OverlayError> {
        self.overlay.record(changes.clone())?;
        changes.iter().for_each(|change| self.upper.apply(change));
        Ok(())
    }

    /// A file of the remote's that is about to be changed, and a new one with some bytes.
    fn begin(dir: &Path) -> Self {
        let mut life = wake(dir).unwrap();
        let entry = BaseEntry {
            path: DbPath::parse(NAMES[0]).unwrap(),
            size: 10_000,
            hash: ContentHash::Sha256(Sha256::of(&base())),
            blocks: None,
            revision: None,
            modified: 0,
        };
        let row = NodeRow { kind: Kind::File, ..implied_directory() };
        let whole = life.overlay.new_file().unwrap();
        life.change(vec![Change::Cover(entry.clone())]).unwrap();
        for (name, content) in [(NAMES[0], Content::Base(entry)), (NAMES[1], whole)] {
            let id = life.overlay.new_node();
            let name = Change::Name { parent: NodeId::ROOT, name: name.into(), node: id };
            life.change(vec![Change::Node(id, row.clone()), Change::Content(id, content), name]).unwrap();
        }
        let file = life.file(1).unwrap();
        file.write(&life.overlay, 0, &[7; 8_000]).unwrap();
        life
    }

    fn file(&self, at: usize) -> Option<std::sync::Arc<LocalFile>> {
        self.upper.node(self.node(at)?)?.file.clone()
    }

    fn run(&mut self, at: usize, op: Op) -> Result<(), OverlayError> {
        let (Some(file), Some(id)) = (self.file(at), self.node(at)) else { return Ok(()) };
        let overlay = self.overlay.clone();
        let range = |start: u64, length: u64| ByteRange::new(start, start + length);
        match op {
            Op::Write(start, length) => file.write(&overlay, start, &vec![9; length as usize]),
            Op::SetSize(size) => file.set_size(&overlay, size),
            Op::Hole(start, length) => file.allocate(&overlay, range(start, length), Allocate::Hole),
            Op::Zeros(start, length) => {
                file.allocate(&overlay, range(start, length), Allocate::Zeros { keep_size: false })
            }
            Op::Fill(start, length) => file.fill(
                &overlay,
                file.staged().unwrap_or(StagedId(0)),
                start,
                &base()[start as usize..][..length as usize],
            ),
            Op::Remove => {
                let unnamed = Change::NameGone { parent: NodeId::ROOT, name: NAMES[at].into() };
                self.change(vec![unnamed])?;
                self.reap(id)
            }
            Op::ReplaceByOther => {
                let Some(other) = self.node(1 - at) else { return Ok(()) };
                let changes = vec![
                    Change::NameGone { parent: NodeId::ROOT, name: NAMES[1 - at].into() },
                    Change::Name { parent: NodeId::ROOT, name: NAMES[at].into(), node: other },
                ];
                let by = self.file(1 - at).unwrap();
                overlay.record_replacing(changes.clone(), [&*by])?;
                changes.iter().for_each(|change| self.upper.apply(change));
                self.reap(id)
            }
            Op::Fsync => {
                let (tell, told) = std::sync::mpsc::channel();
                let errno = |error: &OverlayError| std::io::Error::from_raw_os_error(error.errno());
                overlay.fsync(
                    &file,
                    Durably::Data,
                    Box::new(move |done| tell.send(done.map_err(errno)).unwrap()),
                );
                Ok(told.recv().unwrap()?)
            }
        }
    }

    fn reap(&mut self, id: NodeId) -> Result<(), OverlayError> {
        let staged = self.upper.node(id).and_then(|node| node.file.as_ref()?.staged());
        // It is swept at the next start if this fails.
        let gone = vec![Change::NodeGone(id)];
        if self.overlay.record_removing(gone.clone(), staged).is_ok() {
            self.upper.apply(&gone[0]);
        }
        Ok(())
    }

    fn read(&self) -> Files {
        [0, 1].map(|at| {
            let Some(file) = self.file(at) else {
                // Given back at a start, it is the remote's again.
                let is_shown = at == 0 && self.upper.cover(&DbPath::parse(NAMES[0]).unwrap()).is_none();
                return is_shown.then(base);
            };
            let size = file.state(&self.overlay).unwrap().size;
            let mut bytes = Vec::new();
            for piece in file.read(&self.overlay, ByteRange::new(0, size)).unwrap() {
                match piece {
                    Piece::Local(local) => bytes.extend_from_slice(&local),
                    Piece::Base(range) => {
                        bytes.extend_from_slice(&base()[range.start as usize..range.end as usize])
                    }
                }
            }
            assert_eq!(bytes.len() as u64, size, "nothing is missing in the middle");
            Some(bytes)
        })
    }
}

/// What an operation should do.
fn expected(files: &Files, at: usize, op: Op) -> Files {
    let mut after = files.clone();
    let Some(bytes) = &mut after[at] else { return after };
    let put = |bytes: &mut Vec<u8>, start: u64, length: u64, byte: u8, longer: bool| {
        let end = (start + length) as usize;
        if longer && bytes.len() < end {
            bytes.resize(end, 0);
        }
        let end = end.min(bytes.len());
        bytes[(start as usize).min(end)..end].fill(byte);
    };
    match op {
        Op::Write(start, length) => put(bytes, start, length, 9, true),
        Op::SetSize(size) => bytes.resize(size as usize, 0),
        Op::Hole(start, length) => put(bytes, start, length, 0, false),
        Op::Zeros(start, length) => put(bytes, start, length, 0, true),
        Op::Fill(..) | Op::Fsync => {}
        Op::Remove => after[at] = None,
        Op::ReplaceByOther => {
            if after[1 - at].is_some() {
                after[at] = after[1 - at].take();
            }
        }
    }
    after
}

/// Whether files are as they were, or as an operation that was not acknowledged makes them, or on the way where it writes.
fn is_between(found: &Files, before: &Files, after: &Files, op: Op) -> bool {
    if found == before || found == after {
        return true;
    }
    let writes = matches!(op, Op::Write(..) | Op::Hole(..) | Op::Zeros(..));
    writes
        && found.iter().zip(before.iter().zip(after)).all(|(found, (before, after))| {
            let (Some(found), Some(before), Some(after)) = (found, before, after) else {
                return found == before && found == after;
            };
            (before.len()..=after.len()).contains(&found.len())
                && found
                    .iter()
                    .enumerate()
                    .all(|(at, byte)| before.get(at) == Some(byte) || after.get(at) == Some(byte))
        })
}

/// Dies at a moment, perhaps again during recovery, and looks. `false`: it lived to the end.
fn dies(ops: &[(usize, Op)], moment: u32, again: Option<u32>) -> bool {
    // What dies is the process: a disk that is quick does as well.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let dir = place.path().join("state");
    let mut life = Life::begin(&dir);
    let mut before = life.read();
    let mut in_flight = None;
    let ((), died) = dying_at(moment, || {
        for (at, op) in ops {
            if life.run(*at, *op).is_err() {
                in_flight = Some((*at, *op));
                return;
            }
            before = expected(&before, *at, *op);
        }
    });
    drop(life);
    if let Some(again) = again {
        let _ = dying_at(again, || wake(&dir).map(drop));
    }
    let life =
        wake(&dir).unwrap_or_else(|error| panic!("{ops:?}, moment {moment}, again {again:?}: {error}"));
    let found = life.read();
    let (after, op) = match in_flight {
        Some((at, op)) => (expected(&before, at, op), op),
        None => (before.clone(), Op::Fsync),
    };
    let told = |files: &Files| {
        files
            .clone()
            .map(|file| file.map(|bytes| (bytes.len(), bytes.iter().map(|b| u64::from(*b)).sum::<u64>())))
    };
    assert!(
        is_between(&found, &before, &after, op),
        "{ops:?}, moment {moment}, again {again:?}, in flight {in_flight:?}: found {:?}, before {:?}, after {:?}",
        told(&found),
        told(&before),
        told(&after)
    );
    drop(life);
    assert_eq!(wake(&dir).unwrap().read(), found, "{ops:?}, moment {moment}: another start shows the same");
    died
}

#[test]
fn f08_every_moment_of_every_short_workload_may_be_the_daemons_last() {
    let mut deaths = 0;
    let each = || (0..2).flat_map(|at| OPS.map(|op| (at, op)));
    let mut workloads: Vec<Vec<(usize, Op)>> = each().map(|one| vec![one]).collect();
    workloads.extend(each().flat_map(|one| each().map(move |two| vec![one, two])));
    for (n, ops) in workloads.iter().enumerate() {
        for moment in 0.. {
            // Recovery has many moments; each workload tries another one.
            let again = (n + moment as usize) % 23;
            if !dies(ops, moment, (again < 12).then_some(again as u32)) {
                break;
            }
            deaths += 1;
        }
    }
    println!("{} workloads, {deaths} deaths", workloads.len());
    assert!(deaths > 1000, "{deaths}");
}
