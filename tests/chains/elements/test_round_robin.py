"""Endpoints in turn: weights, and what is passed over in time."""

import asyncio
from collections import Counter

import pytest

from nsm.apis.connection import State
from nsm.apis.registry import Match
from nsm.chains.core import Begin, Chain, Exhausted, NotFound, Unavailable
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.round_robin import RoundRobin, Turns
from nsm.chains.model.matching import weigh_endpoints
from nsm.chains.testing import Fail, Record, call
from tests.chains.elements.records import SERVICE, nse, registry_of
from tests.chains.elements.selection import Answers, route, selecting, service, used, within


async def test_candidates_are_used_in_turn_and_failing_ones_passed_over():
    probe, fail = Record(), Fail()
    endpoints = registry_of(nse("a"), nse("b"), nse("c"))
    chain = Chain([Begin(), Discover(registry_of(SERVICE), endpoints), RoundRobin(), probe, fail])
    for number in range(4):
        connection = await chain.request(call(f"c{number}", service="svc"))
        assert connection.payload == "IP"
    assert [r.connection.network_service_endpoint_name for r in probe.requests] == ["a", "b", "c", "a"]
    fail.errors = [Unavailable("b is down")]
    connection = await chain.request(call("c5", service="svc"))
    assert connection.network_service_endpoint_name == "c"
    fail.errors = [Unavailable("down")] * 3
    with pytest.raises(Unavailable, match=r"all candidates have failed: .*a: down.*; .*"):
        await chain.request(call("c6", service="svc"))


async def test_who_cannot_be_asked_is_told_by_name():
    """A manager reaches who is on its node by a descriptor: his URL says nothing to others."""
    probe, fail = Record(), Fail()
    chain = Chain([Begin(), Discover(registry_of(SERVICE), registry_of(nse("a"))), RoundRobin(), probe, fail])
    for number, named in enumerate(("", "a")):
        fail.errors = [Unavailable("cannot reach unix:///proc/1/fd/7: Connection refused", element="transport")]
        with pytest.raises(Unavailable, match=r"^a: cannot reach \S+: Connection refused \(transport\)$"):
            await chain.request(call(f"c{number}", service="svc", network_service_endpoint_name=named))
        fail.errors = [Unavailable("there is no power", element="power", hops=("a",))]
        with pytest.raises(Unavailable, match=r"^a: there is no power \(power\)$"):
            await chain.request(call(f"d{number}", service="svc", network_service_endpoint_name=named))


async def test_a_destination_gets_the_share_of_its_weight_also_over_a_few_requests():
    weighted = service(Match(routes=[route(3, v="1"), route(1, v="2")]))
    chain, _ = selecting(weighted, nse("a", v="1"), nse("b", v="2"))
    assert await used(chain, 8) == ["a", "a", "b", "a", "a", "a", "b", "a"]


@pytest.mark.parametrize("weights", [(0, 0), (5, 5)])
async def test_no_weight_and_the_same_weight_mean_equal_shares(weights):
    equal = service(Match(routes=[route(weights[0], v="1"), route(weights[1], v="2")]))
    chain, _ = selecting(equal, nse("a", v="1"), nse("b", v="2"))
    assert await used(chain, 5) == ["a", "b", "a", "b", "a"]


async def test_the_endpoints_of_a_destination_share_its_weight():
    weighted = service(Match(routes=[route(90, v="1"), route(10, v="2")]))
    chain, _ = selecting(weighted, nse("a", v="1"), nse("b", v="1"), nse("c", v="1"), nse("new", v="2"))
    assert Counter(await used(chain, 20)) == {"a": 6, "b": 6, "c": 6, "new": 2}


async def test_a_destination_of_weight_0_beside_others_is_never_used():
    """Neither when those fail, nor when they have no endpoints."""
    weighted = service(Match(routes=[route(1, v="1"), route(0, v="2")]))
    chain, fail = selecting(weighted, nse("a", v="1"), nse("b", v="2"), probe=Fail())
    assert await used(chain, 4) == ["a"] * 4
    fail.errors = [Unavailable("a is down")]
    with pytest.raises(Unavailable, match="a is down"):
        await used(chain, 1, first=4)
    chain, _ = selecting(weighted, nse("b", v="2"))
    with pytest.raises(NotFound, match="all destinations of 'svc' that lead to 'b' or others have weight 0"):
        await used(chain, 1)


async def test_an_endpoint_of_two_destinations_gets_both_shares_and_is_tried_once():
    weighted = service(Match(routes=[route(1, v="1"), route(1, app="x")]))
    chain, fail = selecting(weighted, nse("a", v="1", app="x"), nse("b", app="x"), probe=Fail())
    assert Counter(await used(chain, 4)) == {"a": 3, "b": 1}
    fail.errors = [Unavailable("down")] * 2
    with pytest.raises(Unavailable, match="all candidates have failed"):
        await used(chain, 1, first=4)
    assert fail.errors == []
    unweighted = service(Match(routes=[route(v="1"), route(app="x")]))
    assert [(e.name, w) for e, w in weigh_endpoints({}, unweighted, [nse("a", v="1", app="x"), nse("b", app="x")])] == [
        ("a", 1),
        ("b", 1),
    ]


