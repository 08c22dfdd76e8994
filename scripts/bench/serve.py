"""How fast `parquedb serve` gives bytes, beside nginx on the same files, and what a publish costs in databases of
three sizes. Prints medians and ratios; exits 1 if something could not be measured."""

import argparse
import hashlib
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MIB = 1 << 20
NGINX = """
{user} worker_processes 2; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; client_body_temp_path {dir}/nginx.body;
    server {{ listen 127.0.0.1:{port}; location /db/alice/x/ {{ alias {tree}/; }} }}
}}
"""
RANGES = """
math.randomseed(7)
request = function()
  local start = math.random(0, 4095) * 65536
  return wrk.format("GET", "/db/alice/x/big", { ["Range"] = "bytes=" .. start .. "-" .. (start + 65535) })
end
"""
FILES = """
local n = 0
request = function()
  n = (n + 1) % 64
  return wrk.format("GET", "/db/alice/x/s" .. n)
end
"""


class Server:
    """`parquedb serve` on a store below `home`."""

    def __init__(self, bin_dir, home):
        self.home, self.log = home, open(home / "log", "a")
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PARQUEDB_LOG": "warn"}
        command = [bin_dir / "parquedb", "serve", "--owner", "alice", "--json", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, "--store", home / "store"], stdout=subprocess.PIPE, stderr=self.log, env=environment
        )
        said = json.loads(self.process.stdout.readline())
        self.url, self.token = said["url"], Path(said["tokenFile"]).read_text().strip()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        """The most it has held, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024

    def written(self):
        """Bytes it has written so far, sockets included."""
        io = Path(f"/proc/{self.process.pid}/io").read_text()
        return int(next(line.split()[1] for line in io.splitlines() if line.startswith("wchar")))


class Client:
    """The owner, over one connection."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=1800)
        self.headers = {"Authorization": f"Bearer {server.token}"}

    def ask(self, method, path, body=None, headers=None, expect=200):
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        self.connection.request(method, path, body, {**self.headers, **(headers or {})})
        answer = self.connection.getresponse()
        got = answer.read()
        if answer.status != expect:
            sys.exit(f"bench-serve: {method} {path}: HTTP {answer.status}: {got[:300]!r}")
        return got

    def register(self, slug):
        body = {"name": slug, "slug": slug, "visibility": "public", "owner": "alice"}
        return json.loads(self.ask("POST", "/api/sync/register", body, expect=201))["id"]

    def upload(self, database, content):
        entry = {"path": "x", "size": len(content), "hash": hashlib.sha256(content).hexdigest()}
        asked = self.ask("POST", "/api/sync/upload-urls", {"databaseId": database, "files": [entry]})
        target = json.loads(asked)["urls"][0]
        if not target.get("exists"):
            route = "/" + target["url"].split("/", 3)[3]
            self.ask("PUT", route, content, target["headers"])

    def commit(self, database, base, put):
        body = {"commitId": f"commit-{random.randbytes(8).hex()}", "base": base, "put": put, "delete": []}
        return json.loads(self.ask("POST", f"/api/sync/commit/{database}", body))["revision"]


def entry(path, content):
    return {
        "path": path, "size": len(content), "hash": hashlib.sha256(content).hexdigest(), "hashAlgorithm": "sha256",
        "modifiedAt": "2026-01-01T00:00:00Z",
    }


