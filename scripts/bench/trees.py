"""Large trees: `ls -l` and `find` beside the local disk, how soon a mount is ready, and what an entry costs in memory.

A tree is a manifest alone: its contents exist nowhere, so any request for one would fail the bench. The local
counterpart has the same names and sizes, as holes.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import statistics
import time
from contextlib import ExitStack

from goals import Verdict
from origin import BenchError, Origin, RunningLink
from plan import DECIDING
from sides import Local, ParquedbMount

FILES = 100_000
MODIFIED = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
COMMANDS = {"ls -l": ["env", "LC_ALL=C", "TZ=UTC", "ls", "-l", "--time-style=full-iso", "files"],
            "find": ["find", "files", "-type", "f", "-size", "+1k", "-printf", "%s %p\\n"]}


def manifest(path: pathlib.Path, count: int) -> None:
    """A manifest of `count` files in one folder, or in folders of a thousand where there are more than 100,000."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    with staged.open("w") as out:
        slug = path.parts[-3]
        head = {"version": 1, "databaseId": f"db_{slug}", "name": "tree", "owner": "trees", "slug": slug,
                "visibility": "public", "lastSyncedAt": "2026-01-02T03:04:05Z"}
        # Written piece by piece: a million entries are not held in memory.
        out.write(json.dumps(head)[:-1] + ', "files":{')
        for number in range(count):
            name = name_of(number, count)
            entry = {"path": name, "size": size_of(number), "hash": hashlib.sha256(name.encode()).hexdigest(),
                     "hashAlgorithm": "sha256", "modifiedAt": MODIFIED.isoformat().replace("+00:00", "Z")}
            out.write("," * (number > 0) + json.dumps(name) + ":" + json.dumps(entry, separators=(",", ":")))
        out.write("}}")
    staged.rename(path)


def name_of(number: int, count: int) -> str:
    folder = "files" if count <= FILES else f"files/{number // 1000:04}"
    return f"{folder}/part-{number:07}.parquet"


def size_of(number: int) -> int:
    return 100 + number * 7919 % 1_000_000


def local_copy(root: pathlib.Path) -> None:
    done = root / "done"
    if done.exists():
        return
    (root / "files").mkdir(parents=True, exist_ok=True)
    for number in range(FILES):
        path = root / name_of(number, FILES)
        with path.open("wb") as file:
            file.truncate(size_of(number))
        os.utime(path, (MODIFIED.timestamp(), MODIFIED.timestamp()))
    done.touch()


@dataclasses.dataclass(frozen=True)
class Listing:
    """One run of a command that lists."""

    seconds: float
    lines: frozenset
    requests: int


def listing(side: Local, link: RunningLink, command: list[str]) -> Listing:
    before = link.traffic()
    began = time.perf_counter()
    # Through a shell for the directory alone; a pipe, because ls and find may do less for /dev/null.
    ended = side.run(["sh", "-c", 'cd "$0" && exec "$@"', side.root, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if ended.returncode:
        raise BenchError(f"{side.name}: {command}: {ended.stderr[:500]}")
    # Owners, modes and link counts differ, and so does the total of blocks.
    kept = frozenset(" ".join(line.split()[-5:]) for line in ended.stdout.splitlines() if not line.startswith("total"))
    return Listing(seconds, kept, (link.traffic() - before).requests)


def listings(program: pathlib.Path, origin: Origin, link: RunningLink, run: pathlib.Path, reps: int) -> list[Verdict]:
    manifest(origin.trees / f"t{FILES}/_meta/manifest.json", FILES)
    root = origin.trees.parent / f"tree-{FILES}"
    local_copy(root)
    local = Local(root)
    mount = ParquedbMount("mount", program, run / "tree", link, f"trees/t{FILES}")
    rows = []
    try:
        for name, command in COMMANDS.items():
            began = time.monotonic()
            first = listing(mount, link, command)
            theirs, ours = [], []
            for _ in range(reps):
                theirs.append(listing(local, link, command))
                ours.append(listing(mount, link, command))
            if any(one.lines != theirs[0].lines for one in [first, *ours]):
                raise BenchError(f"{name} lists something else on the mount than on the local disk")
            print(f"{name} of {FILES:,} files: local {median(theirs):.3f} s, mount {median(ours):.3f} s, "
                  f"the first time {first.seconds:.3f} s", flush=True)
            rows.append(Verdict("tree", "2 x local", f"{name}, {FILES:,} files", median(ours), 2 * median(theirs)))
            asked = first.requests + sum(one.requests for one in ours)
            # The mount asks for news twice a minute, whoever lists.
            polls = 1 + int((time.monotonic() - began) / 30)
            rows.append(Verdict("tree", "no request but polls", f"{name}, {FILES:,} files", asked, polls, ""))
    finally:
        mount.close()
    return rows


def median(listings: list[Listing]) -> float:
    return statistics.median(one.seconds for one in listings)


def ready(program: pathlib.Path, origin: Origin, link: RunningLink, run: pathlib.Path, count: int) -> list[Verdict]:
    """How soon a mount answers: the first time, and again with its cache directory in place."""
    path = origin.trees / f"t{count}/_meta/manifest.json"
    manifest(path, count)
    empty = origin.trees / "t1/_meta/manifest.json"
    manifest(empty, 1)
    with ExitStack() as stack:
        small = ParquedbMount("mount", program, run / "ready-1", link, "trees/t1")
        stack.callback(small.close)
        base = small.memory()["now"]
        mount = ParquedbMount("mount", program, run / f"ready-{count}", link, f"trees/t{count}")
        stack.callback(mount.close)
        first, before = mount.ready_seconds, link.traffic()
        mount.remount()
        traffic = link.traffic() - before
        each = (mount.memory()["now"] - base) / count
        print(f"{count:,} entries ({path.stat().st_size / 1e6:.0f} MB of manifest): ready in {first:.2f} s, again in "
              f"{mount.ready_seconds:.2f} s with {traffic.down / 1e6:.2f} MB fetched; {each:.0f} bytes an entry, "
              f"peak {mount.memory()['peak'] / 1e6:.0f} MB", flush=True)
        where = f"{count:,} entries"
        return [Verdict("tree", "5 s, from a cached manifest", where, mount.ready_seconds, 5.0),
                Verdict("tree", "400 bytes each", where, each, 400, "B")]


def measure(program: pathlib.Path, origin: Origin, run: pathlib.Path, reps: int, million: bool) -> list[Verdict]:
    """All of it; a million entries only where asked."""
    with ExitStack() as stack:
        link = RunningLink(stack, DECIDING, origin)
        print(f"\n== trees, {DECIDING}", flush=True)
        rows = listings(program, origin, link, run, reps)
        if million:
            rows += ready(program, origin, link, run, 1_000_000)
        return rows
