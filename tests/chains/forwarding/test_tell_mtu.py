"""What an endpoint hears of the MTU when it is asked for the first time."""

import pytest

from nsm.apis import codec
from nsm.apis.connection import Connection, Mechanism
from nsm.apis.connectioncontext import ConnectionContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain, Element
from nsm.chains.forwarding.tell_mtu import TellMtu

VXLAN = Mechanism(cls="REMOTE", type="VXLAN", parameters={"MTU": "1446"})
VLAN = Mechanism(cls="REMOTE", type="VLAN")
KERNEL = Mechanism(cls="LOCAL", type="KERNEL")


class Far(Element):
    """An endpoint that chooses a mechanism; notes which MTU it heard, and may lower it."""

    def __init__(self, chosen, mtu=0):
        self.chosen, self.mtu, self.heard = chosen, mtu, None

    async def request(self, call, rest):
        self.heard = call.connection.context.mtu if call.connection.context is not None else 0
        answer = codec.clone(call.connection)
        answer.mechanism = codec.clone(self.chosen)
        if self.mtu:
            answer.context = ConnectionContext(mtu=self.mtu)
        return answer


async def ask(far, *offers, mtu=0, mechanism=None):
    """The MTU of the answer; 0: none."""
    context = ConnectionContext(mtu=mtu) if mtu else None
    connection = Connection(id="c", context=context, mechanism=codec.clone(mechanism) if mechanism else None)
    request = NetworkServiceRequest(connection=connection, mechanism_preferences=list(offers))
    answered = await Chain([TellMtu(), far]).request(Call(request))
    return answered.context.mtu if answered.context is not None else 0


@pytest.mark.parametrize(("wanted", "heard"), [(0, 1446), (9000, 1446), (1400, 1400)])
async def test_the_other_end_of_a_tunnel_hears_its_mtu_at_once(wanted, heard):
    far = Far(VXLAN)
    assert await ask(far, VXLAN, mtu=wanted) == far.heard == heard


@pytest.mark.parametrize("wanted", [0, 9000, 1400])
async def test_a_wire_inside_the_node_has_the_mtu_that_its_client_wants(wanted):
    far = Far(KERNEL)
    assert await ask(far, KERNEL, mtu=wanted) == far.heard == wanted


@pytest.mark.parametrize("wanted", [0, 9000])
async def test_a_breakout_beside_an_offered_tunnel_does_not_get_its_mtu(wanted):
    far = Far(VLAN)
    assert await ask(far, VXLAN, VLAN, mtu=wanted) == wanted
    assert far.heard == 1446
    assert await ask(far, VXLAN, VLAN, mtu=1500, mechanism=VLAN) == far.heard == 1500  # the refresh


async def test_an_endpoint_that_lowers_it_further_is_believed():
    assert await ask(Far(VLAN, mtu=1200), VXLAN, VLAN) == 1200


async def test_a_refresh_tells_what_the_underlay_has_become():
    far, less = Far(VXLAN), Mechanism(cls="REMOTE", type="VXLAN", parameters={"MTU": "1300"})
    assert await ask(far, less, mtu=1446, mechanism=VXLAN) == far.heard == 1300
