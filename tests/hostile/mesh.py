"""Two meshes to attack, each in processes of its own: the real commands, and the composed chains with their defaults.

`Target` is the same for both. What is expected of it: an endpoint `endpoint` provides the service `icmp`, and `victim`
is a workload that has an identity (and, in the real mesh, a wire).
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from nsm.chains.identity import Authority, Identity
from nsm.chains.testing.identity import identity_of
from nsm.mesh import namespaces
from nsm.mesh.control import ask
from nsm.mesh.rundir import RunDir
from nsm.services.identity.authority_file import authority_at

NSM = [sys.executable, "-m", "nsm.chains"]
SERVICE = "icmp"
WORKLOADS = ("victim", "attacker", "bystander")
# Honest endpoints of the tests need not be anywhere: places for documentation may be registered at the manager.
TOPOLOGY = """
nodes:
  - name: node-1
    manager: {environment: {NSM_REGISTRATION_HOSTS: "198.51.100.0/24,203.0.113.0/24"}}
endpoints:
  - {name: endpoint, node: node-1, services: [icmp], payload: IP, prefixes: [10.0.0.0/16]}
clients:
  - {name: victim, node: node-1, wires: ["kernel://icmp/nsm-1"]}
  - {name: attacker, node: node-1, wires: ["kernel://icmp/nsm-1"]}
  - {name: bystander, node: node-1, wires: ["kernel://icmp/nsm-1"]}
"""


@dataclass(frozen=True)
class Target:
    """A mesh that runs, from outside.

    `urls` are where its components listen (`nsmgr`, `nsmgr tcp`, `registry tcp`, `forwarder`, `endpoint`, ..), `pids`
    their processes. TCP is reached inside `network` (a descriptor of a network namespace); None: from here.
    """

    urls: dict[str, str]
    pids: dict[str, int]
    authority: Authority
    path: str
    """The path of the workloads' SPIFFE IDs, before their names."""
    network: int | None = None
    networks: dict[str, str] = field(default_factory=dict)
    """Paths of the workloads' network namespaces, where they have some."""
    enter: tuple[str, ...] = ()
    """Words before a command that is to run as the workload `bystander`."""

    def id_of(self, workload):
        return f"spiffe://{self.authority.trust_domain}{self.path}/{workload}"

    def identity(self, workload, **options) -> Identity:
        """A new SVID of a workload, as the issuer would give it."""
        return identity_of(self.authority, f"{self.path}/{workload}".lstrip("/"), **options)

    def resident_mib(self, component, kind="VmRSS"):
        for line in Path(f"/proc/{self.pids[component]}/status").read_text().splitlines():
            if line.startswith(kind):
                return int(line.split()[1]) / 1024
        return 0.0

    def forget_peaks(self):
        """Begin anew with `VmHWM`, the largest resident memory."""
        for pid in set(self.pids.values()):
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def descriptors(self, component):
        return len(os.listdir(f"/proc/{self.pids[component]}/fd"))

    def is_whole(self):
        """Whether all of its processes live."""
        return all(os.path.exists(f"/proc/{pid}/exe") for pid in self.pids.values())

    @contextlib.contextmanager
    def reached(self):
        """While this thread is where the TCP sockets of the mesh can be reached."""
        if self.network is None:
            yield
            return
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.enter(self.network, namespaces.NEW_NET)
            yield
        finally:
            namespaces.enter(before, namespaces.NEW_NET)
            os.close(before)


@contextlib.contextmanager
def real(name):
    """A local mesh of one node, by `nsm mesh up`: its logs are what `logs_of` gives."""
    run = RunDir.of(name)
    words = [*NSM, "mesh", "--name", name]
    up = subprocess.run(
        [*words, "up", "-f", "/dev/stdin"], input=TOPOLOGY, capture_output=True, text=True, timeout=50, check=False
    )
    assert up.returncode == 0, up.stdout + up.stderr
    network = None
    taking_down = _takes_down_when_told(words)
    try:
        status = ask(run, {"command": "status"})["components"]
        pids = {each["name"].removesuffix("-node-1"): each["pid"] for each in status}
        network = os.open(f"/proc/{pids['nsmgr']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        yield Target(
            {
                "nsmgr": f"unix://{run.socket_of('nsmgr-node-1')}",
                "forwarder": f"unix://{run.socket_of('forwarder-node-1')}",
                "endpoint": f"unix://{_socket_of_endpoint(pids['endpoint'])}",
                "identity": f"unix://{run.identity_of('attacker')}",
                "nsmgr tcp": "tcp://127.0.0.1:5001",
                "registry tcp": "tcp://127.0.0.1:5002",
            },
            pids,
            authority_at(str(run.authority_of("identity")), "local.mesh"),
            "/node-1",
            network,
            {each: f"/proc/{pids[each]}/ns/net" for each in (*WORKLOADS, "endpoint")},
            (*words, "exec", "bystander", "--"),
        )
    finally:
        if network is not None:
            os.close(network)
        taking_down.communicate(timeout=60)


def _takes_down_when_told(words):
    """A process that takes the mesh down when its standard input ends: also if these tests are killed."""
    command = ["sh", "-c", 'read nothing; exec "$@"', "sh", *words, "down"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def logs_of(name, component):
    """What a component of a real mesh has logged."""
    return RunDir.of(name).log_of(f"{component}-node-1").read_text()


def _socket_of_endpoint(pid):
    """An endpoint listens in a folder of its own: the kernel says where."""
    inodes = {_inode(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")}
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7 and int(fields[6]) in inodes and fields[3] == "00010000":
            return fields[7]
    raise AssertionError("the endpoint listens nowhere")


def _inode(path):
    try:
        return os.stat(path).st_ino
    except OSError:
        return -1


@contextlib.contextmanager
def composed(folder):
    """The composed chains with their default arguments, all in one process; in place of the kernel a stub."""
    authority = authority_at(f"{folder}/authority.pem", "test.mesh")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.components", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        urls = json.loads(process.stdout.readline())
        yield Target(urls, dict.fromkeys(("registry", "nsmgr", "forwarder", "endpoint"), process.pid), authority, "")
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def until(condition, seconds=5.0):
    """Wait for what another process does; False if it does not come."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return met
