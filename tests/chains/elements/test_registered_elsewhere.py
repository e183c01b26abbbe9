"""Leads requests to endpoints of this domain that are registered in another one."""

from nsm.chains.core import Begin, Chain, Element
from nsm.chains.elements.registered_elsewhere import RegisteredElsewhere
from nsm.chains.testing import call


class Targets(Element):
    def __init__(self):
        self.seen = []

    async def request(self, call, rest):
        self.seen.append(call.target)
        return await rest.request(call)

    async def close(self, call, rest):
        self.seen.append(call.target)
        await rest.close(call)


async def test_an_endpoint_that_is_registered_elsewhere_is_called_where_it_is():
    targets = Targets()
    chain = Chain([Begin(), RegisteredElsewhere({"a@sky": "tcp://10.0.0.1:5001"}), targets])
    await chain.request(call("c", network_service_endpoint_name="a@sky"))
    await chain.close(call("c"))
    await chain.request(call("d", network_service_endpoint_name="b@sky"))
    assert targets.seen == ["tcp://10.0.0.1:5001", "tcp://10.0.0.1:5001", None]
