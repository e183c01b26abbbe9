"""Each test has a node of its own: what a forwarder owns is what it finds there, whatever runs beside it."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from nsm.apis.connectioncontext import Route
from nsm.forwarder_kernel import kernel_thread
from nsm.forwarder_kernel.dataplane import Dataplane
from nsm.mesh import namespaces
from tests.system.forwarder_kernel.hosts import Host, wire
from tests.system.forwarder_kernel.policies import IPV4, IPV6, Changes, Connections, host, until_local

from .nodes import plane_in


@pytest.fixture(autouse=True)
def own_node(monkeypatch):
    descriptor = namespaces.new_network()

    def executor(threads, **options):
        return ThreadPoolExecutor(
            threads, **options, initializer=namespaces.enter, initargs=(descriptor, namespaces.NEW_NET)
        )

    monkeypatch.setattr(kernel_thread, "ThreadPoolExecutor", executor)
    yield
    os.close(descriptor)


@pytest.fixture
def hosts():
    made = Host(), Host()
    yield made
    for each in made:
        os.close(each.descriptor)


@pytest.fixture
async def dataplane():
    plane = Dataplane("forwarder")
    yield plane
    await plane.aclose()


@pytest.fixture
def watch():
    """Watch a namespace's rules and routes until the test ends."""
    made = []

    def start(host):
        made.append(Changes(host))
        return made[-1]

    yield start
    for changes in made:
        changes.sock.close()


@pytest.fixture
async def mesh():
    """A client with a wire to each of two endpoints; both have the server's addresses, `one` is the usual way."""
    client, *ends = Host(), Host(), Host()
    plane = Dataplane("forwarder")
    pairs = []
    for name, end in zip(("one", "two"), ends, strict=True):
        ours, theirs = zip(IPV4[name], IPV6[name], strict=True)
        usual = [Route(prefix="172.16.0.0/12"), Route(prefix="fd09::/64")] if name == "one" else []
        ip = {"src_ip_addrs": [host(a) for a in ours], "dst_ip_addrs": [host(a) for a in theirs], "src_routes": usual}
        pairs.append(await plane.create(wire(client, end, names=(name, "nse"), **ip), name))
        end.run("ip", "link", "set", "lo", "up")
        end.run("ip", "address", "add", "172.16.9.9/32", "dev", "lo")
        end.run("ip", "address", "add", "fd09::9/128", "dev", "lo", "nodad")
        until_local(end, "fd09::9")
    yield client, ends, plane, pairs
    await plane.aclose()
    for each in (client, *ends):
        os.close(each.descriptor)


@pytest.fixture
async def connections(mesh):
    made = Connections(mesh[0])
    yield made
    await made.aclose()


@pytest.fixture
async def planes():
    """Makes dataplanes in nodes, and stops them."""
    made = []

    def make(host, *owner):
        made.append(plane_in(host, *owner))
        return made[-1]

    yield make
    for plane in made:
        await plane.aclose()
