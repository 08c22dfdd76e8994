#!/usr/bin/env python3
"""Run one query in this fresh process and print {"seconds", "answer"} as JSON.

    engine.py ENGINE QUERY LOW HIGH FILE...

ENGINE is duckdb, polars or httpfs (DuckDB with its HTTP extension). FILE is a path, a glob or URLs. The clock runs
from the query to its rows: starting Python, importing the engine and loading the extension are not counted.
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from queries import QUERIES, normal  # noqa: E402


def duckdb_runner(query, files: list[str], low: int, high: int, http: bool):
    import duckdb

    con = duckdb.connect()
    if http:
        import duckdb_extension_httpfs

        extension = next(pathlib.Path(duckdb_extension_httpfs.__file__).parent.glob("**/httpfs.duckdb_extension"))
        con.execute(f"LOAD '{extension}'")
    con.execute("SET enable_progress_bar = false")
    quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    sql = query.sql.format(t=f"read_parquet([{quoted}])", low=low, high=high)
    return lambda: con.execute(sql).fetchall()


def polars_runner(query, files: list[str], low: int, high: int):
    import polars as pl

    source = files[0] if len(files) == 1 else files
    return lambda: query.polars(pl, pl.scan_parquet(source), low, high).collect().rows()


def main() -> None:
    engine, name, low, high, *files = sys.argv[1:]
    query, low, high = QUERIES[name], int(low), int(high)
    if engine == "polars":
        run = polars_runner(query, files, low, high)
    else:
        run = duckdb_runner(query, files, low, high, engine == "httpfs")
    began = time.perf_counter()
    rows = run()
    seconds = time.perf_counter() - began
    json.dump({"seconds": seconds, "answer": normal(rows)}, sys.stdout)


if __name__ == "__main__":
    main()
