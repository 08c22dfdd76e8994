#!/usr/bin/env python3
"""The demo's queries, each written for DuckDB and for Polars.

    queries.py answers ENGINE DIR
        run them on the dataset in DIR and print the answers as JSON
    queries.py compare ENGINE MOUNT ORIGINALS [--answers FILE]
        run them on a mount and on the original files, print both side by side with what
        the mount fetched, then run them on the mount once more, from its cache

ENGINE is duckdb or polars. `compare` fails (exit 1) if an answer on the mount is not exactly
the answer on the originals, or if the second run fetched data. With --answers FILE the answers
are kept in FILE; if another engine left its answers there, these must be equal to them.

Everything summed is an integer or a decimal, never floating point: exact comparison is fair.
"""

import argparse
import dataclasses
import datetime
import decimal
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import duckdb
import polars as pl

STATS = "user.parquedb.stats"
# The second run may ask whether the database changed; it must not fetch its data.
AGAIN_LIMIT = 64 * 1024

Rows = list[tuple]


@dataclasses.dataclass(frozen=True)
class Query:
    name: str
    duckdb: str  # {root} stands for the dataset's folder
    polars: Callable[[str], pl.LazyFrame]


def orders(root: str) -> pl.LazyFrame:
    return pl.scan_parquet(f"{root}/data/orders/data.parquet")


def lineitem(root: str) -> pl.LazyFrame:
    return pl.scan_parquet(f"{root}/data/lineitem/data.parquet")


def day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


QUERIES = [
    Query(
        "sum of one column",
        "SELECT sum(l_quantity) FROM '{root}/data/lineitem/data.parquet'",
        lambda root: lineitem(root).select(pl.col("l_quantity").sum()),
    ),
    Query(
        "one order's lines",
        """SELECT l_linenumber, l_partkey, l_extendedprice FROM '{root}/data/lineitem/data.parquet'
           WHERE l_orderkey = 314159 ORDER BY l_linenumber""",
        lambda root: lineitem(root)
        .filter(pl.col("l_orderkey") == 314159)
        .select("l_linenumber", "l_partkey", "l_extendedprice")
        .sort("l_linenumber"),
    ),
    Query(
        "filter, one quarter",
        """SELECT count(*), sum(l_extendedprice), max(l_shipdate) FROM '{root}/data/lineitem/data.parquet'
           WHERE l_shipdate >= DATE '1997-01-01' AND l_shipdate < DATE '1997-04-01'
             AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24""",
        lambda root: lineitem(root)
        .filter(
            pl.col("l_shipdate") >= day("1997-01-01"),
            pl.col("l_shipdate") < day("1997-04-01"),
            pl.col("l_discount").is_between(decimal.Decimal("0.05"), decimal.Decimal("0.07")),
            pl.col("l_quantity") < 24,
        )
        .select(pl.len(), pl.col("l_extendedprice").sum(), pl.col("l_shipdate").max()),
    ),
    Query(
        "join, two months",
        """SELECT o_orderpriority, count(*), sum(l_extendedprice)
           FROM '{root}/data/orders/data.parquet' JOIN '{root}/data/lineitem/data.parquet' ON l_orderkey = o_orderkey
           WHERE o_orderdate >= DATE '1996-05-01' AND o_orderdate < DATE '1996-07-01' AND l_shipmode = 'RAIL'
           GROUP BY o_orderpriority ORDER BY o_orderpriority""",
        lambda root: orders(root)
        .filter(pl.col("o_orderdate") >= day("1996-05-01"), pl.col("o_orderdate") < day("1996-07-01"))
        .join(
            lineitem(root).filter(pl.col("l_shipmode") == "RAIL"),
            left_on="o_orderkey",
            right_on="l_orderkey",
        )
        .group_by("o_orderpriority")
        .agg(pl.len(), pl.col("l_extendedprice").sum())
        .sort("o_orderpriority"),
    ),
    Query(
        "group by, all lines",
        """SELECT l_returnflag, l_linestatus, count(*), sum(l_quantity), sum(l_extendedprice)
           FROM '{root}/data/lineitem/data.parquet'
           GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus""",
        lambda root: lineitem(root)
        .group_by("l_returnflag", "l_linestatus")
        .agg(pl.len(), pl.col("l_quantity").sum(), pl.col("l_extendedprice").sum())
        .sort("l_returnflag", "l_linestatus"),
    ),
    Query(
        "five largest orders",
        """SELECT o_totalprice, o_orderkey, o_orderdate, o_comment FROM '{root}/data/orders/data.parquet'
           ORDER BY o_totalprice DESC, o_orderkey LIMIT 5""",
        lambda root: orders(root)
        .select("o_totalprice", "o_orderkey", "o_orderdate", "o_comment")
        .sort("o_totalprice", "o_orderkey", descending=[True, False])
        .head(5),
    ),
    Query(
        "count over a glob",
        "SELECT op, count(*) FROM '{root}/samples/*/events/*.parquet' GROUP BY op ORDER BY op",
        lambda root: pl.scan_parquet(f"{root}/samples/*/events/*.parquet").group_by("op").agg(pl.len()).sort("op"),
    ),
]


class DuckDB:
    title = f"DuckDB {duckdb.__version__}"

    @staticmethod
    def run(query: Query, root: str) -> Rows:
        # A new database for each query: nothing it keeps in memory can stand in for a read.
        with duckdb.connect() as con:
            return con.execute(query.duckdb.format(root=root.replace("'", "''"))).fetchall()


class Polars:
    title = f"Polars {pl.__version__}"

    @staticmethod
    def run(query: Query, root: str) -> Rows:
        return query.polars(root).collect().rows()


