"""Virtual time, and the time of day with it."""

import asyncio
import time

import pytest

from nsm.chains.core import Refused
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.testing import Mesh, call, wall_clock


async def test_an_hour_takes_no_time():
    loop, began = asyncio.get_running_loop(), time.monotonic()
    before = loop.time()
    await asyncio.sleep(3600)
    assert loop.time() - before == pytest.approx(3600)
    assert time.monotonic() - began < 5


async def test_the_time_of_day_goes_on_with_the_loop_only_while_it_is_asked_to():
    before = time.time()
    await asyncio.sleep(3600)
    assert time.time() - before < 60
    with wall_clock():
        began = time.time()
        await asyncio.sleep(3600)
        assert time.time() - began == pytest.approx(3600)
    assert time.time() - before < 60


async def test_certificates_end_by_the_virtual_clock_too():
    """Those of a mesh in memory last for an hour; nobody is believed by one that has ended."""
    async with Mesh() as mesh:
        await mesh.add_endpoint(
            "shop", [Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()], services=["shop"]
        )
        client = mesh.add_client()
        with wall_clock():
            await client.request(call("a", "shop", timeout=5))
            await asyncio.sleep(3601)
            with pytest.raises(Refused, match="expired"):
                await client.request(call("b", "shop", timeout=5))
