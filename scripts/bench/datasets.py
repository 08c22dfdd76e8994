"""The databases that are measured, and what a query needs of their Parquet files.

Made once below target/bench, the same bytes' worth of rows each time, and kept between runs:

  data/big.parquet     155 row groups, about 500 MB; an 8-byte column has chunks of about 530 KB
  data/wide.parquet    50 columns of 8 bytes; 200 MB, or 1 GB when asked for
  small/*.parquet      200 files of about 100 KB

Numbers are random but bounded, so that sums are exact in every engine: integers add up below 2^63, floats are
multiples of 2^-10 whose sums stay below 2^43.
"""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from queries import BIG, SMALL, WIDE

# Raise this when the rows change: what an older version made is then made anew.
VERSION = 1
GROUPS, GROUP_ROWS = 155, 66_000
WIDE_COLUMNS = 50
WIDE_ROWS = {"small": 520_000, "large": 2_600_000}
SMALL_FILES, SMALL_ROWS = 200, 4_500


def integers(rng: np.random.Generator, rows: int) -> pa.Array:
    return pa.array(rng.integers(-(2**48), 2**48, rows, dtype=np.int64))


def floats(rng: np.random.Generator, rows: int) -> pa.Array:
    return pa.array(rng.integers(-(2**38), 2**38, rows, dtype=np.int64) / 1024.0)


def words(rng: np.random.Generator, rows: int, length: int) -> pa.Array:
    letters = rng.integers(ord("a"), ord("z") + 1, rows * length, dtype=np.uint8)
    offsets = np.arange(0, (rows + 1) * length, length, dtype=np.int32)
    return pa.Array.from_buffers(pa.utf8(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])


def big_group(rng: np.random.Generator, group: int) -> pa.Table:
    gaps = rng.integers(1, 1000, GROUP_ROWS, dtype=np.int64)
    tags = np.array(["north", "south", "east", "west", "up", "down", "in", "out"])
    return pa.table({
        # Sorted over the whole file: a group's rows follow those of the one before.
        "id": pa.array(group * GROUP_ROWS * 1000 + np.cumsum(gaps)),
        "b": floats(rng, GROUP_ROWS),
        "c": integers(rng, GROUP_ROWS),
        # Engines read over a gap between two columns; these four lie side by side.
        "a": integers(rng, GROUP_ROWS),
        "day": pa.array(rng.integers(0, 2500, GROUP_ROWS, dtype=np.int32)),
        "qty": pa.array(rng.integers(0, 2**24, GROUP_ROWS, dtype=np.int32)),
        "tag": pa.array(tags[rng.integers(0, len(tags), GROUP_ROWS)]),
        "note": words(rng, GROUP_ROWS, 11),
    })


def write(path: pathlib.Path, groups) -> None:
    """Writes one file, a row group for each table, under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    writer = None
    for table in groups:
        # Numbers are random: a dictionary of them would only cost.
        options = {"compression": "snappy", "use_dictionary": ["tag"] if "tag" in table.column_names else False}
        writer = writer or pq.ParquetWriter(staged, table.schema, **options)
        writer.write_table(table, row_group_size=table.num_rows)
    writer.close()
    staged.rename(path)


def seeded(name: str, number: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([VERSION, number, *name.encode()]))


def make(folder: pathlib.Path, wide: str) -> pathlib.Path:
    """The database's directory, made if it is not there: `wide` is "small" or "large"."""
    root = folder / f"database-{VERSION}-{wide}"
    big = root / BIG
    if not big.exists():
        print(f"making {big.name}", flush=True)
        rng = seeded("big")
        write(big, (big_group(rng, group) for group in range(GROUPS)))
    if not (root / WIDE).exists():
        print("making wide.parquet", flush=True)
        rng, rows = seeded("wide"), WIDE_ROWS[wide]
        step = 104_000
        names = [f"c{n:02}" for n in range(WIDE_COLUMNS)]
        write(root / WIDE, (pa.table({name: integers(rng, step) for name in names}) for _ in range(rows // step)))
    for number in range(SMALL_FILES):
        path = root / SMALL.replace("*", f"part-{number:03}")
        if not path.exists():
            rng = seeded("small", number)
            write(path, [pa.table({
                "k": pa.array(np.arange(SMALL_ROWS, dtype=np.int64) + number * SMALL_ROWS),
                "v": integers(rng, SMALL_ROWS),
                "note": words(rng, SMALL_ROWS, 4),
            })])
    return root


def id_range(big: pathlib.Path) -> tuple[int, int]:
    """The bounds of the sorted column's rows from the middle of one row group to the middle of the third after."""
    file = pq.ParquetFile(big)
    group = [file.metadata.row_group(n).column(0).statistics for n in (77, 80)]
    low, high = ((stats.min + stats.max) // 2 for stats in group)
    return low, high


def needs(paths: list[pathlib.Path], columns: list[str] | None, touched=None) -> int:
    """Bytes a query cannot do without: the footers, and the chunks of its columns in the row groups it touches.

    `columns` is None for all; `touched` gets a row group's first column chunk's statistics and its number.
    """
    total = 0
    for path in paths:
        file = pq.ParquetFile(path)
        meta = file.metadata
        total += meta.serialized_size + 8
        for number in range(meta.num_row_groups):
            group = meta.row_group(number)
            if touched is not None and not touched(number, group.column(0).statistics):
                continue
            for index in range(group.num_columns):
                chunk = group.column(index)
                if columns is None or chunk.path_in_schema in columns:
                    total += chunk.total_compressed_size
    return total
