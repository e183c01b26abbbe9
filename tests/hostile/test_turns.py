"""One client's requests that no endpoint grants say nothing of the endpoints to others."""

from contextlib import suppress

from nsm.apis.connection import Connection
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Call, Chain, Element, MeshError
from nsm.chains.elements.round_robin import RoundRobin

from .attacker import Attacker
from .endpoints import like_others, serving


class Indulgent(Element):
    """Gives addresses that the client excludes."""

    async def request(self, call, rest):
        call.connection.context = ConnectionContext()
        return await rest.request(call)


async def test_a_client_keeps_no_others_from_an_endpoint_by_what_it_asks_for(target):
    """The attacker provides the service too, so that a victim may be led to it."""
    nothing = ConnectionContext(ip_context=IpContext(excluded_prefixes=["0.0.0.0/0", "::/0"]))
    async with (
        Attacker(target) as attacker,
        Attacker(target, "victim") as victim,
        serving(victim, like_others(victim, name="honest").methods(), "honest", "shared"),
    ):
        evil = like_others(attacker, Indulgent(), name="evil", prefix="10.67.0.0/24")
        async with serving(attacker, evil.methods(), "evil", "shared"):
            led_to = []
            for number in range(8):
                for _ in range(4):
                    asked = attacker.connection("asks", service="shared", context=nothing)
                    with suppress(MeshError):
                        await attacker.close(await attacker.request(asked, attacker.kernel(), files=[attacker.network]))
                made = await victim.request(
                    victim.connection(f"led-{number}", service="shared"), victim.kernel(), files=[victim.network]
                )
                led_to.append(made.network_service_endpoint_name)
                await victim.close(made)
    assert led_to.count("honest") >= 3, led_to


async def test_services_that_come_and_go_are_not_remembered_for_ever():
    """Whoever registers one after the other, and asks for each, makes no forwarder grow."""
    element = RoundRobin()
    chain = Chain([element])
    for number in range(3000):
        request = NetworkServiceRequest(connection=Connection(id="c", network_service=f"service-{number}"))
        call = Call(request, candidates=[NetworkServiceEndpoint(name="endpoint", url="tcp://127.0.0.1:1")])
        assert (await chain.request(call)).network_service_endpoint_name == "endpoint"
    assert len(element._turns) <= 1000
