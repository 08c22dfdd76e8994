//! The words in which local state is kept. A change says what is there afterwards, not what was done, so that applying it
//! twice is applying it once.

use serde::{Deserialize, Serialize};

use crate::model::{BlockHash, BlockRoot, ContentHash, DbPath, Revision};

/// A local file, directory or other thing with attributes of its own. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The mount's own directory.
    pub const ROOT: Self = Self(1);
}

/// A file in the state directory that holds local bytes. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StagedId(pub u64);

/// An entry of a manifest: what a local change was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseEntry {
    /// Its path in the revision it is of.
    #[serde(with = "path_text")]
    pub path: DbPath,
    /// Size in bytes.
    pub size: u64,
    /// The content's hash.
    #[serde(with = "hash_text")]
    pub hash: ContentHash,
    /// What its blocks can be checked by.
    #[serde(with = "root_text")]
    pub blocks: Option<BlockRoot>,
    /// A revision that has it; a static host has none.
    pub revision: Option<Revision>,
    /// When it last changed, in nanoseconds since 1970.
    pub modified: i64,
}

/// A base that shows through where nothing local lies over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Under {
    /// What shows through.
    pub base: BaseEntry,
    /// Only its first bytes do: the file was shorter than it for a while.
    pub visible: u64,
    /// The file's size, or less: it is at least as long as its local ranges reach. Without a base below, the staged file's own
    /// length is the size.
    pub size: u64,
}

/// A file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// All of them are the remote's.
    Base(BaseEntry),
    /// The local ones lie in a staged file, at their own offsets.
    Staged {
        /// Which.
        file: StagedId,
        /// What shows through; nothing where every byte is local. Boxed, for most files have none.
        under: Option<Box<Under>>,
    },
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file; its bytes have changes of their own.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A fifo, socket or device.
    Special {
        /// The type bits of its mode.
        kind: u32,
        /// The device's number.
        device: u32,
    },
}

/// A node's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was read last, as far as anybody said, in nanoseconds since 1970.
    pub accessed: i64,
    /// When its content last changed. Of a staged file, the file itself knows.
    pub modified: i64,
    /// When anything of it last changed. Of a staged file, this or the file's own, whichever is later.
    pub changed: i64,
    /// Somebody made or changed it. Else it is here only because something below it is, or because it is open for
    /// writing, and it shows what the manifest says.
    pub touched: bool,
}

/// One change of local state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The node is there, with these attributes.
    Node(NodeId, NodeRow),
    /// The file's bytes are these. Local ranges of before count no more, unless the same staged file has a base still.
    Content(NodeId, Content),
    /// The node is gone, and all that is said of it.
    NodeGone(NodeId),
    /// The name leads to the node.
    Name {
        /// The directory.
        parent: NodeId,
        /// The name, which need not be text.
        name: Vec<u8>,
        /// What it leads to.
        node: NodeId,
    },
    /// The name leads nowhere.
    NameGone {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// The remote's entry at its path is not shown: it was changed, moved or removed here. Another entry there would be.
    Cover(BaseEntry),
    /// The remote's entry is shown again.
    CoverGone(#[serde(with = "path_text")] DbPath),
    /// The node has an extended attribute.
    Xattr {
        /// Whose.
        node: NodeId,
        /// Its name.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// It has that one no more.
    XattrGone {
        /// Whose.
        node: NodeId,
        /// Its name.
        name: Vec<u8>,
    },
    /// These bytes of a file with a base are local, and it is at least so long.
    Local {
        /// The file.
        node: NodeId,
        /// The first byte.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// These bytes of a file with a base are here as well, as the base has them.
    Filled {
        /// The file.
        node: NodeId,
        /// The first byte.
        start: u64,
        /// One past the last.
        end: u64,
    },
    /// A file with a base has this size. Local bytes beyond are gone; so is the base, for good.
    Size {
        /// The file.
        node: NodeId,
        /// Its size.
        size: u64,
    },
    /// So many bytes of a staged file without a base are known to be on the disk.
    Synced {
        /// The file.
        node: NodeId,
        /// Bytes.
        size: u64,
        /// The staged file's own time of change then: if it is later, something was written since.
        changed: i64,
    },
}

mod path_text {
    use super::DbPath;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(path: &DbPath, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(path.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DbPath, D::Error> {
        DbPath::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

mod hash_text {
    use super::ContentHash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &ContentHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{hash}", hash.algorithm()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ContentHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (algorithm, digits) = text.split_once(':').ok_or_else(|| D::Error::custom("no algorithm"))?;
        ContentHash::parse(algorithm, digits).map_err(D::Error::custom)
    }
}

mod root_text {
    use super::{BlockHash, BlockRoot};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        root: &Option<BlockRoot>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        root.map(|root| hex::encode(root.0.0)).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BlockRoot>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let mut hash = [0; BlockHash::BYTES];
        hex::decode_to_slice(text, &mut hash).map_err(D::Error::custom)?;
        Ok(Some(BlockRoot(BlockHash(hash))))
    }
}
