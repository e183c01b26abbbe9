"""Real members of etcd on the loopback, which tests may kill and start again."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


class EtcdCluster:
    """`members` processes of etcd; ready when entered, gone when left."""

    scheme = "http"
    """Of its clients."""
    program = None
    """Its path; None for the one that is installed."""

    def __init__(self, folder, members=1, more=()):
        self._folder, self._program, self._more = folder, self.program or shutil.which("etcd"), more
        ports = free_ports(2 * members)
        self.clients, self._peers = ports[:members], ports[members:]
        self._processes = {}

    @property
    def url(self):
        """As `NSM_STORE` has it."""
        return "etcd://" + ",".join(f"127.0.0.1:{port}" for port in self.clients)

    def __enter__(self):
        for member in range(len(self.clients)):
            self.start(member)
        for member in range(len(self.clients)):
            self.until_ready(member)
        return self

    def __exit__(self, *_):
        for member in list(self._processes):
            self.kill(member)

    def start(self, member):
        initial = ",".join(f"m{n}=http://127.0.0.1:{port}" for n, port in enumerate(self._peers))
        client, peer = f"{self.scheme}://127.0.0.1:{self.clients[member]}", f"http://127.0.0.1:{self._peers[member]}"
        words = [
            self._program,
            f"--name=m{member}",
            f"--data-dir={self._folder}/m{member}",
            "--log-level=warn",
            "--logger=zap",
            "--heartbeat-interval=50",
            "--election-timeout=500",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={initial}",
            *self._more,
        ]
        with (self._folder / f"m{member}.log").open("a") as log:
            self._processes[member] = subprocess.Popen(words, stdout=log, stderr=log)

    def until_ready(self, member, seconds=30):
        end = time.monotonic() + seconds
        while not self._answers(self.clients[member]):
            told = (self._folder / f"m{member}.log").read_text()
            assert self._processes[member].poll() is None, told
            assert time.monotonic() < end, told
            time.sleep(0.05)

    def kill(self, member):
        process = self._processes.pop(member)
        process.kill()
        process.wait()

    def stop(self, member):
        """It hangs: its sockets stay open."""
        tasks = Path(f"/proc/{self._processes[member].pid}/task")
        os.kill(self._processes[member].pid, signal.SIGSTOP)
        while any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in tasks.glob("*/stat")):
            time.sleep(0.001)

    def go_on(self, member):
        os.kill(self._processes[member].pid, signal.SIGCONT)

    def control(self, *words):
        """etcd's own command."""
        command = ["etcdctl", f"--endpoints=127.0.0.1:{self.clients[0]}", *words]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True).stdout

    def _answers(self, port):
        with socket.socket() as probe:
            probe.settimeout(1)
            try:
                probe.connect(("127.0.0.1", port))
                probe.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b'"health":"true"' in probe.recv(4096)
            except OSError:
                return False


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
