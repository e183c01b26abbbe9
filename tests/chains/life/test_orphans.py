"""Managers and forwarders that are away for longer than tokens live: wires whose two ends live are kept."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from nsm.apis import codec
from nsm.apis.connection import Path
from nsm.apis.connectioncontext import Route
from nsm.chains.composed import client
from nsm.chains.core import Begin, Chain, InvalidRequest, MeshError, Refused
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.descriptors import ReceiveDescriptors, ReceiveReturned, ReturnDescriptors, SendDescriptors
from nsm.chains.elements.filter_mechanisms import FilterMechanisms
from nsm.chains.elements.kernel import KernelClient, OfferKernel
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.identity import Authority
from nsm.chains.testing import Record, call
from nsm.chains.testing.clock import wall_clock
from nsm.chains.transport import RemoteNetworkService

from .meshes import FORWARDER, NSMGR, REGISTRY, elements, mesh_with

ORPHAN, TOKEN = 600, 60


async def made(mesh, name="client", **options):
    client = mesh.add_client(name, **options)
    return client, await client.request(call(f"{name}-1", "shop", timeout=5))


def again(connection):
    asked = call(connection.id, timeout=5)
    asked.connection = codec.clone(connection)
    return asked


def ids_of(connection):
    return [each.id for each in connection.path.path_segments]


async def away(mesh, *names, seconds=2 * TOKEN):
    """Have components die, and let time pass."""
    for name in names:
        await mesh.remove(name)
    await asyncio.sleep(seconds)


async def back(mesh, *names):
    for name in names:
        await mesh.start(name)
    await asyncio.sleep(10)


@pytest.mark.parametrize("gone", [[NSMGR], [FORWARDER], [NSMGR, FORWARDER]], ids="+".join)
async def test_a_wire_outlives_its_manager_and_its_forwarder_and_is_taken_over_when_they_are_back(gone):
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            client, connection = await made(mesh, refresh=True)
            await away(mesh, *gone, seconds=4 * TOKEN)
            assert mesh.connections()["shop"] == 1
            assert mesh.connections().get(FORWARDER, 1) == 1
            assert mesh.connections().get(NSMGR, 1) == 1, "the client vouches, though nobody can be asked"
            await back(mesh, *gone)
            assert mesh.connections() == {"client": 1, NSMGR: 1, FORWARDER: 1, "shop": 1}
            same = await client.request(again(connection))
            assert (ids_of(same), same.context) == (ids_of(connection), connection.context)
            await asyncio.sleep(2 * TOKEN)
            assert record.closes == []


async def test_a_manager_that_restarts_while_the_registry_is_away_ends_nothing():
    """It has no forwarder then, and cannot vouch for anything: that is not its word."""
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            client, connection = await made(mesh, refresh=True)
            await mesh.remove(REGISTRY)
            await mesh.remove(NSMGR)
            await mesh.start(NSMGR)
            await asyncio.sleep(4 * TOKEN)
            assert (mesh.connections()[FORWARDER], mesh.connections()["shop"]) == (1, 1)
            await mesh.start(REGISTRY)
            await asyncio.sleep(2 * TOKEN)
            same = await client.request(again(connection))
            assert (ids_of(same), same.context) == (ids_of(connection), connection.context)
            assert record.closes == []


@pytest.mark.parametrize("gone", [NSMGR, FORWARDER])
async def test_without_a_lifetime_for_orphans_it_ends_with_the_token_as_upstream(gone):
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN) as mesh:
            await made(mesh)
            await away(mesh, gone, seconds=TOKEN + 10)
            assert "shop" not in mesh.connections()


async def test_an_orphan_ends_after_its_lifetime():
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN, orphan_lifetime=ORPHAN / 2) as mesh:
            await made(mesh)
            await away(mesh, NSMGR, seconds=ORPHAN / 2 - 10)
            assert mesh.connections()["shop"] == 1
            await asyncio.sleep(30)
            assert {"shop", FORWARDER}.isdisjoint(mesh.connections())


async def test_a_client_that_is_killed_is_cleaned_up_at_its_tokens_end():
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            await made(mesh)
            await asyncio.sleep(TOKEN + 10)
            assert {"shop", FORWARDER, NSMGR}.isdisjoint(mesh.connections())


async def test_a_previous_component_that_answers_and_vouches_no_more_ends_it_at_the_tokens_end():
    """The client died while its manager was away; the manager is back, and has other connections with the forwarder."""
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            await made(mesh, "dies")
            await made(mesh, "lives", refresh=True)
            await away(mesh, NSMGR)
            assert mesh.connections()["shop"] == 2
            await back(mesh, NSMGR)
            assert mesh.connections()["shop"] == 2, "its client has some time to ask again"
            await asyncio.sleep(30)
            assert mesh.connections()["shop"] == 1


async def test_a_manager_that_is_back_for_a_moment_only_ends_nothing():
    """Killed again before any client has asked by it: the components behind the orphan are kept going meanwhile."""
    with wall_clock():
        async with mesh_with(token_lifetime=20, orphan_lifetime=ORPHAN) as mesh:
            client, connection = await made(mesh)
            await away(mesh, NSMGR, seconds=32)
            await mesh.start(NSMGR)
            await asyncio.sleep(1)
            await away(mesh, NSMGR, seconds=60)
            assert mesh.connections()["shop"] == 1
            await back(mesh, NSMGR)
            await client.request(again(connection))
            assert mesh.connections()["shop"] == 1


@pytest.mark.parametrize("gone", [NSMGR, FORWARDER])
async def test_nor_does_an_orphan_wait_for_one_that_is_back_and_has_no_reason_to_come(gone):
    """The only client died meanwhile: its manager, or its forwarder, knows of nothing, and registers."""
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            await made(mesh)
            await away(mesh, gone)
            assert mesh.connections()["shop"] == 1
            await back(mesh, gone)
            assert mesh.connections()["shop"] == 1
            await asyncio.sleep(90)
            assert {FORWARDER, "shop"}.isdisjoint(mesh.connections())


async def test_only_packets_go_on_no_new_request_passes_and_none_is_refreshed_by_somebody_else():
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            client, connection = await made(mesh)
            await away(mesh, NSMGR)
            for name in ("client", "other"):
                asking = client if name == "client" else mesh.add_client(name)
                with pytest.raises(MeshError):
                    await asking.request(again(connection))


# --- two outages, one after the other


FIRST, SECOND, THIRD, FOURTH = RELAYS = "forwarder-1", "forwarder-2", "forwarder-3", "forwarder-4"
"""The components of a longer path, of which each knows where the next one is: as managers of several nodes do."""


async def add_relay(mesh, name, after):
    """A component that passes requests on to `after`."""
    far_side, pool = MechanismTranslation(), mesh.pool(name)
    offers = [far_side, OfferKernel(), FilterMechanisms(), ReceiveReturned(far_side=far_side), SendDescriptors()]
    onward = client(name, offers, RemoteNetworkService(pool), url=mesh.url(after))
    own = [ReceiveDescriptors(), ReturnDescriptors(), Mechanisms({"KERNEL": []}), Connect(onward)]
    await mesh.add_endpoint(name, own, services=[FORWARDER])


async def restart_relay(mesh, name):
    await mesh.remove(name)
    await add_relay(mesh, name, [*RELAYS, "shop"][RELAYS.index(name) + 1])


def client_at(mesh, name, first):
    """A client whose next component is `first`."""
    own = [KernelClient(), SendDescriptors()]
    return client(name, own, RemoteNetworkService(mesh.pool(name)), url=mesh.url(first), refresh=name != "client")


@asynccontextmanager
async def long_path(*own):
    """A mesh with a connection of `far-1` over all of them, its client's chain, and the connection."""
    async with mesh_with(*own, token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
        for name, after in zip(RELAYS, [*RELAYS[1:], "shop"], strict=True):
            await add_relay(mesh, name, after)
        asking = client_at(mesh, "client", FIRST)
        connection = await asking.request(call("far-1", "shop", timeout=5))
        yield mesh, asking, connection
        await asking.aclose()


async def test_a_wire_outlives_two_outages_without_a_refresh_between():
    """The component in the middle was restarted, and knows nothing, when the client's manager leaves for long."""
    record = Record()
    with wall_clock():
        async with long_path(record) as (mesh, asking, connection):
            await restart_relay(mesh, THIRD)
            await away(mesh, FIRST, seconds=4 * TOKEN)
            assert mesh.connections() == {SECOND: 1, THIRD: 1, FOURTH: 1, "shop": 1}
            await add_relay(mesh, FIRST, SECOND)
            same = await asking.request(again(connection))
            assert (ids_of(same), same.context) == (ids_of(connection), connection.context)
            assert record.closes == []


@asynccontextmanager
async def long_path_and_another(record):
    """And another client's connection by the last two, so that these answer each other whatever is before them."""
    async with long_path(record) as (mesh, asking, connection):
        other = client_at(mesh, "other", THIRD)
        await other.request(call("other-1", "shop", timeout=5))
        yield mesh, asking, connection
        await other.aclose()


async def test_a_wire_outlives_its_forwarder_after_the_next_manager_was_restarted():
    """That one answers, and cannot vouch: nobody has requested the connection from it since."""
    record = Record()
    with wall_clock():
        async with long_path_and_another(record) as (mesh, asking, connection):
            await restart_relay(mesh, THIRD)
            await away(mesh, SECOND, seconds=6 * TOKEN)
            assert (mesh.connections()[FOURTH], mesh.connections()["shop"]) == (2, 2)
            await add_relay(mesh, SECOND, THIRD)
            await asyncio.sleep(10)
            same = await asking.request(again(connection))
            assert (ids_of(same), same.context) == (ids_of(connection), connection.context)
            assert record.closes == []


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_wire_ends_whose_client_is_gone_when_its_forwarder_lives_or_is_back(is_away):
    record = Record()
    with wall_clock():
        async with long_path_and_another(record) as (mesh, asking, _):
            await restart_relay(mesh, THIRD)
            await asking.aclose()
            if is_away:
                await away(mesh, SECOND, FIRST, seconds=6 * TOKEN)
                await add_relay(mesh, SECOND, THIRD)
                await add_relay(mesh, FIRST, SECOND)
            await asyncio.sleep(3 * TOKEN)
            assert (mesh.connections()[FOURTH], mesh.connections()["shop"]) == (1, 1)


async def test_expired_tokens_make_nothing_that_the_last_component_does_not_know():
    record = Record()
    with wall_clock():
        async with long_path(record) as (mesh, _, _):
            await away(mesh, FIRST, seconds=2 * TOKEN)
            await restart_relay(mesh, THIRD)
            await restart_relay(mesh, FOURTH)
            await mesh.remove("shop")
            await mesh.add_endpoint("shop", elements(record), services=["shop"])
            asked = len(record.requests)
            await asyncio.sleep(2 * TOKEN)
            assert len(record.requests) == asked
            assert {THIRD, FOURTH, "shop"}.isdisjoint(mesh.connections())


async def test_an_orphan_of_a_component_that_was_restarted_ends_after_its_lifetime_too():
    with wall_clock():
        async with long_path() as (mesh, _, _):
            await restart_relay(mesh, THIRD)
            await away(mesh, FIRST, seconds=ORPHAN + 3 * TOKEN)
            assert {SECOND, THIRD, FOURTH, "shop"}.isdisjoint(mesh.connections())


# --- who may do what meanwhile


def as_forwarder(mesh, noted, **changes):
    """A request of the forwarder's to the endpoint for the connection that `noted` shows, as an orphan's are."""
    connection = codec.clone(noted.connection)
    connection.path.index -= 1
    connection.id = connection.path.path_segments[connection.path.index].id
    for name, value in changes.items():
        setattr(connection, name, value)
    asked = call(connection.id, timeout=5)
    asked.connection, asked.target = connection, mesh.url("shop")
    return asked


def remote(mesh, name):
    return Chain([Begin()], RemoteNetworkService(mesh.pool(name)))


def tampered(context):
    changed = codec.clone(context)
    changed.ip_context.src_ip_addrs = ["10.8.0.77/32"]
    changed.ip_context.dst_routes = [Route(prefix="8.8.8.8/32")]
    return changed


async def test_what_an_orphans_component_asks_changes_nothing_of_what_stands():
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            _, connection = await made(mesh)
            await away(mesh, NSMGR)
            noted = record.requests[-1]
            context = tampered(noted.connection.context)
            asked = as_forwarder(mesh, noted, context=context, network_service="other", labels={"a": "b"})
            answer = await remote(mesh, FORWARDER).request(asked)
            assert answer.context == connection.context
            assert (answer.network_service, answer.labels) == ("shop", {})
            assert record.requests[-1].connection.context == connection.context


@pytest.mark.parametrize("change", ["another token", "a token of another client", "too late", "closed"])
async def test_tokens_that_have_expired_are_good_for_nothing_else(change):
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=TOKEN, orphan_lifetime=ORPHAN / 2) as mesh:
            client, connection = await made(mesh)
            first = record.requests[-1]
            await made(mesh, "other")
            stolen = record.requests[-1].connection.path.path_segments[0].token
            if change == "another token":
                await asyncio.sleep(10)
                await client.request(again(connection))
            await away(mesh, NSMGR, seconds=2 * TOKEN)
            if change == "too late":
                await asyncio.sleep(ORPHAN / 2)
            asked = as_forwarder(mesh, first)
            if change == "a token of another client":
                asked.connection.path.path_segments[0].token = stolen
            if change == "closed":
                closing = as_forwarder(mesh, first)
                await remote(mesh, FORWARDER).close(closing)
            with pytest.raises(Refused, match="tokens_expired|belongs to"):
                await remote(mesh, FORWARDER).request(asked)


