"""A workload's calls to an endpoint of its own that does not answer."""

import asyncio

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.composed import endpoint
from nsm.chains.core import Element, MeshError

from .attacker import Attacker
from .endpoints import serving

MANY = 1_000
"""Calls that a component has at once towards another one."""


@pytest.fixture
def attacked(target):
    return target


class Silent(Element):
    async def request(self, call, rest):
        await asyncio.sleep(60)
        return await rest.request(call)


async def test_a_thousand_calls_that_wait_leave_room_for_those_of_others(attacker, victim):
    silent = endpoint("evil-endpoint", attacker.identity, [Silent()])
    async with serving(attacker, silent.methods()), Attacker(attacker.target) as asking:
        calls = [
            asyncio.ensure_future(
                asking.request(
                    attacker.connection(f"waits-{number}", service="evil"),
                    attacker.kernel(),
                    files=[attacker.network],
                    timeout=60,
                )
            )
            for number in range(MANY)
        ]
        try:
            await asyncio.sleep(12)  # until as many as may have been passed on
            made = await victim.request(
                victim.connection("passes"), victim.kernel("vic5"), files=[victim.network], timeout=5
            )
            await victim.close(made)
        finally:
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


async def test_a_forwarder_is_no_endpoint_that_can_be_asked_for(attacker):
    """It would ask itself, and wait for itself."""
    (found, *_) = await attacker.find(NetworkServiceEndpoint(network_service_names=["forwarder"]))
    name = found.network_service_endpoint.name
    asked = attacker.connection("itself", network_service_endpoint_name=name)
    with pytest.raises(MeshError, match="does not provide"):
        await attacker.request(asked, attacker.kernel(), files=[attacker.network], timeout=5)
