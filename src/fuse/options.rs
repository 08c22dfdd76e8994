//! Mount options, as `-o` takes them, the names being those of mount(8) and mount.fuse(8). One that is not known is refused before
//! anything is mounted: the kernel would do so in fewer words.

use std::str::FromStr;

use fuser::MountOption;

/// What one of them asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFlag {
    /// Other users may enter.
    AllowOther,
    /// Nobody may write.
    ReadOnly,
    /// No program may be started from there.
    NoExec,
    /// Shown with the mount. Times of reading are not kept anyway.
    NoAtime,
    /// Every write lasts when it returns.
    Sync,
    /// Every change of a directory lasts when it returns.
    DirSync,
    /// What only the kernel looks at.
    Kernel(String),
    /// What is so in any case, or is meant for others who read the same line of a table of mounts.
    Nothing,
}

/// An option that is not known.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no such mount option; there are allow_other, ro, noexec, noatime, sync, dirsync, max_read=BYTES, and SELinux's context=…"
)]
pub struct UnknownMountFlag;

const FOR_THE_KERNEL: [&str; 5] = ["max_read=", "context=", "fscontext=", "defcontext=", "rootcontext="];
/// What is there cannot be a device, and sets nobody's id.
const SO_ANYWAY: [&str; 12] = [
    "rw",
    "exec",
    "atime",
    "relatime",
    "async",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "diratime",
    "nodiratime",
    "default_permissions",
];
const FOR_OTHERS: [&str; 8] = ["defaults", "auto", "noauto", "user", "users", "nouser", "nofail", "_netdev"];

impl FromStr for MountFlag {
    type Err = UnknownMountFlag;

    fn from_str(text: &str) -> Result<Self, UnknownMountFlag> {
        Ok(match text {
            "allow_other" => Self::AllowOther,
            "ro" => Self::ReadOnly,
            "noexec" => Self::NoExec,
            "noatime" => Self::NoAtime,
            "sync" => Self::Sync,
            "dirsync" => Self::DirSync,
            _ if SO_ANYWAY.contains(&text) || FOR_OTHERS.contains(&text) => Self::Nothing,
            _ if text.starts_with("x-") || text.starts_with("comment=") => Self::Nothing,
            _ if FOR_THE_KERNEL.iter().any(|start| text.starts_with(start)) => Self::Kernel(text.to_owned()),
            _ => return Err(UnknownMountFlag),
        })
    }
}

impl MountFlag {
    /// The same for the kernel, where it is not a matter of more than that.
    pub(super) fn for_kernel(&self) -> Option<MountOption> {
        match self {
            Self::NoExec => Some(MountOption::NoExec),
            Self::NoAtime => Some(MountOption::NoAtime),
            Self::Sync => Some(MountOption::Sync),
            Self::DirSync => Some(MountOption::DirSync),
            Self::Kernel(text) => Some(MountOption::CUSTOM(text.clone())),
            Self::AllowOther | Self::ReadOnly | Self::Nothing => None,
        }
    }
}
