"""An endpoint of its own making: it brings clients that say their name a route of their own, and refuses others."""

import sys
from dataclasses import dataclass

from nsm.apis.connection import Connection
from nsm.apis.payloads import ETHERNET
from nsm.chains.config import address_groups, items, text, variable
from nsm.chains.core import Call, Element, Handler, Refused
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.ipcontext import add_route, ip_context_of
from nsm.chains.serving import EndpointConfig, payload, run_endpoint


class GreetByRoute(Element):
    """Clients without the label `name` are refused; the others see a route by which we greet them."""

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Raises `Refused` for who says no name."""
        if "name" not in call.connection.labels:
            raise Refused("say your name: kernel://greeting/nsm-1?name=...")
        connection = await rest.request(call)
        add_route(ip_context_of(connection).src_routes, "203.0.113.0/24")
        return connection


@dataclass(frozen=True, kw_only=True)
class Config(EndpointConfig):
    """Named as those of `nsm nse`."""

    name: str = variable("greeter", text, "the endpoint's name; unique in the mesh")
    service_names: tuple[str, ...] = variable("greeting", items, "the services to provide")
    payload: str = variable(ETHERNET, payload, "what a wire carries: IP or ETHERNET")
    cidr_prefix: tuple[tuple[str, ...], ...] = variable("172.20.0.0/24", address_groups, "addresses to give out")


def chain(config: Config) -> list[Element]:
    """The endpoint's chain."""
    return [
        GreetByRoute(),
        *map(Point2PointIpam, config.cidr_prefix),
        Mechanisms({"KERNEL": [KernelServer()]}),
        ReturnDescriptors(),  # last: it sends what the mechanism named
    ]


if __name__ == "__main__":
    sys.exit(run_endpoint("greeter", Config, chain, sys.argv[1:]))
