"""When clients refresh, and a wire whose endpoint has gone for good; time is virtual."""

import asyncio
import time

import pytest

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, DnsConfig, DnsContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, NotFound, Unavailable
from nsm.chains.elements.refresh import GRACE, Refresh, refresh_after
from nsm.chains.testing import Fail, Record, call
from tests.chains.elements.paths import path


class Mesh(Element):
    """What is behind a client: one endpoint, which may be another one tomorrow, or none."""

    def __init__(self):
        self.endpoint, self.error = "nse-1", None
        self.requests, self.closes, self.served = [], 0, None

    async def request(self, call, rest):
        asked = call.connection.network_service_endpoint_name
        self.requests.append(asked)
        if self.error is not None:
            raise self.error
        if asked not in {"", self.endpoint}:
            raise NotFound(f"network service endpoint {asked!r} is not found")
        self.served = connection = await rest.request(call)
        connection.network_service_endpoint_name = self.endpoint
        connection.path = path("client", lifetime=90)
        known = connection.context.dns_context.configs if connection.context and connection.context.dns_context else []
        configs = [*known, DnsConfig(dns_server_ips=[self.endpoint])]
        connection.context = ConnectionContext(dns_context=DnsContext(configs=configs))
        return connection

    async def close(self, call, rest):
        self.closes += 1
        await rest.close(call)


@pytest.fixture
async def mesh():
    mesh = Mesh()
    async with Chain([Begin(), Refresh(), mesh]) as chain:
        await chain.request(Call(NetworkServiceRequest(connection=Connection(id="c", network_service="svc"))))
        yield mesh


async def test_a_client_whose_endpoint_comes_back_under_another_name_gets_that_one(mesh):
    """As the next pod of a Deployment does: the refresh would say for ever that the former is not found."""
    mesh.endpoint = "nse-2"
    await asyncio.sleep(29 + GRACE)
    assert (mesh.served.network_service_endpoint_name, mesh.closes) == ("nse-1", 0)
    await asyncio.sleep(5)
    assert (mesh.served.network_service_endpoint_name, mesh.closes) == ("nse-2", 1)
    assert mesh.requests[-1] == ""
    assert [each.dns_server_ips for each in mesh.served.context.dns_context.configs[-1:]] == [["nse-2"]]
    asked = len(mesh.requests)
    await asyncio.sleep(31)
    assert mesh.requests[asked:] == ["nse-2"]


async def test_the_servers_of_an_endpoint_that_is_gone_are_not_asked_for_names_any_more(mesh):
    mesh.endpoint = "nse-2"
    await asyncio.sleep(40)
    assert ["nse-1"] not in [each.dns_server_ips for each in mesh.served.context.dns_context.configs]


async def test_a_client_asks_until_there_is_an_endpoint_again(mesh):
    mesh.error = NotFound("no endpoint of 'svc' is registered")
    await asyncio.sleep(600)
    assert set(mesh.requests[-20:]) == {"", "nse-1"}
    mesh.endpoint, mesh.error = "nse-3", None
    await asyncio.sleep(6)
    assert mesh.served.network_service_endpoint_name == "nse-3"


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("the registry is down"),
        NotFound("network service 'svc' is not found"),
    ],
)
async def test_a_wire_is_not_given_up_because_nobody_can_say_where_its_endpoint_is(mesh, error):
    mesh.error = error
    await asyncio.sleep(600)
    assert (mesh.closes, set(mesh.requests[1:])) == (0, {"nse-1"})


class Passes:
    """Packets pass, or not."""

    def __init__(self, alive):
        self.alive = alive

    async def is_alive(self, connection):
        assert connection.context.ip_context.src_ip_addrs
        return self.alive

    def watch(self, connection, on_down):
        raise AssertionError


class Addresses(Element):
    async def request(self, call, rest):
        connection = await rest.request(call)
        connection.context.ip_context = IpContext(src_ip_addrs=["10.0.0.1/32"], dst_ip_addrs=["10.0.0.0/32"])
        return connection


@pytest.mark.parametrize("alive", [True, False])
async def test_a_wire_on_which_packets_pass_is_kept_while_the_record_of_its_endpoint_is_away(alive):
    """Its manager is away for longer than registrations last: the endpoint is fine, and found by nobody."""
    mesh = Mesh()
    async with Chain([Begin(), Refresh(Passes(alive)), Addresses(), mesh]) as chain:
        await chain.request(Call(NetworkServiceRequest(connection=Connection(id="c", network_service="svc"))))
        mesh.error = NotFound("network service endpoint 'nse-1' is not found")
        await asyncio.sleep(600)
        assert (mesh.closes == 0) is alive


async def test_a_wire_outlives_a_registry_that_starts_again_and_knows_nobody_yet(mesh):
    mesh.error = NotFound("network service endpoint 'nse-1' is not found")
    await asyncio.sleep(30 + GRACE - 1)
    mesh.error = None
    await asyncio.sleep(30)
    assert (mesh.closes, set(mesh.requests[1:])) == (0, {"nse-1"})


async def test_a_client_refreshes_at_a_third_of_the_time_and_goes_on_when_that_fails():
    probe, fail = Record(), Fail()

    class Renews(Element):
        async def request(self, call, rest):
            connection = await rest.request(call)
            connection.path = path("client", lifetime=90)
            return connection

    async with Chain([Begin(), Refresh(), Renews(), probe, fail]) as chain:
        await chain.request(call())
        await asyncio.sleep(29)
        assert len(probe.requests) == 1
        await asyncio.sleep(2)
        assert len(probe.requests) == 2
        fail.errors = [Unavailable("gone"), Unavailable("gone")]
        await asyncio.sleep(32)  # one refresh, two more tries after 0.2 and 0.4 seconds
        assert len(probe.requests) == 5
        await chain.close(call())
        await asyncio.sleep(1000)
        assert len(probe.requests) == 5


def test_the_further_a_component_is_from_the_client_the_later_it_refreshes():
    now = time.time()
    assert refresh_after(Connection(path=path("a", lifetime=90)), now) == pytest.approx(30, abs=0.1)
    assert refresh_after(Connection(path=path("a", "b", "c", "d", lifetime=100)), now) == pytest.approx(20, abs=0.1)
    assert refresh_after(Connection(path=path("a", "b", "c", "d", index=2, lifetime=100)), now) == pytest.approx(
        30, abs=0.1
    )
    assert refresh_after(Connection(path=path("a", lifetime=-5)), now) == 0
    assert refresh_after(Connection(), now) == float("inf")
