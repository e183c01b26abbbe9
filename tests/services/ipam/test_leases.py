"""Who keeps which prefix, and for how long."""

from ipaddress import ip_network

import pytest

from nsm.chains.core import Exhausted, Unavailable
from nsm.services.ipam.lease_store import Holder, MemoryLeases
from nsm.services.ipam.leases import Leases
from nsm.services.ipam.prefix_space import PrefixSpace

ONE, TWO = Holder("spiffe://test.mesh/one", "vl3-1"), Holder("spiffe://test.mesh/two", "vl3-2")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def leases(network="172.16.0.0/16", length=24, store=None, clock=None, most=64):
    space = PrefixSpace(ip_network(network), length)
    return Leases(space, store or MemoryLeases(), lease_time=600, most=most, now=clock or Clock())


async def ask(pool, holder, stream, wanted=None, excluded=()):
    wanted = ip_network(wanted) if wanted else None
    return str(await pool.allocate(holder, stream, wanted, [ip_network(each) for each in excluded]))


async def test_each_endpoint_has_a_prefix_of_its_own():
    pool = leases()
    assert await ask(pool, ONE, "a") == "172.16.0.0/24"
    assert await ask(pool, TWO, "b") == "172.16.1.0/24"
    assert await ask(pool, TWO, "b") == "172.16.2.0/24"


async def test_a_broken_stream_takes_no_prefix_away():
    pool = leases()
    await ask(pool, ONE, "a")
    pool.ended("a")
    assert await ask(pool, TWO, "b") == "172.16.1.0/24"
    assert await ask(pool, ONE, "c", "172.16.0.0/24") == "172.16.0.0/24"


async def test_a_restarted_endpoint_that_knows_nothing_gets_its_prefix_again():
    pool = leases()
    await ask(pool, TWO, "b")
    await ask(pool, ONE, "a")
    pool.ended("a")
    assert await ask(pool, ONE, "c") == "172.16.1.0/24"


async def test_endpoints_without_names_may_share_an_identity():
    """Upstream's send no names: one that is new must not get what another one of them still uses."""
    pool, unnamed = leases(), Holder("spiffe://test.mesh/vl3")
    await ask(pool, unnamed, "a")
    pool.ended("a")
    assert await ask(pool, unnamed, "b") == "172.16.1.0/24"
    assert await ask(pool, unnamed, "c", "172.16.0.0/24") == "172.16.0.0/24"


async def test_nobody_gets_a_prefix_that_somebody_else_has_or_that_lies_elsewhere():
    pool = leases()
    await ask(pool, ONE, "a")
    for wanted in ("172.16.0.0/24", "172.16.0.128/25", "10.0.0.0/24", "2001:db8::/64", "172.16.0.0/16"):
        assert (await ask(pool, TWO, "b", wanted)).startswith("172.16.")
        assert await ask(pool, TWO, "b", wanted) not in ("172.16.0.0/24", wanted)


async def test_a_prefix_is_free_again_after_the_lease_time():
    clock = Clock()
    pool = leases(clock=clock)
    await ask(pool, ONE, "a")
    pool.ended("a")
    clock.now = 599
    assert await ask(pool, TWO, "b") == "172.16.1.0/24"
    clock.now = 600
    assert await ask(pool, TWO, "c") == "172.16.0.0/24"


async def test_a_prefix_in_use_is_never_free_again():
    clock = Clock()
    pool = leases(clock=clock)
    await ask(pool, ONE, "a")
    clock.now = 1e6
    assert await ask(pool, TWO, "b") == "172.16.1.0/24"


async def test_an_endpoint_that_reconnects_before_its_old_stream_ends_keeps_its_prefix():
    clock = Clock()
    pool = leases(clock=clock)
    await ask(pool, ONE, "old")
    assert await ask(pool, ONE, "new", "172.16.0.0/24") == "172.16.0.0/24"
    pool.ended("old")
    clock.now = 1e6
    assert await ask(pool, TWO, "b") == "172.16.1.0/24"


async def test_only_its_stream_gives_a_prefix_back():
    pool = leases()
    await ask(pool, ONE, "a")
    assert not await pool.give_back("b", ip_network("172.16.0.0/24"))
    assert not await pool.give_back("a", ip_network("172.16.1.0/24"))
    assert await pool.give_back("a", ip_network("172.16.0.0/24"))
    assert await ask(pool, TWO, "b") == "172.16.0.0/24"


async def test_prefixes_that_the_request_excludes_are_left_out():
    pool = leases()
    assert await ask(pool, ONE, "a", excluded=["172.16.0.7/32", "172.16.1.0/24"]) == "172.16.2.0/24"
    pool.ended("a")
    assert await ask(pool, ONE, "b", excluded=["172.16.2.0/24"]) == "172.16.0.0/24"


async def test_an_exhausted_network_says_what_is_in_use_and_what_to_do():
    pool = leases("10.0.0.0/23")
    await ask(pool, ONE, "a")
    await ask(pool, TWO, "b")
    pool.ended("a")
    with pytest.raises(
        Exhausted,
        match=r"no /24 is left in 10.0.0.0/23: 2 are in use, 1 of them kept for endpoints that are away, the next for 600 s; use a larger NSM_PREFIX",
    ):
        await ask(pool, Holder("spiffe://test.mesh/three"), "c")


async def test_one_identity_cannot_take_them_all():
    pool = leases(most=2)
    await ask(pool, ONE, "a")
    await ask(pool, ONE, "a")
    with pytest.raises(
        Exhausted, match=r"spiffe://test.mesh/one has 2 prefixes of 172.16.0.0/16 already \(NSM_LIMITS=prefixes:"
    ):
        await ask(pool, ONE, "a")
    assert await ask(pool, TWO, "b") == "172.16.2.0/24"


async def test_a_prefix_that_cannot_be_stored_is_not_handed_out():
    class Full(MemoryLeases):
        async def put(self, prefix, holder):
            raise Unavailable("the disk is full")

    pool = leases(store=Full())
    with pytest.raises(Unavailable, match="the disk is full"):
        await ask(pool, ONE, "a")
    assert len(pool) == 0
