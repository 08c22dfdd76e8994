#!/usr/bin/env python3
"""Measure reading through the mount beside the alternatives. scripts/bench-reads starts it and explains the options."""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack

import datasets
import goals
import trees
from measure import Bench
from origin import BenchError, Link, Origin, RunningLink
from plan import SIDES, STATES, Batch, names, plan
from runner import Runner
from sides import PlainUser


def arguments() -> argparse.Namespace:
    def listed(kind, allowed=None):
        def parse(text: str) -> list:
            words = [kind(word) for word in text.split(",")]
            for word in words:
                if allowed is not None and word not in allowed:
                    raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(map(str, allowed))}")
            return words
        return parse

    parser = argparse.ArgumentParser(prog="bench-reads", usage="scripts/bench-reads [OPTION...], see --help")
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
    args.million |= args.full
    args.tree |= args.full or args.million or args.tree_only
    # Without root the mount is a plain user's, and there is no other.
    if os.geteuid() != 0:
        args.side = [side for side in args.side or SIDES if side != "mount"]
        print("not root: the mount is measured as a plain user's only")
    return args


@dataclasses.dataclass
class Outcome:
    """What the run has found besides the samples."""

    # The share of its nominal rate that a bare curl gets through each link.
    shares: dict[Link, float] = dataclasses.field(default_factory=dict)
    trees: list[goals.Verdict] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)


def measure(args: argparse.Namespace, bench: Bench, batches: list[Batch]) -> Outcome:
    """Starts what is needed, measures, and leaves nothing behind."""
    outcome = Outcome()
    with ExitStack() as stack:
        # On a disk, as caches are; not on /tmp, which may be memory.
        run = pathlib.Path(tempfile.mkdtemp(prefix="pqbench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, run, ignore_errors=True)
        run.chmod(0o755)
        # The same programs from beginning to end, whoever builds meanwhile, and where a plain user can start them.
        (run / "bin").mkdir()
        for program in ("parquedb", "parquedb-mount"):
            shutil.copy(args.bin_dir / program, run / "bin")
        args.bin_dir = run / "bin"
        user = PlainUser(stack, run / "plain-user") if os.geteuid() == 0 else None
        origin = Origin(stack, args.origin, args.bin_dir, args.state_dir, bench.database, run)
        for link in dict.fromkeys(batch.link for batch in batches):
            # Slow start would be what is checked, so the check goes without.
            with ExitStack() as during:
                share = RunningLink(during, dataclasses.replace(link, slow_start=False), origin).check()
            outcome.shares[link] = share
            print(f"\n== {link}: bare curl gets {share:.2f} of the rate; load {os.getloadavg()[0]:.1f}"
                  + (" - TOO LITTLE, times below are the link's own" if share < 0.9 else ""), flush=True)
            with ExitStack() as during:
                runner = Runner(bench, args, RunningLink(during, link, origin), run, user)
                for batch in batches:
                    if batch.link == link:
                        runner.batch(batch)
                outcome.failures += runner.failures
        if args.tree:
            outcome.trees = trees.measure(args.bin_dir / "parquedb-mount", origin, run, args.warm, args.million)
    return outcome


def write_json(path: pathlib.Path, bench: Bench, verdicts: list, machine: dict, outcome: Outcome) -> None:
    needs = {query: bench.needs(query) for query in {sample.query for sample in bench.samples} - {"session"}}
    path.write_text(json.dumps({
        "machine": machine, "needs": needs, "links": {str(link): share for link, share in outcome.shares.items()},
        "samples": [dataclasses.asdict(sample) for sample in bench.samples],
        "goals": [dataclasses.asdict(verdict) for verdict in verdicts], "failures": outcome.failures,
    }, indent=1) + "\n")


def main() -> int:
    args = arguments()
    for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        signal.signal(number, lambda *_, status=status: sys.exit(status))
    began = time.time()
    batches = [] if args.tree_only else plan(args)
    if not batches and not args.tree:
        sys.exit("bench-reads: nothing is left to measure with these options")
    machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()[0],
               "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)), "root": os.geteuid() == 0,
               "origin": args.origin}
    args.state_dir.mkdir(parents=True, exist_ok=True)
    database = datasets.make(args.state_dir, "large" if args.large else "small")
    python = pathlib.Path(sys.executable)
    bench = Bench(database, {"duckdb": python, "polars": python, "read": python,
                             "httpfs": args.tools / "bin/python"}, datasets.id_range(database / datasets.BIG))
    outcome = measure(args, bench, batches)
    verdicts = goals.verdicts(bench) + outcome.trees
    print()
    for line in goals.table(verdicts):
        print(line)
    wrong = [f"WRONG ANSWER: {sample.wrong}" for sample in bench.samples if sample.wrong]
    for text in wrong + [f"FAILED: {failure}" for failure in outcome.failures]:
        print(text)
    print(f"\n{len(bench.samples)} measurements in {(time.time() - began) / 60:.1f} minutes; "
          f"{len(wrong)} wrong answers, {len(outcome.failures)} failures")
    if args.json:
        write_json(args.json, bench, verdicts, machine, outcome)
        print(f"raw results: {args.json}")
    return 1 if wrong or outcome.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench-reads: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
