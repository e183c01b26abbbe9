"""A client that starts again: which of its earlier connections it continues, and what becomes of the others."""

import asyncio

import pytest

from nsm.apis.connection import Connection, Mechanism, Path, PathSegment, State
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Conflict, Element, Unavailable
from nsm.chains.elements.recover import Recover
from nsm.chains.elements.update_path import UpdatePath
from nsm.chains.testing.probes import Record

ADDRESS = "10.0.0.1/32"


def earlier(connection_id="nsc-0", client="nsc", index=1, **fields):
    """A connection as the manager reports it."""
    segments = [PathSegment(id=connection_id, name=client), PathSegment(id="m", name="nsmgr")]
    values = {
        "network_service": "icmp",
        "network_service_endpoint_name": "nse-1",
        "mechanism": Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1"}),
        "context": ConnectionContext(ip_context=IpContext(src_ip_addrs=[ADDRESS])),
        "labels": {"nodeName": "n", "app": "web"},
        **fields,
    }
    return Connection(id="m", path=Path(index=index, path_segments=segments), **values)


class Manager:
    """Its monitor: what it reports, to whom it was asked for."""

    def __init__(self, *connections, error=None):
        self.connections, self.error, self.selectors = connections, error, []

    async def present(self, selector):
        self.selectors.append(selector.path_segments)
        if self.error is not None:
            raise self.error
        return [*self.connections]


class Fails(Element):
    def __init__(self, *errors):
        self.errors = list(errors)

    async def request(self, call, rest):
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return await rest.request(call)


class Checks:
    """A liveness check that always finds the same."""

    def __init__(self, alive):
        self.alive, self.checked = alive, 0

    async def is_alive(self, connection):
        assert connection.context.ip_context.src_ip_addrs == [ADDRESS]
        self.checked += 1
        return self.alive

    def watch(self, connection, on_down):
        raise AssertionError


async def ask(manager, *errors, liveness=None, connection_id="nsc-0", interface="nsm-1", app="web"):
    """What was sent when the client asks for icmp; and the answer, or the error."""
    record, recover = Record(), Recover("nsc", manager.present, liveness=liveness)
    connection = Connection(id=connection_id, network_service="icmp", labels={"app": app})
    mechanism = Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": interface} if interface else {})
    request = NetworkServiceRequest(connection=connection, mechanism_preferences=[mechanism])
    deadline = asyncio.get_running_loop().time() + 15
    async with Chain([recover, UpdatePath("nsc"), Begin(), record, Fails(*errors)]) as chain:
        try:
            answer = await chain.request(Call(request, deadline=deadline))
        except Unavailable as error:
            answer = error
    return [each.connection for each in record.requests], answer


async def test_what_the_manager_has_is_asked_for_again_with_its_endpoint_its_addresses_and_its_path():
    (sent,), answer = await ask(manager := Manager(earlier()))
    assert [[(each.id, each.name) for each in segments] for segments in manager.selectors] == [[("nsc-0", "")]]
    assert (sent.id, sent.state, sent.network_service_endpoint_name) == ("nsc-0", State.UP, "nse-1")
    assert (sent.path.index, sent.path.path_segments[1].id) == (0, "m")
    assert answer.context.ip_context.src_ip_addrs == [ADDRESS]
    assert sent.labels == {"app": "web"}


@pytest.mark.parametrize(
    "reported",
    [
        [],
        [earlier("nsc-1")],
        [earlier(client="other")],
        [earlier(index=0)],
        [Connection(id="m")],
        [earlier(mechanism=None)],
        [earlier(mechanism=Mechanism(cls="LOCAL", type="MEMIF"))],
        [earlier(network_service="x" * 10_000)],
    ],
)
async def test_what_is_not_this_wire_is_left_alone(reported):
    (sent,), _ = await ask(Manager(*reported))
    assert (sent.id, sent.network_service, sent.network_service_endpoint_name) == ("nsc-0", "icmp", "")
    assert sent.context is None
    assert sent.mechanism is None


