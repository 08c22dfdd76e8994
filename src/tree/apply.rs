//! Changing one file of a directory: staged beside the others, then put in place by a rename that loses nothing
//! somebody else wrote meanwhile (rule 23).

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::aside::Aside;
use super::root::{CreateDirs, RESOLVE, stamp_at};
use super::staged::Fate;
use super::{Durability, Root, Staged};
use crate::disk::{is_being_written, point};
use crate::model::DbPath;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is done, durably.
    Done,
    /// The file is not what the plan saw, or something else stands there: nothing was changed.
    Overtaken,
}

impl Root {
    /// Puts a sealed content, durable by now, at `path`, where nothing stands.
    pub fn place(&self, mut staged: Staged, path: &DbPath, durability: Durability) -> io::Result<Applied> {
        let Some(parent) = self.parent_to_fill(path)? else { return Ok(Applied::Overtaken) };
        let put = || {
            let no = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&staged.dir, &staged.name, &parent, path.name(), no)
        };
        let placed = match put() {
            // A directory with nothing in it is in nobody's way.
            Err(Errno::EXIST) if remove_empty(&parent, path.name())? => put(),
            placed => placed,
        };
        match placed {
            Ok(()) => staged.fate = Fate::Stays,
            Err(Errno::EXIST) => return Ok(Applied::Overtaken),
            Err(error) => return Err(error.into()),
        }
        if durability == Durability::Now {
            rustix::fs::fsync(&parent)?;
        }
        Ok(Applied::Done)
    }

    /// Puts a sealed content, durable by now, in the place of a file, if that is what it is believed to be. What it is has
    /// been written down by [`Root::note_asides`].
    pub fn replace(&self, mut staged: Staged, aside: &Aside, durability: Durability) -> io::Result<Applied> {
        let Some(parent) = self.parent_to_fill(&aside.path)? else { return Ok(Applied::Overtaken) };
        let name = aside.path.name();
        // From here on the staged name may hold somebody's version: it gets the name that was written down.
        point()?;
        rustix::fs::renameat(&*staged.dir, &staged.name, &*staged.dir, &aside.name)?;
        staged.name.clone_from(&aside.name);
        staged.fate = Fate::Removed;
        let dir = staged.dir.clone();
        let exchange = || rustix::fs::renameat_with(&*dir, &aside.name, &parent, name, RenameFlags::EXCHANGE);
        let ours = stamp_at(&*dir, &aside.name)?;
        let Some(before) = stamp_at(&parent, name)? else { return Ok(Applied::Overtaken) };
        if !before.same_bytes(&aside.believed.stamp) {
            return Ok(Applied::Overtaken);
        }
        point()?;
        match exchange() {
            Ok(()) => staged.fate = Fate::Stays,
            Err(Errno::NOENT) => return Ok(Applied::Overtaken),
            Err(error) => return Err(error.into()),
        }
        point()?;
        // Whatever stood there is in our hands now: if it is not what it was believed to be, it goes back.
        if !self.is_as_believed(aside, Some(before))? {
            exchange()?;
            point()?;
            // What came out must be ours again, and as it was: it may be that somebody has put another file there in between,
            // or written to ours. It stays aside, and is written down.
            let out = stamp_at(&*dir, &aside.name)?;
            let is_ours = out.zip(ours).is_some_and(|(out, ours)| out.same_bytes(&ours));
            if is_ours && !is_being_written(&self.open_aside(aside)?) {
                staged.fate = Fate::Removed;
            }
            return Ok(Applied::Overtaken);
        }
        point()?;
        rustix::fs::unlinkat(&*dir, &aside.name, AtFlags::empty())?;
        if durability == Durability::Now {
            rustix::fs::fsync(&parent)?;
        }
        Ok(Applied::Done)
    }

    /// The directory for a file that is to be put at `path`, made where it is missing; none where something else stands in
    /// its place.
    fn parent_to_fill(&self, path: &DbPath) -> io::Result<Option<OwnedFd>> {
        match self.parent(path, CreateDirs::Yes) {
            Ok(parent) => Ok(Some(parent)),
            // A file, or a link, stands where a directory would have to be.
            Err(error) if is_obstacle(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a file, if it is what it is believed to be, and directories that become empty. What it is has been written down
    /// by [`Root::note_asides`].
    pub fn remove(&self, aside: &Aside, durability: Durability) -> io::Result<Applied> {
        let gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        let (path, keep) = (&aside.path, self.incoming()?);
        let parent = match self.parent(path, CreateDirs::No) {
            Err(error) if gone(&error) => return Ok(Applied::Done),
            parent => parent?,
        };
        let Some(before) = stamp_at(&parent, path.name())? else { return Ok(Applied::Done) };
        if !before.same_bytes(&aside.believed.stamp) {
            return Ok(Applied::Overtaken);
        }
        point()?;
        // Moved aside first, so that what is deleted is what was looked at.
        match rustix::fs::renameat_with(&parent, path.name(), &*keep, &aside.name, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Applied::Done),
            Err(error) => return Err(error.into()),
        }
        point()?;
        if !self.is_as_believed(aside, Some(before))? {
            let no = RenameFlags::NOREPLACE;
            return match rustix::fs::renameat_with(&*keep, &aside.name, &parent, path.name(), no) {
                // Where something new stands there, it stays aside, and is written down.
                Ok(()) | Err(Errno::EXIST) => Ok(Applied::Overtaken),
                Err(error) => Err(error.into()),
            };
        }
        point()?;
        rustix::fs::unlinkat(&*keep, &aside.name, AtFlags::empty())?;
        if durability == Durability::Now {
            rustix::fs::fsync(&parent)?;
        }
        self.remove_empty_above(path)?;
        Ok(Applied::Done)
    }

    /// Removes the directories above `path` that have nothing in them.
    pub(super) fn remove_empty_above(&self, path: &DbPath) -> io::Result<()> {
        let components: Vec<&str> = path.components().collect();
        for depth in (1..components.len()).rev() {
            let above = self.directory(&components[..depth - 1], CreateDirs::No)?;
            if rustix::fs::unlinkat(&above, components[depth - 1], AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Removes a directory, if there is nothing below it but directories. Says whether it did.
fn remove_empty(parent: &OwnedFd, name: &str) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = match rustix::fs::openat2(parent, name, flags, Mode::empty(), RESOLVE) {
        Ok(dir) => dir,
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let Ok(below) = entry.file_name().to_str() else { return Ok(false) };
        if below != "." && below != ".." && !remove_empty(&dir, below)? {
            return Ok(false);
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).is_ok())
}

fn is_obstacle(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::EEXIST | libc::ELOOP | libc::EXDEV))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;
    use crate::model::{ContentHash, Sha256};
    use crate::tree::{Believed, Stamp};

    fn staged(root: &Root, text: &str) -> Staged {
        let mut staged = root.stage().unwrap();
        staged.write(text.as_bytes()).unwrap();
        staged.seal(Some("2020-01-01T00:00:00.5Z".parse().unwrap()), Durability::Now).unwrap();
        staged
    }

    fn stamp(root: &Root, path: &DbPath) -> Stamp {
        match root.occupant(path).unwrap() {
            crate::tree::Occupant::File(stamp) => stamp,
            other => panic!("{other:?}"),
        }
    }

    fn path(text: &str) -> DbPath {
        DbPath::parse(text).unwrap()
    }

    fn hash(text: &str) -> ContentHash {
        ContentHash::Sha256(Sha256::of(text.as_bytes()))
    }

    fn believed(root: &Root, path: &DbPath, text: &str) -> Believed {
        Believed { stamp: stamp(root, path), hash: Some(hash(text)), shows: true }
    }

    fn replace(root: &Root, path: &DbPath, believed: Believed, text: &str) -> io::Result<Applied> {
        let staged = staged(root, text);
        let aside = Aside::replaced(path.clone(), believed, staged.inode(), hash(text));
        root.note_asides(std::slice::from_ref(&aside))?;
        root.replace(staged, &aside, Durability::Now)
    }

    fn remove(root: &Root, path: &DbPath, believed: Believed) -> io::Result<Applied> {
        let aside = Aside::removed(path.clone(), believed);
        root.note_asides(std::slice::from_ref(&aside))?;
        root.remove(&aside, Durability::Later)
    }

    fn left_aside(dir: &std::path::Path) -> usize {
        fs::read_dir(dir.join(".parquedb/incoming")).unwrap().count()
    }

    #[test]
    fn rule_23_an_edit_made_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let at = dir.path().join("d/f");
        let f = path("d/f");
        assert_eq!(root.place(staged(&root, "one"), &f, Durability::Now).unwrap(), Applied::Done);
        assert_eq!(stamp(&root, &f).modified().to_string(), "2020-01-01T00:00:00.5Z");
        let placed = root.place(staged(&root, "two"), &f, Durability::Now).unwrap();
        assert_eq!(placed, Applied::Overtaken, "something is there");
        let one = believed(&root, &f, "one");
        fs::write(&at, "mine").unwrap();
        assert_eq!(replace(&root, &f, one, "two").unwrap(), Applied::Overtaken);
        assert_eq!(remove(&root, &f, one).unwrap(), Applied::Overtaken);
        assert_eq!(fs::read_to_string(&at).unwrap(), "mine");
        assert_eq!(replace(&root, &f, believed(&root, &f, "mine"), "two").unwrap(), Applied::Done);
        assert_eq!(fs::read_to_string(&at).unwrap(), "two");
        assert_eq!(remove(&root, &f, believed(&root, &f, "two")).unwrap(), Applied::Done);
        assert!(!dir.path().join("d").exists(), "an empty directory goes with its last file");
        assert_eq!(remove(&root, &f, one).unwrap(), Applied::Done, "it is gone already");
        assert_eq!(left_aside(dir.path()), 0, "nothing staged stays");
    }

    /// Writes "MINE" over "once", so that neither size nor time tells.
    fn edit_unseen(at: &std::path::Path) {
        let modified = fs::metadata(at).unwrap().modified().unwrap();
        fs::write(at, "MINE").unwrap();
        File::options().write(true).open(at).unwrap().set_modified(modified).unwrap();
    }

    #[test]
    fn rule_23_an_edit_that_size_and_time_do_not_tell_is_kept_too() {
        let dir = tempfile::tempdir().unwrap();
        let (root, f, at) = (Root::open(dir.path()).unwrap(), path("f"), dir.path().join("f"));
        root.place(staged(&root, "once"), &f, Durability::Now).unwrap();
        let once = believed(&root, &f, "once");
        // In the same tick of the clock, nothing at all tells: it is read.
        let recent = Believed { hash: Some(hash("ONCE")), shows: false, ..once };
        assert_eq!(replace(&root, &f, recent, "two").unwrap(), Applied::Overtaken);
        assert_eq!(remove(&root, &f, recent).unwrap(), Applied::Overtaken);
        edit_unseen(&at);
        assert_eq!(replace(&root, &f, once, "two").unwrap(), Applied::Overtaken);
        assert_eq!(remove(&root, &f, once).unwrap(), Applied::Overtaken);
        assert_eq!(fs::read_to_string(&at).unwrap(), "MINE");
        // Whoever has it open may write to it later.
        let writer = File::options().append(true).open(&at).unwrap();
        assert_eq!(replace(&root, &f, believed(&root, &f, "MINE"), "two").unwrap(), Applied::Overtaken);
        assert_eq!(remove(&root, &f, believed(&root, &f, "MINE")).unwrap(), Applied::Overtaken);
        drop(writer);
        assert_eq!(replace(&root, &f, believed(&root, &f, "MINE"), "two").unwrap(), Applied::Done);
        assert_eq!(left_aside(dir.path()), 0);
    }

    #[test]
    fn directories_with_nothing_in_them_are_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let (root, f) = (Root::open(dir.path()).unwrap(), path("f"));
        fs::create_dir_all(dir.path().join("f/a/b")).unwrap();
        fs::write(dir.path().join("f/a/mine"), "1").unwrap();
        let placed = root.place(staged(&root, "one"), &f, Durability::Now).unwrap();
        assert_eq!((placed, dir.path().join("f/a/mine").exists()), (Applied::Overtaken, true));
        fs::remove_file(dir.path().join("f/a/mine")).unwrap();
        assert_eq!(root.place(staged(&root, "one"), &f, Durability::Now).unwrap(), Applied::Done);
    }

    /// A process that dies at each step of replacing or removing a file, which somebody has edited or not.
    #[test]
    fn rule_23_whoever_comes_after_a_killed_run_brings_back_what_it_had_taken_out() {
        let mut deaths = 0;
        for (edited, removes) in [(false, false), (true, false), (false, true), (true, true)] {
            for number in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let (root, f, at) = (Root::open(dir.path()).unwrap(), path("f"), dir.path().join("f"));
                root.place(staged(&root, "once"), &f, Durability::Now).unwrap();
                let once = believed(&root, &f, "once");
                if edited {
                    edit_unseen(&at);
                }
                let act = || match removes {
                    true => remove(&root, &f, once),
                    false => replace(&root, &f, once, "two"),
                };
                let (_, died) = crate::disk::dying_at(number, act);
                // Whoever comes first may be killed, too.
                for again in 0.. {
                    let root = Root::open(dir.path()).unwrap();
                    let recover = || root.bring_back_asides().map(|stranded| stranded.len());
                    let (stranded, died) = crate::disk::dying_at(again, recover);
                    if !died {
                        assert_eq!(stranded.unwrap(), 0);
                        root.forget_asides().unwrap();
                        root.sweep_staged().unwrap();
                        break;
                    }
                }
                let told = format!("edited {edited}, removes {removes}, step {number}");
                let now = fs::read_to_string(&at).ok();
                let possible: &[Option<&str>] = match (edited, removes) {
                    (true, _) => &[Some("MINE")],
                    (false, true) => &[Some("once"), None],
                    (false, false) => &[Some("once"), Some("two")],
                };
                assert!(possible.contains(&now.as_deref()), "{told}: {now:?}");
                assert_eq!(left_aside(dir.path()), 0, "{told}");
                assert!(!dir.path().join(".parquedb/asides").exists(), "{told}");
                if !died {
                    break;
                }
                deaths += 1;
            }
        }
        assert!(deaths > 16, "{deaths}");
    }

    #[test]
    fn rule_23_what_cannot_be_brought_back_lies_aside_until_somebody_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, f, at) = (Root::open(dir.path()).unwrap(), path("f"), dir.path().join("f"));
        root.place(staged(&root, "once"), &f, Durability::Now).unwrap();
        let once = believed(&root, &f, "once");
        edit_unseen(&at);
        // Dead right after the exchange; somebody goes on with what is there now.
        let found = (0..).find(|number| {
            let ((), _) = crate::disk::dying_at(*number, || drop(replace(&root, &f, once, "two")));
            fs::read_to_string(&at).unwrap() == "two" || !root.bring_back_asides().unwrap().is_empty()
        });
        assert!(found.is_some());
        fs::write(dir.path().join("saved"), "newer").unwrap();
        fs::rename(dir.path().join("saved"), &at).unwrap();
        let stranded = root.bring_back_asides().unwrap();
        let [one] = &stranded[..] else { panic!("{stranded:?}") };
        assert_eq!(root.read_aside(one).unwrap().0, hash("MINE"));
        let kept = path(".parquedb/conflicts/now/f.local.conflict");
        root.take_aside(one, &kept).unwrap();
        root.forget_asides().unwrap();
        root.sweep_staged().unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(kept.as_str())).unwrap(), "MINE");
        assert_eq!(fs::read_to_string(&at).unwrap(), "newer");
        assert_eq!(left_aside(dir.path()), 0);
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(dir.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let placed = root.place(staged(&root, "x"), &path("link/f"), Durability::Now).unwrap();
        assert_eq!(placed, Applied::Overtaken);
        fs::write(outside.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("s")).unwrap();
        assert!(root.open_file(&path("s")).is_err());
        assert!(root.open_file(&path("link/secret")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
