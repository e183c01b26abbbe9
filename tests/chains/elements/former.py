"""Endpoints that start again and see the wires of their former process, for tests."""

import ipaddress

from nsm.apis import codec
from nsm.apis.connection import Connection, Path, PathSegment
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain
from nsm.chains.elements.former_wires import FormerWire, FormerWires
from nsm.chains.elements.own_addresses import OwnAddresses
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.networks import NO_NETWORKS


class Interfaces:
    """Those of an endpoint's namespace, with the wires that a forwarder made."""

    def __init__(self):
        self.there, self.news, self.is_open, self.looks = {}, set(), False, 0
        self.overruns, self.error, self.last = False, None, 0

    def make(self, name, *addresses):
        self.last += 1
        self.there[self.last] = FormerWire(self.last, f"nsm {name}", frozenset(map(ipaddress.ip_address, addresses)))

    def set(self, name, addresses):
        """Make a wire, or change its addresses in place."""
        for index, wire in self.there.items():
            if wire.name == f"nsm {name}":
                self.there[index] = FormerWire(index, wire.name, frozenset(addresses))
                return
        self.make(name, *map(str, addresses))

    def remove(self, name):
        for index in [index for index, wire in self.there.items() if wire.name == f"nsm {name}"]:
            del self.there[index]
            self.news.add(index)

    def look(self):
        self.looks += 1
        self.news.clear()
        if self.error is not None:
            raise self.error
        self.is_open = True
        return list(self.there.values())

    def gone(self):
        if self.overruns:
            self.overruns = False
            return None
        gone, self.news = self.news, set()
        return gone

    def close(self):
        self.is_open = False


def start(interfaces, *elements, lifetime=600.0, behind=()):
    """An endpoint's process."""
    elements = elements or (Point2PointIpam(["10.0.0.0/24"]),)
    former = FormerWires(elements, lifetime, interfaces)
    own = OwnAddresses(elements, NO_NETWORKS, lambda: NO_NETWORKS, former)
    return Chain([Begin(), own, *elements, *behind])


async def ask(chain, name, context=None, **ip):
    """Of the connection whose segment at the forwarder has the id `name`."""
    context = codec.clone(context) if context is not None else IpContext(**ip)
    segments = [PathSegment(name=each, id=f"{each}-{name}") for each in ("client", "nsmgr")]
    path = Path(index=3, path_segments=[*segments, PathSegment(name="forwarder", id=name), PathSegment(id=name)])
    connection = Connection(id=name, path=path, context=ConnectionContext(ip_context=context))
    return (await chain.request(Call(NetworkServiceRequest(connection=connection)))).context.ip_context


async def close(chain, name):
    await chain.close(Call(NetworkServiceRequest(connection=Connection(id=name))))
