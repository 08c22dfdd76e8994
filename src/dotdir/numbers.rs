//! The numbers of what lies in `.parquedb`. They have a bit that no number of the mount's files has, so that a number alone says
//! where it belongs.

use crate::model::Revision;
use crate::namespace::Ino;

/// Bits of a revision's number in those of its files.
const REVISION_BITS: u32 = 30;

/// What a number in `.parquedb` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DotNode {
    /// `.parquedb` itself.
    Root,
    /// `status.json`
    Status,
    /// `conflicts`
    Conflicts,
    /// `revisions`
    Revisions,
    /// A file or directory of an earlier revision, by its number there.
    Past(Revision, Ino),
}

impl DotNode {
    /// What a number stands for, if it is of `.parquedb`.
    pub fn of(ino: Ino) -> Option<Self> {
        if !ino.is_beside() {
            return None;
        }
        let rest = ino.0 & !Ino::BESIDE;
        let (revision, low) = (rest >> 32, rest & u64::from(u32::MAX));
        match (revision, low) {
            (0, 1) => Some(Self::Root),
            (0, 2) => Some(Self::Status),
            (0, 3) => Some(Self::Conflicts),
            (0, 4) => Some(Self::Revisions),
            (0, _) => None,
            (revision, low) => Some(Self::Past(Revision(revision), Ino(low))),
        }
    }

    /// Its number.
    pub fn ino(self) -> Ino {
        Ino(Ino::BESIDE
            | match self {
                Self::Root => 1,
                Self::Status => 2,
                Self::Conflicts => 3,
                Self::Revisions => 4,
                // Files of a revision that stays keep the places they got at first: their numbers have 32 bits.
                Self::Past(revision, ino) => (revision.0 << 32) | (ino.0 & u64::from(u32::MAX)),
            })
    }

    /// The directory of a revision, if its number has room in those of its files.
    pub fn of_revision(revision: Revision) -> Option<Self> {
        (revision.0 > 0 && revision.0 >> REVISION_BITS == 0).then_some(Self::Past(revision, Ino::ROOT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_what_it_stands_for() {
        let last = Revision((1 << REVISION_BITS) - 1);
        let past = DotNode::Past(last, Ino(u64::from(u32::MAX)));
        for node in [DotNode::Root, DotNode::Status, DotNode::Conflicts, DotNode::Revisions, past] {
            assert_eq!(DotNode::of(node.ino()), Some(node));
        }
        for ino in [Ino::ROOT, Ino(u64::MAX), Ino(1 << 63), Ino((1 << 62) - 1), Ino(Ino::BESIDE)] {
            assert_eq!(DotNode::of(ino), None, "{ino:?}");
        }
        assert_eq!(DotNode::of_revision(Revision(0)), None);
        assert_eq!(DotNode::of_revision(Revision(1 << REVISION_BITS)), None);
    }
}
