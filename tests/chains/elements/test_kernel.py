"""Namespaces and names of kernel interfaces, at both ends."""

from nsm.apis.connection import Mechanism
from nsm.chains.core import Begin, Chain
from nsm.chains.elements.kernel import KernelClient, KernelServer, OfferKernel
from nsm.chains.testing import Record, call
from tests.chains.elements.paths import call_on_a_path, metrics


async def test_kernel_interfaces_get_a_namespace_and_a_name():
    client = Record()
    await Chain([KernelClient("file:///ns/a"), client]).request(call(service="my-long-service"))
    (preference,) = client.requests[0].mechanism_preferences
    assert preference.parameters["inodeURL"] == "file:///ns/a"
    assert len(preference.parameters["name"]) == 15
    assert preference.parameters["name"].startswith("my-long-se-")
    named = Mechanism(type="KERNEL", parameters={"name": "nsm-1"})
    connection = await Chain([KernelServer("file:///ns/b")]).request(call(mechanism=named))
    assert connection.mechanism.parameters == {"name": "nsm-1", "inodeURL": "file:///ns/b"}


async def test_a_client_knows_the_names_that_it_asked_for_until_their_wires_end():
    kernel = KernelClient("file:///ns/a")
    chain = Chain([Begin(), kernel, Record()])
    wanted = [Mechanism(type="KERNEL", parameters={"name": "nsm-1"})]
    for _ in range(3):
        await chain.request(call(preferences=wanted))
    assert kernel.names == {"nsm-1"}
    await chain.request(call(preferences=wanted, mechanism=Mechanism(type="KERNEL", parameters={"name": "earlier"})))
    assert kernel.names == {"nsm-1", "earlier"}
    await chain.close(call())
    assert not kernel.names


async def test_no_two_wires_of_an_endpoint_get_one_name_and_a_closed_ones_name_is_free_again(monkeypatch):
    letters = iter("aaaa" + "aaaabbbb" + "aaaa")
    monkeypatch.setattr("secrets.choice", lambda _alphabet: next(letters))
    chain = Chain([Begin(), KernelServer("file:///ns/b")])

    async def name_of(connection_id):
        asked = call(connection_id, service="ten-letter", mechanism=Mechanism(type="KERNEL"))
        return (await chain.request(asked)).mechanism.parameters["name"]

    assert [await name_of("a"), await name_of("b")] == ["ten-letter-aaaa", "ten-letter-bbbb"]
    assert await name_of("a") == "ten-letter-aaaa"  # asked anew by a forwarder that started again
    await chain.close(call("a"))
    assert await name_of("c") == "ten-letter-aaaa"


async def test_a_wire_keeps_its_name_when_a_forwarder_that_started_again_does_not_know_it():
    chain = Chain([Begin(), KernelServer("file:///ns/b")])
    asked = [call(service="s", mechanism=Mechanism(type="KERNEL")) for _ in range(2)]
    first, again = [(await chain.request(each)).mechanism.parameters["name"] for each in asked]
    assert first == again


async def test_a_client_s_segment_names_its_interface():
    asked = call_on_a_path()
    asked.connection.path.index = 0
    asked.request.mechanism_preferences = [Mechanism(type="KERNEL", parameters={"name": "nsm-1"})]
    assert metrics(await Chain([Begin(), KernelClient()]).request(asked)) == [{"client_interface": "KERNEL/nsm-1"}, {}]


async def test_a_forwarder_offers_a_kernel_interface_behind_what_was_offered_before():
    probe = Record()
    await Chain([OfferKernel(), probe]).request(call(preferences=["MEMIF"]))
    assert [(each.cls, each.type) for each in probe.requests[0].mechanism_preferences] == [
        ("LOCAL", "MEMIF"),
        ("LOCAL", "KERNEL"),
    ]
