"""The path's element with answers that no well-behaved peer gives."""

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Call, Chain
from nsm.chains.elements.update_path import UpdatePath


async def test_an_answer_without_a_path_is_passed_back_as_it_came():
    class Forgetful:
        async def request(self, call):
            return Connection(id="theirs")

    chain = Chain([UpdatePath("nsc")], Forgetful())
    assert (await chain.request(Call(NetworkServiceRequest()))).id == "theirs"
