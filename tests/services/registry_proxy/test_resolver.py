"""Other domains, as DNS has them: with real sockets."""

import asyncio
import struct
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from nsm.chains.core import InvalidRequest, NotFound, Unavailable
from nsm.chains.registry.resolve_domain import PROXY, REGISTRY
from nsm.services.dns.query import failure
from nsm.services.dns.server import listening
from nsm.services.registry_proxy.resolver import DnsResolver
from nsm.services.registry_proxy.servers import ResolvConfServers, dns_servers

NAME = "registry.nsm-system.two."


class Zone:
    """Records by name and type, and what was asked."""

    def __init__(self, *records, ttl=60):
        self.ttl, self.asked, self.code = ttl, [], None
        self.records = {}
        for text in records:
            name, kind, value = text.split(" ", 2)
            self.records.setdefault((name, kind), []).append(value)

    async def answer(self, query):
        question = query.question
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.code is not None:
            return failure(query.message, self.code)
        if name not in {known for known, _ in self.records}:
            return failure(query.message, dns.rcode.NXDOMAIN)
        answer = dns.message.make_response(query.message)
        alias = self.records.get((name, "CNAME"))
        if alias:
            answer.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "CNAME", *alias))
            name = alias[0]
        if values := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text_list(name, self.ttl, "IN", kind, values))
        return answer


@asynccontextmanager
async def resolving(*zones):
    async with _all([listening("127.0.0.1", 0, zone.answer) for zone in zones]) as ports:
        yield DnsResolver(lambda: [("127.0.0.1", port) for port in ports])


@asynccontextmanager
async def _all(contexts):
    if not contexts:
        yield []
        return
    async with contexts[0] as first, _all(contexts[1:]) as others:
        yield [first, *others]


async def test_a_component_is_at_the_port_of_the_service_record_and_the_addresses_of_the_name():
    zone = Zone(f"{NAME} SRV 0 0 5002 elsewhere.", f"{NAME} A 192.0.2.1", f"{NAME} AAAA 2001:db8::1")
    async with resolving(zone) as resolver:
        located = await resolver.locate(REGISTRY, "two")
        assert located.urls == ("tcp://192.0.2.1:5002", "tcp://[2001:db8::1]:5002")
        assert (await resolver.locate(REGISTRY, "TWO.")).urls == located.urls
        assert len(zone.asked) == 3  # the answer is kept


async def test_the_target_of_a_record_counts_if_the_name_has_no_address_and_the_order_is_always_the_same():
    zone = Zone(
        f"{NAME} SRV 10 5 1 b.two.",
        f"{NAME} SRV 10 9 2 a.two.",
        f"{NAME} SRV 5 0 3 a.two.",
        "a.two. A 192.0.2.1",
        "b.two. A 192.0.2.2",
    )
    async with resolving(zone) as resolver:
        urls = (await resolver.locate(REGISTRY, "two")).urls
        assert urls == ("tcp://192.0.2.1:3", "tcp://192.0.2.1:2", "tcp://192.0.2.2:1")


async def test_a_domain_with_very_many_records_does_not_have_each_of_them_looked_up():
    zone = Zone(*(f"{NAME} SRV {n} 0 1 t{n}.two." for n in range(100)), "t0.two. A 192.0.2.1", "t99.two. A 192.0.2.9")
    async with resolving(zone) as resolver:
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.1:1",)
        assert len([name for name, _ in zone.asked if name != NAME]) == 2 * 16


async def test_a_name_may_be_an_alias():
    zone = Zone(f"{NAME} CNAME r.two.", "r.two. SRV 0 0 5002 r.two.", "r.two. A 192.0.2.1")
    async with resolving(zone) as resolver:
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.1:5002",)


async def test_answers_are_kept_as_long_as_they_say_and_forgotten_on_request(monkeypatch):
    zone = Zone(f"{NAME} SRV 0 0 5002 r.", f"{NAME} A 192.0.2.1", ttl=30)
    now = [1000.0]
    monkeypatch.setattr("nsm.services.registry_proxy.resolver._now", lambda: now[0])
    async with resolving(zone) as resolver:
        assert (await resolver.locate(REGISTRY, "two")).until == 1030.0
        zone.records[NAME, "A"] = ["192.0.2.7"]
        now[0] = 1029.0
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.1:5002",)
        now[0] = 1031.0
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.7:5002",)
        zone.records[NAME, "A"] = ["192.0.2.8"]
        resolver.forget(REGISTRY, "two")
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.8:5002",)


async def test_many_calls_at_once_share_a_look_up():
    zone = Zone(f"{NAME} SRV 0 0 5002 r.", f"{NAME} A 192.0.2.1")
    async with resolving(zone) as resolver:
        await asyncio.gather(*(resolver.locate(REGISTRY, "two") for _ in range(50)))
        assert len(zone.asked) == 3


async def test_a_domain_without_a_record_is_named_and_asked_again_soon(monkeypatch):
    zone, now = Zone(), [1000.0]
    monkeypatch.setattr("nsm.services.registry_proxy.resolver._now", lambda: now[0])
    async with resolving(zone) as resolver:
        with pytest.raises(NotFound, match=f"domain 'two' has no record: DNS has no SRV record of {NAME}"):
            await resolver.locate(REGISTRY, "two")
        zone.records |= {(NAME, "SRV"): ["0 0 5002 r."], (NAME, "A"): ["192.0.2.1"]}
        now[0] += 2
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.1:5002",)


