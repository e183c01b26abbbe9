"""Several services of one client: none gives an address that another wire has."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Conflict, Unavailable
from nsm.chains.elements.client_excluded_prefixes import ClientExcludedPrefixes
from nsm.chains.elements.descriptors import SendDescriptors
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.elements.strict_ipam import StrictIpam
from nsm.chains.model.nsurl import parse_groups, parse_nsurl

SAME = ["10.0.0.0/24"]


class Services:
    """Endpoints, one for each service, all with the same prefix unless said otherwise; answers take a while."""

    def __init__(self, delay=0.0, **prefixes):
        self.delay, self.failures, self.seen = delay, {}, []
        self.ends, self.routes = {}, {}
        for name in ("a", "b", "c"):
            ipam = Point2PointIpam(prefixes.get(name, SAME))
            self.ends[name] = Chain([Begin(), ipam, StrictIpam([ipam])])

    async def request(self, call):
        name = call.connection.network_service
        self.seen.append((name, list(call.connection.context.ip_context.excluded_prefixes), list(call.outgoing)))
        if self.failures.get(name):
            raise self.failures[name].pop()
        connection = await self.ends[name].request(Call(codec.clone(call.request)))
        connection.context.ip_context.dst_routes += self.routes.get(name, [])
        await asyncio.sleep(self.delay)
        connection.network_service_endpoint_name = f"nse-{name}"
        return connection

    async def close(self, call):
        await self.ends[call.connection.network_service].close(Call(codec.clone(call.request)))

    def open(self):
        return {name: len(end.elements[0]) for name, end in self.ends.items() if len(end.elements[0])}


class Client:
    def __init__(self, services=None, groups=""):
        self.services = services or Services()
        self.element = ClientExcludedPrefixes(parse_groups(groups))
        self.chain = Chain([Begin(), self.element], self.services)

    async def ask(self, name, *, url=None, **ip):
        wish = parse_nsurl(url or f"kernel://{name}")
        context = ConnectionContext(ip_context=IpContext(**ip))
        connection = Connection(id=name, network_service=name, context=context, labels=dict(wish.labels))
        return await self.send(connection, wish.mechanism)

    async def send(self, connection, mechanism=None):
        request = NetworkServiceRequest(
            connection=codec.clone(connection), mechanism_preferences=[mechanism or Mechanism(type="KERNEL")]
        )
        return await self.chain.request(Call(request))

    async def close(self, name):
        await self.chain.close(Call(NetworkServiceRequest(connection=Connection(id=name))))


def ips(connection):
    context = connection.context.ip_context
    return [*context.dst_ip_addrs, *context.src_ip_addrs]


async def test_the_second_service_gives_other_addresses_than_the_first():
    client = Client()
    assert ips(await client.ask("a")) == ["10.0.0.0/32", "10.0.0.1/32"]
    second = await client.ask("b")
    assert ips(second) == ["10.0.0.2/32", "10.0.0.3/32"]
    assert second.context.ip_context.excluded_prefixes == ["10.0.0.0/32", "10.0.0.1/32"]


async def test_services_that_are_asked_at_once_are_kept_apart_too():
    """The later answer is asked for again; nobody fails, and no wire is left over."""
    client = Client(Services(delay=1))
    found = await asyncio.gather(*(client.ask(name) for name in "abc"))
    assert len({ip for connection in found for ip in ips(connection)}) == 6
    assert client.services.open() == {"a": 1, "b": 1, "c": 1}
    assert len(client.element) == 3


async def test_a_refresh_sends_what_others_have_now_and_nothing_of_its_own():
    client = Client()
    first = await client.ask("a", excluded_prefixes=["172.16.0.0/12"])
    await client.ask("b")
    again = await client.send(first)
    assert ips(again) == ips(first)
    assert again.context.ip_context.excluded_prefixes == ["172.16.0.0/12", "10.0.0.2/32", "10.0.0.3/32"]
    await client.close("b")
    assert (await client.send(again)).context.ip_context.excluded_prefixes == ["172.16.0.0/12"]


async def test_what_one_wire_must_not_use_others_must_not_use_either():
    """Host routes too; but not what was only passed on from other wires."""
    client = Client(Services(b=["172.16.0.0/16", "10.9.0.0/16"]))
    client.services.routes["a"] = [Route(prefix="10.9.0.1/32")]
    await client.ask("a", excluded_prefixes=["172.16.0.0/12"])
    second = await client.ask("b")
    assert ips(second) == ["10.9.0.0/32", "10.9.0.2/32"]
    await client.close("a")
    await client.ask("c")
    assert client.services.seen[-1][1] == ["10.9.0.0/32", "10.9.0.2/32"]


async def test_an_address_is_free_for_others_when_its_wire_is_closed_or_its_first_request_fails():
    client = Client()
    client.services.failures["a"] = [Unavailable("no")]
    with pytest.raises(Unavailable):
        await client.ask("a")
    assert len(client.element) == 0
    await client.ask("a")
    client.services.failures["a"] = [Unavailable("no")]
    with pytest.raises(Unavailable):
        await client.ask("a")
    assert len(client.element) == 1  # a refresh that fails changes nothing
    await client.close("a")
    assert len(client.element) == 0
    assert ips(await client.ask("b")) == ["10.0.0.0/32", "10.0.0.1/32"]
    assert client.services.seen[-1][1] == []


async def test_a_wire_whose_close_fails_is_forgotten_all_the_same():
    client = Client()
    await client.ask("a")

    async def fails(_call):
        raise Unavailable("gone")

    client.services.close = fails
    chain = Chain([Begin(), client.element], client.services)
    client.chain = chain
    await client.ask("b")
    with pytest.raises(Unavailable):
        await client.close("b")
    assert len(client.element) == 1


async def test_an_endpoint_that_insists_on_another_wire_s_address_is_refused_and_closed():
    client = Client()
    await client.ask("a")

    class Insists:
        closed = 0

        async def request(self, call):
            connection = codec.clone(call.connection)
            connection.network_service_endpoint_name = "stubborn"
            connection.context.ip_context.src_ip_addrs = ["10.0.0.1/16"]
            return connection

        async def close(self, call):
            self.closed += 1

    end = Insists()
    client.chain = Chain([Begin(), client.element], end)
    told = "stubborn gave 10.0.0.1/32 to the wire to 'b', which the one to 'a' has"
    with pytest.raises(Conflict, match=told):
        await client.ask("b")
    assert end.closed == 1
    assert len(client.element) == 1
    assert len(client.chain.elements[0]) == 0


async def test_addresses_of_several_wires_survive_a_restart_of_the_client():
    """What one of them still excludes are the addresses of the other."""
    client = Client()
    before = [await client.ask(name) for name in "ab"]
    before[0] = await client.send(before[0])
    restarted = Client(client.services)
    after = await asyncio.gather(*map(restarted.send, before))
    assert [ips(each) for each in after] == [ips(each) for each in before]


async def test_wires_that_an_earlier_process_let_have_the_same_addresses_get_others():
    client = Client(groups="[kernel://a,kernel://b]")
    before = [await client.ask(name) for name in "ab"]
    assert ips(before[0]) == ips(before[1])
    restarted = Client(client.services)
    after = await asyncio.gather(*map(restarted.send, before))
    assert ips(after[0]) == ips(before[0])
    assert ips(after[1]) == ["10.0.0.2/32", "10.0.0.3/32"]


# --- awareness groups


@pytest.mark.parametrize(
    ("groups", "shared"),
    [
        ("", False),
        ("[kernel://a,kernel://b]", True),
        ("[kernel://a/if-a,kernel://b/if-b?app=web]", True),
        ("[kernel://a,kernel://b/other]", False),
        ("[kernel://a,kernel://b?app=db]", False),
        ("[kernel://a],[kernel://b]", False),
        ("[kernel://a,memif://b]", False),
        ("[kernel://c]", False),
    ],
)
async def test_wires_of_one_awareness_group_may_have_the_same_addresses(groups, shared):
    client = Client(groups=groups)
    first = await client.ask("a", url="kernel://a/if-a")
    second = await client.ask("b", url="kernel://b/if-b?app=web&more=1")
    assert (ips(first) == ips(second)) == shared
    assert (second.context.ip_context.excluded_prefixes == []) == shared


async def test_what_other_groups_have_is_excluded_from_a_group():
    client = Client(groups="[kernel://a,kernel://b],[kernel://c]")
    found = await asyncio.gather(client.ask("a"), client.ask("b"))
    assert ips(found[0]) == ips(found[1]) == ["10.0.0.0/32", "10.0.0.1/32"]
    assert ips(await client.ask("c")) == ["10.0.0.2/32", "10.0.0.3/32"]


async def test_descriptors_are_sent_anew_with_a_request_that_is_sent_anew(tmp_path):
    """Each time once, and the mechanism comes back with the caller's name for the file."""
    file = tmp_path / "net"
    file.touch()
    services = Services(delay=1)
    element = ClientExcludedPrefixes()
    chain = Chain([Begin(), element, SendDescriptors()], services)

    async def ask(name):
        mechanism = Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{file}"})
        connection = Connection(id=name, network_service=name, mechanism=codec.clone(mechanism))
        request = NetworkServiceRequest(connection=connection, mechanism_preferences=[mechanism])
        return await chain.request(Call(request))

    found = await asyncio.gather(ask("a"), ask("b"))
    assert [len(outgoing) for _, _, outgoing in services.seen] == [2, 2, 2]
    assert all(each.mechanism.parameters["inodeURL"] == f"file://{file}" for each in found)


def test_groups_are_read():
    assert parse_groups("") == ()
    groups = parse_groups("[kernel://a/nsm-1?x=y , kernel://b],[],[kernel://c],")
    assert [[each.network_service for each in group] for group in groups] == [["a", "b"], ["c"]]
    assert groups[0][0].labels == {"x": "y"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("kernel://a", "expected groups of URLs such as"),
        ("[kernel://a][kernel://b]", "expected groups of URLs"),
        ("[kernel://a", "expected groups of URLs"),
        ("[a]", "'a' names no service"),
        ("[kernel://a],[kernel://a]", "'kernel://a' is given twice"),
    ],
)
def test_what_are_no_groups(value, told):
    with pytest.raises(ValueError, match=told):
        parse_groups(value)
