"""Requests and answers that hold too much, or what they cannot hold."""

import pytest

from nsm.apis.connection import Mechanism, State
from nsm.chains.core import Begin, Chain, InvalidRequest, Limits
from nsm.chains.elements.check_values import CheckAnswer, CheckRequest
from nsm.chains.testing import Check, Record, call

FEW = Limits(connection_labels=2, mechanism_preferences=1)
TOO_MANY = {str(number): "" for number in range(3)}


async def test_a_request_that_holds_too_much_goes_no_further():
    probe = Record()
    chain = Chain([CheckRequest(FEW), probe])
    with pytest.raises(InvalidRequest, match="connection_labels"):
        await chain.request(call(labels=TOO_MANY))
    with pytest.raises(InvalidRequest, match="mechanism_preferences"):
        await chain.request(call(preferences=["KERNEL", "VXLAN"]))
    with pytest.raises(InvalidRequest, match="connection_labels"):
        await chain.close(call(labels=TOO_MANY))
    assert (probe.requests, probe.closes) == ([], [])
    await chain.request(call(labels={"a": "b"}, preferences=["KERNEL"]))
    await chain.close(call())
    assert (len(probe.requests), len(probe.closes)) == (1, 1)


def answering(**fields):
    """A client, and what its component answers; `fields` can be changed."""

    def change(connection):
        for name, value in fields.items():
            setattr(connection, name, value)

    probe = Record()
    return Chain([Begin(), CheckAnswer(FEW), probe, Check(after=change)]), probe, fields


async def test_an_answer_that_cannot_be_used_is_closed_where_it_was_asked_for():
    chain, probe, _ = answering(labels=TOO_MANY)
    with pytest.raises(InvalidRequest, match="the answer cannot be used: .*connection_labels"):
        await chain.request(call())
    assert len(probe.closes) == 1


async def test_a_connection_stays_when_the_answer_to_its_refresh_cannot_be_used():
    chain, probe, answer = answering(state=State.UP)
    await chain.request(call())
    answer["labels"] = TOO_MANY
    with pytest.raises(InvalidRequest):
        await chain.request(call())
    assert probe.closes == []
    await chain.close(call())
    answer["mechanism"] = Mechanism(type="KERNEL")
    with pytest.raises(InvalidRequest):
        await chain.request(call())
    assert len(probe.closes) == 2, "it was new again"
