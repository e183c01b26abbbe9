"""VLAN breakout on real uplinks, without a mesh: `python -m tests.system.forwarder_kernel.breakout 100 200`.

For the ids that are given (0: untagged): two clients on each, which reach each other and a machine of that VLAN in the
network, and nobody of another id; then nothing may be left. Tagged ids need a kernel with 802.1q.
"""

import asyncio
import sys

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.forwarding.sides import Breakout, KernelInterface
from nsm.chains.forwarding.wires import wire_of

from .nodes import Host, plane_in


def wire_to(host, vlan, address, uplink="eth1", mtu=0):
    """A client's end in the network behind an uplink."""
    ip = IpContext(src_ip_addrs=[f"{address}/24"])
    connection = Connection(payload="ETHERNET", context=ConnectionContext(ip_context=ip, mtu=mtu))
    return wire_of(connection, KernelInterface(host.path, "nsm-1"), Breakout(uplink, vlan))


class Network:
    """A node, its uplink, and a machine at the other end of the cable."""

    def __init__(self):
        self.node, self.machine = Host(), Host()
        self.node.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", self.machine.path)
        self.node.run("ip", "link", "set", "eth1", "up")
        self.machine.run("ip", "link", "set", "eth0", "up")

    def give(self, vlan, address):
        """Put the machine into a VLAN, with an address."""
        name = "eth0"
        if vlan:
            name = f"eth0.{vlan}"
            self.machine.run("ip", "link", "add", "link", "eth0", "name", name, "type", "vlan", "id", str(vlan))
            self.machine.run("ip", "link", "set", name, "up")
        self.machine.run("ip", "address", "add", f"{address}/24", "dev", name)


async def check(*vlans):
    """Raise AssertionError that says which part is not as it should be."""
    network = Network()
    plane = plane_in(network.node)
    clients = {}
    for number, vlan in enumerate(vlans):
        network.give(vlan, f"10.0.{number}.254")
        for position in (1, 2):
            host = Host()
            live = await plane.create(wire_to(host, vlan, f"10.0.{number}.{position}"), f"{vlan}-{position}")
            clients[number, position] = host, live
    tagged = [name for name in network.node.links() if "." in name]
    assert len(tagged) == len([vlan for vlan in vlans if vlan]), tagged
    for (number, position), (host, _) in clients.items():
        assert host.pings(f"10.0.{number}.{3 - position}"), (number, "the other client")
        assert host.pings(f"10.0.{number}.254"), (number, "the machine")
        other = (number + 1) % len(vlans)
        if other != number:
            host.run("ip", "address", "add", f"10.0.{other}.{position + 50}/24", "dev", "nsm-1")
            assert not host.pings(f"10.0.{other}.{position}"), (number, other, "must be apart")
    for _, live in clients.values():
        await plane.remove(live.connection_id)
    assert set(network.node.links()) == {"eth1"}
    assert plane.open_namespaces() == 0
    await plane.aclose()


async def check_restart(vlan, others):
    """A forwarder that starts again takes its sub-interface over and removes it with the last wire.

    That of the id `others` was made by somebody else, is used as well, and stays.
    """
    network = Network()
    network.give(vlan, "10.0.0.254")
    network.node.run("ip", "link", "add", "link", "eth1", "name", f"eth1.{others}", "type", "vlan", "id", str(others))
    first, second, hosts = plane_in(network.node), plane_in(network.node), [Host(), Host(), Host()]
    wires = [wire_to(host, vlan, f"10.0.0.{number}") for number, host in enumerate(hosts[:2], 1)]
    wires.append(wire_to(hosts[2], others, "10.0.1.1"))
    for number, wire in enumerate(wires):
        await first.create(wire, f"c{number}")
    await first.aclose()
    index = network.node.links()[f"eth1.{vlan}"]["ifindex"]
    live = await second.create(wires[0], "c0")
    await second.remove(live.connection_id)
    assert hosts[1].pings("10.0.0.254"), "a wire that the new forwarder has not heard of yet"
    lives = [await second.create(wire, f"c{number}") for number, wire in enumerate(wires[1:], 1)]
    assert network.node.links()[f"eth1.{vlan}"]["ifindex"] == index
    for live in lives:
        await second.remove(live.connection_id)
    assert set(network.node.links()) == {"eth1", f"eth1.{others}"}, network.node.links()
    await second.aclose()


if __name__ == "__main__":
    asyncio.run(check(*map(int, sys.argv[1:])))
    print("ok")
