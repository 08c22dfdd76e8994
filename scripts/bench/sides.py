"""The sides that are compared: each offers files to an engine, fresh or used, as a path or as URLs."""

import json
import os
import pathlib
import shutil
import subprocess
import time
from contextlib import ExitStack

from origin import OWNER, SLUG, RunningLink, started

HERE = pathlib.Path(__file__).parent
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# An engine of the plain user's may read the Python environment wherever it lies; the daemon has no such right.
MAY_READ = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
# /dev/fuse is open to everyone on most systems; where it is not, it is in this mount namespace only.
PLAIN_NAMESPACE = """
mount -t tmpfs -o dev,mode=755 tmpfs "$1" && mknod -m 666 "$1/fuse" c 10 229 &&
mount --bind "$1/fuse" /dev/fuse && echo ready && exec sleep 1000000
"""


class BenchError(Exception):
    """A side could not be measured, or answered wrongly."""


class Local:
    """The original files on this machine's disk."""

    name = "local"

    def __init__(self, database: pathlib.Path):
        self.root = database

    def files(self, pattern: str) -> list[str]:
        return [str(self.root / pattern)]

    def run(self, command: list, **options) -> subprocess.CompletedProcess:
        """Runs a command as whoever uses this side, where they see it."""
        return subprocess.run([str(word) for word in command], cwd="/", **options)

    def stats(self) -> dict:
        return {}

    def remount(self) -> None:
        pass

    def close(self) -> None:
        pass


class OverHttp(Local):
    """URLs: each engine asks by itself."""

    def __init__(self, name: str, database: pathlib.Path, link: RunningLink):
        super().__init__(database)
        self.name, self.link = name, link

    def files(self, pattern: str) -> list[str]:
        # HTTP has no listing: the names are given.
        return [self.link.url(str(path.relative_to(self.root))) for path in sorted(self.root.glob(pattern))]


class Mounted(Local):
    """A folder in `dir`, which is this side's own and is removed at the end."""

    def __init__(self, name: str, dir_: pathlib.Path, link: RunningLink):
        self.name, self.dir, self.link = name, dir_, link
        self.root = dir_ / "mnt"
        self.root.mkdir(parents=True)

    def mounted(self, pid: int) -> bool:
        try:
            return f" {self.root} " in pathlib.Path(f"/proc/{pid}/mountinfo").read_text()
        except OSError:
            return False


