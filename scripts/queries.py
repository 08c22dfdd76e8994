#!/usr/bin/env python3
"""The demo's queries, each written for DuckDB and for Polars.

    queries.py answers ENGINE DIR
        run them on the dataset in DIR and print the answers as JSON
    queries.py compare ENGINE MOUNT ORIGINALS [--answers FILE]
        run them on a fresh mount and on the original files, print both side by side with
        what the mount fetched; then what the mount does when it has been read before

ENGINE is duckdb or polars. `compare` fails (exit 1) if
  - an answer on the mount is not exactly the answer on the originals;
  - a table read whole through the mount is not byte for byte the original;
  - more bytes were fetched than the files have: some were fetched twice;
  - with everything read once, the queries still make a request.
The plain second run is shown, not judged: an engine's threads decide anew each time which
blocks a top-n or a join can skip, so it may need a block that its first run did not.

With --answers FILE the answers are kept in FILE; if another engine left its answers there,
these must be equal to them.

Everything summed is an integer or a decimal, never floating point: exact comparison is fair.
"""

import argparse
import dataclasses
import datetime
import decimal
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import duckdb
import polars as pl

STATS = "user.parquedb.stats"
# Every file the queries read, relative to the dataset.
TABLES = ["data/orders/data.parquet", "data/lineitem/data.parquet"]
EVENTS = "samples/*/events/*.parquet"

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
        "SELECT op, count(*) FROM '{root}/" + EVENTS + "' GROUP BY op ORDER BY op",
        lambda root: pl.scan_parquet(f"{root}/{EVENTS}").group_by("op").agg(pl.len()).sort("op"),
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
    shown = "  ".join(text(value) for value in rows[0])
    if len(rows) > 1:
        shown = f"{len(rows)} rows: {shown}"
    return shown if len(shown) <= width else shown[: width - 1] + "…"


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


def same_bytes(one: pathlib.Path, other: pathlib.Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while True:
            mine, theirs = left.read(1 << 20), right.read(1 << 20)
            if mine != theirs:
                return False
            if not mine:
                return True


def answers(engine: type, root: str) -> int:
    json.dump({query.name: plain(engine.run(query, root)) for query in QUERIES}, sys.stdout, indent=1)
    print()
    return 0


def line(name: str, answer: str, equal: bool | None, mount: float, original: float | None, cost: Fetched) -> None:
    verdict = {True: "yes", False: "NO", None: ""}[equal]
    beside = "" if original is None else f"{original:.2f} s"
    print(
        f"  {name:<20} {answer:<34} {verdict:<5} {mount:>6.2f} s {beside:>8} {cost.requests:>8,} {size(cost.bytes):>10}",
        flush=True,
    )


def compare(engine: type, mount: str, originals: str, kept: pathlib.Path | None) -> int:
    # What an engine does once per process should not count as the first query's time.
    engine.run(WARM_UP, mount)
    wrong: list[str] = []
    found: dict[str, Rows] = {}
    start = before = Fetched.settled(mount)

    def spent() -> Fetched:
        """What was fetched since it was last asked."""
        nonlocal before
        after = Fetched.settled(mount)
        cost, before = after - before, after
        return cost

    print(f"{engine.title}, nothing cached yet")
    print(f"  {'query':<20} {'answer':<34} {'equal':<5} {'mount':>8} {'original':>8} {'requests':>8} {'fetched':>10}")
    on_mount = on_originals = 0.0
    for query in QUERIES:
        rows, seconds = timed(engine, query, mount)
        cost = spent()
        expected, original_seconds = timed(engine, query, originals)
        if rows != expected:
            wrong.append(f"{query.name}: the mount answers {rows}, the originals {expected}")
        found[query.name] = rows
        on_mount += seconds
        on_originals += original_seconds
        line(query.name, short(rows), rows == expected, seconds, original_seconds, cost)
    line("together", "", None, on_mount, on_originals, before - start)

    def again() -> float:
        total = 0.0
        for query in QUERIES:
            rows, seconds = timed(engine, query, mount)
            total += seconds
            if rows != found[query.name]:
                wrong.append(f"{query.name}: run again, the mount answers {rows}; before {found[query.name]}")
        return total

    line("once more", "", None, again(), None, spent())

    began = time.perf_counter()
    different = [name for name in TABLES if not same_bytes(pathlib.Path(mount, name), pathlib.Path(originals, name))]
    line("both tables, whole", "every byte", not different, time.perf_counter() - began, None, spent())
    wrong.extend(f"{name}: its bytes on the mount are not the original's" for name in different)

    files = [pathlib.Path(originals, name) for name in TABLES] + list(pathlib.Path(originals).glob(EVENTS))
    have, fetched = sum(file.stat().st_size for file in files), (before - start).bytes
    if fetched > have:
        wrong.append(f"{fetched} bytes were fetched of files that have {have}: some were fetched twice")

    seconds = again()
    cost = spent()
    line("queries, all cached", "", None, seconds, None, cost)
    if cost.requests or cost.bytes:
        wrong.append(f"with everything cached there were {cost.requests} requests for {cost.bytes} bytes")

    if kept:
        mine = {name: plain(rows) for name, rows in found.items()}
        if kept.exists():
            theirs = json.loads(kept.read_text())
            for name, rows in mine.items():
                if rows != theirs[name]:
                    wrong.append(f"{name}: {engine.title} answers {rows}, the other engine {theirs[name]}")
        else:
            kept.write_text(json.dumps(mine))

    for text in wrong:
        print(f"WRONG  {text}", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    # Ctrl-C ends this without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
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
