"""The element that keeps wires, on a dataplane in memory: what is said, asked and closed, and how often."""

import asyncio
import itertools

import pytest

from nsm.apis.connection import Connection, State
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.core import Begin, Call, Chain, Element, Unavailable
from nsm.chains.elements.monitor import REPORTER
from nsm.chains.forwarding.dataplane import LIVE
from nsm.chains.forwarding.keep import CHANGES, REPAIR, REPORT_ONLY, Keep, Repair, Report
from nsm.chains.forwarding.pace import AT_ONCE
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import End, Wire
from nsm.chains.model.causes import NAMESPACE_GONE
from nsm.chains.testing import Delay, FakeDataplane

DOWN = Report(repairs=[("nsm-1", Repair("link", "link down", "set up"))])
WIRE = Wire(End(KernelInterface("/ns/a", "nsm-1")), End(KernelInterface("/ns/b", "nse-1")), 0, arp=False)


class Changes:
    """Reports what a test says."""

    def __init__(self):
        self.notified, self.reports, self.looks, self.remade, self.stopped = None, [], [], 0, 0
        self.can_remake = True

    async def watch(self, store, live, notified):
        self.notified = notified
        return self

    async def settle(self): ...

    def stop(self):
        self.stopped += 1

    async def mend(self, store, live, *, do):
        self.looks.append(do)
        report = self.reports.pop(0) if self.reports else Report()
        if isinstance(report, Exception):
            raise report
        return report

    async def remake(self, live):
        self.remade += 1
        return self.can_remake

    async def aclose(self): ...


class Wires(Element):
    """Gives each connection a wire, and notified which states are reported of it."""

    def __init__(self):
        self.dataplane, self.states, self.causes = FakeDataplane(), [], []

    async def request(self, call, rest):
        if call.live.get(LIVE) is None:
            call.live.put(LIVE, await self.dataplane.create(WIRE, "c"))
            call.live.put(REPORTER, self)
        return await rest.request(call)

    def report(self, connection_id, state, cause=None):
        assert connection_id == "c"
        if state is not None:
            self.states.append(state)
        self.causes.append(cause)

    async def close(self, call, rest):
        call.live.pop(LIVE)
        await self.dataplane.remove("c")
        await rest.close(call)


def call():
    connection = Connection(id="c", network_service="web", network_service_endpoint_name="nse-1", payload="IP")
    return Call(NetworkServiceRequest(connection=connection))


class World:
    def __init__(self, mode=REPAIR):
        self.changes, self.wires, self.begin = Changes(), Wires(), Begin()
        self.keep = Keep(self.changes, mode)
        self.delay = Delay()
        self.chain = Chain([self.begin, self.keep, self.wires, self.delay])

    async def __aenter__(self):
        await self.chain.request(call())
        return self

    async def __aexit__(self, *_):
        await self.chain.aclose()

    async def tell(self, *reports):
        """Something changed; wait until it was looked at."""
        self.changes.reports += reports
        self.changes.notified.suspect()
        await asyncio.sleep(0.001)


async def test_a_wire_that_was_changed_is_put_right_with_one_line_in_the_log(capsys):
    before = CHANGES["link"]
    async with World() as world:
        await world.tell(DOWN)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wire put right" in line]
    for part in ("connection=c", "service=web", "endpoint=nse-1", "found='nsm-1: link down'", "done='set up'"):
        assert part in line
    assert CHANGES["link"] == before + 1
    (cause,) = world.wires.causes
    assert (cause.code, cause.element) == ("Repaired", "keep")
    assert cause.sentence == "the wire was changed from outside: nsm-1: link down; set up"


async def test_who_only_wants_reports_has_nothing_done(capsys):
    async with World(REPORT_ONLY) as world:
        await world.tell(DOWN)
        await world.tell(Report(is_gone=True))
    assert (world.changes.looks, world.changes.remade) == ([False, False], 0)
    assert capsys.readouterr().out.count("wire is not as it should be") == 2
    assert [cause.code for cause in world.wires.causes] == ["Changed", "Changed"]


@pytest.mark.parametrize(("can", "states"), [(True, []), (False, [State.REFRESH_REQUESTED])])
async def test_a_deleted_interface_is_made_anew_or_the_client_is_asked_to_come_back(can, states):
    async with World() as world:
        world.changes.can_remake = can
        await world.tell(Report(is_gone=True))
        assert (world.changes.remade, world.wires.states) == (1, states)


