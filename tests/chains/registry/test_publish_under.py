"""Publishes endpoints in other domains under the proxy's URL."""

import pytest

from nsm.chains.core import RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.memory import Memory
from nsm.chains.registry.publish_under import PublishUnder
from nsm.chains.testing import Fail
from tests.chains.registry.records import find, nse

URL = "tcp://10.0.0.4:5004"


async def test_an_endpoint_is_published_under_the_proxy_and_known_where_it_is_until_it_is_gone():
    elsewhere, memory = {}, Memory()
    chain = RegistryChain([RegistryBegin(), PublishUnder(URL, elsewhere), memory])
    record = await chain.register(RegistryCall(nse("a@two", url="tcp://10.0.0.7:5001")))
    assert record.url == "tcp://10.0.0.7:5001"
    assert memory.records.get("a@two").url == URL
    assert elsewhere == {"a@two": "tcp://10.0.0.7:5001"}
    await chain.unregister(RegistryCall(nse("a@two")))
    assert elsewhere == {}


async def test_a_registration_that_fails_leaves_nothing():
    elsewhere = {}
    chain = RegistryChain([RegistryBegin(), PublishUnder(URL, elsewhere), Fail(Unavailable("gone"))])
    with pytest.raises(Unavailable):
        await chain.register(RegistryCall(nse("a@two", url="tcp://10.0.0.7:5001")))
    assert elsewhere == {}


async def test_endpoints_are_found_under_the_proxy_and_stored_records_stay_as_they_are():
    memory = Memory()
    memory.records.put(nse("b@two", url="tcp://192.0.2.1:5004"))
    chain = RegistryChain([PublishUnder(URL, {}), memory])
    assert [each.url for each in await find(chain)] == [URL]
    assert memory.records.get("b@two").url == "tcp://192.0.2.1:5004"
