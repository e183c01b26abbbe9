"""The composed chains of one node in a process of its own, with their default arguments: ``python -m .. FOLDER``.

Only the dataplane is a fake. Prints where they listen, and ends with its standard input.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains import logs
from nsm.chains.composed import endpoint, endpoints_client, memory_registry, nsmgr, services_client
from nsm.chains.composed.forwarder import forwarder
from nsm.chains.core import RegistryCall
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.forwarding.kernel import kernel
from nsm.chains.policy import Hosts
from nsm.chains.registry.descriptors import SendUrl
from nsm.chains.testing.dataplane import FakeDataplane
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, serve
from nsm.services.identity.authority_file import authority_at

NAMES = ("registry", "nsmgr", "forwarder", "endpoint")


async def serve_all(folder):
    authority = authority_at(f"{folder}/authority.pem", "test.mesh")
    urls = {}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        identities = {name: identity_of(authority, name) for name in NAMES}
        pools = {name: await enter(Pool(identity, dial_timeout=2)) for name, identity in identities.items()}

        async def start(name, methods):
            bound = await enter(
                serve([f"unix://{folder}/{name}.sock", "tcp://127.0.0.1:0"], methods, identities[name], name=name)
            )
            urls[name], urls[f"{name} tcp"] = bound

        async def register(name, service, labels):
            chain = await enter(endpoints_client(urls["nsmgr"], pools[name], [SendUrl()]))
            has = {service: NetworkServiceLabels(labels=labels)}
            await chain.register(RegistryCall(NetworkServiceEndpoint(name, [service], has, urls[name])))

        registry = memory_registry(identities["registry"])
        stack.push_async_callback(registry.aclose)
        await start("registry", registry.methods())
        manager = nsmgr(
            "nsmgr",
            identities["nsmgr"],
            pools["nsmgr"],
            own_url=f"unix://{folder}/nsmgr.sock",
            registry_url=urls["registry"],
            hosts=Hosts(["198.51.100.0/24", "203.0.113.0/24"]),
        )
        stack.push_async_callback(manager.aclose)
        await start("nsmgr", manager.methods())
        own, pool = identities["forwarder"], pools["forwarder"]
        plane = await enter(forwarder("forwarder", own, pool, FakeDataplane(), [kernel()], nsmgr_url=urls["nsmgr"]))
        await start("forwarder", plane.methods())
        elements = [Point2PointIpam(["10.0.0.0/16"]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
        server = await enter(endpoint("endpoint", identities["endpoint"], elements))
        await start("endpoint", server.methods())
        services = await enter(services_client(urls["nsmgr"], pools["endpoint"]))
        await services.register(RegistryCall(NetworkService(name="icmp", payload="IP")))
        await register("forwarder", "forwarder", {"p2p": "true"})
        await register("endpoint", "icmp", {})
        print(json.dumps(urls), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logs.set_up("components", "ERROR")
    asyncio.run(serve_all(sys.argv[1]))
