"""Which mechanism a request gets, and what a path segment says of the interfaces of its component."""

import pytest

from nsm.apis.connection import Mechanism
from nsm.chains.core import Begin, Chain, Element, Exhausted, Unsupported
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.testing import Record, call
from tests.chains.elements.paths import call_on_a_path, metrics


async def test_an_endpoint_s_segment_names_its_interface():
    chain = Chain([Begin(), Mechanisms({"KERNEL": [KernelServer()], "NOOP": []})])
    asked = call_on_a_path()
    asked.request.mechanism_preferences = [Mechanism(type="KERNEL", parameters={"name": "nsm-1"})]
    connection = await chain.request(asked)
    assert metrics(connection) == [{}, {"server_interface": "KERNEL/nsm-1"}]
    again = call_on_a_path(mechanism=Mechanism(type="NOOP"))
    again.connection.path.path_segments[1].metrics["server_interface"] = "KERNEL/nsm-1"
    assert metrics(await chain.request(again))[1] == {"server_interface": "KERNEL/nsm-1"}
    assert metrics(await chain.request(call_on_a_path(mechanism=Mechanism(type="NOOP"))))[1] == {
        "server_interface": "NOOP/unknown"
    }


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


async def test_the_first_preference_that_works_is_chosen_and_kept():
    """What a preference that failed had done is undone; without one that works, the first error counts."""
    undone = []

    class Fails(Element):
        async def request(self, call, rest):
            call.undo.add(lambda: undone.append(call.connection.mechanism.type))
            raise Exhausted("no VF")

    probe = Record()
    chain = Chain([Begin(), Mechanisms({"VFIO": [Fails()], "KERNEL": [probe]})])
    wanted = [Mechanism(type="MEMIF"), Mechanism(type="VFIO"), Mechanism(type="KERNEL")]
    assert (await chain.request(call(preferences=wanted))).mechanism.type == "KERNEL"
    assert undone == ["VFIO"]
    await chain.close(call())
    assert len(probe.closes) == 1
    with pytest.raises(Exhausted, match="no VF"):
        await chain.request(call(preferences=wanted[:2]))
    with pytest.raises(Unsupported, match=r"requested MEMIF; available here: VFIO, KERNEL"):
        await chain.request(call(preferences=wanted[:1]))
    with pytest.raises(Unsupported, match="requested MEMIF"):
        await chain.request(call(mechanism=Mechanism(type="MEMIF")))
    with pytest.raises(Unsupported, match="requested none"):
        await chain.request(call())
