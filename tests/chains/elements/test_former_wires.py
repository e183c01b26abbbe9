"""An endpoint that starts again gives nobody the addresses of wires that stand."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from nsm.chains.core import Element, Exhausted, Unavailable
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.single_point_ipam import SinglePointIpam
from nsm.chains.testing import Fail
from tests.chains.elements.former import Interfaces, ask, close, start

FORMER = {"src_ip_addrs": ["10.0.0.1/32"], "dst_ip_addrs": ["10.0.0.0/32"]}


async def test_a_new_client_does_not_get_the_address_of_one_that_has_not_asked_again_yet():
    interfaces = Interfaces()
    first = await ask(start(interfaces), "a")
    assert (first.src_ip_addrs, first.dst_ip_addrs) == (["10.0.0.1/32"], ["10.0.0.0/32"])
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    restarted = start(interfaces)
    assert (await ask(restarted, "b")).src_ip_addrs == ["10.0.0.3/32"]
    assert await ask(restarted, "a", first) == first
    assert not interfaces.is_open, "nothing is held any more"


async def test_nor_if_it_names_it():
    """Whoever names an address that is free here gets it; this one is not free."""
    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    chain = start(interfaces)
    context = await ask(chain, "b", **FORMER)
    assert (context.src_ip_addrs, context.dst_ip_addrs) == (["10.0.0.3/32"], ["10.0.0.2/32"])
    assert (await ask(chain, "a", **FORMER)).src_ip_addrs == ["10.0.0.1/32"]


async def test_a_client_whose_request_fails_then_does_not_lose_its_address_to_another_one():
    interfaces, fail = Interfaces(), Fail(Unavailable("no"))
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    chain = start(interfaces, behind=[fail])
    with pytest.raises(Unavailable):
        await ask(chain, "a", **FORMER)
    assert (await ask(chain, "b")).src_ip_addrs == ["10.0.0.3/32"]
    assert (await ask(chain, "a", **FORMER)).src_ip_addrs == ["10.0.0.1/32"]


@pytest.mark.parametrize("overruns", [False, True])
async def test_the_addresses_of_a_wire_that_is_gone_are_free_at_once(overruns):
    interfaces = Interfaces()
    for number in range(2):
        interfaces.make(f"{number}", f"10.0.0.{2 * number}", f"10.0.0.{2 * number + 1}")
    chain = start(interfaces)
    assert (await ask(chain, "x")).src_ip_addrs == ["10.0.0.5/32"]
    interfaces.remove("1")
    interfaces.overruns = overruns
    assert (await ask(chain, "y")).src_ip_addrs == ["10.0.0.3/32"]
    assert (await ask(chain, "z")).src_ip_addrs == ["10.0.0.7/32"]


async def test_a_wire_of_two_interfaces_is_gone_with_the_last_one():
    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.0")
    interfaces.make("a", "10.0.0.1")
    chain = start(interfaces)
    await ask(chain, "first")
    interfaces.news.add(1)
    assert (await ask(chain, "b")).src_ip_addrs == ["10.0.0.5/32"]
    interfaces.news.add(2)
    assert (await ask(chain, "c")).src_ip_addrs == ["10.0.0.1/32"]


async def test_addresses_are_held_no_longer_than_a_client_may_come_back():
    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    chain = start(interfaces, lifetime=100.0)
    assert (await ask(chain, "b")).src_ip_addrs == ["10.0.0.3/32"]
    await asyncio.sleep(100)
    assert (await ask(chain, "c")).src_ip_addrs == ["10.0.0.1/32"]
    assert not interfaces.is_open


async def test_a_wire_that_is_made_for_an_answer_of_the_former_process_is_seen_later_and_own_ones_are_not_former():
    interfaces = Interfaces()
    chain = start(interfaces)
    first = await ask(chain, "a")
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    interfaces.make("late", "10.0.0.2", "10.0.0.3")
    await asyncio.sleep(30)
    assert (await ask(chain, "b")).src_ip_addrs == ["10.0.0.5/32"]
    assert len(chain.elements[1]._former) == 1
    await close(chain, "a")
    assert (await ask(chain, "c")).src_ip_addrs == first.src_ip_addrs
    for number in range(20):
        await ask(chain, f"{number}")
    assert interfaces.looks == 2


async def test_an_address_that_a_client_had_brought_is_brought_by_no_other_one_after_a_restart():
    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.0", "10.0.0.1", "172.16.1.101")
    chain = start(interfaces)
    brought = {"src_ip_addrs": ["172.16.1.101/32"], "dst_ip_addrs": ["172.16.1.100/32"]}
    assert (await ask(chain, "b", **brought)).src_ip_addrs == ["10.0.0.3/32"]
    own = {side: [*brought[side], *FORMER[side]] for side in brought}
    assert (await ask(chain, "a", **own)).src_ip_addrs == ["172.16.1.101/32", "10.0.0.1/32"]


async def test_a_full_pool_of_wires_that_stand_is_full():
    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    chain = start(interfaces, Point2PointIpam(["10.0.0.0/31"]))
    with pytest.raises(Exhausted):
        await ask(chain, "b", **FORMER)
    interfaces.remove("a")
    assert (await ask(chain, "b")).src_ip_addrs == ["10.0.0.1/32"]


async def test_addresses_of_a_segment_are_held_too():
    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.1")
    chain = start(interfaces, SinglePointIpam(["10.0.0.0/24"]))
    assert (await ask(chain, "b", src_ip_addrs=["10.0.0.1/24"])).src_ip_addrs == ["10.0.0.2/24"]
    assert (await ask(chain, "a", src_ip_addrs=["10.0.0.1/24"])).src_ip_addrs == ["10.0.0.1/24"]


async def test_an_endpoint_that_cannot_see_its_interfaces_says_so_and_serves():
    interfaces = Interfaces()
    interfaces.error = PermissionError(1, "not permitted")
    with capture_logs() as logs:
        assert (await ask(start(interfaces), "b")).src_ip_addrs == ["10.0.0.1/32"]
    assert [line["error"] for line in logs] == ["[Errno 1] not permitted"]


async def test_the_wires_that_an_endpoint_requests_itself_are_not_those_of_former_clients():
    class Requesting(Element):
        requested = ("vl3-to-other",)

    interfaces = Interfaces()
    interfaces.make("a", "10.0.0.0", "10.0.0.1")
    (index,) = interfaces.there
    interfaces.there[index] = replace(interfaces.there[index], interface="vl3-to-other")
    chain = start(interfaces, Point2PointIpam(["10.0.0.0/24"]), Requesting())
    assert (await ask(chain, "b")).src_ip_addrs == ["10.0.0.1/32"]
