"""Descriptors that go with a request."""

from nsm.apis.connection import Mechanism
from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Begin, Chain, Element, Unavailable
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.testing import call


async def test_a_second_candidate_gets_the_descriptor_too_and_the_caller_its_own_name_back(tmp_path):
    """What was translated for the first one is not taken for the caller's own."""
    from nsm.chains.elements.descriptors import SendDescriptors

    (tmp_path / "ns").touch()
    sent = []

    class Peer(Element):
        async def request(self, call, rest):
            sent.append((call.connection.mechanism.parameters["inodeURL"].split(":")[0], list(call.outgoing)))
            if len(sent) == 1:
                raise Unavailable("gone")
            return call.connection

    chain = Chain([Begin(), RoundRobin(), SendDescriptors(), Peer()])
    asked = call("c", mechanism=Mechanism(type="KERNEL", parameters={"inodeURL": f"file://{tmp_path}/ns"}))
    asked.candidates = [NetworkServiceEndpoint(name=name, url=f"tcp://{name}:1") for name in ("a", "b")]
    connection = await chain.request(asked)
    assert connection.mechanism.parameters["inodeURL"] == f"file://{tmp_path}/ns"
    assert sent == [("inode", [f"{tmp_path}/ns"])] * 2