async def test_a_record_without_an_address_is_named():
    async with resolving(Zone(f"{NAME} SRV 0 0 5002 nowhere.")) as resolver:
        with pytest.raises(NotFound, match="has a record without an address"):
            await resolver.locate(REGISTRY, "two")


async def test_the_next_server_is_asked_if_one_fails_and_all_are_named_if_none_knows():
    broken, good = Zone(), Zone(f"{NAME} SRV 0 0 5002 r.", f"{NAME} A 192.0.2.1")
    broken.code = dns.rcode.SERVFAIL
    async with resolving(broken, good) as resolver:
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.1:5002",)
        good.code = dns.rcode.REFUSED
        with pytest.raises(Unavailable, match="domain 'three' cannot be looked up: .*SERVFAIL; .*REFUSED"):
            await resolver.locate(REGISTRY, "three")


async def test_an_answer_that_is_too_long_for_a_datagram_arrives_over_tcp():
    many = [f"{NAME} A 192.0.2.{n}" for n in range(1, 200)]
    async with resolving(Zone(f"{NAME} SRV 0 0 5002 r.", *many)) as resolver:
        assert len((await resolver.locate(REGISTRY, "two")).urls) == 16


async def test_a_url_is_not_looked_up():
    resolver = DnsResolver(list)
    for component in (REGISTRY, PROXY):
        assert (await resolver.locate(component, "tcp://192.0.2.1:5002")).urls == ("tcp://192.0.2.1:5002",)
    with pytest.raises(Unavailable, match="no name server is configured .NSM_DNS_SERVERS, /etc/resolv.conf."):
        await resolver.locate(REGISTRY, "two")
    with pytest.raises(InvalidRequest, match="not a name of DNS"):
        await resolver.locate(REGISTRY, "two..three")


class Silent(asyncio.DatagramProtocol):
    """Tells who asked, and has others answer."""

    def __init__(self, asked):
        self._asked = asked

    def datagram_received(self, data, address):
        self._asked.put_nowait((data, address))


async def test_an_answer_from_somebody_who_was_not_asked_or_to_another_question_does_not_count():
    loop, asked = asyncio.get_running_loop(), asyncio.Queue()
    server, _ = await loop.create_datagram_endpoint(lambda: Silent(asked), local_addr=("127.0.0.1", 0))
    stranger, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    resolver = DnsResolver(lambda: [("127.0.0.1", server.get_extra_info("sockname")[1])])
    looking = asyncio.ensure_future(resolver.locate(REGISTRY, "two"))

    def answered(data, address, by, *, ip, confuse=False):
        message = dns.message.from_wire(data)
        answer = dns.message.make_response(message)
        name, kind = message.question[0].name, message.question[0].rdtype
        value = {33: "0 0 5002 r.", 1: ip}.get(int(kind))
        if value:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, value))
        wire = answer.to_wire()
        by.sendto(struct.pack("!H", message.id ^ 1) + wire[2:] if confuse else wire, address)

    for _ in range(3):
        data, address = await asked.get()
        answered(data, address, stranger, ip="203.0.113.66")
        answered(data, address, server, ip="203.0.113.77", confuse=True)
        answered(data, address, server, ip="192.0.2.1")
    assert (await looking).urls == ("tcp://192.0.2.1:5002",)
    server.close()
    stranger.close()


async def test_records_of_other_names_in_an_answer_do_not_count():
    zone = Zone(f"{NAME} SRV 0 0 5002 r.", f"{NAME} A 192.0.2.1")
    plain = zone.answer

    async def poisoned(query):
        answer = await plain(query)
        answer.answer.insert(0, dns.rrset.from_text("other.", 60, "IN", "A", "203.0.113.66"))
        return answer

    zone.answer = poisoned
    async with resolving(zone) as resolver:
        assert (await resolver.locate(REGISTRY, "two")).urls == ("tcp://192.0.2.1:5002",)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("10.0.0.1, 10.0.0.2:5353", (("10.0.0.1", 53), ("10.0.0.2", 5353))),
        ("fd00::1,[fd00::2]:5353,[fd00::3]", (("fd00::1", 53), ("fd00::2", 5353), ("fd00::3", 53))),
    ],
)
def test_name_servers_are_read(text, servers):
    assert dns_servers(text) == servers


@pytest.mark.parametrize("text", ["dns.local", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:99999", "[fd00::1"])
def test_a_name_server_that_is_none_is_named(text):
    with pytest.raises(ValueError, match="expected ip or ip:port"):
        dns_servers(text)


def test_name_servers_of_a_file_are_read_again_and_kept_if_it_is_gone(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("nsm.services.registry_proxy.servers.time.monotonic", lambda: now[0])
    file = tmp_path / "resolv.conf"
    file.write_text("search x\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver fe80::1%eth0\n")
    servers = ResolvConfServers(str(file))
    assert servers() == (("10.0.0.1", 53), ("fe80::1%eth0", 53))
    file.write_text("nameserver 10.0.0.2\n")
    assert servers()[0] == ("10.0.0.1", 53)
    now[0] = 2.0
    assert servers() == (("10.0.0.2", 53),)
    file.unlink()
    now[0] = 4.0
    assert servers() == (("10.0.0.2", 53),)