def test_turns_are_kept_apart_from_those_of_clients_with_other_candidates():
    """Clients with different labels, one after the other: each of them still goes round."""
    turns = Turns()
    taken = [next(turns.order(dict.fromkeys(names, 1))) for _ in range(4) for names in ("ab", "cd")]
    assert taken == ["a", "c", "b", "d", "a", "c", "b", "d"]


def test_what_is_remembered_of_endpoints_does_not_grow_for_ever():
    turns = Turns()
    for number in range(5000):
        next(turns.order({f"endpoint-{number}": 1}))
    for number in range(5000):
        list(turns.order({f"endpoint-{number}": 1}))
    assert max(map(len, (turns._gained, turns._failures, turns._rests))) < 1100


async def test_an_endpoint_that_is_full_is_passed_over_and_what_it_did_is_undone():
    answers = Answers(a=Exhausted("no addresses"), b=0)
    chain, _ = selecting(service(), nse("a"), nse("b"), probe=answers)
    connection = await chain.request(within(10))
    assert connection.network_service_endpoint_name == "b"
    assert answers.undone == ["a"]


async def test_an_endpoint_that_fails_again_and_again_is_tried_ever_more_rarely_until_it_works():
    """Every other request, every third, .. every ninth at last; it is still there for when all others fail."""
    answers = Answers(a=Exhausted("no addresses"), b=0)
    chain, _ = selecting(service(), nse("a"), nse("b"), probe=answers)
    assert set(await used(chain, 30)) == {"b"}
    assert (
        "".join(name for name, _ in answers.asked)
        == "ab" + "b" + "ab" + "bb" + "ab" + "bbbb" + ("ab" + "b" * 8) * 2 + "ab" + "b"
    )
    answers.behaviour |= {"a": 0, "b": Exhausted("no addresses")}
    assert await used(chain, 1, first=30) == ["a"]
    answers.behaviour["b"] = 0
    assert Counter(await used(chain, 9, first=31)) == {"a": 5, "b": 4}


async def test_an_endpoint_that_hangs_leaves_time_for_the_others():
    """A third of what is left, then a half, then all."""
    answers = Answers(a=1000, b=1000, c=1)
    chain, _ = selecting(service(), nse("a"), nse("b"), nse("c"), probe=answers)
    connection = await chain.request(within(9))
    assert connection.network_service_endpoint_name == "c"
    assert [name for name, _ in answers.asked] == ["a", "b", "c"]
    assert [seconds for _, seconds in answers.asked] == pytest.approx([3, 3, 3], abs=0.2)
    assert answers.undone == ["a", "b"]


async def test_many_endpoints_that_hang_are_passed_over_within_the_time():
    answers = Answers(**{f"e{number}": 1000 for number in range(9)}, last=0.1)
    chain, _ = selecting(service(), *[nse(f"e{number}") for number in range(9)], nse("last"), probe=answers)
    asked = within(15)
    assert (await chain.request(asked)).network_service_endpoint_name == "last"
    assert asyncio.get_running_loop().time() < asked.deadline


async def test_a_caller_hears_in_time_that_all_hang_and_how_long_each_had():
    answers = Answers(a=1000, b=Exhausted("full"))
    chain, _ = selecting(service(), nse("a"), nse("b"), probe=answers)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(
        Exhausted, match=r"all candidates have failed: a: 'a' did not answer within 2\.00 s.*; b: .*full"
    ):
        await chain.request(within(4))
    assert asyncio.get_running_loop().time() - begin < 4
    assert len(chain.elements[0]) == 0


async def test_a_single_endpoint_has_all_the_time():
    answers = Answers(a=3.9)
    chain, _ = selecting(service(), nse("a"), probe=answers)
    await chain.request(within(4))
    assert answers.asked == [("a", 4)]


async def test_without_a_deadline_nobody_is_hurried():
    answers = Answers(a=500, b=0)
    chain, _ = selecting(service(), nse("a"), nse("b"), probe=answers)
    assert await used(chain, 1) == ["a"]


async def test_a_request_that_is_cancelled_while_an_endpoint_hangs_is_not_tried_elsewhere():
    answers = Answers(a=1000, b=0)
    chain, _ = selecting(service(), nse("a"), nse("b"), probe=answers)
    asking = asyncio.ensure_future(chain.request(within(60)))
    await asyncio.sleep(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [name for name, _ in answers.asked] == ["a"]
    assert answers.undone == ["a"]


async def test_an_endpoint_that_a_client_leaves_is_its_last_choice_and_nobody_else_s():
    """It may hang, and its record stays for a while; the client asked for another one."""
    answers = Answers(a=0, b=0)
    chain, _ = selecting(service(), nse("a"), nse("b"), probe=answers)
    left = (await chain.request(within(10))).network_service_endpoint_name
    for _ in range(4):
        again = within(10)
        again.connection.state = State.RESELECT_REQUESTED
        chosen = (await chain.request(again)).network_service_endpoint_name
        assert {left, chosen} == {"a", "b"}
        left = chosen
    assert Counter(await used(chain, 10, first=20)) == {"a": 5, "b": 5}


async def test_an_endpoint_that_a_client_leaves_is_chosen_again_if_there_is_no_other():
    chain, _ = selecting(service(), nse("a"), probe=Answers(a=0))
    await chain.request(within(10))
    again = within(10)
    again.connection.state = State.RESELECT_REQUESTED
    assert (await chain.request(again)).network_service_endpoint_name == "a"