@pytest.mark.parametrize("error", [Unavailable("the manager is away"), None])
async def test_a_manager_that_cannot_be_asked_is_asked_for_the_wire_all_the_same(error):
    manager = Manager(error=error)
    manager.connections = (earlier(),) if error is not None else ()
    (sent,), _ = await ask(manager)
    assert sent.mechanism is None


async def test_a_monitor_that_says_nothing_takes_half_the_time_of_an_attempt():
    class Silent(Manager):
        async def present(self, selector):
            await asyncio.get_running_loop().create_future()

    began = asyncio.get_running_loop().time()
    (sent,), _ = await ask(Silent())
    assert sent.mechanism is None
    assert asyncio.get_running_loop().time() - began == pytest.approx(7.5, abs=0.01)


@pytest.mark.parametrize("other", [{"interface": "nsm-2"}, {"app": "db"}])
async def test_a_wire_for_something_else_is_closed_and_what_is_wanted_now_gets_addresses_of_its_own(other):
    (sent,), _ = await ask(Manager(earlier()), **other)
    assert (sent.state, sent.mechanism, sent.network_service_endpoint_name) == (State.RESELECT_REQUESTED, None, "")
    assert sent.context is None


@pytest.mark.parametrize("state", [State.DOWN, State.UP])
@pytest.mark.parametrize("alive", [True, False, None])
async def test_a_wire_that_is_down_is_chosen_anew_unless_packets_pass(alive, state):
    """Its addresses are asked for again, as for any heal (heal facts, section 10)."""
    liveness = None if alive is None else Checks(alive)
    (sent,), _ = await ask(Manager(earlier(state=state)), liveness=liveness)
    anew = state == State.DOWN and not alive
    assert sent.state == (State.RESELECT_REQUESTED if anew else State.UP)
    assert (sent.mechanism is None, sent.network_service_endpoint_name == "") == (anew, anew)
    assert sent.context.ip_context.src_ip_addrs == [ADDRESS]


async def test_a_wire_that_is_to_move_since_its_service_was_edited_is_chosen_anew_by_the_next_process_too():
    (sent,), _ = await ask(Manager(earlier(state=State.RESELECT_REQUESTED)), liveness=Checks(True))
    assert (sent.state, sent.network_service_endpoint_name) == (State.RESELECT_REQUESTED, "")


async def test_a_wire_on_which_packets_pass_is_asked_for_again_when_a_component_is_away():
    (sent,), error = await ask(Manager(earlier()), Unavailable("the forwarder starts"), liveness=Checks(True))
    assert sent.network_service_endpoint_name == "nse-1"
    assert isinstance(error, Unavailable)


@pytest.mark.parametrize(
    ("error", "liveness"), [(Unavailable("gone"), None), (Unavailable("gone"), False), (Conflict("taken"), True)]
)
async def test_a_wire_that_cannot_be_continued_is_chosen_anew(error, liveness):
    """By its path, so that what the manager has of it is closed."""
    sent, _ = await ask(Manager(earlier()), error, liveness=None if liveness is None else Checks(liveness))
    assert [each.network_service_endpoint_name for each in sent] == ["nse-1", ""]
    assert (sent[1].state, sent[1].path.path_segments[1].id) == (State.RESELECT_REQUESTED, "m")
    assert sent[1].context.ip_context.src_ip_addrs == [ADDRESS]


async def test_a_path_that_is_refused_twice_is_forgotten():
    sent, answer = await ask(Manager(earlier()), Conflict("taken"), Conflict("taken"))
    assert [(each.path.path_segments[1].id == "m") for each in sent[:2]] == [True, True]
    assert len(sent[2].path.path_segments) == 1
    assert (answer.id, answer.context) == ("nsc-0", None)


async def test_a_client_of_two_wires_that_starts_again_after_a_refresh_keeps_the_addresses_of_both():
    """The prefixes that its earlier process excluded for one wire are the addresses of the other."""
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=[ADDRESS], excluded_prefixes=["10.0.0.3/32"]))
    (sent,), _ = await ask(Manager(earlier(context=context)))
    assert sent.context.ip_context == IpContext(src_ip_addrs=[ADDRESS])
