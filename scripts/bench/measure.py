"""Measuring one thing once: a query or a read on a side, in a fresh process, with what crossed the link for it."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import time

import datasets
from origin import BenchError, Link, RunningLink
from queries import QUERIES
from sides import Local

HERE = pathlib.Path(__file__).parent
# No query takes so long on a link worth measuring.
TIMEOUT = 900
RAW = {"seq": "sequential, 1 MiB", "mmap": "mmap, sequential", "rand4k": "random 4 KiB", "rand64k": "random 64 KiB",
       "many": "64 readers"}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement."""

    link: Link
    state: str
    query: str
    side: str
    engine: str
    seconds: float
    requests: int
    bytes: int
    connections: int
    # Differences of the mount's own counters.
    counters: dict
    wrong: str | None = None
    memory: dict | None = None


@dataclasses.dataclass
class Bench:
    """What all measurements share."""

    database: pathlib.Path
    pythons: dict[str, pathlib.Path]
    bounds: tuple[int, int]
    samples: list[Sample] = dataclasses.field(default_factory=list)
    answers: dict = dataclasses.field(default_factory=dict)

    def needs(self, query: str) -> int:
        """Bytes a query cannot do without, by the files' footers."""
        if query in RAW:
            return (self.database / datasets.BIG).stat().st_size
        asked = QUERIES[query]
        low, high = self.bounds
        touched = {
            "all": None,
            "first": lambda number, _: number == 0,
            "range": lambda _, stats: stats.max >= low and stats.min <= high,
        }[asked.groups]
        return datasets.needs(sorted(self.database.glob(asked.file)), asked.columns, touched)

    def command(self, side: Local, engine: str, query: str, extra: tuple) -> list:
        if query in RAW:
            return [self.pythons["polars"], HERE / "reads.py", query, *side.files(datasets.BIG), *extra]
        return [self.pythons[engine], HERE / "engine.py", engine, query, *self.bounds, *side.files(QUERIES[query].file)]

    def sample(self, side: Local, engine: str, query: str, state: str, link: RunningLink, extra: tuple = (),
               memory: bool = False) -> Sample:
        """Measures once, compares the answer, and keeps the sample."""
        before, counters = link.traffic(), side.stats()
        ended = side.run(self.command(side, engine, query, extra), capture_output=True, text=True, timeout=TIMEOUT)
        if ended.returncode:
            said = ended.stderr.strip()[-2000:]
            raise BenchError(f"{side.name}, {engine}, {query}: status {ended.returncode}: {said}")
        said = json.loads(ended.stdout)
        # What was asked for in vain still comes in; of a file that is complete, nothing.
        quiet = state in ("warm", "restart") or side.name == "local"
        traffic = (link.traffic() if quiet else self.settled(link)) - before
        after = side.stats()
        sample = Sample(
            link.link, state, query, side.name, engine, said["seconds"], traffic.requests, traffic.down,
            traffic.connections, {name: after[name] - old for name, old in counters.items() if isinstance(old, int)},
            self.difference(query, said["answer"], side, engine, extra), side.memory() if memory else None)
        self.samples.append(sample)
        return sample

    def settled(self, link: RunningLink):
        quiet = max(0.1, 2.5 * link.link.rtt / 1000)
        last, since = link.traffic(), time.monotonic()
        while time.monotonic() - since < quiet:
            time.sleep(0.02)
            now = link.traffic()
            if now != last:
                last, since = now, time.monotonic()
        return last

    def difference(self, query: str, answer, side: Local, engine: str, extra: tuple) -> str | None:
        """What is wrong with an answer. The first one is the original files', whoever asks first."""
        key = (query, "--count" in extra and extra[extra.index("--count") + 1])
        if key not in self.answers:
            local = Local(self.database)
            asked = "duckdb" if query in QUERIES else "read"
            ended = local.run(self.command(local, asked, query, extra), capture_output=True, text=True, check=True)
            self.answers[key] = json.loads(ended.stdout)["answer"]
        if answer == self.answers[key]:
            return None
        text = f"{side.name}, {engine}, {query}: {str(answer)[:300]} instead of {str(self.answers[key])[:300]}"
        print(f"WRONG ANSWER: {text}", file=sys.stderr, flush=True)
        return text

    def curl(self, link: RunningLink) -> Sample:
        """The whole file by one curl: the floor of sequential reading."""
        before = link.traffic()
        command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{time_total} %{size_download}", link.url(datasets.BIG)]
        seconds, size = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        traffic = self.settled(link) - before
        wrong = None if int(size) == self.needs("seq") else f"curl: {size} bytes"
        sample = Sample(link.link, "cold", "seq", "curl", "curl", float(seconds), traffic.requests, traffic.down,
                        traffic.connections, {}, wrong)
        self.samples.append(sample)
        return sample
