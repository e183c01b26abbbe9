"""The five chains of a local wire in one process, over real sockets with mTLS: only the kernel is a probe.

Cancelling and failing at every element in turn, which takes too long with real processes, is done here.
"""

import asyncio
import os
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkService
from nsm.apis.wellknown import Empty
from nsm.chains.composed import client, memory_registry, nsmgr, services_client
from nsm.chains.core import (
    Begin,
    Call,
    Chain,
    ClientToken,
    Element,
    MeshError,
    NotFound,
    Refused,
    RegistryCall,
    Unavailable,
    Unsupported,
)
from nsm.chains.core.descriptors import HELD
from nsm.chains.elements.kernel import KernelClient
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve
from tests.services.mesh_in_process import AUTHORITY, NOTHING, ONE, Interrupts, ask, mesh_of, settled


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def test_a_wire_is_made_refreshed_and_closed(tmp_path, monkeypatch):
    """Both ends are where client and endpoint are; ids stay; nothing is left, not even a descriptor."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        await mesh.client.request(ask("warm"))
        await mesh.client.close(ask("warm"))
        await asyncio.sleep(0.05)
        before, held = descriptors(), {**HELD}
        connection = await mesh.client.request(ask())
        assert [s.name for s in connection.path.path_segments] == ["client", "nsmgr", "forwarder", "nse"]
        assert connection.path.index == 0
        assert connection.context.ip_context.src_ip_addrs == ["10.0.0.1/32"]
        assert connection.mechanism.parameters["inodeURL"] == f"file:///proc/{os.getpid()}/ns/net"
        assert connection.path.path_segments[2].metrics["server_interface"].startswith("KERNEL/icmp-")
        assert mesh.left() == ONE
        ids = [s.id for s in connection.path.path_segments]
        for _ in range(3):
            again = await mesh.client.request(Call(NetworkServiceRequest(connection=codec.clone(connection))))
            assert [s.id for s in again.path.path_segments] == ids
            assert again.context == connection.context
        assert mesh.kernel.made == 2
        await mesh.client.close(ask())
        assert mesh.left() == NOTHING
        assert descriptors() == before
        assert held == HELD


async def test_many_connections_at_once_leave_nothing(tmp_path, monkeypatch):
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        await mesh.client.request(ask("warm"))
        before = descriptors()
        await asyncio.gather(*(mesh.client.request(ask(f"c{n}")) for n in range(100)))
        assert mesh.left()[1] == 101
        await asyncio.gather(*(mesh.client.close(ask(f"c{n}")) for n in range(100)))
        await asyncio.sleep(0.05)
        assert descriptors() <= before
        await mesh.client.close(ask("warm"))
        assert mesh.left() == NOTHING


def positions():
    """Every place in every component's chain: the component, and the number of its element."""
    sizes = {"client": 6, "nsmgr": 12, "forwarder": 15, "nse": 9}
    return [(name, number) for name, size in sizes.items() for number in range(2, size)]


@pytest.mark.parametrize(("name", "number"), positions())
async def test_a_request_that_is_cancelled_at_an_element_leaves_nothing(tmp_path, monkeypatch, name, number):
    """And the next request works."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        await mesh.client.request(ask("warm"))
        await mesh.client.close(ask("warm"))
        task = None

        async def cancel():
            task.cancel()
            await asyncio.sleep(0.05)

        rebind(mesh, name, number, cancel)
        task = asyncio.ensure_future(mesh.client.request(ask()))
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(mesh)
        await mesh.client.request(ask())
        assert mesh.left() == ONE
        await mesh.client.close(ask())
        assert mesh.left() == NOTHING


@pytest.mark.parametrize("turns", range(0, 64, 4))
@pytest.mark.parametrize(("name", "number"), [("nse", 4), ("nse", 8), ("forwarder", 11), ("nsmgr", 10)])
async def test_a_request_that_is_cancelled_while_its_answer_is_under_way_leaves_nothing(
    tmp_path, monkeypatch, name, number, turns
):
    """What a component made for a caller that never heard of it is closed, too."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        await mesh.client.request(ask("warm"))
        await mesh.client.close(ask("warm"))

        async def cancel_later():
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

        async def go_on():
            mesh.cancelling = asyncio.create_task(cancel_later())

        rebind(mesh, name, number, go_on)
        task = asyncio.create_task(mesh.client.request(ask()))
        with suppress(asyncio.CancelledError):
            await task
            await mesh.client.close(ask())  # it was done before
        await settled(mesh)


