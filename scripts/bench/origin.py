"""Where the bytes come from: `parquedb serve`, nginx in front of it, and the link in front of nginx.

Every side reads the same nginx through the same link. nginx answers contents from its own disk cache, which is filled
before anything is measured, with the entity tags that `parquedb serve` gave them (nginx's own, made of time and
size, would fail the mount's condition on the SHA-256). What is not a content (manifests, the API) is passed on.
Below /files/ lies the same directory with an index page, as `rclone mount` needs one, and below /trees/ databases
that are manifests only.
"""

import dataclasses
import json
import mmap
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack

import datasets

OWNER, SLUG = "bench", "data"


class BenchError(Exception):
    """Something could not be started or measured, or answered wrongly."""


NGINX = """
{user}
worker_processes 1;
daemon off;
pid {run}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    scgi_temp_path {run}/scgi;
    uwsgi_temp_path {run}/uwsgi;
    proxy_cache_path {run}/contents keys_zone=contents:8m max_size=20g inactive=30d use_temp_path=off;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
        location ~ ^/db/[^/]+/[^/]+/(data|small)/ {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_cache contents;
            # The database does not change here, so a pinned revision is the same content.
            proxy_cache_key $uri;
            proxy_cache_valid 200 30d;
            proxy_ignore_headers Cache-Control Expires Vary;
            proxy_max_temp_file_size 4096m;
        }}
        location /files/ {{ alias {database}/; autoindex on; }}
        location /db/trees/ {{ alias {trees}/; }}
    }}
}}
"""


@dataclasses.dataclass(frozen=True)
class Link:
    """One setting of the link: milliseconds, megabits a second, TCP slow start or not."""

    rtt: int
    rate: int
    slow_start: bool = False

    def __str__(self) -> str:
        return f"{self.rtt} ms, {self.rate} Mbit/s" + (", slow start" if self.slow_start else "")

    def floor(self, needed: int) -> float:
        return needed * 8 / (self.rate * 1e6) + 2 * self.rtt / 1000


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def await_port(port: int, process: subprocess.Popen, log: pathlib.Path) -> None:
    name = log.stem
    for _ in range(200):
        if process.poll() is not None:
            raise BenchError(f"{name} ended with status {process.returncode}: {log.read_text()[-2000:]}")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"{name} does not listen on port {port}")


def started(stack: ExitStack, command: list, log: pathlib.Path, **options) -> subprocess.Popen:
    """A process that is ended when the stack is."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                               stdout=log.open("wb"), stderr=subprocess.STDOUT, **options)

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    return process


class Origin:
    """`parquedb serve` with the database published, and nginx before it unless `kind` is "serve"."""

    def __init__(self, stack: ExitStack, kind: str, bin_dir: pathlib.Path, state: pathlib.Path,
                 database: pathlib.Path, run: pathlib.Path):
        self.stack, self.run, self.kind = stack, run, kind
        self.trees = state / "trees"
        self.trees.mkdir(exist_ok=True)
        store = state / f"store-{database.name}"
        self.port = serve = free_port()
        process = started(stack, [bin_dir / "parquedb", "serve", "--listen", f"127.0.0.1:{serve}", "--store", store,
                                  "--owner", OWNER], run / "serve.log")
        await_port(serve, process, run / "serve.log")
        subprocess.run([bin_dir / "parquedb", "push", "--quiet", "--remote", f"http://127.0.0.1:{serve}",
                        "--token-file", store / "owner.token", "--directory", database, "--slug", SLUG,
                        "--visibility", "public"], check=True)
        if kind == "nginx":
            self.start_nginx(state, database, serve)

    def start_nginx(self, state: pathlib.Path, database: pathlib.Path, serve: int) -> None:
        # In the state's directory, so that it need not be filled at each run.
        run = state / f"nginx-{database.name}"
        run.mkdir(exist_ok=True)
        self.port = free_port()
        conf = self.run / "nginx.conf"
        conf.write_text(NGINX.format(user="user root;" if os.geteuid() == 0 else "", run=run, port=self.port,
                                     upstream=serve, database=database, trees=self.trees))
        log = self.run / "nginx.log"
        nginx = started(self.stack, ["nginx", "-e", "stderr", "-c", conf], log)
        await_port(self.port, nginx, log)
        manifest = json.load(urllib.request.urlopen(self.url(f"db/{OWNER}/{SLUG}/_meta/manifest.json")))
        for path, entry in manifest["files"].items():
            url = self.url(f"db/{OWNER}/{SLUG}/{path}")
            with urllib.request.urlopen(url) as answer:
                while answer.read(1 << 20):
                    pass
            ranged = urllib.request.Request(url, headers={"Range": "bytes=10-19", "If-Match": f'"{entry["hash"]}"'})
            with urllib.request.urlopen(ranged) as answer:
                if answer.status != 206 or answer.headers["ETag"] != f'"{entry["hash"]}"' or len(answer.read()) != 10:
                    raise BenchError(f"nginx answers wrongly for {path}; remove {run} and run this again\n"
                                     f"{answer.status} {answer.headers}")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What has crossed the link."""

    requests: int
    up: int
    down: int
    connections: int

    def __sub__(self, other: "Traffic") -> "Traffic":
        return Traffic(*(a - b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


class RunningLink:
    """A link in front of the origin, which counts what crosses it."""

    def __init__(self, stack: ExitStack, link: Link, origin: Origin):
        self.link, self.port = link, free_port()
        counts = origin.run / f"link-{self.port}.counts"
        command = [sys.executable, pathlib.Path(__file__).with_name("link.py"), self.port, origin.port,
                   link.rtt, link.rate, "--counts", counts]
        log = origin.run / f"link-{self.port}.log"
        process = started(stack, command + ["--slow-start"] * link.slow_start, log)
        await_port(self.port, process, log)
        with counts.open("rb") as file:
            self.counts = memoryview(mmap.mmap(file.fileno(), 32, access=mmap.ACCESS_READ)).cast("Q")

    @property
    def remote(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"{self.remote}/db/{OWNER}/{SLUG}/{path}"

    def traffic(self) -> Traffic:
        return Traffic(*self.counts)

    def check(self) -> float:
        """The share of its nominal rate that one bare curl gets, over about two seconds of data."""
        size = min(int(self.link.rate * 1e6 / 8 * 2), 480_000_000)
        url = self.url(datasets.BIG)
        command = ["curl", "-sf", "-o", "/dev/null", "-r", f"0-{size - 1}", "-w", "%{time_total}", url]
        seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        # Connecting and asking cost two round trips. Slow start would be measured, not the link.
        return size * 8 / (seconds - 2 * self.link.rtt / 1000) / (self.link.rate * 1e6)
