"""What a manager knows of records that came by others: a refusal of the registry leaves it as it is."""

import asyncio

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import MeshError

from .attacker import Attacker, endpoint_record, service_record

SERVICE = "elsewhere"
QUERY = NetworkServiceEndpoint(network_service_names=[SERVICE])


@pytest.fixture
def attacked(target):
    return target


@pytest.fixture
async def victim(target):
    """What it has is registered at the registry, as that of another node is."""
    registry = target.urls["registry tcp"]
    async with Attacker(target, "victim") as found:
        await found.register(service_record(SERVICE), url=registry)
        records = [endpoint_record(f"far-{port}", SERVICE, url=f"tcp://127.0.0.1:{port}") for port in (6001, 6002)]
        made = [await found.register(each, url=registry) for each in records]
        yield found
        for each in [*made, service_record(SERVICE)]:
            await found.unregister(each, url=registry)


async def names(peer):
    return sorted(found.network_service_endpoint.name for found in await peer.find(QUERY))


@pytest.mark.parametrize("seconds", [5.0, 0.0005])
async def test_an_unregister_that_is_refused_hides_nothing_at_the_manager(attacker, victim, seconds):
    """Nor one that takes too long: the endpoint would be gone for all clients of the node until it registers again."""
    async with asyncio.timeout(5):
        while await names(attacker) != ["far-6001", "far-6002"]:
            await asyncio.sleep(0.1)
    watching = asyncio.ensure_future(victim.find(QUERY, watch=True, timeout=1.0))
    await asyncio.sleep(0.2)
    for record in (endpoint_record("far-6001", SERVICE), service_record(SERVICE)):
        with pytest.raises(MeshError):
            await attacker.unregister(record, timeout=seconds)
    assert await names(attacker) == ["far-6001", "far-6002"]
    assert not [found for found in await watching if found.deleted]
