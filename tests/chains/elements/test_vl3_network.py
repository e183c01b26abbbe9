"""The shares of an endpoint of a vL3, and the addresses for its clients."""

import asyncio
from ipaddress import ip_address

from nsm.chains.model.prefixes import Excluded
from tests.chains.elements.vl3 import Vl3Network, share

NOTHING = Excluded(())


async def test_it_is_ready_when_every_prefix_service_has_answered():
    network, seen = Vl3Network(2), []
    network.on_change(lambda: seen.append(network.is_ready))
    network.set(1, share("2001:db8::/64"))
    waiting = asyncio.ensure_future(network.ready())
    network.set(0, share("172.16.0.0/24"))
    await waiting
    assert seen == [False, True]
    assert [str(each) for each in network.own()] == ["172.16.0.0", "2001:db8::"]


async def test_the_same_share_again_changes_nothing():
    network, seen = Vl3Network(1), []
    network.set(0, share("172.16.0.0/24"))
    ((_, pool),) = network.pools()
    network.on_change(lambda: seen.append(1))
    network.set(0, share("172.16.0.0/24"))
    assert not seen
    assert [each for _, each in network.pools()] == [pool]


async def test_addresses_of_earlier_wires_are_held_even_before_the_prefix_is_known():
    network = Vl3Network(1)
    network.hold("nsm a", {ip_address("172.16.0.1"), ip_address("172.16.1.1")})
    network.set(0, share("172.16.0.0/24"))
    ((_, pool),) = network.pools()
    assert str(pool.pull(NOTHING)) == "172.16.0.2"
    network.release("nsm a")
    assert str(pool.pull(NOTHING)) == "172.16.0.1"
