"""What a sync costs beside a bare scan; see scripts/bench-sync."""

import argparse
import os
import pathlib
import re
import statistics
import subprocess
import time

PER_DIRECTORY = 1000
IDLE_GOAL = 1.5
ONE_GOAL = 2.0
MEMORY_GOAL = 1000 << 20


def make(tree, count):
    """Files of a few bytes, of long ago."""
    for n in range(count):
        directory = tree / f"data/part-{n // PER_DIRECTORY:05}"
        if n % PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"file-{n:07}.parquet").write_bytes(f"content {n}".encode())


def timed(command, environment):
    """Seconds, and the most memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return time.perf_counter() - started, usage.ru_maxrss << 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--program", required=True)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    options = parser.parse_args()
    work, tree = options.work, options.work / "tree"
    make(tree, options.files)
    log = open(work / "serve.log", "wb")
    serve = [options.program, "serve", "--listen", "127.0.0.1:0", "--store", work / "store", "--owner", "bench"]
    server = subprocess.Popen(serve, stdout=log, stderr=subprocess.STDOUT)
    try:
        measure(options, work, tree)
    finally:
        server.terminate()
        server.wait()


def measure(options, work, tree):
    url = None
    for _ in range(100):
        found = re.search(r"http://127\.0\.0\.1:\d+", (work / "serve.log").read_text())
        if found:
            url = found.group()
            break
        time.sleep(0.1)
    environment = dict(os.environ, PARQUEDB_REMOTE_URL=url, PARQUEDB_TOKEN=(work / "store/owner.token").read_text().strip())
    sync = [options.program, "sync", "--quiet", "--directory", tree]
    first, memory = timed([options.program, "push", "--quiet", "--directory", tree, "--slug", "data"], environment)
    print(f"{options.files:,} files; the first push {first:.1f} s, {memory >> 20} MiB")
    # What was written just now is read once more, and then trusted.
    time.sleep(2.5)
    timed(sync, environment)
    timed(sync, environment)
    find = ["find", tree, "-type", "f", "-printf", "%s %T@ %C@ %i\n"]
    times = {"bare scan": [], "nothing changed": [], "one file changed": []}
    most = 0
    for n in range(options.rounds):
        times["bare scan"].append(timed(find, environment)[0])
        took, memory = timed(sync, environment)
        times["nothing changed"].append(took)
        most = max(most, memory)
        changed = tree / f"data/part-00000/file-{n:07}.parquet"
        changed.write_bytes(f"changed in round {n}".encode())
        took, memory = timed(sync, environment)
        times["one file changed"].append(took)
        most = max(most, memory)
        # The changed file is old enough to be trusted.
        time.sleep(2.1)
        timed(sync, environment)
    bare = statistics.median(times["bare scan"])
    print(f"  {'bare scan':18} {bare:7.3f} s")
    for what, goal in (("nothing changed", IDLE_GOAL), ("one file changed", ONE_GOAL)):
        median, values = statistics.median(times[what]), times[what]
        verdict = "holds" if median / bare <= goal else "MISSED"
        print(f"  {what:18} {median:7.3f} s  ({min(values):.3f} to {max(values):.3f})  {median / bare:.2f} of a bare scan, goal {goal:.2f}: {verdict}")
    verdict = "holds" if most < MEMORY_GOAL else "MISSED"
    print(f"  memory             {most >> 20} MiB, goal below {MEMORY_GOAL >> 20} MiB: {verdict}")


main()
