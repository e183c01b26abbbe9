"""Wires between any two sides, and keys of tunnels."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.forwarding.wires import wire_of


def between(client, endpoint, payload="IP", mtu=0, *, src="10.0.0.1/32", dst="10.0.0.0/32"):
    """The wire between two sides."""
    ip = IpContext(src_ip_addrs=[src], dst_ip_addrs=[dst])
    return wire_of(Connection(payload=payload, context=ConnectionContext(ip_context=ip, mtu=mtu)), client, endpoint)


def keys():
    """A private WireGuard key, and its public one."""
    key = X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()
