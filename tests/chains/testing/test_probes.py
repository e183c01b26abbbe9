"""The probes that the SDK has for tests, in chains of connections and of registrations."""

import asyncio

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Begin, Chain, RegistryCall, RegistryChain, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.memory import Memory
from nsm.chains.testing import Check, Delay, Fail, Record, call, endpoint_record

LOST = Unavailable("lost")


def register(name):
    return RegistryCall(endpoint_record(name, "shop", color="red"))


async def test_a_record_is_of_the_message_as_it_passed_and_not_as_it_became():
    record = Record()
    chain = Chain([Begin(), record, Check(lambda call: setattr(call.connection, "network_service", "changed"))])
    await chain.request(call("a", "shop", preferences=["KERNEL"]))
    await chain.close(call("a"))
    assert [each.connection.network_service for each in record.requests] == ["shop"]
    assert record.requests[0].mechanism_preferences[0].type == "KERNEL"
    assert [each.connection.network_service for each in record.closes] == ["changed"]
    assert record.last.live.connection_id == "a"


async def test_registrations_are_recorded_too():
    record = Record()
    chain = RegistryChain([RegistryBegin(), record, Memory()])
    await chain.register(register("one"))
    assert [batch async for batch in chain.find(RegistryCall(NetworkServiceEndpoint(name="one")))]
    await chain.unregister(register("one"))
    assert [each.name for each in (*record.registered, *record.queries, *record.unregistered)] == ["one"] * 3
    assert record.registered[0].network_service_labels["shop"].labels == {"color": "red"}


async def test_failures_come_in_their_order_and_then_all_is_well():
    record = Record()
    chain = Chain([Begin(), Fail(LOST, None, LOST), record])
    for fails in (True, False, True, False, False):
        if fails:
            with pytest.raises(Unavailable, match=r"lost \(fail\)"):
                await chain.request(call())
        else:
            await chain.request(call())
    assert len(record.requests) == 3


async def test_what_fails_behind_has_been_done():
    record, fail = Record(), Fail(LOST, behind=True)
    chain = RegistryChain([RegistryBegin(), fail, record])
    with pytest.raises(Unavailable):
        await chain.register(register("one"))
    assert len(record.registered) == 1


async def test_an_error_that_is_set_fails_closes_too_until_it_is_taken_away():
    record, fail = Record(), Fail()
    chain = Chain([Begin(), fail, record])
    await chain.request(call())
    fail.error = LOST
    for method in (chain.request, chain.close):
        with pytest.raises(Unavailable):
            await method(call())
    fail.error = None
    await chain.request(call())
    assert (len(record.requests), len(record.closes)) == (2, 0)


async def test_a_delay_takes_its_seconds_and_a_gate_holds_calls_up():
    loop, delay = asyncio.get_running_loop(), Delay(3600)
    chain = Chain([Begin(), delay])
    began = loop.time()
    await chain.request(call())
    assert loop.time() - began == pytest.approx(3600)
    delay.seconds = 0
    delay.gate.clear()
    held = asyncio.ensure_future(chain.request(call()))
    await asyncio.sleep(60)
    assert (delay.waiting, held.done()) == (1, False)
    delay.gate.set()
    await held
    assert delay.waiting == 0


async def test_a_check_sees_both_ways_and_an_assert_in_it_fails_the_call():
    seen = []

    def refuse(_answer):
        raise AssertionError("not what was wanted")

    chain = Chain([Begin(), Check(after=refuse), Check(seen.append, after=seen.append)])
    with pytest.raises(AssertionError, match="not what was wanted"):
        await chain.request(call("a"))
    asked, answered = seen
    assert (asked.connection.id, answered.id) == ("a", "a")
