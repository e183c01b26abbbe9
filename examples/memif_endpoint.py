"""An endpoint whose packets are those of its own VPP: each wire is a memif, at which this VPP is the master."""

import sys
from dataclasses import dataclass

from memif_vpp import add_memif, own_vpp

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import MEMIF
from nsm.chains.component import Runtime, run
from nsm.chains.config import address_groups, items, text, variable
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.memif import MemifEndpoint
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.serving import EndpointConfig, serve_endpoint
from nsm.forwarder_vpp.api import VPP


def socket_of(connection_id: str) -> str:
    """The socket of a connection: abstract, in this workload's network namespace."""
    return f"@nsm/endpoint/{connection_id}"


class OwnMemif(Element):
    """Have the endpoint's end of each wire in its VPP."""

    def __init__(self, vpp: VPP) -> None:
        self._vpp, self._index = vpp, Key[int]("memif of the endpoint")

    async def request(self, call: Call, rest: Handler) -> Connection:
        ip, store = call.connection.context.ip_context, call.live
        if store.get(self._index) is None:  # a refresh is a Request too
            socket, (own, *_), (client, *_) = socket_of(store.connection_id), ip.dst_ip_addrs, ip.src_ip_addrs
            index = store.put(self._index, await add_memif(self._vpp, socket, own, client, is_master=True))
            store.on_end(lambda: store.spawn(self._remove(index), name="removal of a memif"))
        return await rest.request(call)

    async def _remove(self, index: int) -> None:
        await self._vpp.call("memif_delete", sw_if_index=index)


@dataclass(frozen=True, kw_only=True)
class Config(EndpointConfig):
    name: str = variable("endpoint", text, "the endpoint's name; unique in the mesh")
    service_names: tuple[str, ...] = variable("fast", items, "the services to provide")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("10.60.0.0/31", address_groups, "addresses to give out")


async def serve(config: Config, runtime: Runtime) -> None:
    async with own_vpp() as vpp:
        memif = Mechanisms({MEMIF: [MemifEndpoint(socket_of), OwnMemif(vpp)]})
        elements = [*map(Point2PointIpam, config.cidr_prefix), memif, ReturnDescriptors()]
        await serve_endpoint(config, runtime, elements)


if __name__ == "__main__":
    sys.exit(run("memif-endpoint", Config, serve, sys.argv[1:]))
