"""The prefix service over sockets, as endpoints of this project and of upstream use it."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_network

import pytest

from nsm.apis.ipam import PrefixRequest, PrefixResponse, Type
from nsm.chains.core import InvalidRequest, MeshError, Refused
from nsm.chains.identity import Authority
from nsm.chains.policy import IdPatterns
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, serve
from nsm.services.ipam.lease_store import opened
from nsm.services.ipam.leases import Leases
from nsm.services.ipam.prefix_space import PrefixSpace
from nsm.services.ipam.service import ENDPOINT, MANAGE_PREFIXES, PrefixService
from nsm.services.registry.store_url import store_url

AUTHORITY = Authority.create("test.mesh")


@asynccontextmanager
async def service(tmp_path, store="memory:", clients="", network="172.16.0.0/16", length=24):
    """A running service; yields its URL."""
    async with opened(store_url(store)) as kept:
        leases = Leases(PrefixSpace(ip_network(network), length), kept, lease_time=600, most=8)
        await leases.load()
        methods = PrefixService(leases, IdPatterns.parse(clients)).methods()
        identity = identity_of(AUTHORITY, "ipam")
        async with serve([f"unix://{tmp_path}/ipam.sock"], methods, identity, name="ipam") as (url,):
            yield url


class Client:
    """One open stream."""

    def __init__(self, channel, name):
        self._requests = asyncio.Queue()
        metadata = [(ENDPOINT, name)] if name else []
        self._answers = channel.converse(MANAGE_PREFIXES, self._sent(), PrefixResponse, metadata=metadata)

    async def _sent(self):
        while True:
            yield await self._requests.get()

    def send(self, kind, prefix="", excluded=()):
        self._requests.put_nowait(PrefixRequest(type=kind, prefix=prefix, exclude_prefixes=list(excluded)))

    async def ask(self, prefix="", excluded=()):
        self.send(Type.ALLOCATE, prefix, excluded)
        return await anext(self._answers)

    async def aclose(self):
        await self._answers.aclose()


@asynccontextmanager
async def client(url, identity="one", name="vl3"):
    async with Pool(identity_of(AUTHORITY, identity)) as pool:
        one = Client(pool.channel(url), name)
        try:
            yield one
        finally:
            await one.aclose()


async def test_several_clients_have_prefixes_at_once(tmp_path):
    async with service(tmp_path) as url, client(url, "one") as one, client(url, "two") as two:
        assert (await one.ask()).prefix == "172.16.0.0/24"
        answer = await two.ask(excluded=["172.16.1.0/25"])
        assert (answer.prefix, answer.exclude_prefixes) == ("172.16.2.0/24", ["172.16.1.0/25"])
        assert (await one.ask()).prefix == "172.16.1.0/24"


async def test_a_prefix_that_is_given_back_is_free_at_once(tmp_path):
    async with service(tmp_path) as url, client(url, "one") as one, client(url, "two") as two:
        await one.ask()
        one.send(Type.DELETE, "172.16.0.0/24")
        assert (await one.ask()).prefix == "172.16.0.0/24"
        one.send(Type.DELETE, "172.16.0.0/24")
        assert (await one.ask("172.16.9.0/24")).prefix == "172.16.9.0/24"
        assert (await two.ask()).prefix == "172.16.0.0/24"


async def test_prefixes_in_use_survive_a_restart_of_the_server(tmp_path):
    """Even a new endpoint that is faster than the old ones does not get theirs."""
    store = f"sqlite://{tmp_path}/leases.db"
    async with service(tmp_path, store) as url, client(url, "one") as one:
        assert (await one.ask()).prefix == "172.16.0.0/24"
    async with service(tmp_path, store) as url, client(url, "two") as two, client(url, "one") as one:
        assert (await two.ask()).prefix == "172.16.1.0/24"
        assert (await one.ask("172.16.0.0/24")).prefix == "172.16.0.0/24"


async def test_a_server_without_a_store_learns_prefixes_from_endpoints_that_ask_again(tmp_path):
    async with service(tmp_path) as url, client(url, "one") as one, client(url, "two") as two:
        assert (await one.ask("172.16.3.0/24")).prefix == "172.16.3.0/24"
        assert (await two.ask("172.16.3.0/24")).prefix == "172.16.0.0/24"


async def test_a_damaged_lease_does_not_keep_the_server_from_starting(tmp_path):
    store = f"sqlite://{tmp_path}/leases.db"
    async with opened(store_url(store)) as kept:
        await kept._database.put("prefix", "172.16.0.0/24", 0, b"{", lambda _: None)
        await kept._database.put("prefix", "172.16.1.0/24", 0, json.dumps({"spiffe_id": "x"}).encode(), lambda _: None)
    async with service(tmp_path, store) as url, client(url) as one:
        assert (await one.ask()).prefix == "172.16.0.0/24"
        assert (await one.ask()).prefix == "172.16.2.0/24"


async def test_requests_that_mean_nothing_are_refused_by_what_is_wrong(tmp_path):
    async with service(tmp_path) as url:
        for kind, prefix, excluded, said in (
            (Type.UNDEFINED, "", [], "neither ALLOCATE nor DELETE"),
            (Type.ALLOCATE, "nonsense", [], "'nonsense' is not a prefix"),
            (Type.ALLOCATE, "", ["10.0.0"], "'10.0.0' is not a prefix"),
            (Type.ALLOCATE, "", ["10.0.0.0/8"] * 257, "excludes 257 prefixes"),
        ):
            async with client(url) as one:
                one.send(kind, prefix, excluded)
                with pytest.raises(InvalidRequest, match=said):
                    await anext(one._answers)


async def test_only_clients_that_are_listed_have_prefixes(tmp_path):
    async with service(tmp_path, clients="spiffe://test.mesh/vl3-*") as url:
        async with client(url, "vl3-1") as one:
            assert (await one.ask()).prefix == "172.16.0.0/24"
        async with client(url, "stranger") as other:
            with pytest.raises(Refused, match="spiffe://test.mesh/stranger may have no prefix here"):
                await other.ask()


async def test_two_servers_do_not_share_a_store(tmp_path):
    url = store_url(f"sqlite://{tmp_path}/leases.db")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(opened(url))
        with pytest.raises(MeshError, match="in use by another process"):
            await stack.enter_async_context(opened(url))