@pytest.mark.parametrize(("name", "number"), positions())
async def test_a_request_that_fails_at_an_element_leaves_nothing(tmp_path, monkeypatch, name, number):
    """And says where it failed."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:

        async def fail():
            raise Unavailable("on purpose")

        rebind(mesh, name, number, fail)
        with pytest.raises(Unavailable, match="on purpose"):
            await mesh.client.request(ask())
        await settled(mesh)
        await mesh.client.request(ask())
        assert mesh.left() == ONE


def rebind(mesh, name, number, work):
    """Put an interruption into a component's chain, as if it were written there."""
    chain = mesh.chains[name]
    elements = list(chain.elements)
    interrupts = Interrupts()
    interrupts.work = work
    elements.insert(min(number, len(elements)), interrupts)
    end = chain._first
    while hasattr(end, "_rest"):
        end = end._rest
    for element in elements:
        if isinstance(element, Mechanisms):
            element._bound.clear()  # tied to the rest of the chain as it was
    changed = Chain(elements, end)
    chain._first, chain.request, chain.close = changed._first, changed.request, changed.close


async def test_errors_read_as_one_line_with_the_whole_way(tmp_path, monkeypatch):
    async with mesh_of(tmp_path, monkeypatch, prefixes=["10.0.0.0/31"]) as mesh:
        with pytest.raises(NotFound) as raised:
            await mesh.client.request(ask(service="nothing"))
        assert str(raised.value) == "nsmgr: network service 'nothing' is not found (discover_forwarder)"
        await mesh.client.request(ask("one"))
        with pytest.raises(MeshError) as raised:
            await mesh.client.request(ask("two"))
        assert str(raised.value) == (
            "nsmgr → forwarder → nse: no two addresses are left in 10.0.0.0/31 (point2_point_ipam)"
        )
        assert mesh.left() == ONE


async def test_a_node_without_a_forwarder_says_so(tmp_path, monkeypatch):
    async with mesh_of(tmp_path, monkeypatch, with_forwarder=False) as mesh:
        with pytest.raises(NotFound, match="no forwarder of this node fits network service 'icmp'; is one running"):
            await mesh.client.request(ask())
        assert mesh.left() == NOTHING


async def test_a_mechanism_that_nobody_makes_is_refused(tmp_path, monkeypatch):
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        asked = ask()
        asked.connection.mechanism = Mechanism(cls="LOCAL", type="MEMIF")
        with pytest.raises(
            Unsupported, match="forwarder: unsupported mechanism: requested MEMIF; available here: KERNEL"
        ):
            await mesh.client.request(asked)
        assert mesh.left() == NOTHING


async def test_an_endpoint_that_answers_garbage_leaves_nothing(tmp_path, monkeypatch):
    class Garbage(Element):
        async def request(self, call, rest):
            await rest.request(call)
            return Connection(id="?", mechanism=Mechanism(type="KERNEL"), path=call.connection.path)

    async with mesh_of(tmp_path, monkeypatch, extra=[Garbage()]) as mesh:
        with pytest.raises(MeshError, match="is not a network namespace"):
            await mesh.client.request(ask())
        await settled(mesh)


async def test_a_wrong_path_a_foreign_id_and_a_forged_token_are_refused(tmp_path, monkeypatch):
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        connection = await mesh.client.request(ask())
        remote = Chain([Begin()], RemoteNetworkService(mesh.pools["client"]))

        async def send(**changes):
            changed = codec.clone(connection)
            for name, value in changes.items():
                setattr(changed, name, value)
            return await remote.request(Call(NetworkServiceRequest(connection=changed), target=mesh.url("nsmgr")))

        beyond = codec.clone(connection.path)
        beyond.index = 9
        with pytest.raises(MeshError, match="path index 9 points beyond the path's 4 segments"):
            await send(path=beyond)
        with pytest.raises(MeshError, match="connection id 'foreign' is not the id of its path segment"):
            await send(id="foreign")
        forger = identity_of(AUTHORITY, "client")
        monkeypatch.setattr(mesh.identities["client"], "token", lambda peer: forger.token(replace(peer, seen=None)))
        with pytest.raises(Refused, match="prev_token_signed: the caller's token is not signed"):
            await send()
        channel = mesh.pools["client"].channel(mesh.url("nsmgr"))
        token = forger.token(replace(await channel.peer(), seen=None))
        metadata = [("nsm-client-token", token.token), ("nsm-client-token-expires", token.expires.to_rfc3339())]
        with pytest.raises(Refused, match="prev_token_signed"):
            await channel.unary("/networkservice.NetworkService/Close", connection, Empty, metadata=metadata)
        monkeypatch.setattr(
            mesh.identities["client"], "token", lambda peer: ClientToken("", forger.token(peer).expires)
        )
        with pytest.raises(Refused, match="prev_token_signed: the path has no segment of the caller"):
            await send(path=None)
        nothing = codec.clone(connection.path)
        nothing.path_segments[0].token = ""
        with pytest.raises(Refused, match="no token"):
            await send(path=nothing)
        assert mesh.left() == ONE


async def test_somebody_else_cannot_close_a_connection(tmp_path, monkeypatch):
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        connection = await mesh.client.request(ask())
        remote = Chain([Begin()], RemoteNetworkService(mesh.pools["nse"]))
        stolen = Call(NetworkServiceRequest(connection=codec.clone(connection)), target=mesh.url("forwarder"))
        stolen.connection.path.index = 1
        stolen.connection.id = connection.path.path_segments[1].id
        with pytest.raises(MeshError):
            await remote.request(stolen)
        assert mesh.left() == ONE


