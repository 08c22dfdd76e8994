//! Files that a change takes out of the tree for a moment: written down before, so that whoever comes after a run that was
//! killed knows what each was believed to be, and where it belongs (rule 23).

use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::index::StoredHash;
use super::own::checked;
use super::root::{CreateDirs, stamp_at};
use super::staged::random_name;
use super::{Durability, Occupant, Root, Stamp, hash_file};
use crate::disk::is_being_written;
use crate::disk::point;
use crate::manifest::PRIVATE_DIR;
use crate::model::{ContentHash, DbPath};

const FILE: &str = "asides";
const MAGIC: &[u8; 8] = b"PQASIDE1";
/// Files taken out of the tree: perhaps somebody's.
const PREFIX: &str = "aside-";

/// What a file is believed to be that somebody may write to at any time.
#[derive(Debug, Clone, Copy)]
pub struct Believed {
    /// What was seen of it.
    pub stamp: Stamp,
    /// What was read from it; where that is not known, its stamp has to do.
    pub hash: Option<ContentHash>,
    /// Whatever changes it after it was looked at shows in its stamp.
    pub shows: bool,
}

/// A file that is about to be taken out of the tree, for good if it is what it is believed to be.
#[derive(Debug, Clone)]
pub struct Aside {
    pub(super) path: DbPath,
    /// Its name while it is aside.
    pub(super) name: String,
    pub(super) believed: Believed,
    /// What takes its place: which file, with what content.
    pub(super) ours: Option<(u64, ContentHash)>,
}

/// An aside, on the disk.
#[derive(Serialize, Deserialize)]
struct Noted<'a> {
    path: &'a str,
    name: &'a str,
    stamp: Stamp,
    hash: Option<StoredHash>,
    ours: Option<(u64, StoredHash)>,
}

impl Aside {
    /// A file that is to go.
    pub fn removed(path: DbPath, believed: Believed) -> Self {
        Self { path, name: random_name(PREFIX), believed, ours: None }
    }

    /// A file in whose place another one is to stand.
    pub fn replaced(path: DbPath, believed: Believed, inode: u64, hash: ContentHash) -> Self {
        Self { ours: Some((inode, hash)), ..Self::removed(path, believed) }
    }

    /// Where it stands, or stood.
    pub fn path(&self) -> &DbPath {
        &self.path
    }
}

impl Root {
    fn asides_path() -> io::Result<DbPath> {
        DbPath::parse(&format!("{PRIVATE_DIR}/{FILE}")).map_err(io::Error::other)
    }

    /// Writes down, durably, what is about to be taken out of the tree.
    pub fn note_asides(&self, asides: &[Aside]) -> io::Result<()> {
        let count = postcard::to_stdvec(&(asides.len() as u64)).map_err(io::Error::other)?;
        let mut list = Vec::new();
        for Aside { path, name, believed, ours } in asides {
            let noted = Noted {
                path: path.as_str(),
                name,
                stamp: believed.stamp,
                hash: believed.hash.map(Into::into),
                ours: ours.map(|(inode, hash)| (inode, hash.into())),
            };
            list = postcard::to_extend(&noted, list).map_err(io::Error::other)?;
        }
        self.replace_checked(&Self::asides_path()?, MAGIC, [&count, &list], Durability::Now)
    }

    /// Forgets what was written down: nothing of it lies aside any more.
    pub fn forget_asides(&self) -> io::Result<()> {
        self.remove_own(&Self::asides_path()?)
    }

