//! Letting go of old revisions. Everything is kept unless somebody says less; of what goes, a marker stays, so that
//! its number is never given again.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStoreExt;

use crate::model::Revision;
use crate::store::keys::CheckpointKind;
use crate::store::log::encode;
use crate::store::{Database, Expired, RevisionRecord, StoreError, keys};

/// How much of the past stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many revisions, the current one included.
    Revisions(u64),
    /// Every revision that was the current one at some time since.
    Since(SignedDuration),
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither a number of revisions (100) nor an age (90d, 12h)");
        let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let number: u32 = digits.parse().map_err(|_| wrong())?;
        match unit {
            "" if number == 0 => Err("the current revision is always kept: 1 is the least".into()),
            "" => Ok(Self::Revisions(number.into())),
            "h" => Ok(Self::Since(SignedDuration::from_hours(number.into()))),
            "d" => Ok(Self::Since(SignedDuration::from_hours(i64::from(number) * 24))),
            _ => Err(wrong()),
        }
    }
}

impl Database {
    /// The oldest revision to keep, which is never later than the current one.
    pub(super) async fn horizon(
        &self,
        keep: Keep,
        oldest: Revision,
        now: Timestamp,
    ) -> Result<Revision, StoreError> {
        let current = self.revision().0;
        let wanted = match keep {
            Keep::Revisions(count) => Revision(current.0.saturating_sub(count.saturating_sub(1))),
            Keep::Since(age) => {
                let since = now.saturating_sub(age).unwrap_or(Timestamp::MIN);
                // The last one that was published before then was the current one then. Times are not searched
                // by halves: servers' clocks differ, so they need not be in order.
                let mut number = current;
                while number > oldest {
                    let (record, _) = self.present_record(number).await?;
                    // A time that cannot be read tells nothing: such a revision is kept.
                    if record.time.parse::<Timestamp>().is_ok_and(|time| time <= since) {
                        break;
                    }
                    number = Revision(number.0 - 1);
                }
                number
            }
        };
        Ok(wanted.max(oldest))
    }

    /// Expires every revision before `horizon`, which is not before the oldest one kept. What the horizon begins with is stored first, and the oldest go
    /// first: whenever this stops, it has done a part of it, and a later run does the rest.
    pub(super) async fn expire_before(&self, horizon: Revision) -> Result<(), StoreError> {
        let unmarked = self.first_unmarked(self.revision().0).await?;
        if horizon <= unmarked {
            return Ok(());
        }
        let begins_with_whole =
            self.checkpoint(horizon).await?.is_some_and(|checkpoint| checkpoint.since.is_none());
        if !begins_with_whole {
            let (record, record_hash) = self.present_record(horizon).await?;
            let files = self.files_at(horizon).await?;
            self.store_whole_checkpoint(horizon, files, record.time, record_hash).await?;
        }
        for number in unmarked.0..horizon.0 {
            let (record, record_hash) = self.present_record(Revision(number)).await?;
            let expired = Some(Expired { record_hash, kept_from: horizon });
            let (put, delete, set_aside) = Default::default();
            let marker = RevisionRecord { put, delete, set_aside, expired, ..record };
            let stored = self.objects.put(&self.revisions().key(number), encode(&marker).into()).await;
            stored.map_err(StoreError::unavailable("mark a revision as expired"))?;
        }
        self.forget_history();
        self.remove_checkpoints_before(horizon).await
    }

    /// Removes checkpoints that nobody begins with any more.
    async fn remove_checkpoints_before(&self, horizon: Revision) -> Result<(), StoreError> {
        let mut needed = vec![horizon];
        let stored = self.stored_checkpoints().await?;
        for kept in stored.iter().filter(|revision| **revision >= horizon) {
            needed.extend(self.checkpoint(*kept).await?.and_then(|checkpoint| checkpoint.since));
        }
        for old in stored.into_iter().filter(|revision| *revision < horizon && !needed.contains(revision)) {
            for kind in [CheckpointKind::Whole, CheckpointKind::Since] {
                self.remove(&keys::checkpoint(self.id(), old, kind)).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_keep_is_a_number_or_an_age() {
        assert_eq!("100".parse(), Ok(Keep::Revisions(100)));
        assert_eq!("90d".parse(), Ok(Keep::Since(SignedDuration::from_hours(90 * 24))));
        assert_eq!("12h".parse(), Ok(Keep::Since(SignedDuration::from_hours(12))));
        for bad in ["", "0", "d", "10y", "-1", "1.5d", "99999999999"] {
            assert!(bad.parse::<Keep>().is_err(), "{bad}");
        }
    }
}
