"""An endpoint that is registered at the socket of a component: what is asked of it goes in circles."""

import asyncio

import pytest

from nsm.chains.core import InvalidRequest, inode_url
from nsm.chains.transport import parse_address

from .attacker import endpoint_record, service_record


@pytest.fixture
def attacked(target):
    return target


@pytest.mark.parametrize(
    ("component", "told"), [("nsmgr", "passed here already"), ("forwarder", "has the name of this component")]
)
async def test_a_call_that_comes_back_is_refused_the_first_time(attacker, component, told):
    """It passed manager and forwarder 32 times each, or waited for itself until its time was over."""
    path = parse_address(attacker.target.urls[component]).path
    await attacker.register(service_record("circle"))
    made = await attacker.register(endpoint_record("circle-1", "circle", url=inode_url(path)), files=[path])
    try:
        async with asyncio.timeout(5):
            with pytest.raises(InvalidRequest, match=told) as raised:
                await attacker.request(
                    attacker.connection("round", service="circle"), attacker.kernel(), files=[attacker.network]
                )
        assert str(raised.value).count("→") <= 2
    finally:
        await attacker.unregister(made)
        await attacker.unregister(service_record("circle"))