def wrk(url, script, connections, seconds):
    """Requests and bytes a second."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"bench-serve: wrong answers:\n{said}")
    value = {line.split(":")[0].strip(): line.split()[-1] for line in said.splitlines() if "/sec:" in line}
    transfer = value["Transfer/sec"]
    unit = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}[transfer[-2:]]
    return float(value["Requests/sec"]), float(transfer[:-2]) * unit


def bytes_beside_nginx(arguments, place):
    tree = place / "tree"
    tree.mkdir()
    (tree / "big").write_bytes(b"".join(random.Random(n).randbytes(MIB) for n in range(256)))
    for n in range(64):
        (tree / f"s{n}").write_bytes(random.Random(1000 + n).randbytes(MIB))
    server = Server(arguments.bin_dir, place)
    push = [arguments.bin_dir / "parquedb", "push", "--remote", server.url, "--directory", tree, "--slug", "x", "-q"]
    environment = {"HOME": str(place), "PATH": os.environ["PATH"], "PARQUEDB_TOKEN": server.token}
    subprocess.run([*push, "--visibility", "public"], check=True, env=environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its workers must be able to read a directory that is only ours.
    user = "user root;" if os.geteuid() == 0 else ""
    (place / "nginx.conf").write_text(NGINX.format(user=user, dir=place, tree=tree, port=port))
    nginx = subprocess.Popen(["nginx", "-c", place / "nginx.conf"], stderr=subprocess.DEVNULL)
    time.sleep(1)
    (place / "ranges.lua").write_text(RANGES)
    (place / "files.lua").write_text(FILES)
    print(f"{'serve beside nginx':<28}{'serve':>14}{'nginx':>14}{'ratio':>8}   goal")
    rows = [
        ("64 KiB ranges, 16 readers", "ranges.lua", 16, 0, 0.7),
        ("64 KiB ranges, 1 reader", "ranges.lua", 1, 0, None),
        ("1 MiB files, 4 readers", "files.lua", 4, 1, 0.9),
    ]
    try:
        for name, script, connections, which, goal in rows:
            ours, theirs = [], []
            for _ in range(arguments.repeat):
                ours.append(wrk(server.url, place / script, connections, arguments.seconds)[which])
                theirs.append(wrk(f"http://127.0.0.1:{port}", place / script, connections, arguments.seconds)[which])
            ours, theirs = statistics.median(ours), statistics.median(theirs)
            unit = (lambda v: f"{v / 1e6:,.0f} MB/s") if which else (lambda v: f"{v:,.0f} /s")
            ratio = ours / theirs
            verdict = "" if goal is None else f">= {goal}: {'OK' if ratio >= goal else 'misses'}"
            print(f"{name:<28}{unit(ours):>14}{unit(theirs):>14}{ratio:>8.2f}   {verdict}", flush=True)
    finally:
        nginx.terminate()
        nginx.wait()
        server.stop()


def publishing(arguments, place):
    server = Server(arguments.bin_dir, place)
    client = Client(server)
    print(f"\n{'publish 1 file into':<20}{'s':>9}{'max':>9}{'KB written':>13}{'start':>9}{'manifest':>10}{'memory':>10}")
    flat = []
    for entries in arguments.entries:
        database = client.register(f"n{entries}")
        client.upload(database, b"the same in all")
        revision = client.commit(database, 0, [entry(f"d{n % 1000}/f{n}", b"the same in all") for n in range(entries)])
        took, wrote = [], []
        for n in range(arguments.publishes):
            content = f"{entries} {n}".encode()
            before, began = server.written(), time.perf_counter()
            client.upload(database, content)
            revision = client.commit(database, revision, [entry("published", content)])
            took.append(time.perf_counter() - began)
            wrote.append(server.written() - before)
        # Anew: what it takes until the manifest is there, and in memory.
        time.sleep(1)
        server.stop()
        server = Server(arguments.bin_dir, place)
        client = Client(server)
        began = time.perf_counter()
        client.ask("GET", f"/api/sync/log/{database}?limit=1")
        start, began = time.perf_counter() - began, time.perf_counter()
        size = len(client.ask("GET", f"/api/sync/manifest/{database}"))
        manifest = time.perf_counter() - began
        flat.append(statistics.median(took))
        print(
            f"{entries:<20,}{flat[-1]:>9.4f}{max(took):>9.4f}{statistics.mean(wrote) / 1e3:>13.1f}{start:>9.2f}"
            f"{manifest:>10.2f}{server.memory() / 1e6:>7.0f} MB   ({size / 1e6:.0f} MB of manifest)",
            flush=True,
        )
    server.stop()
    ratio = max(flat) / flat[0]
    print(f"the slowest is {ratio:.2f} times the smallest: {'flat' if ratio < 1.5 else 'not flat'} (goal: below 1.5)")


def main():
    parser = argparse.ArgumentParser(prog="bench-serve")
    parser.add_argument("--bin-dir", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--publishes", type=int, default=150)
    parser.add_argument("--entries", type=lambda text: [int(n) for n in text.split(",")], default=[10, 10_000, 1_000_000])
    parser.add_argument("--only", choices=["bytes", "publish"])
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="parquedb-bench-"))
    try:
        if arguments.only != "publish":
            (place / "bytes").mkdir()
            bytes_beside_nginx(arguments, place / "bytes")
        if arguments.only != "bytes":
            (place / "publish").mkdir()
            publishing(arguments, place / "publish")
    finally:
        shutil.rmtree(place, ignore_errors=True)


main()
