"""The sides that are compared: each offers files to an engine, fresh or used, as a path or as URLs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack

from origin import OWNER, SLUG, BenchError, RunningLink, started

HERE = pathlib.Path(__file__).parent
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# An engine of the plain user's may read the Python environment wherever it lies; the daemon has no such right.
MAY_READ = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
# /dev/fuse is open to everyone on most systems; where it is not, it is in this mount namespace only.
# The mounts of others must not live on in it after their end.
PLAIN_NAMESPACE = """
findmnt -rno TARGET,FSTYPE | while read -r target type; do
    case $type in fuse | fuse.*) umount -l "$target" ;; esac
done
mount -t tmpfs -o dev,mode=755 tmpfs "$1" && mknod -m 666 "$1/fuse" c 10 229 &&
mount --bind "$1/fuse" /dev/fuse && echo ready && exec sleep 1000000
"""


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

    def __init__(self, name: str, program: pathlib.Path, dir_: pathlib.Path, link: RunningLink,
                 database: str = f"{OWNER}/{SLUG}"):
        super().__init__(name, dir_, link)
        self.program, self.database = program, database
        self.prepare()
        self.mount()

    def prepare(self) -> None:
        pass

    def environment(self) -> dict:
        return {"PATH": os.environ["PATH"], "HOME": str(self.dir), "no_proxy": "127.0.0.1"}

    def mount(self) -> None:
        command = [self.program, "--quiet", "--remote", self.link.remote, "--cache-dir", self.dir / "cache",
                   "--state-dir", self.dir / "state", self.database, self.root]
        began = time.perf_counter()
        ended = self.run(command, env=self.environment(), capture_output=True, text=True)
        self.ready_seconds = time.perf_counter() - began
        if ended.returncode:
            raise BenchError(f"parquedb-mount exited with {ended.returncode}: {ended.stderr.strip()}")

    def stats(self) -> dict:
        command = [sys.executable, "-c",
                   "import os, sys; print(os.getxattr(sys.argv[1], 'user.parquedb.stats').decode())", self.root]
        return json.loads(self.run(command, check=True, capture_output=True, text=True).stdout)

    def daemon(self) -> int | None:
        for proc in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (proc / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == os.fsencode(self.program) and os.fsencode(self.root) in words:
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
            # It died: what it leaves behind is a mount that answers nothing.
            self.run(["fusermount3", "-uz", self.root], capture_output=True)
            return
        for _ in range(50):
            if self.run(["fusermount3", "-u", self.root], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            self.run(["fusermount3", "-uz", self.root])
        # A mount namespace that somebody else has just made may hold the mount for a while.
        for _ in range(600):
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


class PlainUser:
    """Who is nobody, in a mount namespace of their own whose /dev/fuse they may use. One for all their mounts."""

    def __init__(self, stack: ExitStack, dir_: pathlib.Path):
        (dir_ / "dev").mkdir(parents=True)
        log = dir_ / "namespace.log"
        holder = started(stack, ["unshare", "--mount", "--propagation", "private", "sh", "-c", PLAIN_NAMESPACE, "sh",
                                 dir_ / "dev"], log)
        for _ in range(100):
            if b"ready" in log.read_bytes():
                break
            time.sleep(0.05)
        else:
            raise BenchError(f"no mount namespace for a plain user: {log.read_text()}")
        self.as_nobody = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", *NOBODY]


class PlainUserMount(ParquedbMount):
    """The same as a user without privileges, through fusermount3; only for a bench that runs as root."""

    def __init__(self, user: PlainUser, name: str, program: pathlib.Path, dir_: pathlib.Path, link: RunningLink):
        self.user = user
        super().__init__(name, program, dir_, link)

    def prepare(self) -> None:
        for path in (self.dir, self.root):
            os.chmod(path, 0o755)
            os.chown(path, 65534, 65534)

    def run(self, command: list, **options) -> subprocess.CompletedProcess:
        # Only what reads the mount may read everything; the daemon and fusermount3 may not.
        rights = [] if str(command[0]) in (str(self.program), "fusermount3") else MAY_READ
        return subprocess.run([*self.user.as_nobody, *rights, *map(str, command)], cwd="/", **options)


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
