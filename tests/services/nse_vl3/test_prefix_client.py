"""An endpoint and its prefix service: what it does with whatever that sends, or does not."""

import asyncio
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest

from nsm.apis.ipam import PrefixRequest, PrefixResponse, Type
from nsm.chains.core import Exhausted
from nsm.chains.identity import Authority
from nsm.chains.model.networks import Networks
from nsm.chains.testing import Network, identity_of
from nsm.chains.transport import Conversing
from nsm.services.ipam.service import MANAGE_PREFIXES, NETWORK
from nsm.services.nse_vl3.prefix_client import PrefixClient

AUTHORITY = Authority.create("test.mesh")
URL = "tcp://ipam:5006"


class Service:
    """A prefix service that hands out what a test wants."""

    def __init__(self, *prefixes, network=""):
        self.prefixes, self.network, self.requests = list(prefixes), network, []

    async def answer(self, requests, incoming):
        if self.network:
            incoming.headers.append((NETWORK, self.network))
        async for request in requests:
            self.requests.append((request.type, request.prefix, list(request.exclude_prefixes)))
            if request.type == Type.DELETE:
                continue
            if not self.prefixes:
                raise Exhausted("no /24 is left in 172.16.0.0/16")
            yield [PrefixResponse(prefix=self.prefixes.pop(0), exclude_prefixes=request.exclude_prefixes)]


class Run:
    """A client of `URL`; `shares` are what it received."""

    def __init__(self, network, *, never=(), former=None):
        self.shares = []
        former = ip_network(former) if former else None
        self.client = PrefixClient(
            URL,
            network.pool(identity_of(AUTHORITY, "vl3-1")),
            "vl3-1",
            self.shares.append,
            lambda: Networks.parse(never),
            former,
        )

    async def __aenter__(self):
        self.task = asyncio.ensure_future(self.client.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def prefixes(self):
        return [str(share.prefix) for share in self.shares]


@asynccontextmanager
async def serving(network, service):
    methods = {MANAGE_PREFIXES: Conversing(PrefixRequest, service.answer)}
    async with network.serve(URL, methods, identity_of(AUTHORITY, "ipam"), name="ipam"):
        yield


async def received(*services, **options):
    """What an endpoint has a minute after it was started, with these services one after another."""
    network = Network()
    async with Run(network, **options) as run:
        for service in services:
            async with serving(network, service):
                await asyncio.sleep(60)
    return run


async def test_the_network_is_what_the_service_says_or_half_the_bits():
    run = await received(Service("2001:db8:0:3::/64", network="2001:db8::/32"))
    assert [str(share.whole) for share in run.shares] == ["2001:db8::/32"]
    for said in ("", "10.0.0.0/8", "nonsense", "172.16.0.0/25"):
        run = await received(Service("172.16.3.0/24", network=said))
        assert [str(share.whole) for share in run.shares] == ["172.16.0.0/16"]


async def test_an_unaligned_prefix_is_its_network():
    """As upstream's service hands out."""
    run = await received(Service("172.16.0.7/24"))
    assert run.prefixes() == ["172.16.0.0/24"]
    assert str(run.shares[0].own) == "172.16.0.0"


async def test_the_prefix_of_an_earlier_process_is_requested_again():
    service = Service("172.16.5.0/24")
    await received(service, former="172.16.5.0/24")
    assert service.requests == [(Type.ALLOCATE, "172.16.5.0/24", [])]


async def test_a_service_that_vanishes_for_ten_minutes_takes_nothing_away():
    network, service = Network(), Service("172.16.0.0/24", "172.16.0.0/24")
    async with Run(network) as run:
        async with serving(network, service):
            await asyncio.sleep(1)
        await asyncio.sleep(600)
        assert run.prefixes() == ["172.16.0.0/24"]
        async with serving(network, service):
            await asyncio.sleep(10)
    assert [prefix for _, prefix, _ in service.requests] == ["", "172.16.0.0/24"]
    assert run.prefixes() == ["172.16.0.0/24", "172.16.0.0/24"]


async def test_a_service_that_lost_the_prefix_gives_another_one():
    run = await received(Service("172.16.0.0/24"), Service("172.16.1.0/24"))
    assert run.prefixes() == ["172.16.0.0/24", "172.16.1.0/24"]


async def test_an_exhausted_service_is_asked_again_with_pauses():
    service = Service()
    assert not (await received(service)).shares
    assert 5 < len(service.requests) < 40


async def test_a_prefix_that_overlaps_the_endpoint_s_own_networks_is_given_back():
    service = Service("10.244.0.0/24", "172.16.1.0/24")
    run = await received(service, never=["10.244.0.0/16", "0.0.0.0/0"])
    assert run.prefixes() == ["172.16.1.0/24"]
    assert service.requests == [
        (Type.ALLOCATE, "", []),
        (Type.DELETE, "10.244.0.0/24", []),
        (Type.ALLOCATE, "", ["10.244.0.0/16"]),
    ]
    assert run.shares[0].excluded == ()


async def test_a_service_that_has_only_such_prefixes_is_asked_with_pauses():
    service = Service(*["10.244.0.0/24"] * 1000)
    assert not (await received(service, never=["10.244.0.0/16"])).shares
    assert len(service.requests) < 900


async def test_the_younger_of_two_endpoints_with_one_prefix_asks_for_another():
    network, service = Network(), Service("172.16.0.0/24", "172.16.1.0/24")
    async with serving(network, service), Run(network) as run:
        await asyncio.sleep(1)
        run.client.conflicts("vl3-2 has 10.0.0.0/32, but this endpoint has 10.0.0.0/24")
        run.client.conflicts("vl3-2 has 172.16.0.0/32, but this endpoint has 172.16.0.0/24")
        await asyncio.sleep(1)
    assert run.prefixes() == ["172.16.0.0/24", "172.16.1.0/24"]
    assert service.requests[1:] == [(Type.DELETE, "172.16.0.0/24", []), (Type.ALLOCATE, "", ["172.16.0.0/24"])]


@pytest.mark.parametrize("prefix", ["nonsense", "127.0.0.0/24", "224.0.0.0/24", "0.0.0.0/0", ""])
async def test_what_is_no_prefix_is_not_used(prefix):
    assert (await received(Service(prefix, "172.16.1.0/24"))).prefixes() == ["172.16.1.0/24"]
