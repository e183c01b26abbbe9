"""Addresses of a segment that many clients share."""

import asyncio

import pytest

from nsm.apis.connectioncontext import IpContext
from nsm.chains.core import Begin, Chain, Exhausted, InvalidRequest, Unavailable
from nsm.chains.elements.single_point_ipam import SinglePointIpam
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.testing import Fail
from tests.chains.elements.addresses import again, ask, close


async def test_clients_of_a_segment_get_an_address_each_with_the_length_of_the_prefix():
    """None is that of the endpoint or the broadcast address, and the endpoint's end has none."""
    chain = Chain([Begin(), SinglePointIpam(["10.0.0.0/29"])])
    contexts = [await ask(chain, str(number)) for number in range(6)]
    assert [c.src_ip_addrs for c in contexts] == [[f"10.0.0.{n}/29"] for n in range(1, 7)]
    assert contexts[0] == IpContext(src_ip_addrs=["10.0.0.1/29"])
    with pytest.raises(Exhausted, match=r"no address is left in 10\.0\.0\.0/29"):
        await ask(chain, "one too many")
    await close(chain, "2")
    assert (await ask(chain, "later")).src_ip_addrs == ["10.0.0.3/29"]


@pytest.mark.parametrize(
    ("prefix", "addresses"),
    [("fd00::/126", ["fd00::1/126", "fd00::2/126", "fd00::3/126"]), ("10.0.0.0/31", ["10.0.0.1/31"])],
)
async def test_where_there_is_no_broadcast_address_the_last_one_is_used(prefix, addresses):
    chain = Chain([Begin(), SinglePointIpam([prefix])])
    for number, address in enumerate(addresses):
        assert (await ask(chain, str(number))).src_ip_addrs == [address]
    with pytest.raises(Exhausted):
        await ask(chain, "one too many")


async def test_an_address_of_a_segment_is_kept_recovered_replaced_and_given_back():
    fail = Fail(Unavailable("no"))
    ipam = SinglePointIpam(["10.0.0.0/24", "10.1.0.0/24"])
    chain = Chain([Begin(), ipam, StrictIpam([ipam]), fail])
    with pytest.raises(Unavailable):
        await ask(chain)
    context = await ask(chain)
    assert context.src_ip_addrs == ["10.0.0.1/24"]
    assert await again(chain, context) == context
    assert (await again(chain, context, excluded_prefixes=["10.0.0.0/24"])).src_ip_addrs == ["10.1.0.1/24"]
    other = Chain([Begin(), SinglePointIpam(["10.0.0.0/24"])])
    assert (await ask(other, "d", src_ip_addrs=["10.0.0.7/24"])).src_ip_addrs == ["10.0.0.7/24"]
    assert (await ask(other, "e", src_ip_addrs=["10.0.0.7/24"])).src_ip_addrs == ["10.0.0.7/24", "10.0.0.1/24"]
    await asyncio.gather(close(other, "d"), close(other, "e"))
    for number in range(254):  # all of the prefix but the endpoint's and the broadcast address
        await ask(other, str(number))


def test_a_malformed_prefix_of_a_segment_is_named():
    with pytest.raises(InvalidRequest, match="'10.0.0.0/99' is not a prefix"):
        SinglePointIpam(["10.0.0.0/99"])
