"""What a path segment says of the interfaces of its component."""

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element
from nsm.chains.elements.kernel import KernelClient, KernelServer
from nsm.chains.elements.mechanisms import Mechanisms


def call(**fields):
    path = Path(index=1, path_segments=[PathSegment(name=name, id=name) for name in ("nsc", "nse")])
    return Call(NetworkServiceRequest(connection=Connection(id="nse", path=path, network_service="svc", **fields)))


def metrics(connection):
    return [segment.metrics for segment in connection.path.path_segments]


async def test_an_endpoint_s_segment_names_its_interface():
    chain = Chain([Begin(), Mechanisms({"KERNEL": [KernelServer()], "NOOP": []})])
    asked = call()
    asked.request.mechanism_preferences = [Mechanism(type="KERNEL", parameters={"name": "nsm-1"})]
    connection = await chain.request(asked)
    assert metrics(connection) == [{}, {"server_interface": "KERNEL/nsm-1"}]
    again = call(mechanism=Mechanism(type="NOOP"))
    again.connection.path.path_segments[1].metrics["server_interface"] = "KERNEL/nsm-1"
    assert metrics(await chain.request(again))[1] == {"server_interface": "KERNEL/nsm-1"}
    assert metrics(await chain.request(call(mechanism=Mechanism(type="NOOP"))))[1] == {
        "server_interface": "NOOP/unknown"
    }


async def test_a_client_s_segment_names_its_interface():
    asked = call()
    asked.connection.path.index = 0
    asked.request.mechanism_preferences = [Mechanism(type="KERNEL", parameters={"name": "nsm-1"})]
    assert metrics(await Chain([Begin(), KernelClient()]).request(asked)) == [{"client_interface": "KERNEL/nsm-1"}, {}]


async def test_the_elements_of_all_mechanisms_are_released_with_the_chain():
    released = []

    class Holds(Element):
        def __init__(self, name):
            self.held = name

        async def aclose(self):
            released.append(self.held)

    shared = Holds("first")
    async with Chain([Mechanisms({"KERNEL": [shared, Holds("second")], "VXLAN": [shared, Holds("other")]})]):
        assert released == []
    assert released == ["second", "first", "other"]
