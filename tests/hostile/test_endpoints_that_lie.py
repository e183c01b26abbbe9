"""A workload provides a service of its own, and answers its clients' mesh with lies about others."""

import asyncio

import pytest

from nsm.apis.connection import Connection, ConnectionEvent, ConnectionEventType, Path, PathSegment, State
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.core import MeshError
from nsm.chains.transport import monitor, network_service

from .attacker import Attacker
from .endpoints import like_others, serving


@pytest.fixture
def attacked(target):
    return target


@pytest.fixture
async def connection(victim):
    made = await victim.request(victim.connection("lied-about"), victim.kernel("vic3"), files=[victim.network])
    yield made
    await victim.close(made)


async def shown_to(victim, component):
    events = await victim.monitor(url=victim.target.urls[component])
    return {key: found for event in events for key, found in event.connections.items()}


class Teller:
    """A monitor that says what it is given."""

    def __init__(self):
        self.lies = asyncio.Queue()

    async def monitor(self, _selector, _peer=None):
        yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER)
        while True:
            yield await self.lies.get()


async def test_an_endpoint_takes_no_connection_down_that_is_not_its_own(attacker, victim, connection):
    """Its event is of its own client's connection, and names the victim's where the path passes the manager."""
    victims = connection.path.path_segments[1].id
    teller, chain = Teller(), like_others(attacker).chain
    async with serving(attacker, {**network_service(chain), **monitor(teller)}):
        own = await attacker.request(
            attacker.connection("own", service="evil"), attacker.kernel(), files=[attacker.network]
        )
        segments = [PathSegment(name=each.name, id=each.id) for each in own.path.path_segments]
        segments[1].id = victims
        told = ConnectionContext(ip_context=IpContext(src_ip_addrs=["192.0.2.66/32"]))
        lie = Connection(segments[3].id, "evil", path=Path(3, segments), state=State.DOWN, context=told)
        await asyncio.sleep(0.3)  # until it is listened to
        teller.lies.put_nowait(ConnectionEvent(ConnectionEventType.UPDATE, {lie.id: lie}))
        await asyncio.sleep(0.3)
        shown = (await shown_to(victim, "nsmgr"))[victims]
        await attacker.close(own)
    assert shown.state == State.UP
    assert shown.context.ip_context.src_ip_addrs == connection.context.ip_context.src_ip_addrs


class Answers:
    """An endpoint's chain, and what is changed in its answers."""

    def __init__(self, chain, change):
        self._chain, self._change, self.close = chain, change, chain.close

    async def request(self, call):
        connection = await self._chain.request(call)
        self._change(connection)
        return connection


async def test_an_answer_with_another_connections_ids_is_still_that_of_its_own(attacker, victim, connection):
    ids = [each.id for each in connection.path.path_segments]

    def change(answer):
        for position, one in enumerate(ids[:3]):
            answer.path.path_segments[position].id = one

    chain = like_others(attacker).chain
    async with serving(attacker, network_service(Answers(chain, change))):
        own = await attacker.request(
            attacker.connection("own", service="evil"), attacker.kernel(), files=[attacker.network]
        )
        for position, component in ((1, "nsmgr"), (2, "forwarder")):
            assert (await shown_to(victim, component))[ids[position]].network_service == "icmp", component
        await attacker.close(own)
    assert not {each.id for each in own.path.path_segments} & set(ids)
    assert own.id == "own"


class Teeming:
    """A monitor whose events hold as much as one may, of as many parts as there is room for."""

    def __init__(self, parts):
        self._event = ConnectionEvent(
            ConnectionEventType.UPDATE, {"x": Connection(path=Path(3, [PathSegment()] * parts))}
        )

    async def monitor(self, _selector, _peer=None):
        yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER)
        while True:
            yield self._event
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("parts", [30_000, 1_000_000])
async def test_events_of_an_endpoint_leave_its_forwarder_to_others(mesh, bystander, parts):
    async with Attacker(mesh) as attacker:
        teeming, chain = Teeming(parts), like_others(attacker).chain
        async with serving(attacker, {**network_service(chain), **monitor(teeming)}), bystander.watching():
            own = await attacker.request(
                attacker.connection("own", service="evil"), attacker.kernel(), files=[attacker.network]
            )
            await asyncio.sleep(4)
            await attacker.close(own)


class Lengthy:
    """Answers with a path of as many segments as there is room for."""

    async def request(self, _call):
        return Connection(id="x", path=Path(3, [PathSegment()] * 125_000))

    async def close(self, _call):
        pass


async def test_answers_of_an_endpoint_leave_its_forwarder_to_others(mesh, bystander):
    async with Attacker(mesh) as attacker, serving(attacker, network_service(Lengthy())), bystander.watching():
        for number in range(40):
            with pytest.raises(MeshError):
                await attacker.request(
                    attacker.connection(f"own-{number}", service="evil"), attacker.kernel(), files=[attacker.network]
                )