@pytest.mark.parametrize("where", [FORWARDER, "shop"])
async def test_a_workload_that_knows_the_tokens_keeps_nothing_and_changes_nothing(where):
    """It was an endpoint on that path once, or saw a log: it has all tokens, and an identity of its own."""
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            _, connection = await made(mesh)
            await away(mesh, NSMGR)
            segments = record.requests[-1].connection.path.path_segments
            for position in (1, 2):
                path = Path(
                    index=position, path_segments=codec.clone(record.requests[-1].connection.path).path_segments
                )
                asked = call(segments[position].id, timeout=5, network_service_endpoint_name="shop", path=path)
                asked.connection.network_service, asked.target = "shop", mesh.url(where)
                with pytest.raises((Refused, InvalidRequest)):
                    await remote(mesh, "thief").request(asked)
                with suppress(Refused, InvalidRequest):  # an endpoint that has no such connection has nothing to refuse
                    await remote(mesh, "thief").close(asked)
            assert mesh.connections()["shop"] == 1
            assert record.closes == []
            del connection


async def test_an_authority_that_is_trusted_no_more_ends_its_orphans():
    with wall_clock():
        async with mesh_with(token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            await made(mesh)
            await away(mesh, NSMGR)
            other = Authority.create("test.mesh")
            for name in (FORWARDER, "shop"):
                identity = mesh.identity(name)
                identity.update(other.issue(identity.spiffe_id), {"test.mesh": [other.certificate]})
            await asyncio.sleep(10)
            assert {FORWARDER, "shop"}.isdisjoint(mesh.connections())


async def test_a_refused_caller_is_told_so_as_before():
    """A path whose tokens have expired without anybody being away is refused where it always was."""
    record = Record()
    with wall_clock():
        async with mesh_with(record, token_lifetime=TOKEN, orphan_lifetime=ORPHAN) as mesh:
            await made(mesh)
            path = codec.clone(record.requests[-1].connection.path)
            await asyncio.sleep(TOKEN + 30)
            asked = call("x", "shop", timeout=5)
            path.index, path.path_segments = 2, path.path_segments[:3]
            path.path_segments[2].id = "x"
            asked.connection.path, asked.target = path, mesh.url("shop")
            with pytest.raises(Refused, match="tokens_expired"):
                await remote(mesh, FORWARDER).request(asked)
