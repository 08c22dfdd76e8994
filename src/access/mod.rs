//! Who may do what. Everything not allowed here is refused.

use crate::model::Visibility;

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// No token, or an empty one.
    Anonymous,
    /// Someone whose token was recognised.
    Account {
        /// Their account's id.
        id: String,
        /// Their name.
        username: String,
    },
}

/// What a caller may do with one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not even know whether it exists.
    Nothing,
    /// Read it.
    Reads,
    /// Read and publish.
    Writes,
}

/// What `caller` may do with a database of that owner and visibility.
pub fn standing(caller: &Caller, owner: &str, visibility: Visibility) -> Standing {
    match caller {
        Caller::Account { username, .. } if username == owner => Standing::Writes,
        _ if visibility.allows_anonymous_read() => Standing::Reads,
        _ => Standing::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_writes_and_private_is_seen_by_no_one_else() {
        let owner = Caller::Account { id: "user_1".into(), username: "alice".into() };
        let other = Caller::Account { id: "user_2".into(), username: "bob".into() };
        for visibility in [Visibility::Public, Visibility::Unlisted, Visibility::Private] {
            assert_eq!(standing(&owner, "alice", visibility), Standing::Writes);
            let others = if visibility == Visibility::Private { Standing::Nothing } else { Standing::Reads };
            assert_eq!(standing(&other, "alice", visibility), others);
            assert_eq!(standing(&Caller::Anonymous, "alice", visibility), others);
        }
        assert_eq!(Visibility::default(), Visibility::Private);
    }
}
