"""A server and the client chain that goes on from it."""

import pytest

from nsm.chains.core import Begin, Chain, Element, Unavailable
from nsm.chains.elements.connect import Connect
from nsm.chains.testing import Fail, Record, call


async def test_what_a_client_chain_made_is_closed_when_the_rest_of_the_server_fails():
    """The first time; a refresh that fails leaves the connection as it is."""
    client, after = Record(), Fail(Unavailable("no"), None, Unavailable("no"))
    chain = Chain([Begin(), Connect(Chain([client])), after])
    with pytest.raises(Unavailable):
        await chain.request(call())
    assert len(client.closes) == 1
    await chain.request(call())
    with pytest.raises(Unavailable):
        await chain.request(call())
    assert len(client.closes) == 1
    await chain.close(call())
    assert len(client.closes) == 2


async def test_a_close_closes_both_sides_whatever_happens():
    class Fails(Element):
        async def close(self, call, rest):
            raise Unavailable("gone")

    after = Record()
    chain = Chain([Begin(), Connect(Chain([Fails()])), after])
    await chain.request(call())
    with pytest.raises(Unavailable):
        await chain.close(call())
    assert len(after.closes) == 1
