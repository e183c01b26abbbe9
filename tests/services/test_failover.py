"""Two forwarders of one node, one of which fails, hangs or is dead: local clients get their wires from the other."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from nsm.apis import codec
from nsm.apis.connection import State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, MeshError, Unavailable
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, serve
from tests.services.mesh_in_process import AUTHORITY, NOTHING, ONE, Kernel, Mesh, ask, forwarder_of, settled


class Broken(Kernel):
    """A dataplane that makes nothing; it counts how often it was asked to."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    async def create(self, wire, connection_id, begun=None, client=None):
        self.asked += 1
        raise Unavailable("this dataplane is broken")


class Pair:
    """The usual mesh, and before its forwarder another one, called `forwarder-1`."""

    def __init__(self, tmp_path, monkeypatch):
        self.mesh, self.broken = Mesh(tmp_path, monkeypatch), Broken()
        self.stopping = AsyncExitStack()

    async def start(self, stack):
        mesh = await self.mesh.start(stack, with_forwarder=False)
        identity = identity_of(AUTHORITY, "forwarder-1")
        mesh.pools["forwarder-1"] = await stack.enter_async_context(Pool(identity, dial_timeout=2))
        chain = forwarder_of("forwarder-1", identity, mesh.pools["forwarder-1"], mesh.url("nsmgr"), self.broken)
        await stack.enter_async_context(chain)
        await stack.enter_async_context(self.stopping)
        await self.stopping.enter_async_context(
            serve([mesh.url("forwarder-1")], chain.methods(), identity, name="forwarder-1")
        )
        await mesh.register("forwarder-1", "forwarder", {"p2p": "true"})
        await mesh.register("forwarder", "forwarder", {"p2p": "true"})
        return self

    async def kill_first(self):
        """Its socket is gone, its record stays."""
        await self.mesh.chains.pop("forwarder-1 registration").aclose()
        await self.stopping.aclose()


@asynccontextmanager
async def pair_of(tmp_path, monkeypatch):
    async with AsyncExitStack() as stack:
        pair = await Pair(tmp_path, monkeypatch).start(stack)
        try:
            yield pair
        finally:
            if (registration := pair.mesh.chains.pop("forwarder-1 registration", None)) is not None:
                await registration.aclose()
            await pair.mesh.close()


async def test_a_forwarder_that_fails_is_followed_by_the_next_one(tmp_path, monkeypatch):
    """Which gets the client's namespace as the first one did, and nothing of the first try stays."""
    async with pair_of(tmp_path, monkeypatch) as pair:
        for number in range(3):
            connection = await pair.mesh.client.request(ask(f"c{number}"))
            assert [s.name for s in connection.path.path_segments] == ["client", "nsmgr", "forwarder", "nse"]
        assert pair.broken.asked == 3  # it answered: that it failed says nothing of the next request
        for number in range(3):
            await pair.mesh.client.close(ask(f"c{number}"))
        assert pair.mesh.left() == NOTHING


async def test_a_dead_forwarders_record_does_not_keep_the_healthy_one_out(tmp_path, monkeypatch):
    """Nor for the second, third and fourth request, which would wait ever longer for it."""
    async with pair_of(tmp_path, monkeypatch) as pair:
        await pair.kill_first()
        for number in range(6):
            began = time.monotonic()
            await pair.mesh.client.request(ask(f"c{number}"))
            assert time.monotonic() - began < 1.0
        assert pair.mesh.kernel.made == 6


async def test_a_wire_whose_forwarder_died_goes_to_the_other_one_when_its_client_reselects(tmp_path, monkeypatch):
    async with pair_of(tmp_path, monkeypatch) as pair:
        monkeypatch.setattr(pair.broken, "create", Kernel.create.__get__(pair.broken))
        connection = await pair.mesh.client.request(ask())
        assert connection.path.path_segments[2].name == "forwarder-1"
        await pair.kill_first()
        with pytest.raises(MeshError, match="forwarder-1: "):
            await pair.mesh.client.request(Call(NetworkServiceRequest(connection=codec.clone(connection))))
        connection.state = State.RESELECT_REQUESTED
        connection.mechanism, connection.network_service_endpoint_name = None, ""
        again = await pair.mesh.client.request(Call(NetworkServiceRequest(connection=codec.clone(connection))))
        assert again.path.path_segments[2].name == "forwarder"


async def test_when_all_forwarders_fail_the_error_tells_of_each_and_nothing_is_left(tmp_path, monkeypatch):
    async with pair_of(tmp_path, monkeypatch) as pair:
        monkeypatch.setattr(pair.mesh.kernel, "create", pair.broken.create)
        with pytest.raises(
            Unavailable, match="all forwarders have failed: forwarder-1: .*broken.*; forwarder: .*broken"
        ):
            await pair.mesh.client.request(ask())
        await settled(pair.mesh)
        monkeypatch.undo()
        await pair.mesh.client.request(ask())
        assert pair.mesh.left() == ONE


async def test_many_clients_at_once_all_get_past_a_dead_forwarder(tmp_path, monkeypatch):
    async with pair_of(tmp_path, monkeypatch) as pair:
        await pair.kill_first()
        async with asyncio.timeout(10):
            await asyncio.gather(*(pair.mesh.client.request(ask(f"c{n}")) for n in range(30)))
        assert pair.mesh.kernel.made == 30
