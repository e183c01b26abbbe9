"""A local mesh for each test, and what must not be left of it."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir
from nsm.mesh.view import WITHOUT_VIEW

NSM = [sys.executable, "-m", "nsm.chains"]


def until(condition, seconds=10.0):
    """Wait for what the kernel or another process does; False if it does not come."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return met


class Mesh:
    """The commands of one mesh, and a look at it from outside."""

    def __init__(self, name, *, has_view=False):
        self.name = name
        self.environment = {**os.environ, **({} if has_view else {WITHOUT_VIEW: "true"})}
        """Most tests do not look at the view, whose process would only take time."""
        self.folder = Path("/run/nsm-mesh", name)

    def nsm(self, *words, code=0, **options):
        options = {"env": self.environment, **options}
        done = subprocess.run(
            [*NSM, "mesh", "--name", self.name, *words],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            **options,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def up(self, *words, **options):
        return self.nsm("up", *words, **options)

    def start(self, *words, **options):
        """`up`, not waited for."""
        options = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": self.environment,
            **options,
        }
        return subprocess.Popen([*NSM, "mesh", "--name", self.name, "up", *words], **options)

    def start_in(self, workload, *command):
        """A command in a workload, not waited for."""
        words = [*NSM, "mesh", "--name", self.name, "exec", workload, "--", *command]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def run(self, workload, *command, **options):
        return self.nsm("exec", workload, "--", *command, **options)

    def tool(self, workload, words, **options):
        """An `nsm` command in a workload, by its shell: variables of the workload are known there."""
        return self.run(workload, "sh", "-c", f"{' '.join(NSM)} {words}", **options).stdout.splitlines()

    def status(self):
        """As `nsm mesh status --json` shows it."""
        return ask(RunDir.of(self.name), {"command": "status"})

    def pid(self, component):
        return next(c["pid"] for c in self.status()["components"] if c["name"] == component)

    def pids(self):
        return {component["name"]: component["pid"] for component in self.status()["components"]}

    def wire(self, client):
        return next(wire for wire in self.status()["wires"] if wire["client"] == client)

    def zygote(self):
        return parent(self.pid("identity"))

    def supervisor(self):
        return parent(self.zygote())

    def processes(self):
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_ours(pid)]

    def is_gone(self):
        return until(lambda: not self.processes() and not self.folder.exists())

    def _is_ours(self, pid):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return self.name.encode() in words and b"mesh" in words


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


NUMBERS = count(1)


@contextmanager
def local_mesh(**options):
    """One that is not up yet; it is taken down afterwards, and leaves nothing."""
    found = Mesh(f"s{os.getpid()}-{next(NUMBERS)}", **options)
    try:
        yield found
    finally:
        subprocess.run([*NSM, "mesh", "--name", found.name, "down"], capture_output=True, timeout=90, check=False)
    assert found.is_gone()


@pytest.fixture
def mesh():
    with local_mesh() as found:
        yield found
