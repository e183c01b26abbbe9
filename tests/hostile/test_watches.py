"""A registry of another make that has what none of ours would take."""

import asyncio

from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse
from nsm.chains.core import ENDPOINTS, RegistryCall, RegistryChain
from nsm.chains.identity import Authority
from nsm.chains.registry.cache import Cache
from nsm.chains.registry.client_url import RegistryClientUrl
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteRegistry, Streaming, serve

AUTHORITY = Authority.create("test.mesh")
ANY = NetworkServiceEndpoint()


async def test_a_record_of_megabytes_breaks_no_watch(capsys):
    """It is left out with one line, and what comes before and behind it is found."""
    begun = 0

    async def find(query, _incoming):
        nonlocal begun
        begun += 1
        for name, size in (("before", 1), ("huge", 4_194_210), ("huge", 6_000_000), ("behind", 1)):
            record = NetworkServiceEndpoint(name=name, network_service_names=["svc"], url="u" * size)
            yield [NetworkServiceEndpointResponse(network_service_endpoint=record)]
        if query.watch:
            await asyncio.get_running_loop().create_future()

    methods = {"/registry.NetworkServiceEndpointRegistry/Find": Streaming(NetworkServiceEndpointQuery, find)}
    registry, manager = identity_of(AUTHORITY, "registry"), identity_of(AUTHORITY, "nsmgr")
    async with serve(["tcp://127.0.0.1:0"], methods, registry, name="registry") as (url,), Pool(manager) as pool:
        remote = RemoteRegistry(ENDPOINTS, pool)
        async with RegistryChain([Cache(ENDPOINTS), RegistryClientUrl(url)], remote) as chain:
            for _ in range(20):
                found = [one.record.name async for batch in chain.find(RegistryCall(ANY)) for one in batch]
                assert found == ["before", "behind"]
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            before = begun
            assert [one.record.name async for batch in chain.find(RegistryCall(ANY)) for one in batch] == found
            assert begun == before, "it is answered from the watch, which stands"
    told = [line for line in capsys.readouterr().out.splitlines() if "warning" in line and "is left out" in line]
    assert len(told) == 1
