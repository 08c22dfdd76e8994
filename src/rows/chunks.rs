//! Where a Parquet file's column chunks lie, from its footer. The footer is someone else's: every number in it is
//! checked, and a file that does not add up has no chunks rather than wrong ones.

use bytes::Bytes;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader};

use super::FooterError;
use crate::model::ByteRange;

/// More chunks than this are not looked at: 16 bytes each, they are kept while a file is open.
const MOST_CHUNKS: usize = 4 << 20;

/// A column chunk: one column of one row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId {
    /// The row group, counted from the first.
    pub row_group: usize,
    /// The leaf column, counted from the first.
    pub column: usize,
}

/// The bytes of every column chunk of a file.
#[derive(Debug)]
pub struct ChunkMap {
    columns: usize,
    /// Row by row: the chunks of the first row group by column, those of the second, and so on.
    chunks: Vec<ByteRange>,
    /// Indexes into `chunks`, by where they begin.
    by_place: Vec<u32>,
}

impl ChunkMap {
    /// Reads the metadata of a file of `size` bytes (without the last eight bytes).
    pub fn parse(metadata: &Bytes, size: u64) -> Result<Self, FooterError> {
        let wrong = |what: &str| FooterError(what.to_owned());
        let metadata =
            ParquetMetaDataReader::decode_metadata(metadata).map_err(|e| FooterError(e.to_string()))?;
        let columns = metadata.file_metadata().schema_descr().num_columns();
        let count = metadata.num_row_groups().checked_mul(columns).filter(|count| *count <= MOST_CHUNKS);
        let mut chunks = Vec::with_capacity(count.ok_or_else(|| wrong("too many column chunks"))?);
        for row_group in metadata.row_groups() {
            if row_group.num_columns() != columns {
                return Err(wrong("row groups with different columns"));
            }
            for chunk in row_group.columns() {
                chunks.push(bytes_of(chunk, size).ok_or_else(|| wrong("a column chunk outside the file"))?);
            }
        }
        let mut by_place: Vec<u32> =
            (0..chunks.len()).filter_map(|index| u32::try_from(index).ok()).collect();
        by_place.sort_by_key(|index| chunks.get(*index as usize).map(|chunk| chunk.start));
        Ok(Self { columns, chunks, by_place })
    }

    /// Bytes it takes in memory.
    pub fn memory(&self) -> u64 {
        (self.chunks.capacity() * size_of::<ByteRange>() + self.by_place.capacity() * size_of::<u32>()) as u64
    }

    /// How many row groups there are.
    pub fn row_groups(&self) -> usize {
        self.chunks.len().checked_div(self.columns).unwrap_or(0)
    }

    /// The bytes of a chunk.
    pub fn chunk(&self, id: ChunkId) -> Option<ByteRange> {
        let index = id.row_group.checked_mul(self.columns)?.checked_add(id.column)?;
        (id.column < self.columns).then(|| self.chunks.get(index).copied()).flatten()
    }

    /// The chunks of a row group, by column; none if there is no such row group.
    pub fn row_group(&self, row_group: usize) -> &[ByteRange] {
        let first = row_group.saturating_mul(self.columns);
        self.chunks.get(first..first.saturating_add(self.columns)).unwrap_or_default()
    }

    /// The chunks that have bytes in `range`, in the order in which they lie in the file.
    pub fn overlapping(&self, range: ByteRange) -> impl Iterator<Item = (ChunkId, ByteRange)> {
        // Chunks do not overlap in files that writers make; in one where they do, some are overlooked, which
        // costs a prediction.
        let first = self.by_place.partition_point(|index| {
            self.chunks.get(*index as usize).is_some_and(|chunk| chunk.end <= range.start)
        });
        let all = self.by_place.get(first..).unwrap_or_default();
        all.iter()
            .filter_map(|index| Some((*index as usize, *self.chunks.get(*index as usize)?)))
            .take_while(move |(_, chunk)| chunk.start < range.end)
            .filter(move |(_, chunk)| chunk.end > range.start)
            .map(|(index, chunk)| {
                (ChunkId { row_group: index / self.columns, column: index % self.columns }, chunk)
            })
    }

    /// Whether a chunk begins at `offset`.
    pub fn begins_at(&self, offset: u64) -> bool {
        self.overlapping(ByteRange::new(offset, offset.saturating_add(1)))
            .any(|(_, chunk)| chunk.start == offset)
    }
}

/// A chunk's bytes: from its dictionary page, if it has one, for its compressed size.
fn bytes_of(chunk: &ColumnChunkMetaData, size: u64) -> Option<ByteRange> {
    let data = u64::try_from(chunk.data_page_offset()).ok()?;
    let start = match chunk.dictionary_page_offset() {
        // Some writers say 0 where there is none.
        Some(dictionary) if dictionary > 0 => data.min(u64::try_from(dictionary).ok()?),
        _ => data,
    };
    let end = start.checked_add(u64::try_from(chunk.compressed_size()).ok()?)?;
    (end <= size).then(|| ByteRange::new(start, end))
}

#[cfg(test)]
impl ChunkMap {
    /// A made-up file: row groups of equal chunks without gaps.
    pub(crate) fn regular(row_groups: usize, columns: usize, chunk: u64) -> Self {
        let count = row_groups * columns;
        let at = |index: usize| 4 + index as u64 * chunk;
        Self {
            columns,
            chunks: (0..count).map(|index| ByteRange::new(at(index), at(index + 1))).collect(),
            by_place: (0..count as u32).collect(),
        }
    }
}
