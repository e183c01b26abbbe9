"""What a client has of an endpoint that is gone or was restarted, with the endpoint's own chain. In memory."""

import asyncio

import pytest
from structlog.testing import capture_logs

from nsm.apis import codec
from nsm.chains.composed import monitors
from nsm.chains.config import load
from nsm.chains.core import Unavailable
from nsm.chains.elements.heal import Heal
from nsm.chains.testing import Check, Delay, Fail, Mesh, Record, call
from nsm.services.nse.main import NseConfig, icmp_responder


@pytest.fixture
async def mesh():
    async with Mesh() as running:
        yield running


async def add(mesh, name, prefix, *before, behind=(), policy="polite"):
    environment = {"NSM_CIDR_PREFIX": prefix, "NSM_IPAM_POLICY": policy}
    chain = [*before, *icmp_responder(load(NseConfig, environment).config), *behind]
    await mesh.add_endpoint(name, chain, services=["shop"])


def addresses(connection):
    ip = connection.context.ip_context
    return ip.src_ip_addrs, ip.dst_ip_addrs


async def refresh(client, connection):
    asked = call(connection.id, timeout=5)
    asked.connection = codec.clone(connection)
    return await client.request(asked)


@pytest.mark.parametrize(
    ("policy", "src", "dst"),
    [
        ("polite", ["172.16.1.101/32", "172.16.1.103/32"], ["172.16.1.100/32", "172.16.1.102/32"]),
        ("strict", ["172.16.1.103/32"], ["172.16.1.102/32"]),
    ],
)
async def test_case_12_a_client_that_is_healed_keeps_its_first_address_and_has_one_more(mesh, policy, src, dst):
    """A strict endpoint takes away what is not its own."""
    await add(mesh, "one", "172.16.1.100/31", policy=policy)
    answers = []
    note = Check(after=lambda answer: answers.append(codec.clone(answer)))
    client = mesh.add_client(elements=[note], heal=Heal(monitors(mesh.pool("client"))))
    connection = await client.request(call("c", "shop", timeout=15))
    assert addresses(connection) == (["172.16.1.101/32"], ["172.16.1.100/32"])
    await add(mesh, "two", "172.16.1.102/31", policy=policy)
    await mesh.remove("one")
    await asyncio.sleep(10)
    assert answers[-1].network_service_endpoint_name == "two"
    assert addresses(answers[-1]) == (src, dst)
    ip = answers[-1].context.ip_context
    assert [route.prefix for route in ip.src_routes] == dst
    assert [route.prefix for route in ip.dst_routes] == src


async def test_a_client_whose_address_was_given_away_meanwhile_gets_another_one_and_that_is_said(mesh):
    """Its endpoint was started again where no interface tells of its wires; the newcomer keeps the address."""
    await add(mesh, "one", "10.0.0.0/24")
    old, new = mesh.add_client("old"), mesh.add_client("new")
    former = await old.request(call("c", "shop", timeout=5))
    assert addresses(former)[0] == ["10.0.0.1/32"]
    await mesh.remove("one")
    await add(mesh, "one", "10.0.0.0/24")
    newcomer = await new.request(call("d", "shop", timeout=5))
    assert addresses(newcomer)[0] == ["10.0.0.1/32"]
    with capture_logs() as logs:
        assert addresses(await refresh(old, former)) == (["10.0.0.3/32"], ["10.0.0.2/32"])
    (line,) = [line for line in logs if "lost" in line]
    assert (line["lost"], line["has"]) == (["10.0.0.0/32", "10.0.0.1/32"], ["10.0.0.2/32", "10.0.0.3/32"])
    assert addresses(await refresh(new, newcomer))[0] == ["10.0.0.1/32"]


async def test_a_client_that_excludes_its_address_now_gets_another_one_and_that_is_said(mesh):
    await add(mesh, "one", "10.0.0.0/24")
    client = mesh.add_client()
    connection = await client.request(call("c", "shop", timeout=5))
    connection.context.ip_context.excluded_prefixes = ["10.0.0.0/31"]
    with capture_logs() as logs:
        assert addresses(await refresh(client, connection)) == (["10.0.0.3/32"], ["10.0.0.2/32"])
    assert [line["lost"] for line in logs if "lost" in line] == [["10.0.0.0/32", "10.0.0.1/32"]]


async def test_the_addresses_of_an_endpoint_that_failed_after_it_had_answered_stay_at_neither_end(mesh):
    """They are the next client's."""
    records = {name: Record() for name in ("one", "two")}
    fails = {name: Fail(behind=True) for name in records}
    for number, name in enumerate(records):
        await add(mesh, name, f"10.{number}.0.0/24", records[name], fails[name])
        fails[name].error = Unavailable("no") if name == "one" else None
    for number in range(3):
        connection = await mesh.add_client(f"client-{number}").request(call(f"c{number}", "shop", timeout=15))
        assert addresses(connection) == ([f"10.1.0.{2 * number + 1}/32"], [f"10.1.0.{2 * number}/32"])
    assert records["one"].requests, "it was asked"
    asked = [each.connection.context for each in records["two"].requests]
    assert all(each is None or each.ip_context is None or not each.ip_context.src_ip_addrs for each in asked)
    fails["one"].error, fails["two"].error = None, Unavailable("no")
    connection = await mesh.add_client("last").request(call("last", "shop", timeout=15))
    assert addresses(connection) == (["10.0.0.1/32"], ["10.0.0.0/32"])


async def test_clients_that_die_in_the_middle_of_their_requests_exhaust_no_small_pool(mesh):
    """A /27 has sixteen pairs; five times as many clients were answered by the endpoint and never knew."""
    await add(mesh, "one", "10.0.0.0/27", behind=[delay := Delay(seconds=1.0)])
    for round_ in range(10):
        clients = [mesh.add_client(f"client-{round_}-{number}") for number in range(8)]
        asked = [asyncio.ensure_future(each.request(call("c", "shop", timeout=15))) for each in clients]
        await asyncio.sleep(0.5)
        assert delay.waiting == len(clients)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(2)  # closes take as long as requests here
    assert "one" not in mesh.connections()
    found = await asyncio.gather(
        *(mesh.add_client(f"last-{number}").request(call("c", "shop", timeout=15)) for number in range(16))
    )
    assert len({address for each in found for address in addresses(each)[0]}) == 16
