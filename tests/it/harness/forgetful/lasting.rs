//! The two things that forget: a file's bytes and a directory's names. Each is kept twice, as it is seen and as it
//! lasts, with the changes from the one to the other; a sync applies them all, and a cut those that chance keeps.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A disk writes so much as one.
pub const PAGE: usize = 4096;

/// What a cut does to what was not made to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tearing {
    /// All of it is lost.
    All,
    /// Each page of each write is kept or lost by chance, and so is the rest of each directory's changes from some
    /// change on. The same for the same seed and the same calls.
    Random(u64),
}

/// A file's bytes. What is seen is what lasts with the pending changes applied.
#[derive(Debug, Default)]
pub struct Content {
    seen: Vec<u8>,
    lasting: Vec<u8>,
    pending: Vec<Change<Vec<u8>>>,
}

#[derive(Debug)]
pub enum Change<B> {
    Bytes(usize, B),
    Size(usize),
}

/// A directory's names. What is seen is what lasts with the pending steps applied.
#[derive(Debug, Default)]
pub struct Names {
    seen: BTreeMap<OsString, u64>,
    lasting: BTreeMap<OsString, u64>,
    pending: Vec<Step>,
}

/// What one call does to one directory's names, each given or taken away: all of it or nothing.
pub type Step = Vec<(OsString, Option<u64>)>;

impl Content {
    pub fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Changes it for now.
    pub fn change(&mut self, change: Change<Vec<u8>>) {
        change.apply(&mut self.seen);
        self.pending.push(change);
    }

    pub fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.lasting);
        }
    }

    /// Goes back to what lasts; how many changes are lost by that, each page of a write being one.
    pub fn cut(&mut self, chance: &mut Chance) -> u64 {
        let mut lost = 0;
        for page in self.pending.iter().flat_map(Change::pages) {
            if chance.keeps() {
                page.apply(&mut self.lasting);
                continue;
            }
            lost += 1;
            // The new end of a file may last without the bytes before it, which are zeros then.
            if let Change::Bytes(at, bytes) = page
                && self.lasting.len() < at + bytes.len()
                && chance.keeps()
            {
                self.lasting.resize(at + bytes.len(), 0);
            }
        }
        self.pending.clear();
        self.seen.clone_from(&self.lasting);
        lost
    }
}

impl<B: AsRef<[u8]>> Change<B> {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Size(size) => content.resize(*size, 0),
            Self::Bytes(at, bytes) => {
                let bytes = bytes.as_ref();
                let end = at + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*at..end].copy_from_slice(bytes);
            }
        }
    }

    /// The same change in parts of which each lasts or not.
    fn pages(&self) -> Vec<Change<&[u8]>> {
        let (mut at, mut rest) = match self {
            Self::Size(size) => return vec![Change::Size(*size)],
            Self::Bytes(at, bytes) => (*at, bytes.as_ref()),
        };
        let mut pages = Vec::new();
        while !rest.is_empty() {
            let (page, more) = rest.split_at(rest.len().min(PAGE - at % PAGE));
            pages.push(Change::Bytes(at, page));
            at += page.len();
            rest = more;
        }
        pages
    }
}

impl Names {
    pub fn seen(&self) -> &BTreeMap<OsString, u64> {
        &self.seen
    }

    /// Changes names for now; gives the inodes that lose one by that.
    pub fn change(&mut self, step: Step) -> Vec<u64> {
        let gone = step.iter().filter_map(|(name, ino)| put(&mut self.seen, name.clone(), *ino)).collect();
        self.pending.push(step);
        gone
    }

