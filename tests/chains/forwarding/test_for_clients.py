"""What endpoints are offered for which clients, where one forwarder has several dataplanes."""

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.forwarding.for_clients import ForClients
from nsm.chains.forwarding.sides import CLIENT_SIDE, KernelInterface, Nothing


class Client(Element):
    """Has a side."""

    def __init__(self, side):
        self.side = side

    async def request(self, call, rest):
        call.live.put(CLIENT_SIDE, self.side)
        return await rest.request(call)


class Offer(Element):
    """Notes what passes it."""

    def __init__(self):
        self.seen = []

    async def request(self, call, rest):
        self.seen.append("request")
        call.request.mechanism_preferences.append(Mechanism(type="NOOP"))
        return await rest.request(call)

    async def close(self, call, rest):
        self.seen.append("close")
        await rest.close(call)

    async def aclose(self):
        self.seen.append("end")


def call():
    return Call(NetworkServiceRequest(connection=Connection(id="a")))


async def with_side(side):
    offer = Offer()
    chain = Chain([Begin(), Client(side), ForClients(lambda each: isinstance(each, Nothing), [offer])])
    async with chain:
        for _ in range(2):
            await chain.request(call())
        await chain.close(call())
    return offer.seen


async def test_offers_are_for_clients_whose_side_fits_and_no_others():
    assert await with_side(Nothing()) == ["request", "request", "close", "end"]
    assert await with_side(KernelInterface("/proc/7/ns/net", "nsm-1")) == ["end"]


async def test_a_close_of_an_unknown_connection_reaches_all_offers():
    offer = Offer()
    chain = Chain([Begin(), ForClients(lambda _: False, [offer])])
    await chain.close(call())
    assert offer.seen == ["close"]
