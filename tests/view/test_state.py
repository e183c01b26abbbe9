"""What follows from reports of managers and registries, in whatever order they arrive."""

from datetime import UTC, datetime, timedelta

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment
from nsm.apis.connection import State as Liveness
from nsm.apis.registry import NetworkServiceEndpoint, NetworkServiceLabels
from nsm.apis.wellknown import Timestamp
from nsm.chains.model import causes
from nsm.view.model import EventKind, HopState, Kind, WireState
from nsm.view.state import ABANDONED, EXPIRY_GRACE, HEALS_WITHIN, State

ONE, TWO = "tcp://10.0.0.1:5001", "tcp://10.0.0.2:5001"
NAMES = ("till", "nsmgr-1", "forwarder-1", "nsmgr-2", "forwarder-2", "shop")
UP, DOWN, HEALING, UNHEARD, UNKNOWN = (
    HopState.UP,
    HopState.DOWN,
    HopState.HEALING,
    HopState.UNHEARD,
    HopState.UNKNOWN,
)
EXPIRES = datetime(2026, 1, 31, 12, 10, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.now = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

    def __call__(self):
        return self.now

    def advance(self, **by):
        self.now += timedelta(**by)


def connection(index=1, state=Liveness.UP, endpoint="shop", metrics=None, ids=""):
    """A wire over two nodes, as the manager at `index` of its path has it."""
    segments = [
        PathSegment(name=name, id=f"{name}{ids if place else ''}", expires=Timestamp.from_seconds(EXPIRES.timestamp()))
        for place, name in enumerate([*NAMES[:5], endpoint])
    ]
    for place, told in (metrics or {}).items():
        segments[place].metrics = told
    kind = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"})
    return Connection(
        id=segments[index].id,
        network_service="shop",
        network_service_endpoint_name=endpoint,
        mechanism=kind if index == 1 else Mechanism(cls="REMOTE", type="WIREGUARD"),
        path=Path(index=index, path_segments=segments),
        state=state,
    )


def watched(*managers, clock=None):
    """A state with complete managers."""
    state = State(now=clock or Clock())
    for url in managers:
        state.watch_manager(url)
        state.manager_alive(url)
        state.begin(url)
        state.complete(url)
    return state


def only(state):
    (wire,) = state.wires()
    return wire


def states(state):
    return [each.state for each in only(state).path]


def kinds(state):
    return [each.kind for each in state.history.events()]


def record(name, *services, node="", url=""):
    labels = {each: NetworkServiceLabels(labels={"nodeName": node}) for each in services}
    return NetworkServiceEndpoint(
        name=name, network_service_names=[*services], network_service_labels=labels if node else {}, url=url
    )


@pytest.mark.parametrize(
    ("near", "far", "expected"),
    [
        (Liveness.UP, Liveness.UP, [UP] * 6),
        (Liveness.DOWN, Liveness.UP, [UP, UP, DOWN, UP, UP, UP]),
        (Liveness.DOWN, Liveness.DOWN, [UP, UP, UP, UP, DOWN, UNKNOWN]),
        (Liveness.UP, Liveness.DOWN, [UP, UP, UP, UP, DOWN, UNKNOWN]),
    ],
)
def test_two_managers_narrow_down_where_a_wire_breaks(near, far, expected):
    state = watched(ONE, TWO)
    state.report(ONE, connection(1, near))
    state.report(TWO, connection(3, far))
    assert states(state) == expected
    is_up = (near, far) == (Liveness.UP, Liveness.UP)
    assert only(state).state is (WireState.UP if is_up else WireState.DOWN)
    assert only(state).way == ("WireGuard",)


def test_what_is_behind_a_manager_that_does_not_respond_is_unknown_and_the_wire_stays_as_the_first_reports_it():
    state = watched(ONE, TWO)
    state.report(ONE, connection(1))
    state.report(TWO, connection(3))
    state.manager_lost(TWO, "it hangs")
    assert states(state) == [UP, UP, UP, UNHEARD, UNKNOWN, UNKNOWN]
    assert only(state).state is WireState.UP, "the first manager would report what it notices"
    state.manager_lost(ONE, "it hangs")
    assert only(state).state is WireState.UNHEARD
    assert kinds(state).count(EventKind.COMPONENT_UNHEARD) == 2
    state.manager_alive(ONE)
    assert only(state).state is WireState.UP


def test_a_report_about_a_former_path_does_not_count():
    state = watched(ONE, TWO)
    state.report(TWO, connection(3, Liveness.DOWN, ids="-former"))
    state.report(ONE, connection(1))
    assert only(state).state is WireState.UP


def test_a_cause_marks_its_hop_and_is_gone_when_the_wire_is_well_again():
    state = watched(ONE)
    why = causes.Cause("NamespaceGone", "the endpoint's namespace has ended", "start it again", "keep")
    state.report(ONE, connection(state=Liveness.DOWN, metrics={4: why.metrics()}))
    assert states(state)[4] is DOWN
    cause = only(state).cause
    assert (cause.sentence, cause.component, cause.element, cause.remedy) == (
        "the endpoint's namespace has ended",
        "forwarder-2",
        "keep",
        "start it again",
    )
    assert (
        state.history.events()[-1].sentence == "till/nsm-1 to shop at shop is down: the endpoint's namespace has ended"
    )
    state.report(ONE, connection())
    assert (only(state).state, only(state).cause, states(state)) == (WireState.UP, None, [UP] * 6)
    assert kinds(state)[-1] is EventKind.WIRE_HEALED


def test_a_peer_that_is_lost_is_the_hop_that_is_not_well_and_not_the_component_that_says_so():
    state = watched(ONE)
    lost = causes.Cause(causes.PEER_LOST, "shop does not respond", component="")
    state.report(ONE, connection(state=Liveness.DOWN, metrics={4: lost.metrics()}))
    assert states(state)[4:] == [UNKNOWN, DOWN]
    assert (only(state).path[5].cause.sentence, only(state).path[4].cause) == ("shop does not respond", None)


def test_a_wire_that_its_forwarder_repairs_is_healing_although_it_is_not_reported_as_down():
    state = watched(ONE)
    state.report(ONE, connection())
    repairing = causes.Cause("BeingRepaired", "VPP ended; it is started again", is_healing=True)
    state.report(ONE, connection(metrics={2: repairing.metrics()}))
    assert (only(state).state, only(state).cause.sentence) == (WireState.HEALING, "VPP ended; it is started again")
    assert states(state)[2] is HEALING
    state.report(ONE, connection())
    assert only(state).state is WireState.UP
    assert kinds(state)[-2:] == [EventKind.WIRE_HEALING, EventKind.WIRE_HEALED]


def test_a_repair_of_a_wire_that_stays_up_is_an_event_and_told_once():
    state = watched(ONE)
    state.report(ONE, connection())
    repaired = causes.Cause(causes.REPAIRED, "nsm-1 was removed and is back", element="keep")
    for _ in range(2):
        state.report(ONE, connection(metrics={2: repaired.metrics()}))
    assert only(state).state is WireState.UP
    assert only(state).cause is None
    (event,) = [each for each in state.history.events() if each.kind is EventKind.WIRE_REPAIRED]
    assert event.sentence == "till/nsm-1: nsm-1 was removed and is back"


def test_a_wire_that_its_client_requests_elsewhere_says_why_and_is_not_closed_in_between():
    clock = Clock()
    state = watched(ONE, clock=clock)
    state.report(ONE, connection(state=Liveness.DOWN))
    state.delete(ONE, "nsmgr-1")
    assert only(state).state is WireState.HEALING
    clock.advance(seconds=1)
    state.report(ONE, connection(endpoint="other"))
    assert (only(state).state, only(state).endpoint) == (WireState.UP, "other")
    assert EventKind.WIRE_CLOSED not in kinds(state)
    assert state.history.events()[-1].sentence.startswith("till/nsm-1 moved from shop to other")


def test_a_down_wire_that_its_client_gives_up_is_gone_after_a_while():
    clock = Clock()
    state = watched(ONE, clock=clock)
    state.report(ONE, connection(state=Liveness.DOWN))
    state.delete(ONE, "nsmgr-1")
    clock.advance(seconds=HEALS_WITHIN.total_seconds() + 1)
    state.tidy()
    assert state.wires() == []
    assert kinds(state)[-1] is EventKind.WIRE_CLOSED


def test_a_wire_that_was_up_and_is_requested_anew_in_vain_is_healing_with_the_last_answer():
    clock = Clock()
    state = watched(ONE, clock=clock)
    state.report(ONE, connection())
    state.delete(ONE, "nsmgr-1")
    attempt = causes.Attempt(tries=1, last=clock.now.timestamp())
    refused = causes.Cause("NotFound", "no endpoint of 'shop' is registered", "start one", "discover", "forwarder-1")
    own = PathSegment(name="nsmgr-1", id="attempt-1", metrics={**attempt.metrics(), **refused.metrics()})
    wanted = Connection(
        id="attempt-1",
        network_service="shop",
        mechanism=Mechanism(type="KERNEL", parameters={"name": "nsm-1"}),
        path=Path(index=1, path_segments=[PathSegment(name="till", id="till"), own]),
        state=Liveness.DOWN,
    )
    state.report(ONE, wanted)
    assert (only(state).state, only(state).cause.sentence) == (WireState.HEALING, "no endpoint of 'shop' is registered")
    assert only(state).cause.component == "forwarder-1"
    clock.advance(minutes=5)
    state.tidy()
    assert only(state).state is WireState.HEALING, "its client still asks"
    state.delete(ONE, "attempt-1")
    clock.advance(seconds=10)
    state.tidy()
    assert (state.wires(), state.attempts()) == ([], [])


def test_a_manager_that_comes_back_without_a_wire_leaves_it_unheard_until_its_token_ends():
    clock = Clock()
    state = watched(ONE, clock=clock)
    state.report(ONE, connection())
    state.manager_lost(ONE, "it ended")
    state.manager_alive(ONE)
    state.begin(ONE)
    state.complete(ONE)
    assert (only(state).state, only(state).cause.code) == (WireState.UNHEARD, "not-reported")
    clock.now = EXPIRES + EXPIRY_GRACE + timedelta(seconds=1)
    state.tidy()
    assert state.wires() == []


def test_a_manager_that_is_back_has_to_report_a_wire_before_it_is_up_again():
    state = watched(ONE)
    state.report(ONE, connection())
    state.manager_lost(ONE, "its stream broke", has_ended=True)
    state.manager_alive(ONE)
    state.begin(ONE)
    assert only(state).state is WireState.UNHEARD
    state.report(ONE, connection())
    assert only(state).state is WireState.UP


def test_what_the_far_manager_still_has_of_a_wire_that_is_closed_is_no_wire():
    state = watched(ONE, TWO)
    state.report(ONE, connection(1))
    state.report(TWO, connection(3))
    state.delete(ONE, "nsmgr-1")
    assert state.wires() == []
    state.report(TWO, connection(3))
    assert state.wires() == []


def test_a_wire_of_a_client_whose_manager_is_not_watched_is_shown_as_the_far_manager_has_it():
    state = watched(TWO)
    state.report(TWO, connection(3))
    assert (only(state).state, only(state).client) == (WireState.UP, "till")


def test_records_that_arrive_later_complete_the_path():
    state = watched(ONE)
    state.report(ONE, connection(metrics={0: {}}))
    assert only(state).path[2].node == ""
    state.records.put_endpoint(record("forwarder-1", "forwarder", node="node-1", url=ONE))
    state.records.put_endpoint(record("shop", "shop", node="node-2", url=TWO))
    state.settle()
    wire = only(state)
    assert (wire.path[2].node, wire.path[5].node, wire.endpoint_node, wire.node) == (
        "node-1",
        "node-2",
        "node-2",
        "node-1",
    )
    assert [each.kind for each in wire.path] == [
        Kind.CLIENT,
        Kind.MANAGER,
        Kind.FORWARDER,
        Kind.MANAGER,
        Kind.FORWARDER,
        Kind.ENDPOINT,
    ]


def test_counts_of_services_nodes_and_endpoints_follow_the_wires():
    state = watched(ONE)
    state.records.put_endpoint(record("shop", "shop", node="node-2", url=TWO))
    state.report(ONE, connection())
    assert [each.wires for each in state.records.endpoints()] == [1]
    assert [(each.wires, each.down, each.clients) for each in state.nodes()] == [(1, 0, ["till"])]
    state.report(ONE, connection(state=Liveness.DOWN))
    assert [(each.wires, each.down) for each in state.nodes()] == [(1, 1)]
    state.report(ONE, connection())
    state.delete(ONE, "nsmgr-1")
    assert [(each.wires, each.down, each.clients) for each in state.nodes()] == [(0, 0, [])]
    assert [each.wires for each in state.records.endpoints()] == [0]


def test_two_clients_with_the_same_connection_id_have_two_wires():
    state = watched(ONE, TWO)
    state.report(ONE, connection())
    other = connection(ids="-2")
    other.path.path_segments[0].name = "desk"
    state.report(TWO, other)
    assert sorted((each.client, each.id) for each in state.wires()) == [("desk", "desk/till"), ("till", "till")]


def test_a_manager_that_is_gone_for_long_and_has_no_forwarder_any_longer_is_abandoned():
    clock = Clock()
    state = watched(ONE, clock=clock)
    state.records.put_endpoint(record("forwarder-1", "forwarder", node="node-1", url=ONE))
    state.report(ONE, connection())
    state.manager_lost(ONE, "it ended")
    clock.advance(seconds=ABANDONED.total_seconds() + 1)
    assert state.abandoned() == [], "its forwarder is still registered"
    state.records.drop_endpoint("forwarder-1")
    assert state.abandoned() == [ONE]
    state.forget_manager(ONE)
    assert (state.nodes(), state.wires()) == ([], [])


def test_events_are_kept_for_hours_and_not_forever():
    clock = Clock()
    state = watched(ONE, clock=clock)
    state.report(ONE, connection())
    clock.advance(hours=7)
    state.report(ONE, connection(state=Liveness.DOWN))
    assert kinds(state) == [EventKind.WIRE_DOWN]


def test_texts_of_peers_show_no_control_characters():
    state = watched(ONE)
    why = causes.Cause("Odd", "it says \x1b[31mred", component="x\ny")
    state.report(ONE, connection(state=Liveness.DOWN, metrics={4: why.metrics()}))
    assert only(state).cause.sentence == "it says \\x1b[31mred"
    assert only(state).cause.component == "x\\ny"


@pytest.mark.parametrize("index", [6, 99])
def test_a_report_with_an_impossible_path_is_left_out(index):
    state = watched(ONE)
    odd = connection()
    odd.path.index = index
    state.report(ONE, odd)
    state.report(ONE, Connection(id="x"))
    assert state.wires() == []
