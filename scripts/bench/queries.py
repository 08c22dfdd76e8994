"""The queries, each for DuckDB and for Polars, and what each needs of the files.

Imported by engine.py in several Python environments, so it imports no engine itself.
"""

import dataclasses
from collections.abc import Callable

BIG, WIDE, SMALL = "data/big.parquet", "data/wide.parquet", "small/*.parquet"
# Days are spread evenly over 0..2500.
DAY_BELOW = 750


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
    sums = [pl.col(name).cast(kind).sum() for name, kind in (
        ("id", pl.Int64), ("a", pl.Int64), ("b", pl.Float64), ("c", pl.Int64), ("day", pl.Int64), ("qty", pl.Int64))]
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
          f"SELECT count(*), sum(a), sum(qty) FROM {{t}} WHERE day < {DAY_BELOW} AND tag <> 'north'",
          lambda pl, t, low, high: t.filter(pl.col("day") < DAY_BELOW, pl.col("tag") != "north")
          .select(pl.len(), pl.col("a").sum(), pl.col("qty").cast(pl.Int64).sum()), ["a", "day", "qty", "tag"]),
    Query("range", "range of the sorted column", BIG,
          "SELECT count(*), sum(a), max(c) FROM {t} WHERE id BETWEEN {low} AND {high}",
          lambda pl, t, low, high: t.filter(pl.col("id").is_between(low, high))
          .select(pl.len(), pl.col("a").sum(), pl.col("c").max()), ["id", "a", "c"], "range"),
    Query("full", "full scan, all columns", BIG,
          "SELECT sum(id), sum(a), sum(b), sum(c), sum(day), sum(qty), max(tag), sum(strlen(note)), max(note) FROM {t}",
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
