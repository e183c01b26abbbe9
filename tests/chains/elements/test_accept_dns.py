"""Which of an endpoint's servers and search domains a client uses."""

import pytest

from nsm.apis.connectioncontext import ConnectionContext, DnsConfig, DnsContext
from nsm.chains.core import Chain
from nsm.chains.elements.accept_dns import AcceptDns, AcceptedDns
from nsm.chains.testing import Check, call


async def accepted(items, *configs):
    """What is left of `configs` where `items` are accepted."""
    context = ConnectionContext(dns_context=DnsContext(configs=list(configs)))
    gives = Check(lambda call: setattr(call.connection, "context", context))
    connection = await Chain([AcceptDns(AcceptedDns.parse(items)), gives]).request(call())
    return connection.context.dns_context.configs


@pytest.mark.parametrize(
    ("items", "servers", "domains"),
    [
        (["*"], ["10.0.0.53", "8.8.8.8"], ["sub.example.org", "notexample.org"]),
        (["10.0.0.0/8", "Example.org."], ["10.0.0.53"], ["sub.example.org"]),
        (["example.org"], [], ["sub.example.org"]),
        (["10.0.0.0/8"], ["10.0.0.53"], []),
    ],
)
async def test_only_servers_and_domains_that_are_accepted_are_used_and_never_this_machine_s_own(
    items, servers, domains
):
    given = DnsConfig(["10.0.0.53", "8.8.8.8", "127.0.0.53", "::1"], ["sub.example.org", "notexample.org"])
    assert await accepted(items, given) == [DnsConfig(servers, domains)]


async def test_a_configuration_of_which_nothing_is_accepted_is_left_out_and_the_wire_stays(capsys):
    other = DnsConfig(["10.0.0.53"])
    assert await accepted(["10.0.0.0/8"], DnsConfig(["8.8.8.8"], ["com"]), other) == [other]
    assert "NSM_ACCEPT_DNS" in capsys.readouterr().out


def test_what_is_neither_a_prefix_nor_a_domain_is_named():
    with pytest.raises(ValueError, match=r"'not a domain' is neither a prefix nor a domain"):
        AcceptedDns.parse(["10.0.0.0/8", "not a domain"])
