"""Runs the endpoint of custom_endpoint.py as a process: on a socket of its own, registered at the node's manager."""

import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass

from custom_endpoint import counting_endpoint

from nsm.apis.payloads import IP
from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.component import Runtime, run
from nsm.chains.composed import endpoints_client, services_client
from nsm.chains.config import Common, text, url, variable
from nsm.chains.core import RegistryCall
from nsm.chains.logs import log
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.transport import serve


@dataclass(frozen=True, kw_only=True)
class Config(Common):
    name: str = variable("counter", text, "the endpoint's name; unique in the mesh")
    service: str = variable("counting", text, "the service that it provides")
    connect_to: str = variable("unix:///var/lib/networkservicemesh/nsm.io.sock", url, "the manager of the node")


async def main(config: Config, runtime: Runtime) -> None:
    async with AsyncExitStack() as stack:
        listen_on = f"unix://{stack.enter_context(tempfile.TemporaryDirectory())}/listen.on"
        server = await stack.enter_async_context(counting_endpoint(config.name, runtime.identity))
        serving = serve([listen_on], server.methods(), runtime.identity, name=config.name)
        await stack.enter_async_context(serving)
        services = await stack.enter_async_context(services_client(config.connect_to, runtime.pool))
        endpoints = await stack.enter_async_context(endpoints_client(config.connect_to, runtime.pool, [SendUrl()]))
        await services.register(RegistryCall(NetworkService(name=config.service, payload=IP)))
        record = NetworkServiceEndpoint(name=config.name, network_service_names=[config.service], url=listen_on)
        await endpoints.register(RegistryCall(record))
        log.info("ready", service=config.service)
        await runtime.stopping.wait()


if __name__ == "__main__":
    sys.exit(run("counter", Config, main, sys.argv[1:]))
