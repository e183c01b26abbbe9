"""The labels and the endpoint with which a stage of a chain requests the next one."""

from nsm.apis.connection import Path
from nsm.chains.core import Begin, Chain
from nsm.chains.elements.request_as import RequestAs
from nsm.chains.testing import Check, Record, call


def made():
    def answered(connection):
        connection.network_service_endpoint_name = "next-1"

    record = Record()
    return Chain([Begin(), RequestAs({"app": "firewall"}), record, Check(after=answered)]), record


async def test_the_next_endpoint_sees_the_stages_labels_and_the_client_its_own():
    chain, record = made()
    answer = await chain.request(call("c", labels={"who": "me"}, network_service_endpoint_name="firewall"))
    assert record.requests[0].connection.labels == {"app": "firewall"}
    assert record.requests[0].connection.network_service_endpoint_name == ""
    assert (answer.labels, answer.network_service_endpoint_name) == ({"who": "me"}, "firewall")


async def test_the_same_next_endpoint_is_requested_again_and_closed():
    chain, record = made()
    for _ in range(2):
        await chain.request(call("c", network_service_endpoint_name="firewall", path=Path()))
    assert record.requests[1].connection.network_service_endpoint_name == "next-1"
    await chain.close(call("c"))
    assert record.closes[0].connection.network_service_endpoint_name == "next-1"
    assert record.closes[0].connection.labels == {"app": "firewall"}


async def test_after_a_close_the_next_endpoint_is_chosen_anew():
    chain, record = made()
    await chain.request(call("c", path=Path()))
    await chain.close(call("c"))
    await chain.request(call("c", path=Path()))
    assert record.requests[1].connection.network_service_endpoint_name == ""
