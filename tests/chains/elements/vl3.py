"""A vL3 network for tests of its elements: endpoints with shares, and who is another endpoint."""

from ipaddress import ip_network

from nsm.chains.core import Begin, Chain
from nsm.chains.elements.own_addresses import OwnAddresses
from nsm.chains.elements.vl3_ipam import Vl3Ipam
from nsm.chains.elements.vl3_network import Vl3Network
from nsm.chains.model.networks import NO_NETWORKS
from nsm.chains.model.vl3 import Share, whole_of


def share(prefix, whole=None, excluded=()):
    prefix = ip_network(prefix)
    return Share(prefix, ip_network(whole) if whole else whole_of(prefix), tuple(excluded))


def network(*prefixes):
    """One that has these prefixes."""
    found = Vl3Network(len(prefixes))
    for number, prefix in enumerate(prefixes):
        found.set(number, share(prefix))
    return found


class Registered:
    """Recognizes the connections that begin with the name of another endpoint."""

    def __init__(self, prefix="other"):
        self.prefix = prefix

    async def endpoint_of(self, call):
        return call.connection.id if call.connection.id.startswith(self.prefix) else ""


class NoWires:
    """No wires of an earlier process."""

    def look(self):
        return []

    def gone(self):
        return []

    def close(self):
        pass


def server(net, *elements, peers=None):
    """A chain as an endpoint has it, as far as addresses are concerned."""
    ipam = Vl3Ipam(net, peers or Registered())
    return Chain([Begin(), OwnAddresses([ipam], underlay=lambda: NO_NETWORKS), *elements, ipam])
