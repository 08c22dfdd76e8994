"""Measures the batches of a plan on one link: makes the sides, takes turns, prints what came out."""

import argparse
import itertools
import pathlib
import subprocess
import sys
import time
from contextlib import ExitStack

import report
from measure import RAW, Bench, Sample
from origin import BenchError, RunningLink
from plan import Batch
from queries import SESSION
from sides import Local, OverHttp, ParquedbMount, PlainUser, PlainUserMount, Rclone

MOUNTS = ("mount", "mount-user", "rclone")


class Runner:
    """Makes the sides and measures the batches on one link."""

    def __init__(self, bench: Bench, args: argparse.Namespace, link: RunningLink, run: pathlib.Path,
                 user: PlainUser | None):
        self.bench, self.args, self.link, self.run_dir, self.user = bench, args, link, run, user
        self.numbers = itertools.count()
        self.failures: list[str] = []

    def side(self, name: str) -> Local:
        """A side that has read nothing yet."""
        folder = self.run_dir / f"{name}-{self.link.port}-{next(self.numbers)}"
        match name:
            case "local":
                return Local(self.bench.database)
            case "httpfs" | "polars-http":
                return OverHttp(name, self.bench.database, self.link)
            case "rclone":
                return Rclone(self.args.tools / "bin/rclone", folder, self.link)
            case "mount-user" if self.user:
                return PlainUserMount(self.user, name, self.args.bin_dir / "parquedb-mount", folder, self.link)
            case _:
                return ParquedbMount(name, self.args.bin_dir / "parquedb-mount", folder, self.link)

    def batch(self, batch: Batch) -> None:
        if batch.state in ("warm", "restart"):
            self.warm(batch)
            return
        for query in batch.queries:
            self.interleaved(batch, lambda side, engine, query=query: self.fresh(batch.state, side, engine, query))
            self.announce(batch, query)

    def interleaved(self, batch: Batch, measure) -> None:
        """One of each in every repetition, beginning with another one each time."""
        for rep in range(max(count for _, _, count in batch.entries)):
            turn = rep % len(batch.entries)
            for side, engine, count in batch.entries[turn:] + batch.entries[:turn]:
                if rep >= count:
                    continue
                try:
                    measure(side, engine)
                except (BenchError, OSError, subprocess.SubprocessError, ValueError) as error:
                    self.failures.append(f"{batch.link}, {batch.state}, {side}, {engine}: {error}")
                    print(f"FAILED: {self.failures[-1]}", file=sys.stderr, flush=True)

    def fresh(self, state: str, name: str, engine: str, query: str) -> None:
        """A side of its own for this one measurement (a session is one)."""
        if engine == "curl":
            self.bench.curl(self.link)
            return
        side = self.side(name)
        try:
            if state == "session":
                self.session(side, engine)
                return
            if state == "known":
                self.bench.sample(side, engine, "footer", "before", self.link)
            extra = ("--keep",) if query in ("seq", "mmap") else ()
            self.bench.sample(side, engine, query, state, self.link, extra, memory=query == "many")
            if state == "cold" and name in MOUNTS and query not in RAW:
                self.bench.sample(side, engine, query, "again", self.link)
        finally:
            side.close()

    def session(self, side: Local, engine: str) -> None:
        parts = [self.bench.sample(side, engine, query, "in-session", self.link) for query in SESSION]
        wrong = [part.wrong for part in parts if part.wrong]

        def add(field: str):
            return sum(getattr(part, field) for part in parts)

        self.bench.samples.append(Sample(
            self.link.link, "session", "session", side.name, engine, add("seconds"), add("requests"), add("bytes"),
            add("connections"), {key: sum(part.counters[key] for part in parts) for key in parts[0].counters},
            "; ".join(wrong) or None))

    def warm(self, batch: Batch) -> None:
        """Sides whose files were read whole before the first measurement; the same for all of them."""
        with ExitStack() as stack:
            sides = {}
            for name in dict.fromkeys(name for name, _, _ in batch.entries):
                sides[name] = self.side(name)
                stack.callback(sides[name].close)
                # Twice: what the first pass has completed may be served another way from the next open on.
                for _ in range(2):
                    self.bench.sample(sides[name], "read", "seq", "before", self.link)
            time.sleep(1)
            for query in batch.queries:
                count = {"rand4k": "40000", "rand64k": "4000"}.get(query)
                extra = ("--count", count) if count else ()

                def measure(name, engine, query=query, extra=extra):
                    # A read without an engine and a query with one do not mix.
                    if (engine == "read") != (query in RAW):
                        return
                    if batch.state == "restart":
                        sides[name].remount()
                    self.bench.sample(sides[name], engine, query, batch.state, self.link, extra)

                self.interleaved(batch, measure)
                self.announce(batch, query)

    def announce(self, batch: Batch, query: str) -> None:
        states = (batch.state, "again") if batch.state == "cold" else (batch.state,)
        rows = [sample for sample in self.bench.samples
                if sample.link == batch.link and sample.query == query and sample.state in states]
        for line in report.lines(self.bench, rows):
            print(line, flush=True)
