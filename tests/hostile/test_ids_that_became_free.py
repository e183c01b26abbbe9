"""Whoever was on a connection's path knows its ids, and is the first to ask with them once it has ended."""

import asyncio

import pytest

from nsm.apis.connection import Path, PathSegment
from nsm.chains.core import MeshError


@pytest.fixture
def attacked(target):
    return target


def ids_of(connection):
    return [segment.id for segment in connection.path.path_segments]


def with_its_ids(connection, attacker, index=0, first=None):
    """The attacker's request along the path of `connection`, from its segment `index` on."""
    segments = [PathSegment(name=each.name, id=each.id) for each in connection.path.path_segments]
    segments[index] = PathSegment(name=attacker.workload, id=first or "of-the-attacker")
    path = Path(index=index, path_segments=segments)
    return type(connection)(id=segments[index].id, network_service="icmp", path=path)


async def made_and_closed(victim, name):
    made = await victim.request(victim.connection(name), victim.kernel(name), files=[victim.network])
    await victim.close(made)
    return made


async def test_a_victim_gets_its_connection_again_whoever_asked_with_its_ids_meanwhile(attacker, victim):
    closed = await made_and_closed(victim, "vic-again")
    claimed = await attacker.request(with_its_ids(closed, attacker), attacker.kernel(), files=[attacker.network])
    assert not {*ids_of(claimed)} & {*ids_of(closed)}
    again = await victim.request(closed, victim.kernel("vic-again"), files=[victim.network])
    assert ids_of(again) == ids_of(closed)
    assert again.context.ip_context.src_ip_addrs != claimed.context.ip_context.src_ip_addrs
    assert ids_of(await victim.request(again, victim.kernel("vic-again"), files=[victim.network])) == ids_of(closed)
    await victim.close(again)
    await attacker.close(claimed)


@pytest.mark.parametrize("component", ["forwarder", "endpoint"])
async def test_nor_does_it_help_to_ask_further_on(attacker, victim, component):
    closed = await made_and_closed(victim, "vic-further")
    position = {"forwarder": 2, "endpoint": 3}[component]
    url, claimed = attacker.target.urls[component], None
    try:
        claimed = await attacker.request(
            with_its_ids(closed, attacker, position - 1, closed.path.path_segments[position - 1].id),
            attacker.kernel(),
            url=url,
            files=[attacker.network],
        )
    except MeshError:
        pass  # it is refused, which does as well
    again = await victim.request(closed, victim.kernel("vic-further"), files=[victim.network])
    assert ids_of(again) == ids_of(closed)
    await victim.close(again)
    if claimed is not None:
        await attacker.close(claimed, url=url)


async def test_nor_to_ask_at_the_very_moment_at_which_it_ends(attacker, victim):
    for number in range(5):
        made = await victim.request(victim.connection("vic-race"), victim.kernel("vic-race"), files=[victim.network])
        asking = [
            attacker.request(
                with_its_ids(made, attacker, first=f"r{number}-{n}"), attacker.kernel(), files=[attacker.network]
            )
            for n in range(4)
        ]
        _, *claims = await asyncio.gather(victim.close(made), *asking, return_exceptions=True)
        again = await victim.request(made, victim.kernel("vic-race"), files=[victim.network])
        assert ids_of(again) == ids_of(made)
        await victim.close(again)
        for claimed in claims:
            if not isinstance(claimed, BaseException):
                assert not {*ids_of(claimed)} & {*ids_of(made)}
                await attacker.close(claimed)
