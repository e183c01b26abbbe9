"""Nodes of VXLAN wires, and one end of a wire on each."""

import ipaddress

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import wire_of

A, B, C = map(ipaddress.ip_address, ("172.16.1.1", "172.16.1.2", "172.16.1.3"))
A6, B6 = map(ipaddress.ip_address, ("fd00:1::1", "fd00:1::2"))
LENGTH = {4: "24", 6: "64"}


def node(underlay, *addresses):
    return underlay.node(*(f"{address}/{LENGTH[address.version]}" for address in addresses))


def end_of(host, name, vxlan, *, side="client", mtu=1446, src="10.0.0.1/32", dst="10.0.0.0/32"):
    """One end of a wire as it is on its node."""
    ip = IpContext(src_ip_addrs=[src], dst_ip_addrs=[dst])
    connection = Connection(payload="ETHERNET", context=ConnectionContext(ip_context=ip, mtu=mtu))
    kernel = KernelInterface(host.path, name)
    return wire_of(connection, *((kernel, vxlan) if side == "client" else (vxlan, kernel)))
