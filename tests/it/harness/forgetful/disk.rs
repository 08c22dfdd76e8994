//! The disk of a machine whose power may fail at any moment: what programs see, and beside it what a cut would leave.
//! A file's bytes and size last once that file is synced, a name lasts once the directory that holds it is synced, and
//! nothing else makes anything last.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags};

use super::lasting::{Chance, Change, Content, Names, PAGE, Step, Tearing};

/// The topmost directory.
pub const ROOT: u64 = 1;
/// No test has a larger file: an offset beyond it is a mistake, and would fill the memory.
const LARGEST: u64 = 1 << 30;
const LONGEST_NAME: usize = 255;

/// What a call gives.
pub type Answer<T> = Result<T, Errno>;

/// What was lost in all cuts so far, of what still had a name when it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes of size, and pages of writes.
    pub lost_writes: u64,
    /// Changes of names; a rename between two directories is one in each.
    pub lost_names: u64,
    /// Syncs of files and directories that programs asked for.
    pub syncs: u64,
}

/// All inodes of a disk.
#[derive(Debug)]
pub struct Disk {
    /// In an order, so that chance meets them in the same each time.
    nodes: BTreeMap<u64, Node>,
    next: u64,
    chance: Chance,
    counts: Counts,
    /// Nobody may have more than he has.
    quota_is_reached: bool,
}

/// An inode. What its name would be lasts with the name: its kind, a link's target, and the mode it was created with.
#[derive(Debug)]
struct Node {
    attr: FileAttr,
    lasting: FileAttr,
    /// Names that last or are pending, and lookups of the kernel's: without any, nobody can ask for it any more.
    holds: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    File(Content),
    Directory(Names),
    Symlink(OsString),
}

/// A name in a directory.
type Place<'a> = (u64, &'a OsStr);

/// One line of a listing.
#[derive(Debug)]
pub struct Entry {
    pub ino: u64,
    pub kind: FileType,
    pub name: OsString,
}

