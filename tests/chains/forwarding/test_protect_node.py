"""What no end of a wire may reach, whatever an endpoint answers."""

import ipaddress

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext, IpContext, PolicyRoute, Route
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Refused
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.forwarding.protect_node import ProtectNode
from nsm.chains.model.networks import Networks

UNDERLAY = Networks([ipaddress.ip_network("172.18.0.0/16")])


class Answers:
    def __init__(self, ip, kind="KERNEL"):
        self.ip, self.kind = ip, kind

    async def request(self, call):
        call.connection.context, call.connection.mechanism = (
            ConnectionContext(ip_context=self.ip),
            Mechanism(type=self.kind),
        )
        return call.connection

    async def close(self, call): ...


async def ask(ip, kind="KERNEL"):
    far_side = MechanismTranslation()
    chain = Chain([Begin(), ProtectNode(lambda: UNDERLAY, far_side), far_side], Answers(ip, kind))
    return await chain.request(Call(NetworkServiceRequest(connection=Connection(id="c", network_service="icmp"))))


HARMFUL = [
    IpContext(src_ip_addrs=["172.18.0.2/32"]),
    IpContext(dst_ip_addrs=["172.18.0.3/32"]),
    IpContext(src_routes=[Route(prefix="172.18.0.0/16")]),
    IpContext(dst_routes=[Route(prefix="172.18.4.0/24")]),
    IpContext(policies=[PolicyRoute(dst_port="80", routes=[Route(prefix="172.18.0.9/32")])]),
    IpContext(dst_routes=[Route(prefix="224.0.0.0/4")]),
    IpContext(src_ip_addrs=["0.0.0.0/32"]),
    IpContext(dst_ip_addrs=["169.254.169.254/32"]),
]


@pytest.mark.parametrize("ip", HARMFUL)
async def test_what_would_take_over_the_underlay_or_is_every_machines_own_is_refused(ip):
    with pytest.raises(Refused, match="would take over addresses outside the mesh"):
        await ask(ip)


FINE = [
    IpContext(
        src_ip_addrs=["169.254.0.1/32"], dst_ip_addrs=["169.254.0.0/32"], src_routes=[Route(prefix="169.254.0.0/32")]
    ),
    IpContext(src_ip_addrs=["10.0.0.1/24"], src_routes=[Route(prefix="0.0.0.0/0"), Route(prefix="172.16.0.0/12")]),
]


@pytest.mark.parametrize("ip", FINE)
async def test_upstreams_default_addresses_and_wide_routes_are_fine(ip):
    await ask(ip)


async def test_a_breakout_may_be_on_the_underlay_itself():
    await ask(IpContext(src_ip_addrs=["172.18.0.77/16"]), "VLAN")