class ParquedbMount(Mounted):
    """This project's mount, as whoever runs the bench."""

    def __init__(self, name: str, bin_dir: pathlib.Path, dir_: pathlib.Path, link: RunningLink,
                 database: str = f"{OWNER}/{SLUG}", options: tuple = ()):
        super().__init__(name, dir_, link)
        self.program = dir_ / "parquedb-mount"
        self.database, self.options = database, options
        shutil.copy(bin_dir / "parquedb-mount", self.program)
        self.prepare()
        self.mount()

    def prepare(self) -> None:
        pass

    def environment(self) -> dict:
        return {"PATH": os.environ["PATH"], "HOME": str(self.dir), "no_proxy": "127.0.0.1"}

    def mount(self) -> None:
        command = [self.program, "--quiet", "--remote", self.link.remote, "--cache-dir", self.dir / "cache",
                   "--state-dir", self.dir / "state", *self.options, self.database, self.root]
        began = time.perf_counter()
        ended = self.run(command, env=self.environment(), capture_output=True, text=True)
        self.ready_seconds = time.perf_counter() - began
        if ended.returncode:
            raise BenchError(f"parquedb-mount exited with {ended.returncode}: {ended.stderr.strip()}")

    def stats(self) -> dict:
        command = ["/usr/bin/env", "python3", "-c",
                   "import os, sys; print(os.getxattr(sys.argv[1], 'user.parquedb.stats').decode())", self.root]
        return json.loads(self.run(command, check=True, capture_output=True, text=True).stdout)

    def daemon(self) -> int | None:
        for proc in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (proc / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == os.fsencode(self.program):
                return int(proc.name)
        return None

    def memory(self) -> dict[str, int]:
        """The daemon's resident bytes now, and at most."""
        status = pathlib.Path(f"/proc/{self.daemon()}/status").read_text()
        found = {line.split(":")[0]: int(line.split()[1]) << 10 for line in status.splitlines() if line[:3] == "VmR" or
                 line[:5] == "VmHWM"}
        return {"now": found["VmRSS"], "peak": found["VmHWM"]}

    def unmount(self) -> None:
        pid = self.daemon()
        if pid is None:
            return
        for _ in range(50):
            if self.run(["fusermount3", "-u", self.root], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            self.run(["fusermount3", "-uz", self.root])
        for _ in range(150):
            if self.daemon() is None:
                return
            time.sleep(0.05)
        raise BenchError(f"the daemon {pid} of {self.root} did not end")

    def remount(self) -> None:
        """The daemon ends and another begins with the same cache."""
        self.unmount()
        self.mount()

    def close(self) -> None:
        try:
            self.unmount()
        finally:
            if not os.path.ismount(self.root):
                shutil.rmtree(self.dir, ignore_errors=True)


class PlainUserMount(ParquedbMount):
    """The same as a user without privileges, through fusermount3; only for a bench that runs as root."""

    def prepare(self) -> None:
        self.stack = ExitStack()
        (self.dir / "dev").mkdir()
        log = self.dir / "namespace.log"
        self.holder = started(self.stack, ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                                           PLAIN_NAMESPACE, "sh", self.dir / "dev"], log)
        for _ in range(100):
            if b"ready" in log.read_bytes():
                break
            time.sleep(0.05)
        else:
            raise BenchError(f"no mount namespace for a plain user: {log.read_text()}")
        for path in (self.dir, self.root):
            os.chmod(path, 0o755)
            os.chown(path, 65534, 65534)
        self.prefix = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", *NOBODY, *MAY_READ]

    def run(self, command: list, **options) -> subprocess.CompletedProcess:
        # Only what reads the mount may read everything; the daemon and fusermount3 may not.
        prefix = self.prefix
        if str(command[0]) in (str(self.program), "fusermount3"):
            prefix = self.prefix[: -len(MAY_READ)]
        return subprocess.run([*prefix, *map(str, command)], cwd="/", **options)

    def close(self) -> None:
        try:
            self.unmount()
        finally:
            self.stack.close()
            shutil.rmtree(self.dir, ignore_errors=True)


class Rclone(Mounted):
    """`rclone mount` of the same directory, with its full file cache."""

    def __init__(self, rclone: pathlib.Path, dir_: pathlib.Path, link: RunningLink):
        super().__init__("rclone", dir_, link)
        self.rclone = rclone
        self.mount()

    def mount(self) -> None:
        self.stack = ExitStack()
        command = [self.rclone, "mount", ":http:", self.root, "--http-url", f"{self.link.remote}/files/", "--read-only",
                   "--vfs-cache-mode", "full", "--cache-dir", self.dir / "cache", "--config", self.dir / "rclone.conf"]
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.dir), "no_proxy": "127.0.0.1"}
        self.process = started(self.stack, command, self.dir / "rclone.log", env=environment)
        for _ in range(200):
            if self.mounted(self.process.pid):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.close()
        raise BenchError("rclone does not mount")

    def unmount(self) -> None:
        subprocess.run(["fusermount3", "-u", self.root], capture_output=True)
        # Ends by itself after the unmount; the stack makes sure.
        self.stack.close()
        subprocess.run(["fusermount3", "-uz", self.root], capture_output=True)

    def remount(self) -> None:
        self.unmount()
        self.mount()

    def close(self) -> None:
        self.unmount()
        if not os.path.ismount(self.root):
            shutil.rmtree(self.dir, ignore_errors=True)
