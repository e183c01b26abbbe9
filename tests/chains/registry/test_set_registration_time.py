"""When an endpoint registered first."""

from nsm.apis.wellknown import Timestamp
from nsm.chains.core import RegistryCall, RegistryChain
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.set_registration_time import SetRegistrationTime
from tests.chains.registry.records import nse


async def test_the_time_of_the_first_registration_stays():
    chain = RegistryChain([RegistryBegin(), SetRegistrationTime()])
    first = (await chain.register(RegistryCall(nse("a")))).initial_registration_time
    again = (
        await chain.register(RegistryCall(nse("a", initial_registration_time=Timestamp(1))))
    ).initial_registration_time
    assert first == again
    given = (
        await chain.register(RegistryCall(nse("b", initial_registration_time=Timestamp(1))))
    ).initial_registration_time
    assert given == Timestamp(1)
