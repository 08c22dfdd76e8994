#!/usr/bin/env python3
"""Measure reading through the mount beside the alternatives; started by scripts/bench-reads, whose --help is the guide."""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

import datasets
import goals
import report
import trees
from measure import RAW, Bench, Sample
from origin import BenchError, Link, Origin, RunningLink
from plan import ENGINES, SIDES, STATES, Batch, names, plan
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
        else:
            for query in batch.queries:
                self.interleaved(batch, lambda side, engine, query=query: self.fresh(batch.state, side, engine, query))
        self.announce(batch)

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

    def announce(self, batch: Batch) -> None:
        for line in report.lines(self.bench, [sample for sample in self.bench.samples if sample.link == batch.link
                                              and sample.query in batch.queries
                                              and sample.state in (batch.state, "again" * (batch.state == "cold"))]):
            print(line, flush=True)


def arguments() -> argparse.Namespace:
    def listed(kind, allowed=None):
        def parse(text: str) -> list:
            words = [kind(word) for word in text.split(",")]
            for word in words:
                if allowed is not None and word not in allowed:
                    raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(map(str, allowed))}")
            return words
        return parse

    parser = argparse.ArgumentParser(prog="bench-reads", description=__doc__)
    parser.add_argument("--rtt", type=listed(int))
    parser.add_argument("--rate", type=listed(int))
    parser.add_argument("--slow-start", action="store_const", const=[True], default=[False])
    parser.add_argument("--query", type=listed(str, names()))
    parser.add_argument("--side", type=listed(str, SIDES))
    parser.add_argument("--engine", type=listed(str, ["duckdb", "polars", "httpfs"]))
    parser.add_argument("--state", type=listed(str, STATES))
    parser.add_argument("--cold", type=int, default=5)
    parser.add_argument("--warm", type=int, default=11)
    parser.add_argument("--others", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--tree", action="store_true")
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--tree-only", action="store_true")
    parser.add_argument("--origin", choices=["nginx", "serve"], default="nginx")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    parser.add_argument("--state-dir", type=pathlib.Path, required=True)
    parser.add_argument("--tools", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ("cold", "warm", "others"):
        if getattr(args, name) < 0:
            parser.error(f"--{name} must not be negative")
    # rclone needs nginx's index page.
    if args.origin == "serve":
        args.side = [side for side in args.side or SIDES if side != "rclone"]
    # Without root the mount is a plain user's, and there is no other.
    args.plain_user = True
    if os.geteuid() != 0:
        args.side = [side for side in args.side or SIDES if side != "mount"]
        print("not root: the mount is measured as a plain user's only")
    return args


def write_json(path: pathlib.Path, bench: Bench, verdicts: list, machine: dict, links: dict, failures: list) -> None:
    needs = {query: bench.needs(query) for query in {sample.query for sample in bench.samples} - {"session"}}
    path.write_text(json.dumps({
        "machine": machine, "needs": needs, "links": {str(link): share for link, share in links.items()},
        "samples": [dataclasses.asdict(sample) for sample in bench.samples],
        "goals": [dataclasses.asdict(verdict) for verdict in verdicts], "failures": failures,
    }, indent=1) + "\n")


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    began = time.time()
    args.state_dir.mkdir(parents=True, exist_ok=True)
    database = datasets.make(args.state_dir, "large" if args.large else "small")
    python = pathlib.Path(sys.executable)
    bench = Bench(database, {"duckdb": python, "polars": python, "read": python,
                             "httpfs": args.tools / "bin/python"}, datasets.id_range(database / datasets.BIG))
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "began": time.strftime("%Y-%m-%dT%H:%M:%SZ",
               time.gmtime(began)), "root": os.geteuid() == 0, "origin": args.origin}
    batches = [] if args.tree_only else plan(args)
    shares: dict[Link, float] = {}
    failures: list[str] = []
    with ExitStack() as stack:
        # On a disk, as caches are; not on /tmp, which may be memory.
        run = pathlib.Path(tempfile.mkdtemp(prefix="pqbench-", dir="/var/tmp"))
        run.chmod(0o755)
        stack.callback(shutil.rmtree, run, ignore_errors=True)
        # The same programs from the beginning to the end, whoever builds meanwhile, and where a plain user can start them.
        (run / "bin").mkdir()
        for program in ("parquedb", "parquedb-mount"):
            shutil.copy(args.bin_dir / program, run / "bin")
        args.bin_dir = run / "bin"
        user = PlainUser(stack, run / "plain-user") if os.geteuid() == 0 else None
        origin = Origin(stack, args.origin, args.bin_dir, args.state_dir, database, run)
        for link in dict.fromkeys(batch.link for batch in batches):
            # Slow start would be what is checked, so the check goes without.
            with ExitStack() as during:
                shares[link] = RunningLink(during, dataclasses.replace(link, slow_start=False), origin).check()
            print(f"\n== {link}: bare curl gets {shares[link]:.2f} of the rate"
                  + (" - TOO LITTLE, times below are the link's own" if shares[link] < 0.9 else ""), flush=True)
            with ExitStack() as during:
                running = RunningLink(during, link, origin)
                runner = Runner(bench, args, running, run, user)
                for batch in batches:
                    if batch.link == link:
                        runner.batch(batch)
                failures += runner.failures
        tree_rows = []
        if args.tree or args.million or args.full or args.tree_only:
            tree_rows = trees.measure(args.bin_dir / "parquedb-mount", origin, run, args.warm, args.million or args.full)
    verdicts = goals.verdicts(bench) + tree_rows
    print()
    for line in goals.table(verdicts):
        print(line)
    wrong = [sample.wrong for sample in bench.samples if sample.wrong]
    for text in wrong:
        print(f"WRONG ANSWER: {text}")
    for text in failures:
        print(f"FAILED: {text}")
    seconds = time.time() - began
    print(f"\n{len(bench.samples)} measurements in {seconds / 60:.1f} minutes; "
          f"{len(wrong)} wrong answers, {len(failures)} failures")
    if args.json:
        write_json(args.json, bench, verdicts, machine, shares, failures)
        print(f"raw results: {args.json}")
    return 1 if wrong or failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench-reads: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