impl Disk {
    /// An empty disk that belongs to somebody.
    pub fn new(tearing: Tearing, uid: u32, gid: u32) -> Self {
        let attr = attr_of(ROOT, FileType::Directory, 0o755, uid, gid);
        let root = Node { attr, lasting: attr, holds: 1, body: Body::Directory(Names::default()) };
        let chance = Chance::new(tearing);
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            chance,
            counts: Counts::default(),
            quota_is_reached: false,
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn inodes(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub fn look_up(&self, (dir, name): Place<'_>) -> Answer<u64> {
        if name.len() > LONGEST_NAME {
            return Err(Errno::ENAMETOOLONG);
        }
        self.names(dir)?.seen().get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn attr(&self, ino: u64) -> Answer<FileAttr> {
        let node = self.node(ino)?;
        let size = match &node.body {
            Body::File(content) => content.seen().len(),
            Body::Directory(names) => names.seen().len(),
            Body::Symlink(target) => target.len(),
        } as u64;
        Ok(FileAttr { size, blocks: size.div_ceil(512), ..node.attr })
    }

    /// Changes mode, owner or times.
    pub fn describe(&mut self, ino: u64, change: impl FnOnce(&mut FileAttr)) -> Answer<()> {
        let attr = &mut self.node_mut(ino)?.attr;
        attr.ctime = SystemTime::now();
        change(attr);
        Ok(())
    }

    pub fn list(&self, dir: u64) -> Answer<Vec<Entry>> {
        let entry = |(name, ino): (&OsString, &u64)| {
            Ok(Entry { ino: *ino, kind: self.node(*ino)?.attr.kind, name: name.clone() })
        };
        self.names(dir)?.seen().iter().map(entry).collect()
    }

    pub fn target(&self, ino: u64) -> Answer<&OsStr> {
        match &self.node(ino)?.body {
            Body::Symlink(target) => Ok(target),
            _ => Err(Errno::EINVAL),
        }
    }

    pub fn read(&self, ino: u64, offset: u64, size: usize) -> Answer<&[u8]> {
        let Body::File(content) = &self.node(ino)?.body else { return Err(Errno::EISDIR) };
        let bytes = content.seen().get(within(offset)?..).unwrap_or_default();
        Ok(&bytes[..size.min(bytes.len())])
    }

    pub fn write(&mut self, ino: u64, offset: u64, bytes: &[u8]) -> Answer<()> {
        let end = within(offset.saturating_add(bytes.len() as u64))? as u64;
        if self.quota_is_reached && end > self.attr(ino)?.size {
            return Err(Errno::from_i32(libc::EDQUOT));
        }
        self.alter(ino, Change::Bytes(within(offset)?, bytes.to_vec()))
    }

    /// From now on no write makes a file longer, or any does again.
    pub fn reach_quota(&mut self, reached: bool) {
        self.quota_is_reached = reached;
    }

    pub fn resize(&mut self, ino: u64, size: u64) -> Answer<()> {
        self.alter(ino, Change::Size(within(size)?))
    }

    pub fn create_file(&mut self, place: Place<'_>, mode: u32, owner: (u32, u32)) -> Answer<u64> {
        self.create(place, FileType::RegularFile, Body::File(Content::default()), mode, owner)
    }

    pub fn create_directory(&mut self, place: Place<'_>, mode: u32, owner: (u32, u32)) -> Answer<u64> {
        self.create(place, FileType::Directory, Body::Directory(Names::default()), mode, owner)
    }

    pub fn create_symlink(&mut self, place: Place<'_>, target: &OsStr, owner: (u32, u32)) -> Answer<u64> {
        self.create(place, FileType::Symlink, Body::Symlink(target.to_owned()), 0o777, owner)
    }

    pub fn link(&mut self, ino: u64, to: Place<'_>) -> Answer<()> {
        self.expect_nothing(to)?;
        self.enact(to.0, vec![(to.1.to_owned(), Some(ino))])
    }

    /// Takes a name away: of a file, or of an empty directory. Which is meant the kernel has looked after.
    pub fn remove(&mut self, place: Place<'_>) -> Answer<()> {
        let ino = self.look_up(place)?;
        self.expect_empty(ino)?;
        self.enact(place.0, vec![(place.1.to_owned(), None)])
    }

    pub fn rename(&mut self, from: Place<'_>, to: Place<'_>, how: RenameFlags) -> Answer<()> {
        let moved = self.look_up(from)?;
        let mut back = None;
        if how == RenameFlags::RENAME_EXCHANGE {
            back = Some(self.look_up(to)?);
        } else if how == RenameFlags::RENAME_NOREPLACE {
            self.expect_nothing(to)?;
        } else if !how.is_empty() {
            return Err(Errno::EINVAL);
        } else if let Ok(replaced) = self.look_up(to) {
            if replaced == moved {
                return Ok(());
            }
            self.expect_empty(replaced)?;
        }
        let there = (to.1.to_owned(), Some(moved));
        let here = (from.1.to_owned(), back);
        if from.0 == to.0 {
            return self.enact(to.0, vec![there, here]);
        }
        self.enact(to.0, vec![there])?;
        self.enact(from.0, vec![here])
    }

    /// Makes a file's bytes or a directory's names last; with `attributes`, mode, owner and times too.
    pub fn sync(&mut self, ino: u64, attributes: bool) -> Answer<()> {
        let node = self.node_mut(ino)?;
        if attributes {
            node.lasting = node.attr;
        }
        let gone = match &mut node.body {
            Body::File(content) => {
                content.sync();
                Vec::new()
            }
            Body::Directory(names) => names.sync(),
            Body::Symlink(_) => Vec::new(),
        };
        for ino in gone {
            self.let_go(ino, 1);
        }
        self.counts.syncs += 1;
        Ok(())
    }

    /// The kernel is told of an inode, and may ask for it until it lets it go.
    pub fn enter(&mut self, ino: u64) -> Answer<FileAttr> {
        self.node_mut(ino)?.holds += 1;
        self.attr(ino)
    }

    /// So many who held an inode do so no more.
    pub fn let_go(&mut self, ino: u64, holds: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.holds = node.holds.saturating_sub(holds);
        if node.holds > 0 {
            return;
        }
        if let Some(Node { body: Body::Directory(names), .. }) = self.nodes.remove(&ino) {
            for child in names.held() {
                self.let_go(child, 1);
            }
        }
    }

    /// The power fails: what is left of the disk.
    pub fn cut(mut self) -> Self {
        for node in self.nodes.values_mut() {
            let named = node.attr.nlink > 0;
            let (writes, names) = node.cut(&mut self.chance);
            if named {
                self.counts.lost_writes += writes;
                self.counts.lost_names += names;
            }
        }
        self.keep_reachable();
        self
    }

    /// Drops all that no lasting name leads to, and counts the names of the rest.
    fn keep_reachable(&mut self) {
        let mut unreached = std::mem::take(&mut self.nodes);
        let mut directories = vec![ROOT];
        self.nodes.extend(unreached.remove_entry(&ROOT));
        while let Some(dir) = directories.pop() {
            let Ok(names) = self.names_mut(dir) else { continue };
            let mut names = std::mem::take(names);
            names.retain(|ino| {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    // Moved, and synced on one side only. A check of the disk leaves a directory one name.
                    let keep = node.attr.kind != FileType::Directory;
                    node.attr.nlink += u32::from(keep);
                    node.holds += u64::from(keep);
                    return keep;
                }
                if unreached.get(&ino).is_some_and(|node| node.attr.kind == FileType::Directory) {
                    directories.push(ino);
                }
                self.nodes.extend(unreached.remove_entry(&ino));
                true
            });
            if let Ok(kept) = self.names_mut(dir) {
                *kept = names;
            }
        }
    }

    fn create(
        &mut self,
        place: Place<'_>,
        kind: FileType,
        body: Body,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Answer<u64> {
        self.expect_nothing(place)?;
        let ino = self.next;
        self.next += 1;
        let attr = FileAttr { nlink: 0, ..attr_of(ino, kind, mode, uid, gid) };
        self.nodes.insert(ino, Node { attr, lasting: attr, holds: 0, body });
        self.enact(place.0, vec![(place.1.to_owned(), Some(ino))])?;
        Ok(ino)
    }

    /// Changes names, for now.
    fn enact(&mut self, dir: u64, step: Step) -> Answer<()> {
        let names = self.names_mut(dir)?;
        let come: Vec<u64> = step.iter().filter_map(|(_, ino)| *ino).collect();
        let gone = names.change(step);
        for ino in come {
            let node = self.node_mut(ino)?;
            node.attr.nlink += 1;
            node.holds += 1;
        }
        for ino in gone {
            self.node_mut(ino)?.attr.nlink -= 1;
        }
        self.describe(dir, |attr| attr.mtime = attr.ctime)
    }

    /// Changes bytes, for now.
    fn alter(&mut self, ino: u64, change: Change<Vec<u8>>) -> Answer<()> {
        let Body::File(content) = &mut self.node_mut(ino)?.body else { return Err(Errno::EISDIR) };
        content.change(change);
        self.describe(ino, |attr| attr.mtime = attr.ctime)
    }

    fn expect_nothing(&self, place: Place<'_>) -> Answer<()> {
        match self.look_up(place) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn expect_empty(&self, ino: u64) -> Answer<()> {
        match &self.node(ino)?.body {
            Body::Directory(names) if !names.seen().is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn node(&self, ino: u64) -> Answer<&Node> {
        self.nodes.get(&ino).ok_or(Errno::ESTALE)
    }

    fn node_mut(&mut self, ino: u64) -> Answer<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    fn names(&self, ino: u64) -> Answer<&Names> {
        match &self.node(ino)?.body {
            Body::Directory(names) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, ino: u64) -> Answer<&mut Names> {
        match &mut self.node_mut(ino)?.body {
            Body::Directory(names) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }
}

impl Node {
    /// Goes back to what lasts; how many writes and changes of names are lost by that.
    fn cut(&mut self, chance: &mut Chance) -> (u64, u64) {
        // The name by which it is reached again.
        self.attr = FileAttr { nlink: 1, ..self.lasting };
        self.holds = 1;
        match &mut self.body {
            Body::File(content) => (content.cut(chance), 0),
            Body::Directory(names) => (0, names.cut(chance)),
            Body::Symlink(_) => (0, 0),
        }
    }
}

fn within(offset: u64) -> Answer<usize> {
    if offset <= LARGEST { Ok(offset as usize) } else { Err(Errno::EFBIG) }
}

fn attr_of(ino: u64, kind: FileType, mode: u32, uid: u32, gid: u32) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm: (mode & 0o7777) as u16,
        // A directory's is no count of its subdirectories, which 1 says.
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: PAGE as u32,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what each line says, as programs would.
    fn run(disk: &mut Disk, script: &str) {
        for line in script.split("; ").filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            let place = |n: usize| -> Place<'_> { find(disk, words[n]) };
            let done = match words[0] {
                "create" => disk.create_file(place(1), 0o600, (1, 2)).map(drop),
                "mkdir" => disk.create_directory(place(1), 0o700, (1, 2)).map(drop),
                "symlink" => disk.create_symlink(place(1), OsStr::new(words[2]), (1, 2)).map(drop),
                "write" => disk.write(inode(disk, words[1]), 0, words[2].as_bytes()),
                "append" => {
                    let ino = inode(disk, words[1]);
                    disk.write(ino, disk.attr(ino).unwrap().size, words[2].as_bytes())
                }
                "resize" => disk.resize(inode(disk, words[1]), words[2].parse().unwrap()),
                "chmod" => disk.describe(inode(disk, words[1]), |attr| attr.perm = words[2].parse().unwrap()),
                "sync" => disk.sync(inode(disk, words[1]), true),
                "datasync" => disk.sync(inode(disk, words[1]), false),
                "link" => disk.link(inode(disk, words[1]), place(2)),
                "remove" => disk.remove(place(1)),
                "rename" => disk.rename(place(1), place(2), RenameFlags::empty()),
                "exchange" => disk.rename(place(1), place(2), RenameFlags::RENAME_EXCHANGE),
                _ => panic!("{line}"),
            };
            assert_eq!(done, Ok(()), "{line} in {script}");
        }
    }

    fn find<'a>(disk: &Disk, path: &'a str) -> Place<'a> {
        let (above, name) = path.rsplit_once('/').unwrap_or((".", path));
        (inode(disk, above), OsStr::new(name))
    }

    fn inode(disk: &Disk, path: &str) -> u64 {
        if path == "." { ROOT } else { disk.look_up(find(disk, path)).unwrap() }
    }

    /// All there is: directories as `name/`, files as `name=bytes`, links as `name>target`.
    fn show(disk: &Disk) -> String {
        let mut lines = Vec::new();
        let mut directories = vec![(ROOT, String::new())];
        while let Some((dir, prefix)) = directories.pop() {
            for Entry { ino, kind, name } in disk.list(dir).unwrap() {
                let path = format!("{prefix}{}", name.to_str().unwrap());
                let bytes = |ino| String::from_utf8(disk.read(ino, 0, 100).unwrap().to_vec()).unwrap();
                lines.push(match kind {
                    FileType::Directory => {
                        directories.push((ino, format!("{path}/")));
                        format!("{path}/")
                    }
                    FileType::Symlink => format!("{path}>{}", disk.target(ino).unwrap().to_str().unwrap()),
                    _ => format!("{path}={}", bytes(ino)),
                });
            }
        }
        lines.sort();
        lines.join(" ")
    }

    fn disk() -> Disk {
        Disk::new(Tearing::All, 0, 0)
    }

    /// A file that lasts, in a directory that lasts.
    const FILE: &str = "mkdir d; sync .; create d/f; write d/f one; sync d/f; sync d; ";

    #[test]
    fn what_lasts_is_what_was_synced() {
        for (script, left) in [
            ("create a; write a one; sync a; sync .", "a=one"),
            ("create a; write a one; datasync a; sync .", "a=one"),
            ("create a; write a one; sync .", "a="),
            ("create a; write a one; sync a", ""),
            ("create a; sync .; write a one; sync a", "a=one"),
            ("create a; write a one; sync a; sync .; write a two", "a=one"),
            ("create a; write a one; sync a; sync .; append a two; sync a; append a six", "a=onetwo"),
            ("create a; write a one; sync a; sync .; resize a 1", "a=one"),
            ("create a; write a one; sync a; sync .; resize a 1; sync a", "a=o"),
            ("create a; write a one; sync a; sync .; resize a 0; write a t; resize a 2; sync a", "a=t\0"),
            ("mkdir d; create d/f; write d/f one; sync d/f; sync d", ""),
            ("mkdir d; create d/f; write d/f one; sync d/f; sync .", "d/"),
            ("symlink l there", ""),
            ("symlink l there; sync .", "l>there"),
        ] {
            let mut disk = disk();
            run(&mut disk, script);
            assert_eq!(show(&disk.cut()), left, "{script}");
        }
    }

    #[test]
    fn each_directory_has_its_side_of_a_change() {
        for (script, left) in [
            ("rename d/f d/g", "d/ d/f=one"),
            ("rename d/f d/g; sync d", "d/ d/g=one"),
            ("rename d/f g", "d/ d/f=one"),
            ("rename d/f g; sync .", "d/ d/f=one g=one"),
            ("rename d/f g; sync d", "d/"),
            ("rename d/f g; sync d; sync .", "d/ g=one"),
            ("remove d/f", "d/ d/f=one"),
            ("remove d/f; sync d", "d/"),
            ("remove d/f; create d/f; write d/f two; sync d/f", "d/ d/f=one"),
            ("create t; write t two; sync t; rename t d/f; sync d", "d/ d/f=two"),
            ("create t; write t two; rename t d/f; sync d", "d/ d/f="),
            (
                "create d/t; write d/t two; sync d/t; link d/t d/g; sync d; remove d/t",
                "d/ d/f=one d/g=two d/t=two",
            ),
            ("create d/t; write d/t two; sync d/t; link d/t d/g; remove d/t; sync d", "d/ d/f=one d/g=two"),
            ("link d/f g; sync .; remove d/f; sync d; append g two; sync g", "d/ g=onetwo"),
            ("create d/t; write d/t two; sync d/t; exchange d/f d/t", "d/ d/f=one"),
            ("create d/t; write d/t two; sync d/t; exchange d/f d/t; sync d", "d/ d/f=two d/t=one"),
            ("remove d/f; remove d", "d/ d/f=one"),
            ("remove d/f; remove d; sync .", ""),
            ("rename d e; sync .", "e/ e/f=one"),
            ("mkdir e; sync .; rename d e/d; sync .", "e/"),
            ("mkdir e; sync .; rename d e/d; sync e; sync .", "e/ e/d/ e/d/f=one"),
            ("mkdir e; sync .; rename d e/d; sync e", "d/ d/f=one e/"),
        ] {
            let mut disk = disk();
            run(&mut disk, &format!("{FILE}{script}"));
            let disk = disk.cut();
            assert_eq!(show(&disk), left, "{script}");
            assert_eq!(show(&disk.cut()), left, "nothing more is lost: {script}");
        }
    }

    #[test]
    fn a_mode_lasts_with_the_name_or_by_a_sync() {
        for (script, mode) in
            [("chmod d/f 7", 0o600), ("chmod d/f 7; datasync d/f", 0o600), ("chmod d/f 7; sync d/f", 7)]
        {
            let mut disk = disk();
            run(&mut disk, &format!("{FILE}{script}"));
            let disk = disk.cut();
            let attr = disk.attr(inode(&disk, "d/f")).unwrap();
            assert_eq!((attr.perm, attr.uid, attr.gid, attr.nlink), (mode, 1, 2, 1), "{script}");
        }
    }

    #[test]
    fn what_is_lost_is_counted() {
        let mut disk = disk();
        run(
            &mut disk,
            &format!("{FILE}append d/f two; resize d/f 2; create t; write t x; remove t; rename d/f g"),
        );
        let disk = disk.cut();
        // The temporary file is nobody's loss; its name came and went, and that of the other in two directories.
        assert_eq!(disk.counts(), Counts { lost_writes: 2, lost_names: 4, syncs: 3 });
        assert_eq!(disk.cut().counts(), Counts { lost_writes: 2, lost_names: 4, syncs: 3 });
    }

    #[test]
    fn names_are_refused_as_everywhere() {
        let mut disk = disk();
        run(&mut disk, &format!("{FILE}create t"));
        let (d, f, t) = (find(&disk, "d"), find(&disk, "d/f"), find(&disk, "t"));
        assert_eq!(disk.create_file(t, 0o600, (0, 0)), Err(Errno::EEXIST));
        assert_eq!(disk.link(inode(&disk, "t"), f), Err(Errno::EEXIST));
        assert_eq!(disk.remove(d), Err(Errno::ENOTEMPTY));
        assert_eq!(disk.rename(t, f, RenameFlags::RENAME_NOREPLACE), Err(Errno::EEXIST));
        assert_eq!(disk.rename(t, (ROOT, OsStr::new("x")), RenameFlags::RENAME_EXCHANGE), Err(Errno::ENOENT));
        assert_eq!(disk.look_up((ROOT, OsStr::new(&"x".repeat(256)))), Err(Errno::ENAMETOOLONG));
        assert_eq!(disk.write(inode(&disk, "t"), LARGEST, b"x"), Err(Errno::EFBIG));
        assert_eq!(disk.read(inode(&disk, "t"), LARGEST - 1, 7), Ok(&b""[..]));
    }

    #[test]
    fn what_nobody_can_ask_for_is_freed() {
        let mut disk = disk();
        run(&mut disk, "mkdir d; create d/f; create t; write t x; remove t");
        let opened = inode(&disk, "d/f");
        disk.enter(opened).unwrap();
        run(&mut disk, "sync d; sync .; remove d/f; remove d");
        assert_eq!(disk.inodes().len(), 3, "a cut would bring them back");
        run(&mut disk, "sync .");
        assert_eq!(disk.inodes(), [ROOT, opened], "somebody may have it open");
        disk.let_go(opened, 1);
        assert_eq!(disk.inodes(), [ROOT]);
    }
}
