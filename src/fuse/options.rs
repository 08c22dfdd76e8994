//! Mount options, as `-o` takes them, the names being those of mount(8) and mount.fuse(8). One that is not known is refused before
//! anything is mounted: the kernel would do so in fewer words. So are `sync` and `dirsync`, which the kernel takes and FUSE does not
//! keep.

use std::str::FromStr;

use fuser::MountOption;

/// What one of them asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFlag {
    /// Other users may enter.
    AllowOther,
    /// Whether nobody may write.
    ReadOnly(bool),
    /// Whether no program may be started from there.
    NoExec(bool),
    /// Shown with the mount. Times of reading are not kept anyway.
    NoAtime(bool),
    /// What only the kernel looks at.
    Kernel(String),
    /// What makes no difference here, or is meant for others who read the same line of a table of mounts.
    Nothing,
}

/// An option that is not known.
#[derive(Debug, thiserror::Error)]
#[error("there is no such mount option; there are allow_other, ro, noexec, noatime and max_read=BYTES")]
pub struct UnknownMountFlag;

const FOR_THE_KERNEL: [&str; 5] = ["max_read=", "context=", "fscontext=", "defcontext=", "rootcontext="];
/// Nothing there is a device or sets somebody's id, whatever is asked for, and times of reading are not kept.
const NO_DIFFERENCE: [&str; 9] =
    ["relatime", "async", "dev", "nodev", "suid", "nosuid", "diratime", "nodiratime", "default_permissions"];
const FOR_OTHERS: [&str; 8] = ["defaults", "auto", "noauto", "user", "users", "nouser", "nofail", "_netdev"];

impl FromStr for MountFlag {
    type Err = UnknownMountFlag;

    fn from_str(text: &str) -> Result<Self, UnknownMountFlag> {
        Ok(match text {
            "allow_other" => Self::AllowOther,
            "ro" | "rw" => Self::ReadOnly(text == "ro"),
            "noexec" | "exec" => Self::NoExec(text == "noexec"),
            "noatime" | "atime" => Self::NoAtime(text == "noatime"),
            _ if text.is_empty() || NO_DIFFERENCE.contains(&text) || FOR_OTHERS.contains(&text) => {
                Self::Nothing
            }
            _ if text.starts_with("x-") || text.starts_with("comment=") => Self::Nothing,
            _ if FOR_THE_KERNEL.iter().any(|start| text.starts_with(start)) => Self::Kernel(text.to_owned()),
            _ => return Err(UnknownMountFlag),
        })
    }
}

impl MountFlag {
    /// Whether of all that was asked for, this is what holds: the last word does.
    pub fn holds(flags: &[Self], what: fn(bool) -> Self) -> bool {
        flags.iter().rfind(|flag| **flag == what(true) || **flag == what(false)) == Some(&what(true))
    }

    /// What the kernel is to be asked for.
    pub(super) fn for_kernel(flags: &[Self]) -> Vec<MountOption> {
        let mut all = Vec::new();
        if Self::holds(flags, Self::NoExec) {
            all.push(MountOption::NoExec);
        }
        if Self::holds(flags, Self::NoAtime) {
            all.push(MountOption::NoAtime);
        }
        all.extend(flags.iter().filter_map(|flag| match flag {
            Self::Kernel(text) => Some(MountOption::CUSTOM(text.clone())),
            _ => None,
        }));
        all
    }
}
