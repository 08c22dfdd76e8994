"""The queries, each for DuckDB and for Polars, and what each needs of the files.

Imported by engine.py in several Python environments, so it imports no engine itself.
"""

import dataclasses
from collections.abc import Callable

BIG, WIDE, SMALL = "data/big.parquet", "data/wide.parquet", "small/*.parquet"
# About three tenths of the rows of column b, which is spread evenly over +-2^28.
B_BELOW = -107_374_182.4


@dataclasses.dataclass(frozen=True)
class Query:
    name: str
    title: str
    file: str
    # {t} is the table, {low} and {high} the sorted column's range.
    sql: str
    # Gets polars, the scan and the range; gives a lazy frame.
    polars: Callable
    # Columns read; None for all, [] for none.
    columns: list[str] | None
    # Which row groups: all, those of the range, the first.
    groups: str = "all"


def full(pl, t):
    sums = [pl.col(name).sum() for name in ("id", "a", "b", "c", "d")]
    return t.select(*sums, pl.col("tag").max(), pl.col("note").str.len_bytes().cast(pl.Int64).sum(),
                    pl.col("note").max().alias("last"))


QUERIES = {query.name: query for query in (
    Query("footer", "footer only (row count)", BIG,
          "SELECT count(*) FROM {t}",
          lambda pl, t, low, high: t.select(pl.len()), []),
    Query("sum", "sum of one column", BIG,
          "SELECT sum(a) FROM {t}",
          lambda pl, t, low, high: t.select(pl.col("a").sum()), ["a"]),
    Query("agg", "four columns, filtered", BIG,
          f"SELECT count(*), sum(a), max(c), sum(d) FROM {{t}} WHERE b < {B_BELOW}",
          lambda pl, t, low, high: t.filter(pl.col("b") < B_BELOW)
          .select(pl.len(), pl.col("a").sum(), pl.col("c").max(), pl.col("d").sum()), ["a", "b", "c", "d"]),
    Query("range", "range of the sorted column", BIG,
          "SELECT count(*), sum(a), max(c) FROM {t} WHERE id BETWEEN {low} AND {high}",
          lambda pl, t, low, high: t.filter(pl.col("id").is_between(low, high))
          .select(pl.len(), pl.col("a").sum(), pl.col("c").max()), ["id", "a", "c"], "range"),
    Query("full", "full scan, all columns", BIG,
          "SELECT sum(id), sum(a), sum(b), sum(c), sum(d), max(tag), sum(strlen(note)), max(note) FROM {t}",
          lambda pl, t, low, high: full(pl, t), None),
    Query("ten", "SELECT * LIMIT 10", BIG,
          "SELECT * FROM {t} LIMIT 10",
          lambda pl, t, low, high: t.head(10), None, "first"),
    Query("tags", "group by a text column", BIG,
          "SELECT tag, count(*), sum(c) FROM {t} GROUP BY tag ORDER BY tag",
          lambda pl, t, low, high: t.group_by("tag").agg(pl.len(), pl.col("c").sum()).sort("tag"), ["tag", "c"]),
    Query("wide", "one of 50 columns", WIDE,
          "SELECT sum(c17) FROM {t}",
          lambda pl, t, low, high: t.select(pl.col("c17").sum()), ["c17"]),
    Query("small", "200 small files", SMALL,
          "SELECT count(*), sum(v) FROM {t}",
          lambda pl, t, low, high: t.select(pl.len(), pl.col("v").sum()), ["v"]),
)}

# Seven different queries, as one looks at a table for the first time.
SESSION = ["footer", "ten", "range", "sum", "tags", "agg", "full"]


def normal(rows) -> list[list[str]]:
    """Rows as text that is equal for equal values, whichever engine they came from."""
    return [[repr(value) if isinstance(value, float) else str(value) for value in row] for row in rows]