    fn noted_asides(&self) -> io::Result<Vec<Aside>> {
        let path = Self::asides_path()?;
        let Some((bytes, _)) = self.read_own(&path)? else { return Ok(Vec::new()) };
        read_noted(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
    }

    /// Brings back what was taken out of the tree and is not what it was believed to be. Returns those whose place something
    /// else has taken: they lie aside until [`Root::take_aside`]. The caller holds the directory's lock.
    pub fn bring_back_asides(&self) -> io::Result<Vec<Aside>> {
        let mut stranded = Vec::new();
        for aside in self.noted_asides()? {
            if self.is_stranded(&aside)? {
                stranded.push(aside);
            }
        }
        Ok(stranded)
    }

    fn is_stranded(&self, aside: &Aside) -> io::Result<bool> {
        point()?;
        let incoming = self.incoming()?;
        let Some(there) = stamp_at(&*incoming, &aside.name)? else { return Ok(false) };
        let is_ours = aside.ours.is_some_and(|(inode, hash)| {
            inode == there.inode() && matches!(self.open_aside(aside), Ok(file) if holds(&file, &hash))
        });
        if is_ours || self.is_as_believed(aside, None)? {
            point()?;
            rustix::fs::unlinkat(&*incoming, &aside.name, AtFlags::empty())?;
            return Ok(false);
        }
        // It is somebody's.
        point()?;
        let Ok(parent) = self.parent(&aside.path, CreateDirs::Yes) else { return Ok(true) };
        let back =
            |flags| rustix::fs::renameat_with(&*incoming, &aside.name, &parent, aside.path.name(), flags);
        match (self.occupant(&aside.path)?, aside.ours) {
            (Occupant::Nothing, _) => match back(RenameFlags::NOREPLACE) {
                Ok(()) => Ok(false),
                Err(Errno::EXIST) => Ok(true),
                Err(error) => Err(error.into()),
            },
            (Occupant::File(stamp), Some((inode, hash)))
                if stamp.inode() == inode && holds(&self.open_file(&aside.path)?, &hash) =>
            {
                back(RenameFlags::EXCHANGE)?;
                point()?;
                let out = self.open_aside(aside)?;
                if Stamp::of_file(&out)?.inode() != inode || !holds(&out, &hash) {
                    return Ok(true);
                }
                rustix::fs::unlinkat(&*incoming, &aside.name, AtFlags::empty())?;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Gives a stranded file a name of the tools' own.
    pub fn take_aside(&self, aside: &Aside, to: &DbPath) -> io::Result<()> {
        let dir = self.parent(to, CreateDirs::Yes)?;
        point()?;
        match rustix::fs::renameat_with(
            &*self.incoming()?,
            &aside.name,
            &dir,
            to.name(),
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => Ok(rustix::fs::fsync(&dir)?),
            Err(error) => Err(error.into()),
        }
    }

    /// What a stranded file holds.
    pub fn read_aside(&self, aside: &Aside) -> io::Result<(ContentHash, Stamp)> {
        hash_file(&self.open_aside(aside)?, None)
    }

    pub(super) fn open_aside(&self, aside: &Aside) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(&*self.incoming()?, &aside.name, flags, Mode::empty())?))
    }

    /// Whether a file that lies aside, which nobody can open by its name any more, is what it is believed to be; `before` is
    /// what it looked like before it was taken out, which moves the time of its last change.
    pub(super) fn is_as_believed(&self, aside: &Aside, before: Option<Stamp>) -> io::Result<bool> {
        let Believed { stamp, hash, shows } = aside.believed;
        let file = match self.open_aside(aside) {
            Ok(file) if file.metadata()?.is_file() => file,
            // A link, or a device.
            Ok(_) | Err(_) => return Ok(false),
        };
        if is_being_written(&file) || !Stamp::of_file(&file)?.same_bytes(&stamp) {
            return Ok(false);
        }
        match hash {
            Some(hash) if !shows || before != Some(stamp) => Ok(holds(&file, &hash)),
            _ => Ok(true),
        }
    }
}

/// Whether a file holds just that, and nobody is writing to it.
fn holds(file: &File, hash: &ContentHash) -> bool {
    !is_being_written(file) && matches!(hash_file(file, Some(hash)), Ok((found, _)) if found == *hash)
}

fn read_noted(bytes: &[u8]) -> Option<Vec<Aside>> {
    let (mut count, mut rest): (u64, _) = postcard::take_from_bytes(checked(bytes, MAGIC)?).ok()?;
    let mut asides = Vec::new();
    while count > 0 {
        let noted: Noted<'_>;
        (noted, rest) = postcard::take_from_bytes(rest).ok()?;
        // The directory may come from someone else.
        let is_plain = noted.name.starts_with(PREFIX) && !noted.name.contains('/');
        asides.push(Aside {
            path: DbPath::parse(noted.path).ok()?,
            name: is_plain.then(|| noted.name.to_owned())?,
            believed: Believed { stamp: noted.stamp, hash: noted.hash.map(Into::into), shows: false },
            ours: noted.ours.map(|(inode, hash)| (inode, hash.into())),
        });
        count -= 1;
    }
    Some(asides)
}
