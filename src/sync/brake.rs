//! The brake on mass deletion (rule 14). Pure.

/// Fewer deletions than this never halt anything.
const FEW: usize = 10;

/// Whether mass deletions go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Brake {
    /// They halt the run.
    #[default]
    On,
    /// The user has said they are meant.
    Released,
}

/// More would be deleted than anyone usually means to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MassDeletion {
    /// How many files would go.
    pub deletions: usize,
    /// Of how many.
    pub files: usize,
}

impl Brake {
    /// Halts the deletion of more than a quarter of the files, if that is ten or more; and of so many that none
    /// are `left` afterwards: an emptied root is more often an accident than a wish.
    pub fn check(self, deletions: usize, files: usize, left: usize) -> Result<(), MassDeletion> {
        let many = deletions >= FEW && deletions.saturating_mul(4) > files;
        let all = deletions > 0 && left == 0;
        if (many || all) && self == Self::On { Err(MassDeletion { deletions, files }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_14_a_quarter_and_at_least_ten() {
        for (deletions, files, left, halts) in [
            (9, 9, 1, false),
            (9, 9, 0, true),
            (1, 1, 0, true),
            (1, 1, 1, false),
            (10, 10, 5, true),
            (10, 40, 30, false),
            (11, 40, 29, true),
            (0, 0, 0, false),
        ] {
            assert_eq!(Brake::On.check(deletions, files, left).is_err(), halts, "{deletions} of {files}");
            assert!(Brake::Released.check(deletions, files, left).is_ok());
        }
    }
}
