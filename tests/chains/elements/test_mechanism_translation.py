"""The mechanisms of a forwarder's two sides."""

from nsm.apis import codec
from nsm.apis.connection import Mechanism
from nsm.chains.core import Begin, Chain, Element
from nsm.chains.elements.kernel import OfferKernel
from nsm.chains.elements.mechanism_translation import MechanismTranslation
from nsm.chains.testing import Record, call


async def test_a_forwarder_keeps_its_two_sides_apart_also_when_it_refreshes_and_closes():
    far_side, far = MechanismTranslation(), Record()

    class Chooses(Element):
        async def request(self, call, rest):
            if call.connection.mechanism is None:
                call.connection.mechanism = call.request.mechanism_preferences[0]
                call.connection.mechanism.parameters["side"] = "far"
            return await rest.request(call)

    chain = Chain([Begin(), far_side, OfferKernel(), far, Chooses()])
    near = Mechanism(type="KERNEL", parameters={"side": "near"})
    for _ in range(2):
        asked = call(mechanism=codec.clone(near), preferences=[Mechanism(type="MEMIF")])
        connection = await chain.request(asked)
        assert connection.mechanism == near
    assert [p.type for p in far.requests[0].mechanism_preferences] == ["KERNEL"]
    assert far.requests[0].connection.mechanism is None
    assert far.requests[1].connection.mechanism.parameters == {"side": "far"}
    assert far_side.far_side(far.last).parameters == {"side": "far"}
    await chain.close(call())
    assert far.closes[0].connection.mechanism.parameters == {"side": "far"}
