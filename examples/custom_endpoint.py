"""An endpoint with an element of its own: it counts its clients and tells each how many there are."""

from collections.abc import Sequence

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, Key
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam


class CountClients(Element):
    def __init__(self) -> None:
        self.clients, self._is_counted = 0, Key[bool]("counted")

    async def request(self, call: Call, rest: Handler) -> Connection:
        connection = await rest.request(call)
        if not call.live.get(self._is_counted):  # a refresh is a Request too
            self.clients += 1
            call.live.put(self._is_counted, True)
            call.live.on_end(self._left)  # however the connection ends
        connection.context.extra_context["clients"] = str(self.clients)
        return connection

    def _left(self) -> None:
        self.clients -= 1


def counting_endpoint(prefixes: Sequence[Sequence[str]]) -> list[Element]:
    ipams, kernel = map(Point2PointIpam, prefixes), Mechanisms({"KERNEL": [KernelServer()]})
    return [CountClients(), *ipams, kernel, ReturnDescriptors()]