async def test_somebody_who_heard_a_connections_id_can_neither_change_nor_close_it(tmp_path, monkeypatch):
    """With a path and tokens of its own that are in order: ids are no secret, every listener hears them."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        connection = await mesh.client.request(ask())
        theirs = connection.path.path_segments[1]
        segments = [PathSegment(name="thief", id="t"), PathSegment(name=theirs.name, id=theirs.id)]
        stolen = Connection(id="t", network_service="icmp", path=Path(path_segments=segments))
        remote = Chain([Begin()], RemoteNetworkService(mesh.pools["nse"]))
        with pytest.raises(Refused, match=f"the connection {theirs.id} belongs to spiffe://test.mesh/client"):
            await remote.request(Call(NetworkServiceRequest(connection=stolen), target=mesh.url("nsmgr")))
        channel = mesh.pools["nse"].channel(mesh.url("nsmgr"))
        token = mesh.identities["nse"].token(await channel.peer())
        metadata = [("nsm-client-token", token.token), ("nsm-client-token-expires", token.expires.to_rfc3339())]
        with pytest.raises(Refused, match=f"the connection {theirs.id} belongs to spiffe://test.mesh/client"):
            await channel.unary("/networkservice.NetworkService/Close", stolen, Empty, metadata=metadata)
        assert mesh.left() == ONE


async def test_a_namespace_that_is_named_by_a_path_is_refused(tmp_path, monkeypatch):
    """It would be opened with the rights of the manager and the forwarder: any process's could be had."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        elements = [KernelClient("file:///proc/1/ns/net")]
        chain = client("client", elements, RemoteNetworkService(mesh.pools["client"]), url=mesh.url("nsmgr"))
        with pytest.raises(Refused, match="file:///proc/1/ns/net is a path of the caller's; a namespace is passed as"):
            await chain.request(ask())
        await settled(mesh)
        assert mesh.kernel.made == 0


async def test_a_registry_that_is_down_at_the_start_is_waited_for(tmp_path, monkeypatch):
    """The manager serves at once, says what is missing, and works when the registry has come."""
    identities = {n: identity_of(AUTHORITY, n) for n in ("registry", "nsmgr", "nse")}
    async with AsyncExitStack() as stack:
        pools = {n: await stack.enter_async_context(Pool(i, dial_timeout=1)) for n, i in identities.items()}
        urls = {n: f"unix://{tmp_path}/{n}.sock" for n in identities}
        manager = nsmgr(
            "nsmgr", identities["nsmgr"], pools["nsmgr"], own_url="tcp://127.0.0.1:1", registry_url=urls["registry"]
        )
        stack.push_async_callback(manager.aclose)
        await stack.enter_async_context(serve([urls["nsmgr"]], manager.methods(), identities["nsmgr"], name="nsmgr"))
        services = await stack.enter_async_context(services_client(urls["nsmgr"], pools["nse"]))
        call = RegistryCall(NetworkService(name="svc"), deadline=asyncio.get_running_loop().time() + 0.5)
        with pytest.raises(Unavailable, match="nsmgr: cannot reach unix://.*registry.sock"):
            await services.register(call)
        registering = asyncio.ensure_future(services.register(RegistryCall(NetworkService(name="svc"))))
        await asyncio.sleep(0.3)
        registry = memory_registry(identities["registry"])
        stack.push_async_callback(registry.aclose)
        await stack.enter_async_context(
            serve([urls["registry"]], registry.methods(), identities["registry"], name="registry")
        )
        assert (await asyncio.wait_for(registering, 10)).payload == "IP"


async def test_a_mesh_goes_on_when_all_of_its_identities_rotate(tmp_path, monkeypatch):
    """No call fails, no wire is made anew, also to endpoints whose sockets came as descriptors."""
    async with mesh_of(tmp_path, monkeypatch) as mesh:
        connection = await mesh.client.request(ask())
        held = []
        for number in range(4):
            for identity in mesh.identities.values():
                identity.update(AUTHORITY.issue(identity.spiffe_id), identity.bundles)
                await mesh.client.request(Call(NetworkServiceRequest(connection=codec.clone(connection))))
                assert mesh.kernel.made == 1 + number
            for identity in mesh.identities.values():
                identity.update(AUTHORITY.issue(identity.spiffe_id), identity.bundles)
                # at once: the connection to the manager is still the one of before
                await mesh.services.register(RegistryCall(NetworkService(name="icmp", payload="IP")))
            await mesh.client.request(ask(f"new-{number}"))
            await mesh.client.close(ask(f"new-{number}"))
            await asyncio.sleep(0.05)
            for pool in mesh.pools.values():
                pool._trim()
            await asyncio.sleep(0.05)
            held.append(descriptors())
        assert mesh.left() == ONE
        assert held[3] == held[1]  # watches stay on the connections where they began
