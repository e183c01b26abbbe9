"""Which clients get as far as an endpoint, by their tokens."""

import pytest

from nsm.apis.connection import Connection, Mechanism
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain, Unsupported
from nsm.chains.forwarding.sriov_tokens import RefuseToken, RequireToken

TOKEN = "sriov-00000000-0000-0000-0000-000000000000"


async def ask(element, **parameters):
    connection = Connection(mechanism=Mechanism(type="KERNEL", parameters=parameters))
    return await Chain([element]).request(Call(NetworkServiceRequest(connection=connection)))


async def test_a_client_with_a_token_is_for_the_forwarder_of_virtual_functions():
    await ask(RequireToken(), tokenID=TOKEN)
    with pytest.raises(
        Unsupported, match="this forwarder has no virtual functions, and the client has an SR-IOV token"
    ):
        await ask(RefuseToken(), tokenID=TOKEN)


async def test_a_client_without_one_is_for_any_other():
    await ask(RefuseToken())
    with pytest.raises(Unsupported, match="takes an SR-IOV token, and it has none: the client needs label sriovToken"):
        await ask(RequireToken())


async def test_what_is_no_token_is_named():
    with pytest.raises(Unsupported, match="'sriov-1' is not the id of one"):
        await ask(RequireToken(), tokenID="sriov-1")
