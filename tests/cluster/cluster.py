"""A cluster from outside: start it, load images, run commands in its network, end it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import binary, images, layout
from .node import HIERARCHIES, SOCKET

SECONDS = 180
NEEDED = ["containerd", "ctr", "runc", "iptables", "conntrack", "ethtool", "busybox", "unshare", "nsenter", "ip"]


class CannotStart(Exception):
    """The machine lacks something, or a part of the cluster failed; says what."""


class Cluster:
    """The cluster whose files are in `folder`, with the nodes and networks `of` a layout; it outlives this process."""

    def __init__(self, folder=layout.FOLDER, of=layout.FIRST):
        self.folder, self.layout = folder, of
        self.kubeconfig = folder / "kubeconfig"
        self.kubectl = folder / "kubectl"
        self._process = None

    @property
    def pid(self):
        """The pid of its first process, or None if it does not run."""
        try:
            pid = int(layout.pid_file(self.folder).read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        return pid if str(self.folder).encode() in command else None

    def up(self):
        """Start it; returns when its nodes are ready. Raises `CannotStart`."""
        if self.pid is not None:
            raise CannotStart(f"a cluster runs already in {self.folder}")
        check_machine()
        binaries = binary.programs()
        self._clean()
        logs = self.folder / "logs"
        logs.mkdir(parents=True)
        for node in self.layout.nodes:
            (self.folder / node).mkdir()
        (self.folder / "bin").symlink_to(binaries)
        images.write_all(self.folder / "images", binaries)
        with (logs / "cluster.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"),
                    *(sys.executable, "-m", "tests.cluster.control_plane", str(self.folder), str(self.layout.number)),
                ],
                cwd=layout.CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.down(keep=True)
            raise
        self._write_kubectl()

    def down(self, keep=False):
        """End it, and take away all that it had, but for the logs if `keep`. Ending what does not run is fine."""
        if self._process is not None:
            self._process.kill()  # and with it what it has started
            self._process.wait()
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            while self.pid is not None:
                time.sleep(0.05)
        if keep:
            remove_cgroups(layout.cgroup(self.folder))
        else:
            self._clean()

    def command(self, words):
        """The words that run `words` in the cluster's network."""
        return ["nsenter", f"--target={self.pid}", "--net", "--", *map(str, words)]

    def environment(self):
        """For commands that ask the cluster: its kubeconfig, its kubectl."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }

    def load(self, archive):
        """Import an archive of images (`docker save`) on all nodes."""
        for node in self.layout.nodes:
            with Path(archive).open("rb") as content:
                self.on_node(
                    node, ["ctr", "--address", SOCKET, "--namespace", "k8s.io", "images", "import", "-"], content
                )

    def on_node(self, node, words, stdin=subprocess.DEVNULL):
        """Run a command among a node's processes and files; what it wrote. Raises CalledProcessError."""
        pid = layout.pid_file(self.folder, node).read_text()
        entered = ["nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--", *map(str, words)]
        return subprocess.run(entered, stdin=stdin, stdout=subprocess.PIPE, check=True, text=True).stdout

    def join(self, other):
        """Join the network with that of another cluster; each reaches the other's nodes, pods and load balancers."""
        ends = dict(zip((self, other), map(str, layout.BETWEEN.hosts()), strict=True))
        names = {each: f"cluster{each.layout.number}" for each in ends}
        made = ["ip", "link", "add", names[other], "type", "veth", "peer", "name", names[self], "netns", other.pid]
        subprocess.run(self.command(made), check=True)
        for one, far in ((self, other), (other, self)):
            for words in (
                ["address", "add", f"{ends[one]}/{layout.BETWEEN.prefixlen}", "dev", names[far]],
                ["link", "set", names[far], "up"],
                *(["route", "add", net, "via", ends[far]] for net in (far.layout.site, far.layout.pods)),
            ):
                subprocess.run(one.command(["ip", *words]), check=True)

    def signal(self, number, program, node=None):
        """Send a signal to a program of the control plane, or of a node; one that ends is started again in a second.

        Raises `ProcessLookupError` if there is none.
        """
        found = False
        ours = Path("/proc", layout.pid_file(self.folder, node).read_text(), "ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end while it is read
                named = (process / "comm").read_text() == f"{program[:15]}\n"  # the kernel knows no more of it
                if named and (process / "ns/pid").readlink() == ours:
                    os.kill(int(process.name), number)
                    found = True
        if not found:
            raise ProcessLookupError(f"no {program} runs on {node or 'the control plane'}")

    def _wait(self):
        end = time.monotonic() + SECONDS
        while not (self.folder / "ready").exists():
            if self._process.poll() is not None or time.monotonic() > end:
                said = (self.folder / "logs/cluster.log").read_text(errors="replace")
                raise CannotStart(f"the cluster did not become ready; logs are in {self.folder}\n{said}")
            time.sleep(0.1)

    def _write_kubectl(self):
        enter = " ".join(self.command([self.folder / "bin/kubectl", f"--kubeconfig={self.kubeconfig}"]))
        self.kubectl.write_text(f'#!/bin/sh\nexec {enter} "$@"\n')
        self.kubectl.chmod(0o755)

    def _clean(self):
        remove_cgroups(layout.cgroup(self.folder))
        if self.folder.exists():
            shutil.rmtree(self.folder)


def second():
    """The other one, of one node."""
    return Cluster(layout.SECOND_FOLDER, layout.SECOND)


def check_machine():
    """Raises `CannotStart` if a cluster cannot run here."""
    if os.geteuid() != 0:
        raise CannotStart("a cluster needs root: it makes namespaces, mounts and control groups")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if not Path("/usr/lib/cni/bridge").exists():
        missing.append("/usr/lib/cni/bridge")
    if missing:
        raise CannotStart(f"missing: {', '.join(missing)}; scripts/system-packages cluster installs them")
    if not (HIERARCHIES / "memory").is_dir():
        raise CannotStart(f"no cgroup v1 under {HIERARCHIES}: the nodes know only that kind of control groups")


def remove_cgroups(name):
    """Remove what ended processes have left of the control groups of that name."""
    for top in HIERARCHIES.glob(f"*/{name}"):
        for folder, _, _ in os.walk(top, topdown=False):
            remove_group(Path(folder))


def remove_group(group, seconds=10):
    """Remove one; the kernel lets go of the last process a moment after its end."""
    end = time.monotonic() + seconds
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