ENGINES = {"duckdb": DuckDB, "polars": Polars}
WARM_UP = Query("warm-up", "SELECT 1", lambda root: pl.LazyFrame({"a": [1]}))


def plain(rows: Rows) -> list[list[str]]:
    """Rows as text that is equal for equal values, whichever engine they came from."""

    def text(value: object) -> str:
        if isinstance(value, decimal.Decimal):
            return format(value.normalize(), "f")
        return str(value)

    return [[text(value) for value in row] for row in rows]


def short(rows: Rows, width: int = 34) -> str:
    """One line that shows what came out."""

    def text(value: object) -> str:
        return f"{value:,}" if isinstance(value, (int, decimal.Decimal)) else str(value)

    if not rows:
        return "no rows"
    line = "  ".join(text(value) for value in rows[0])
    if len(rows) > 1:
        line = f"{len(rows)} rows: {line}"
    return line if len(line) <= width else line[: width - 1] + "…"


def size(count: int) -> str:
    """Bytes as people read them."""
    if count < 1024:
        return f"{count} B"
    if count < 1024 * 1024:
        return f"{count / 1024:.1f} KiB"
    return f"{count / (1024 * 1024):.1f} MiB"


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What a mount has asked of the remote so far, or between two moments."""

    requests: int
    bytes: int

    def __sub__(self, earlier: "Fetched") -> "Fetched":
        return Fetched(self.requests - earlier.requests, self.bytes - earlier.bytes)

    @staticmethod
    def now(mount: str) -> "Fetched":
        stats = json.loads(os.getxattr(mount, STATS))
        return Fetched(stats["requests"], stats["bytesFetched"])

    @staticmethod
    def settled(mount: str) -> "Fetched":
        """The counters once they rest: reads ahead may still be under way when a query ends."""
        seen = Fetched.now(mount)
        for _ in range(40):
            time.sleep(0.05)
            later = Fetched.now(mount)
            if later == seen:
                break
            seen = later
        return seen


def timed(engine: type, query: Query, root: str) -> tuple[Rows, float]:
    start = time.perf_counter()
    rows = engine.run(query, root)
    return rows, time.perf_counter() - start


def answers(engine: type, root: str) -> int:
    json.dump({query.name: plain(engine.run(query, root)) for query in QUERIES}, sys.stdout, indent=1)
    print()
    return 0


def compare(engine: type, mount: str, originals: str, kept: pathlib.Path | None) -> int:
    # What an engine does once per process should not count as the first query's time.
    engine.run(WARM_UP, mount)
    wrong = []
    found: dict[str, Rows] = {}
    on_mount = on_originals = 0.0
    start = Fetched.settled(mount)
    before = start

    print(f"{engine.title}, nothing cached yet")
    print(f"  {'query':<20} {'answer':<34} {'equal':<5} {'mount':>8} {'original':>8} {'requests':>8} {'fetched':>10}")
    for query in QUERIES:
        rows, seconds = timed(engine, query, mount)
        after = Fetched.settled(mount)
        expected, original_seconds = timed(engine, query, originals)
        equal = rows == expected
        if not equal:
            wrong.append(f"{query.name}: the mount answers {rows}, the originals {expected}")
        found[query.name] = rows
        on_mount += seconds
        on_originals += original_seconds
        cost = after - before
        before = after
        print(
            f"  {query.name:<20} {short(rows):<34} {'yes' if equal else 'NO':<5} {seconds:>6.2f} s"
            f" {original_seconds:>6.2f} s {cost.requests:>8,} {size(cost.bytes):>10}",
            flush=True,
        )
    cost = before - start
    print(f"  {'together':<61} {on_mount:>6.2f} s {on_originals:>6.2f} s {cost.requests:>8,} {size(cost.bytes):>10}")

    again = 0.0
    first_end = before
    refetched = []
    for query in QUERIES:
        rows, seconds = timed(engine, query, mount)
        again += seconds
        after = Fetched.settled(mount)
        if after.bytes != before.bytes:
            refetched.append(f"{size((after - before).bytes)} for {query.name}")
        before = after
        if rows != found[query.name]:
            wrong.append(f"{query.name}: the second run on the mount answers {rows}, the first {found[query.name]}")
    cost = before - first_end
    print(f"  {'once more, cached':<61} {again:>6.2f} s {'':>8} {cost.requests:>8,} {size(cost.bytes):>10}")
    if cost.bytes > AGAIN_LIMIT:
        wrong.append(f"the second run fetched what should have been cached: {', '.join(refetched)}")

    if kept:
        mine = {name: plain(rows) for name, rows in found.items()}
        if kept.exists():
            theirs = json.loads(kept.read_text())
            for name, rows in mine.items():
                if rows != theirs[name]:
                    wrong.append(f"{name}: {engine.title} answers {rows}, the other engine {theirs[name]}")
        else:
            kept.write_text(json.dumps(mine))

    for line in wrong:
        print(f"DIFFERENT  {line}", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("answers")
    command.add_argument("engine", choices=ENGINES)
    command.add_argument("folder", metavar="DIR")
    command = commands.add_parser("compare")
    command.add_argument("engine", choices=ENGINES)
    command.add_argument("mount", metavar="MOUNT")
    command.add_argument("originals", metavar="ORIGINALS")
    command.add_argument("--answers", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args()
    engine = ENGINES[args.engine]
    if args.command == "answers":
        return answers(engine, args.folder)
    return compare(engine, args.mount, args.originals, args.answers)


if __name__ == "__main__":
    sys.exit(main())
