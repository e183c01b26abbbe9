"""NSM_DNS_CONFIGS, as an operator writes it."""

import pytest

from nsm.apis.connectioncontext import DnsConfig
from nsm.chains.model.dns import is_domain, is_server, parse_dns_configs


def test_a_json_array_with_snake_case_keys():
    value = '[{"dns_server_ips": ["10.0.0.1", "fd00::1"], "search_domains": ["a.test."]}, {"dns_server_ips": ["::1"]}]'
    assert parse_dns_configs(value) == (
        DnsConfig(dns_server_ips=["10.0.0.1", "fd00::1"], search_domains=["a.test."]),
        DnsConfig(dns_server_ips=["::1"]),
    )


@pytest.mark.parametrize("value", ["", "[]"])
def test_none(value):
    assert parse_dns_configs(value) == ()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("10.0.0.1", "not valid JSON"),
        ('{"dns_server_ips": []}', "expected an array such as"),
        ('[{"search_domains": []}, {"search_domains": [], "search_domains": ["a"]}]', "is given twice"),
        ("[5]", "5 is not a DNS configuration"),
        ("[{}]", "{} is not a DNS configuration"),
        (
            '[{"dnsServerIps": ["10.0.0.1"]}]',
            "dnsServerIps is not a field of a DNS configuration; expected dns_server_ips",
        ),
        ('[{"dns_server_ips": "10.0.0.1"}]', "dns_server_ips is '10.0.0.1'; expected a list"),
        ('[{"search_domains": [1]}]', "search_domains[0] is 1; expected text"),
        ('[{"dns_server_ips": ["10.0.0.1:53"]}]', "'10.0.0.1:53' in dns_server_ips is not an IP address"),
        ('[{"dns_server_ips": ["0.0.0.0"]}]', "'0.0.0.0' in dns_server_ips is not an IP address"),
        ('[{"search_domains": ["a b"]}]', "'a b' in search_domains is not a domain name"),
        ('[{"search_domains": ["a..b"]}]', "'a..b' in search_domains is not a domain name"),
    ],
)
def test_what_is_wrong_is_named(value, told):
    with pytest.raises(ValueError) as raised:
        parse_dns_configs(value)
    assert told in str(raised.value)


def test_addresses_and_names():
    assert all(map(is_server, ["10.0.0.1", "127.0.0.1", "fe80::1%eth0"]))
    assert not any(map(is_server, ["", "224.0.0.1", "::", "dns.test"]))
    assert all(map(is_domain, ["a", "a.b.", "_tcp.svc", "xn--bcher-kva.test", "x" * 63]))
    assert not any(map(is_domain, ["", ".", "-a", "x" * 64, "a\nb", "\u017f", "\u212a.test", ".".join(["x" * 60] * 5)]))
