"""The DNS server of an endpoint of a vL3."""

from contextlib import asynccontextmanager
from ipaddress import ip_address
from types import SimpleNamespace

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from nsm.chains.config import load
from nsm.chains.core import Tasks
from nsm.services.dns.query import Query
from nsm.services.nse_vl3.config import NseVl3Config
from nsm.services.nse_vl3.main import own_names
from nsm.services.nse_vl3.names import Names, NameServers, answers

ALICE = ["172.16.0.1", "2001:db8::1"]


def names_with(*clients):
    names = Names()
    for number, (name, addresses) in enumerate(clients):
        names.set(str(number), [name], [ip_address(each) for each in addresses])
    return names


async def nobody(message, server):
    raise OSError("there is no other endpoint")


async def ask(names, name, kind="A", ask=nobody, flags=dns.flags.RD):
    message = dns.message.make_query(name, kind)
    message.flags = flags
    answer = await answers(names, ask)(Query(message))
    assert answer.id == message.id
    return dns.rcode.to_text(answer.rcode()), [str(each) for rrset in answer.answer for each in rrset], answer


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("alice.vl3.", "A", ["172.16.0.1"]),
        ("ALICE.vl3.", "A", ["172.16.0.1"]),
        ("alice.vl3.", "AAAA", ["2001:db8::1"]),
        ("alice.vl3.", "MX", []),
        ("1.0.16.172.in-addr.arpa.", "PTR", ["alice.vl3."]),
        ("1.0.16.172.in-addr.arpa.", "A", []),
        ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", "PTR", ["alice.vl3."]),
    ],
)
async def test_a_client_is_found_by_name_and_by_address(name, kind, found):
    rcode, values, answer = await ask(names_with(("alice.vl3", ALICE)), name, kind)
    assert (rcode, values) == ("NOERROR", found)
    assert answer.flags & dns.flags.AA


async def test_two_clients_with_one_name_are_both_found_until_they_leave():
    names = names_with(("web.vl3", ["172.16.0.1"]), ("web.vl3", ["172.16.0.2"]))
    assert (await ask(names, "web.vl3."))[1] == ["172.16.0.1", "172.16.0.2"]
    names.forget("0")
    assert (await ask(names, "web.vl3."))[1] == ["172.16.0.2"]
    names.forget("1")
    assert (await ask(names, "web.vl3."))[0] == "NXDOMAIN"
    assert len(names) == 0


async def test_a_client_that_moves_to_another_address_is_not_found_at_the_old_one():
    names = names_with(("alice.vl3", ALICE))
    names.set("0", ["alice.vl3"], [ip_address("172.16.9.1")])
    assert (await ask(names, "alice.vl3."))[1] == ["172.16.9.1"]
    assert (await ask(names, "1.0.16.172.in-addr.arpa.", "PTR"))[0] == "NXDOMAIN"


async def test_names_of_other_endpoints_are_asked_there():
    names, others, asked = Names(), names_with(("bob.vl3", ["172.16.1.1"])), []
    names.learn("peer", [ip_address("172.16.1.0"), ip_address("2001:db8:0:1::")])
    others.learn("peer", [ip_address("172.16.0.0")])

    async def other(message, server):
        asked.append(server)
        return await answers(others, nobody)(Query(message))

    rcode, values, answer = await ask(names, "bob.vl3.", ask=other)
    assert (rcode, values) == ("NOERROR", ["172.16.1.1"])
    assert answer.flags & dns.flags.RD
    assert sorted(asked) == ["172.16.1.0", "2001:db8:0:1::"]
    assert (await ask(names, "nobody.vl3.", ask=other))[0] == "NXDOMAIN"


async def test_what_another_endpoint_asks_is_not_passed_on_to_others():
    """Endpoints that all ask each other would never come to an end."""
    names = Names()
    names.learn("peer", [ip_address("172.16.1.0")])

    async def never(message, server):
        raise AssertionError("asked")

    assert (await ask(names, "bob.vl3.", ask=never, flags=0))[0] == "NXDOMAIN"


async def test_a_dead_endpoint_does_not_keep_the_others_from_answering():
    names, others = Names(), names_with(("bob.vl3", ["172.16.1.1"]))
    names.learn("dead", [ip_address("172.16.2.0")])
    names.learn("peer", [ip_address("172.16.1.0")])

    async def other(message, server):
        if server == "172.16.2.0":
            raise OSError("no route")
        return await answers(others, nobody)(Query(message))

    assert (await ask(names, "bob.vl3.", ask=other))[1] == ["172.16.1.1"]
    names.forget("peer")
    assert (await ask(names, "bob.vl3.", ask=other))[0] == "SERVFAIL"


def test_an_endpoint_has_a_name_by_the_templates_if_it_knows_its_pod():
    """As a client has; upstream's endpoints are clients of themselves."""
    told = {"NSM_SERVICE_NAMES": "office,lab", "POD_NAME": "router-1"}
    assert own_names(load(NseVl3Config, told).config) == ["router-1.office", "router-1.lab"]
    assert own_names(load(NseVl3Config, {"NSM_SERVICE_NAMES": "office"}).config) == []


async def test_an_endpoint_is_found_by_its_name_at_the_addresses_that_it_has_now(monkeypatch):
    @asynccontextmanager
    async def listening(*_):
        yield

    monkeypatch.setattr("nsm.services.nse_vl3.names.listening", listening)
    names, own = names_with(("alice.vl3", ALICE)), [ip_address("172.16.0.0")]
    async with Tasks("names") as tasks:
        servers = NameServers(SimpleNamespace(own=lambda: own), names, tasks, ["router-1.vl3"])
        servers.follow()
        assert (await ask(names, "router-1.vl3."))[1] == ["172.16.0.0"]
        assert (await ask(names, "0.0.16.172.in-addr.arpa.", "PTR"))[1] == ["router-1.vl3."]
        own[:] = [ip_address("172.16.3.0")]
        servers.follow()
        assert (await ask(names, "router-1.vl3."))[1] == ["172.16.3.0"]
        assert (await ask(names, "0.0.16.172.in-addr.arpa.", "PTR"))[0] == "NXDOMAIN"