async def test_an_interface_that_is_gone_with_its_dataplane_is_left_to_that():
    """A tap vanishes with VPP, which is started again, and makes it again."""
    async with World() as world:
        world.wires.dataplane.wires["c"].begin_repair("VPP has ended")
        await world.tell(Report(is_gone=True))
        assert (world.changes.remade, world.wires.states) == (0, [])
        world.wires.dataplane.wires["c"].end_repair()
        await world.tell(Report(is_gone=True))
        assert world.changes.remade == 1


async def test_a_namespace_out_of_reach_is_entered_with_the_clients_next_request():
    async with World() as world:
        for _ in range(2):
            await world.tell(Report(is_out_of_reach=True))
        assert world.wires.states == [State.REFRESH_REQUESTED]
        world.changes.reports = [DOWN]
        await world.chain.request(call())
        await asyncio.sleep(0.001)
    assert (world.changes.reports, len(world.changes.looks)) == ([], 3)


@pytest.mark.parametrize(("is_endpoints", "whose"), [(False, "client's"), (True, "endpoint's")])
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_namespace_that_ends_takes_its_connection_with_it_and_the_other_side_is_told_first(
    is_endpoints, whose, is_told, capsys
):
    """Whether the dataplane notified of it, or finds it when it looks."""
    async with World() as world:
        if is_told:
            world.changes.notified.lost([is_endpoints])
        else:
            await world.tell(Report(lost=(is_endpoints,)))
        while len(world.begin):
            await asyncio.sleep(0)
        assert world.wires.states == [State.DOWN]
        (cause,) = world.wires.causes
        assert (cause.code, cause.sentence) == (NAMESPACE_GONE, f"the {whose} network namespace is gone")
        assert (world.wires.dataplane.wires, len(world.keep), world.changes.stopped) == ({}, 0, 1)
    assert f"{whose} network namespace gone" in capsys.readouterr().out


async def test_a_client_that_moves_while_its_endpoint_s_namespace_ends_keeps_its_new_wire():
    """Its request came before the Close that the end of the namespace brings, which then ended the new wire."""
    async with World() as world:
        world.delay.gate.clear()
        refreshing = asyncio.ensure_future(world.chain.request(call()))
        await asyncio.sleep(0)
        again = call()
        again.connection.state = State.RESELECT_REQUESTED
        moving = asyncio.ensure_future(world.chain.request(again))
        await asyncio.sleep(0.001)
        world.changes.notified.lost([True])
        await asyncio.sleep(0.001)
        world.delay.gate.set()
        await asyncio.gather(refreshing, moving)
        await asyncio.sleep(1)
        assert (len(world.begin), len(world.wires.dataplane.wires)) == (1, 1)


async def test_a_wire_that_is_being_closed_is_not_fought_for():
    async with World() as world:
        await world.chain.close(call())
        await world.tell(DOWN)
        assert (len(world.keep), world.changes.stopped, world.changes.looks) == (0, 1, [])


async def test_a_wire_that_cannot_be_repaired_is_told_of_and_looked_at_again_when_it_changes(capsys):
    async with World() as world:
        await world.tell(Unavailable("the kernel is busy"))
        await world.tell(DOWN)
    out = capsys.readouterr().out
    assert "a wire cannot be repaired" in out
    assert "wire put right" in out


async def test_somebody_who_undoes_every_repair_is_answered_less_and_less_often_and_named_once(capsys):
    clock = asyncio.get_running_loop().time
    async with World() as world:
        times = []
        for count in range(1, AT_ONCE + 4):
            await world.tell(DOWN)
            while len(world.changes.looks) < count:
                await asyncio.sleep(0.1)
            times.append(clock())
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(pauses[: AT_ONCE - 1]) < 0.1
        assert pauses[AT_ONCE - 1 :] == sorted(pauses[AT_ONCE - 1 :])
        assert pauses[-1] > 1
    assert capsys.readouterr().out.count("a wire is changed again and again") == 1


async def test_a_connection_that_has_another_wire_now_is_watched_by_that():
    async with World() as world:
        world.begin.stores()[0].put(LIVE, None)
        await world.wires.dataplane.remove("c")
        await world.chain.request(call())
        assert (len(world.keep), world.changes.stopped) == (1, 1)
        await world.tell(DOWN)
        assert world.changes.looks == [True]
