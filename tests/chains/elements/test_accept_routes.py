"""Which networks a client lets a wire reach."""

import pytest

from nsm.apis.connectioncontext import ConnectionContext, IpContext, PolicyRoute, Route
from nsm.chains.core import Chain, Refused, Unavailable
from nsm.chains.elements.accept_routes import AcceptRoutes
from nsm.chains.model.networks import Networks
from nsm.chains.testing import Check, Fail, Record, call

NODE = Networks.parse(["10.244.0.0/16"])


def chain_of(ip, *behind, **options):
    """A client whose endpoint gives `ip`."""
    probe, context = Record(), ConnectionContext(ip_context=IpContext(**ip))
    gives = Check(lambda call: setattr(call.connection, "context", context))
    return Chain([AcceptRoutes(**options), probe, *behind, gives]), probe


@pytest.mark.parametrize(
    "ip",
    [
        {"src_routes": [Route(prefix="127.0.0.0/8")]},
        {"src_routes": [Route(prefix="10.244.3.0/24")]},
        {"policies": [PolicyRoute(dst_port="80", routes=[Route(prefix="10.244.0.0/16")])]},
    ],
    ids=["loopback", "underlay", "policy"],
)
async def test_what_is_the_machine_s_own_is_refused_and_the_wire_is_closed(ip):
    chain, probe = chain_of(ip, underlay=lambda: NODE)
    with pytest.raises(
        Refused, match=r"the answer of gateway is not accepted here: .*; NSM_ACCEPT_ROUTES lists what is"
    ):
        await chain.request(call(network_service_endpoint_name="gateway"))
    assert [each.connection.context.ip_context for each in probe.closes] == [IpContext(**ip)]


async def test_a_default_route_takes_nothing_of_the_machine_s_own_and_is_accepted():
    chain, probe = chain_of({"src_routes": [Route(prefix="0.0.0.0/0")]}, underlay=lambda: NODE)
    await chain.request(call())
    assert probe.closes == []


async def test_only_networks_that_are_accepted_are_reached():
    accepted = Networks.parse(["10.0.0.0/8"])
    await chain_of({"src_routes": [Route(prefix="10.1.0.0/16")]}, accepted=accepted)[0].request(call())
    with pytest.raises(Refused, match=r"src_routes 1: 0\.0\.0\.0/0 is not in 10\.0\.0\.0/8"):
        await chain_of({"src_routes": [Route(prefix="0.0.0.0/0")]}, accepted=accepted)[0].request(call())


async def test_the_refusal_is_what_a_client_reads_though_the_wire_could_not_be_closed(capsys):
    class CannotClose(Fail):
        async def close(self, call, rest):
            raise Unavailable("gone")

    chain, _ = chain_of({"src_routes": [Route(prefix="127.0.0.1/32")]}, CannotClose())
    with pytest.raises(Refused):
        await chain.request(call())
    assert "could not close a wire whose routes are not accepted" in capsys.readouterr().out
