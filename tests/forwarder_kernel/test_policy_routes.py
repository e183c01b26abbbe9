"""When policy routes have nothing to do in a namespace: what they do there is tested in a real one."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext, PolicyRoute
from nsm.chains.core import Begin, Chain, InvalidRequest
from nsm.chains.testing import Record, call
from nsm.forwarder_kernel.policy_routes import PolicyRoutes


class NoKernel:
    """Nobody is to enter a namespace."""

    is_closed = False

    async def in_node(self, work):
        raise AssertionError("a namespace is entered")


def asked(policy, kind="KERNEL"):
    context = ConnectionContext(ip_context=IpContext(dst_ip_addrs=["10.0.0.1/32"], policies=[policy]))
    return call(context=context, mechanism=Mechanism(type=kind, parameters={"inodeURL": "file:///proc/self/ns/net"}))


async def test_a_policy_that_cannot_be_is_refused_before_anything_is_touched():
    begin, element = Begin(), PolicyRoutes(NoKernel())
    with pytest.raises(InvalidRequest):
        await Chain([begin, element]).request(asked(PolicyRoute(proto="17", dst_port="90-80")))
    assert len(begin) == 0


async def test_a_client_s_end_on_another_node_is_that_node_s_matter():
    begin, element, probe = Begin(), PolicyRoutes(NoKernel()), Record()
    chain = Chain([begin, element, probe])
    await chain.request(asked(PolicyRoute(proto="17", dst_port="80"), kind="VXLAN"))
    (store,) = begin.stores()
    assert not element.has_any(store)
    assert await element.repair(store, do=True) == []
    await chain.close(call())
    assert (len(probe.requests), len(probe.closes)) == (1, 1)