    /// Keeps only the names of some inodes; nothing may be pending.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.lasting.retain(|_, ino| keep(*ino));
        self.seen.clone_from(&self.lasting);
    }

    /// The inodes of all names that last or may yet, each as often as it has one.
    pub fn held(self) -> impl Iterator<Item = u64> {
        let pending = self.pending.into_iter().flatten().filter_map(|(_, ino)| ino);
        self.lasting.into_values().chain(pending)
    }

    /// Makes all names last; gives the inodes that lose a lasting name by that.
    pub fn sync(&mut self) -> Vec<u64> {
        let steps = std::mem::take(&mut self.pending);
        steps.into_iter().flatten().filter_map(|(name, ino)| put(&mut self.lasting, name, ino)).collect()
    }

    /// Goes back to what lasts; how many steps are lost by that.
    pub fn cut(&mut self, chance: &mut Chance) -> u64 {
        let steps = self.pending.len();
        self.pending.truncate(chance.below(steps + 1));
        let kept = self.pending.len();
        self.sync();
        self.seen.clone_from(&self.lasting);
        (steps - kept) as u64
    }
}

/// Decides what is kept of what was not made to last: nothing, without a state.
#[derive(Debug)]
pub struct Chance(Option<u64>);

impl Chance {
    pub fn new(tearing: Tearing) -> Self {
        match tearing {
            Tearing::All => Self(None),
            Tearing::Random(seed) => Self(Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)),
        }
    }

    fn keeps(&mut self) -> bool {
        self.below(2) == 1
    }

    fn below(&mut self, end: usize) -> usize {
        let Some(state) = &mut self.0 else { return 0 };
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        // The low bits of a xorshift are the weaker ones.
        (*state >> 33) as usize % end
    }
}

/// Gives a name, or takes it away; what had it before.
fn put(names: &mut BTreeMap<OsString, u64>, name: OsString, ino: Option<u64>) -> Option<u64> {
    match ino {
        Some(ino) => names.insert(name, ino),
        None => names.remove(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of two synced pages after a write over their border and a longer end, for some seed.
    fn torn(tearing: Tearing) -> (Vec<u8>, u64) {
        let mut content = Content::default();
        content.change(Change::Bytes(0, vec![b'a'; 2 * PAGE]));
        content.sync();
        content.change(Change::Bytes(PAGE - 1, vec![b'b'; 2]));
        content.change(Change::Bytes(2 * PAGE, vec![b'c'; 1]));
        let lost = content.cut(&mut Chance::new(tearing));
        (content.seen().to_vec(), lost)
    }

    #[test]
    fn each_page_is_kept_or_lost_by_itself() {
        assert_eq!(torn(Tearing::All), (vec![b'a'; 2 * PAGE], 3));
        let mut outcomes = BTreeMap::new();
        for seed in 0..200 {
            let (bytes, lost) = torn(Tearing::Random(seed));
            assert_eq!(torn(Tearing::Random(seed)).0, bytes, "the same seed does the same");
            let border = [bytes[PAGE - 1], bytes[PAGE]].map(char::from);
            let end = bytes.get(2 * PAGE).copied();
            assert!(matches!(end, None | Some(b'c' | 0)), "a lost end is missing or zeros: {end:?}");
            let kept = border.iter().filter(|byte| **byte == 'b').count() + usize::from(end == Some(b'c'));
            assert_eq!(kept as u64 + lost, 3);
            *outcomes.entry((border, end)).or_insert(0) += 1;
        }
        assert_eq!(outcomes.len(), 4 * 3, "everything that can happen does: {outcomes:?}");
    }

    #[test]
    fn of_a_directorys_changes_the_first_are_kept() {
        let mut lengths = [0; 4];
        for seed in 0..200 {
            let mut names = Names::default();
            names.change(vec![("x".into(), Some(7))]);
            names.sync();
            names.change(vec![("a".into(), Some(8))]);
            names.change(vec![("b".into(), Some(8)), ("a".into(), None)]);
            names.change(vec![("x".into(), None)]);
            let lost = names.cut(&mut Chance::new(Tearing::Random(seed)));
            let left: String = names.seen().keys().map(|name| name.to_str().unwrap()).collect();
            let kept = ["x", "ax", "bx", "b"].iter().position(|state| *state == left).unwrap();
            assert_eq!(kept as u64 + lost, 3);
            lengths[kept] += 1;
        }
        assert!(lengths.iter().all(|count| *count > 20), "{lengths:?}");
    }
}
