"""Two trust domains that are federated by real SPIRE, as processes on one machine: no cluster is needed for these.

A client of one domain gets a wire through the manager, the forwarder and the endpoint of another; identities rotate
each minute, and servers and agents are started again meanwhile.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import pytest

from nsm.chains.core import MeshError
from nsm.chains.identity import Authority
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool
from tests.spire.processes import Domain, eventually
from tests.system.forwarder_kernel.hosts import Host

pytestmark = pytest.mark.timeout(400)

GROUPS = {"registry": 7001, "nsmgr": 7002, "forwarder": 7003, "endpoint": 7004, "client": 7005}
PARTS = ("registry", "nsmgr", "forwarder", "endpoint")


class Mesh:
    """The components of domain `two`, and a client of domain `one`; what each logs is in a file."""

    def __init__(self, folder, one, two, stack):
        self.folder, self.one, self.two, self.stack = folder, one, two, stack
        self.node, self.workload, self.running = stack.enter_context(host()), stack.enter_context(host()), {}

    def start(self, name, event):
        """Returns when it has logged `event`."""
        command, variables = self._commands()[name]
        domain = self.one if name == "client" else self.two
        place = self.workload if name == "client" else self.node
        environment = {
            "PATH": os.environ["PATH"],
            "NSM_NAME": name,
            "SPIFFE_ENDPOINT_SOCKET": domain.workload_api,
            "TMPDIR": str(self.folder),
            **variables,
        }
        before = len(self.events(name, event))
        with self._log(name).open("ab") as log:
            words = ["nsenter", f"--net={place.path}", sys.executable, "-m", "nsm.chains", command]
            process = subprocess.Popen(words, env=environment, stderr=log, group=GROUPS[name])
        self.running[name] = process
        self.stack.callback(end, process)
        assert eventually(lambda: len(self.events(name, event)) > before), self._log(name).read_text()[-3000:]

    def stop(self, name):
        process = self.running.pop(name)
        process.terminate()
        assert process.wait(timeout=30) == 0

    def events(self, name, event):
        """What a component has logged of an event."""
        if not self._log(name).exists():
            return []
        lines = [line for line in self._log(name).read_text().splitlines() if line.startswith("{")]
        return [read for read in map(json.loads, lines) if read["event"] == event]

    def rotations(self, name):
        return len(self.events(name, "identity"))

    def endpoint_answers(self):
        """Whether packets pass, to the endpoint's end of the wire."""
        link = next(iter(self.workload.links().values()), None)
        if link is None:
            return False
        (route,) = [each for each in self.workload.json("route") if each["dev"] == link["ifname"]][:1] or [None]
        return route is not None and self.workload.pings(route["dst"])

    def _log(self, name):
        return self.folder / f"{name}.log"

    def _commands(self):
        manager, registry = f"unix://{self.folder}/nsmgr.sock", f"unix://{self.folder}/registry.sock"
        trusted = f"spiffe://{self.two.domain}/nsmgr,spiffe://{self.two.domain}/forwarder"
        serving = {
            "NSM_INTERMEDIARIES": trusted,
            "NSM_REGISTRATION_POLICY": f"forwarder=spiffe://{self.two.domain}/forwarder",
        }
        to_manager = {"NSM_CONNECT_TO": manager, "NSM_INTERMEDIARIES": trusted}
        endpoint = {"NSM_SERVICE_NAMES": "icmp", "NSM_PAYLOAD": "IP", "NSM_CIDR_PREFIX": "10.0.0.0/24"}
        return {
            "registry": ("registry", {"NSM_LISTEN_ON": registry, **serving}),
            "nsmgr": ("nsmgr", {"NSM_LISTEN_ON": manager, "NSM_REGISTRY_URL": registry, **serving}),
            "forwarder": (
                "forwarder-kernel",
                {"NSM_NODE_NAMESPACE": "true", **to_manager, "NSM_LISTEN_ON": f"unix://{self.folder}/forwarder.sock"},
            ),
            "endpoint": ("nse", {**to_manager, **endpoint}),
            "client": ("nsc", {"NSM_CONNECT_TO": manager, "NSM_NETWORK_SERVICES": "kernel://icmp/nsm-1"}),
        }


@contextlib.contextmanager
def host():
    made = Host()
    made.run("ip", "link", "set", "lo", "up")
    try:
        yield made
    finally:
        os.close(made.descriptor)


def end(process):
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Two domains, each of whose servers fetches the other's bundle by itself."""
    folder = tmp_path_factory.mktemp("spire")
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(host())
        one, two = Domain(place, folder / "1", "one.example", 8081), Domain(place, folder / "2", "two.example", 8181)
        for domain, other in ((one, two), (two, one)):
            stack.callback(domain.close)
            domain.start_server(other)
        for domain, other in ((one, two), (two, one)):
            domain.trust(other)
            domain.start_agent()
        one.entry("client", GROUPS["client"], two)
        for name in PARTS:
            two.entry(name, GROUPS[name], one)
        yield one, two


@pytest.fixture(scope="module")
def mesh(domains, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        made = Mesh(tmp_path_factory.mktemp("mesh"), *domains, stack)
        for name in PARTS:
            made.start(name, "ready")
        made.start("client", "wire up")
        yield made


def test_a_client_of_another_domain_has_a_wire(mesh):
    assert mesh.endpoint_answers()
    assert mesh.events("client", "identity")[0]["spiffe_id"] == "spiffe://one.example/client"


def test_whoever_is_of_no_federated_domain_is_not_served(mesh):
    async def ask():
        authority = Authority.create("three.example")
        ours = Authority(
            "two.example", authority.certificate, authority.key
        )  # claims the domain, with a key of its own
        for identity in (identity_of(authority, "client"), identity_of(ours, "client")):
            async with Pool(identity, dial_timeout=5) as pool:
                with pytest.raises(MeshError):
                    await pool.channel(f"unix://{mesh.folder}/nsmgr.sock").peer()

    asyncio.run(ask())


def test_the_wire_stays_while_every_identity_rotates(mesh):
    names = ["client", *PARTS]
    before = {name: mesh.rotations(name) for name in names}
    assert eventually(lambda: all(mesh.rotations(name) >= before[name] + 2 for name in names), seconds=150)
    assert mesh.endpoint_answers()
    assert not mesh.events("client", "refresh failed")
    mesh.stop("client")
    mesh.start("client", "wire up")
    assert mesh.endpoint_answers()


def test_servers_and_agents_that_start_again_are_not_missed(mesh, domains):
    names = ["client", *PARTS]
    for domain in domains:
        domain.restart("server")
        domain.restart("agent")
    before = {name: mesh.rotations(name) for name in names}
    assert eventually(lambda: all(mesh.rotations(name) > before[name] for name in names), seconds=120)
    assert mesh.endpoint_answers()
    mesh.stop("client")
    mesh.start("client", "wire up")
    assert mesh.endpoint_answers()
