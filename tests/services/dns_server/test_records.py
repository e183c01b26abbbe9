"""A small DNS server for domains that have none."""

import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from nsm.services.dns.query import Query
from nsm.services.dns.server import listening
from nsm.services.dns_server.records import Records
from nsm.services.registry_proxy.resolver import DnsResolver

RECORDS = Records.parse(
    {
        "registry.nsm-system.my.two": ["192.0.2.1:5002", "[2001:db8::1]:5002"],
        "nsmgr-proxy.nsm-system.my.two": "192.0.2.1:5004",
    }
)


def asked(name, kind):
    query = dns.message.make_query(name, kind)
    return RECORDS.answer(Query(query), 5)


async def test_a_registry_proxy_finds_a_domain_s_components():
    async def answer(query):
        return RECORDS.answer(query, 5)

    async with listening("127.0.0.1", 0, answer) as port:
        resolver = DnsResolver(lambda: [("127.0.0.1", port)])
        urls = (await resolver.locate("registry.nsm-system", "my.two")).urls
        assert urls == ("tcp://192.0.2.1:5002", "tcp://[2001:db8::1]:5002")
        assert (await resolver.locate("nsmgr-proxy.nsm-system", "MY.two")).urls == ("tcp://192.0.2.1:5004",)


def test_names_that_are_not_listed_do_not_exist_and_other_types_are_empty():
    assert asked("registry.nsm-system.my.one.", "SRV").rcode() == dns.rcode.NXDOMAIN
    empty = asked("registry.nsm-system.my.two.", "TXT")
    assert (empty.rcode(), empty.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (["a"], "expected a map such as"),
        ({"a": ["b:5"]}, "'b:5' is not an IP address with a port"),
        ({"a": ["192.0.2.1"]}, "it has no port"),
        ({"a..b": ["192.0.2.1:5"]}, "'a..b' is not a name of DNS"),
        ({5: ["192.0.2.1:5"]}, "'5' is not a name of DNS"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(document, words):
    with pytest.raises(ValueError, match=words):
        Records.parse(document)
