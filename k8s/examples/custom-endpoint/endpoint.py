"""An endpoint of its own making: it brings clients that say their name a route of their own, and refuses others."""

import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass

from nsm.apis.connection import Connection
from nsm.apis.payloads import ETHERNET
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.component import Runtime, run
from nsm.chains.composed import endpoint, endpoints_client, services_client
from nsm.chains.config import Common, text, url, variable
from nsm.chains.core import Call, Element, Handler, Refused, RegistryCall
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.logs import log
from nsm.chains.model.ipcontext import add_route, ip_context_of
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.transport import serve


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
class Config(Common):
    """Named as those of `nsm nse`."""

    name: str = variable("greeter", text, "the endpoint's name; unique in the mesh")
    listen_on: str = variable("unix:///run/nsm/nse.sock", url, "where to listen")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")


async def main(config: Config, runtime: Runtime) -> None:
    """Serve, and be registered, until we are stopped."""
    elements = [
        GreetByRoute(),
        Point2PointIpam(["172.20.0.0/24"]),
        Mechanisms({"KERNEL": [KernelServer()]}),
        ReturnDescriptors(),  # last: it sends what the mechanism named
    ]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(endpoint(config.name, runtime.identity, elements))
        await stack.enter_async_context(serve([config.listen_on], server.methods(), runtime.identity, name=config.name))
        services = await stack.enter_async_context(services_client(config.connect_to, runtime.pool))
        endpoints = await stack.enter_async_context(endpoints_client(config.connect_to, runtime.pool, [SendUrl()]))
        await services.register(RegistryCall(NetworkService(name="greeting", payload=ETHERNET)))
        record = NetworkServiceEndpoint(name=config.name, network_service_names=["greeting"], url=config.listen_on)
        await endpoints.register(RegistryCall(record))
        log.info("ready")
        await runtime.stopping.wait()


if __name__ == "__main__":
    sys.exit(run("greeter", Config, main, sys.argv[1:]))
