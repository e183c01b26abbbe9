"""Which endpoint and which forwarder a client gets: labels, weights, turns, and what is passed over in time."""

import asyncio
from collections import Counter

import pytest

from nsm.apis.connection import State
from nsm.apis.registry import Destination, Match, Metadata, NetworkService
from nsm.chains.core import Begin, Chain, Element, Exhausted, NotFound, TimedOut, Unavailable
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.discover_forwarder import DiscoverForwarder
from nsm.chains.elements.round_robin import RoundRobin, Turns
from nsm.chains.model.matching import match_endpoints, weigh_endpoints
from nsm.chains.testing import Fail, Record, call
from tests.chains.elements.records import nse, registry_of

EXPIRY = 15


def route(weight=0, **selector):
    return Destination(destination_selector=selector, weight=weight)


def service(*matches, name="svc"):
    return NetworkService(name=name, payload="IP", matches=list(matches))


def selecting(service, *endpoints, probe=None):
    """A forwarder's chain as far as it selects."""
    probe = probe or Record()
    return Chain([Begin(), Discover(registry_of(service), registry_of(*endpoints)), RoundRobin(), probe]), probe


async def used(chain, count, *, first=0, **fields):
    """The endpoints that `count` new connections get, in their order."""
    found = []
    for number in range(first, first + count):
        connection = await chain.request(call(f"c{number}", service="svc", **fields))
        found.append(connection.network_service_endpoint_name)
    return found


# --- weights


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


def test_weights_change_nothing_of_what_matches():
    """What other programs of the mesh answer: in the order of the routes, with duplicates."""
    weighted = service(Match(routes=[route(1, app="x"), route(0, v="1")]))
    found = match_endpoints({}, weighted, [nse("a", v="1", app="x"), nse("b", app="x")])
    assert [each.name for each in found] == ["a", "b", "a"]


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


# --- labels


def told(*matches):
    return service(*matches), nse("blue", color="blue"), nse("red", color="red", node="n1")


@pytest.mark.parametrize(
    ("matches", "labels", "names"),
    [
        ([Match(source_selector={"app": "web"}, routes=[route(color="red")])], {"app": "web"}, ["red"]),
        ([Match(routes=[route(color="{{.wanted}}")])], {"wanted": "blue"}, ["blue"]),
        ([Match(routes=[route(node="{{ index . `nodeName` }}")])], {"nodeName": "n1"}, ["red"]),
        (
            [Match(fallthrough=True, routes=[route(color="green")]), Match(routes=[route(color="blue")])],
            {},
            ["blue"],
        ),
        ([Match(metadata=Metadata(labels={"gpu": "true"}))], {}, ["blue", "red"]),
    ],
    ids=["source selector", "template", "template of the node", "fallthrough", "metadata"],
)
async def test_labels_select(matches, labels, names):
    chain, _ = selecting(*told(*matches))
    assert sorted(set(await used(chain, 4, labels=labels))) == names


@pytest.mark.parametrize(
    "matches",
    [
        [Match(source_selector={"app": "web"}, routes=[route(color="red")])],
        [Match(routes=[route(color="green")]), Match(routes=[route(color="blue")])],
        [Match(fallthrough=True, routes=[route(color="green")])],
        [Match(routes=[route(color="{{.wanted}}")])],
    ],
    ids=["source selector", "no fallthrough", "fallthrough to nothing", "template without value"],
)
async def test_labels_that_select_nothing_are_told(matches):
    chain, _ = selecting(*told(*matches))
    with pytest.raises(NotFound, match=r"no endpoint of 'svc' matches labels \{\}; 2 are registered"):
        await used(chain, 1)


# --- which forwarder


FORWARDERS = [
    nse("vpp", "forwarder", "unix:///tcp://me:1/vpp", p2p="true", dataplane="vpp"),
    nse("sriov", "forwarder", "unix:///tcp://me:1/sriov", dataplane="sriov"),
]


@pytest.mark.parametrize(
    ("matches", "labels", "chosen"),
    [
        ([], {}, "vpp"),
        ([Match()], {}, "vpp"),
        ([Match(metadata=Metadata(labels={"dataplane": "sriov"}))], {}, "sriov"),
        ([Match(metadata=Metadata(labels={"dataplane": "{{.dataplane}}"}))], {"dataplane": "sriov"}, "sriov"),
        (
            [
                Match(source_selector={"fast": "yes"}, metadata=Metadata(labels={"dataplane": "sriov"})),
                Match(metadata=Metadata(labels={"dataplane": "vpp"})),
            ],
            {"fast": "no"},
            "vpp",
        ),
        (
            [
                Match(fallthrough=True, metadata=Metadata(labels={"dataplane": "smartnic"})),
                Match(metadata=Metadata(labels={"dataplane": "sriov"})),
            ],
            {},
            "sriov",
        ),
    ],
    ids=["no match", "no metadata", "metadata", "template", "source selector", "fallthrough"],
)
async def test_labels_of_the_metadata_choose_the_forwarder(matches, labels, chosen):
    probe = Record()
    element = DiscoverForwarder(
        registry_of(service(*matches)),
        registry_of(*FORWARDERS),
        forwarder_service="forwarder",
        own_url="tcp://me:1",
    )
    await Chain([Begin(), element, probe]).request(call(service="svc", labels=labels))
    assert probe.last.target.endswith(chosen)


# --- passing over


class Answers(Element):
    """Endpoints of which some are full, some hang, some take their time: seconds, or what they raise."""

    def __init__(self, **behaviour):
        self.behaviour, self.asked, self.undone = behaviour, [], []

    async def request(self, call, rest):
        name = call.connection.network_service_endpoint_name or call.target
        self.asked.append((name, round(call.remaining(), 2) if call.deadline else None))
        call.undo.add(lambda: self.undone.append(name))
        does = self.behaviour[name.rpartition("/")[2]]
        if isinstance(does, Exception):
            raise does
        await asyncio.sleep(does)
        return await rest.request(call)


def within(seconds, connection_id="c"):
    asked = call(connection_id, service="svc")
    asked.deadline = asyncio.get_running_loop().time() + seconds
    return asked


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


async def test_a_forwarder_that_hangs_leaves_time_for_the_others():
    answers = Answers(f1=1000, f2=0)
    forwarders = [nse(name, "forwarder", f"unix:///tcp://me:1/{name}", p2p="true") for name in ("f1", "f2")]
    element = DiscoverForwarder(
        registry_of(service()), registry_of(*forwarders), forwarder_service="forwarder", own_url="tcp://me:1"
    )
    chain = Chain([Begin(), element, answers])
    await chain.request(within(4))
    assert [name.rpartition("/")[2] for name, _ in answers.asked] == ["f1", "f2"]
    answers.behaviour["f2"] = TimedOut("too late")
    with pytest.raises(TimedOut, match="too late"):
        await chain.request(within(4))
    assert answers.asked[2:] == [("unix:///tcp://me:1/f2", 4)]


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
