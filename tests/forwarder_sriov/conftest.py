"""A node with a network card on a tree like the kernel's; its functions' interfaces are real, on one bridge."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from nsm.chains.devices import Permissions
from nsm.forwarder_kernel import kernel_thread
from nsm.forwarder_sriov import interfaces
from nsm.forwarder_sriov.dataplane import SriovDataplane, whose_ever
from nsm.mesh import namespaces
from tests.forwarder_sriov.tree import Tree
from tests.system.forwarder_kernel.hosts import Host

FUNCTIONS = 3


class Node:
    """`card` and its `pool`; dataplanes of forwarders that are started one after the other."""

    def __init__(self, folder, host):
        self.host, self.tree = host, Tree(folder / "pci")
        self.tree.node_links = self.links
        host.run("ip", "link", "add", "eth0", "type", "bridge", "mcast_snooping", "0")
        host.run("ip", "link", "set", "eth0", "up")
        for number in range(FUNCTIONS):
            host.run("ip", "link", "add", f"eth0v{number}", "type", "veth", "peer", "name", f"port{number}")
            host.run("ip", "link", "set", f"port{number}", "master", "eth0", "up")
        self.card = self.tree.card(functions=FUNCTIONS)
        self.cgroups, self.whose, self.made = folder, whose_ever, []

    def links(self):
        def names():
            namespaces.enter(self.host.descriptor, namespaces.NEW_NET)
            return {name for _, name in socket.if_nameindex()}

        return namespaces.in_thread(names)

    def functions(self):
        return {name for name in self.links() if name.startswith("eth0v")}

    async def forwarder(self, allocated=None):
        """The dataplane of a forwarder that has just started, and its tokens; the kubelet gave `allocated` before."""
        pool, tokens = self.tree.pool(self.card)
        tokens.restore(allocated or {})
        dataplane = SriovDataplane("sriov", self.tree.pci, pool, Permissions(str(self.cgroups)), self.whose)
        self.made.append(dataplane)
        await dataplane.start()
        return dataplane, tokens, pool


@pytest.fixture
async def node(tmp_path, monkeypatch):
    host = Host()

    def executor(threads, **options):
        return ThreadPoolExecutor(
            threads, **options, initializer=namespaces.enter, initargs=(host.descriptor, namespaces.NEW_NET)
        )

    monkeypatch.setattr(kernel_thread, "ThreadPoolExecutor", executor)
    monkeypatch.setattr(interfaces, "_KIND", "veth")
    made = Node(tmp_path, host)
    yield made
    for dataplane in made.made:
        await dataplane.aclose()
    os.close(host.descriptor)


@pytest.fixture
def hosts():
    made = Host(), Host()
    yield made
    for each in made:
        os.close(each.descriptor)
