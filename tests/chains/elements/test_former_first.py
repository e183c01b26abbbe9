"""New clients wait a moment where an endpoint that was started again cannot see what it gave."""

import asyncio

import pytest

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, TimedOut, Unavailable
from nsm.chains.elements.former_first import FormerFirst
from nsm.chains.elements.single_point_ipam import SinglePointIpam


def endpoint():
    ipam = SinglePointIpam(["10.0.0.0/24"])
    first = FormerFirst([ipam])
    first.start()
    return first, Chain([Begin(), first, ipam])


async def ask(chain, connection_id, *addresses, timeout=15.0):
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=list(addresses)))
    request = NetworkServiceRequest(connection=Connection(id=connection_id, context=context))
    deadline = asyncio.get_running_loop().time() + timeout
    return (await chain.request(Call(request, deadline=deadline))).context.ip_context.src_ip_addrs


async def test_after_a_restart_a_client_that_requests_its_address_again_is_served_before_a_new_one():
    first, chain = endpoint()
    first.decide(was_registered=True)
    began = asyncio.get_running_loop().time()
    new = asyncio.ensure_future(ask(chain, "new"))
    await asyncio.sleep(4)
    assert await ask(chain, "old", "10.0.0.1/24") == ["10.0.0.1/24"]
    assert await ask(chain, "old", "10.0.0.1/24") == ["10.0.0.1/24"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(4, abs=0.01)
    assert await new == ["10.0.0.2/24"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(8, abs=0.01)
    assert await ask(chain, "later") == ["10.0.0.3/24"]
    assert asyncio.get_running_loop().time() - began == pytest.approx(8, abs=0.01)


async def test_an_endpoint_that_was_not_there_before_serves_at_once():
    first, chain = endpoint()
    first.decide(was_registered=False)
    began = asyncio.get_running_loop().time()
    assert await ask(chain, "new") == ["10.0.0.1/24"]
    assert asyncio.get_running_loop().time() == began


async def test_a_client_that_has_no_time_to_wait_is_told_when_to_come():
    first, chain = endpoint()
    with pytest.raises(TimedOut, match="is not registered yet"):
        await ask(chain, "early", timeout=1.0)
    first.decide(was_registered=True)
    with pytest.raises(Unavailable, match=r"assigns new addresses in 8\.0 s"):
        await ask(chain, "new", timeout=5.0)
