"""A wire comes back by itself, whatever dies on its way. Numbers are those of the cases of upstream's tests."""

import asyncio

import pytest

from nsm.apis import codec
from nsm.apis.connection import ConnectionEventType, MonitorScopeSelector, State
from nsm.chains.composed import monitors
from nsm.chains.core import Begin, Chain, Unavailable
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.heal import Heal
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.monitor import REPORTER, fault_in
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.model.causes import NAMESPACE_GONE, Cause
from nsm.chains.testing import Check, Delay, Fail, Mesh, Record, call
from nsm.chains.transport import Monitors

NSMGR, FORWARDER, REGISTRY = "nsmgr", "forwarder", "registry"


class Packets:
    """The wire's own check, in the hands of a test: `pass_` says whether packets do; None: nobody knows."""

    def __init__(self, timeout=1.0):
        self.pass_, self.timeout, self.checks, self.links = True, timeout, 0, []

    async def is_alive(self, connection):
        self.checks += 1
        if self.pass_ is False:
            await asyncio.sleep(self.timeout)
        return self.pass_

    def watch(self, connection, on_down):
        self.links.append(on_down)
        return lambda: self.links.remove(on_down)

    def cut(self):
        """The link goes down."""
        self.pass_ = False
        for on_down in [*self.links]:
            on_down("link nsm-1 is down")


class World:
    """A mesh with two endpoints, and one client that has a wire to `one`."""

    def __init__(self, mesh, packets, **options):
        self.mesh, self.packets = mesh, packets
        self.client_record, self.records = Record(), {}
        quick = None if packets is None else Packets(0.25)
        if quick is not None:
            quick.is_alive = self._quick
        self.heal = Heal(monitors(mesh.pool("client")), packets, quick=quick, **options)
        self.answers = {}
        note = Check(after=lambda answer: self.answers.update({answer.id: codec.clone(answer)}))
        self.client = mesh.add_client(elements=[note, self.client_record], refresh=True, heal=self.heal)

    async def _quick(self, connection):
        if self.packets.pass_ is False:
            await asyncio.sleep(0.25)
        return self.packets.pass_

    async def add(self, name, prefix, *own):
        """Start an endpoint; once a wire goes to `two` packets pass."""
        self.records[name] = record = Record()
        if name == "two" and self.packets is not None:
            own = [*own, Check(after=lambda _: setattr(self.packets, "pass_", True))]
        ipam = Point2PointIpam([prefix])
        chain = [record, *own, ipam, Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
        await self.mesh.add_endpoint(name, chain, services=["shop"])

    async def connect(self, connection_id="c"):
        """The wire, which goes to `one`; `two` is there from then on."""
        connection = await self.client.request(call(connection_id, "shop", timeout=15))
        if "two" not in self.records:
            await self.add("two", "10.2.0.0/24")
        await asyncio.sleep(6)
        self.clear()
        return connection

    async def refresh(self, connection_id="c"):
        """The client asks for what it has."""
        asked = call(connection_id, timeout=5)
        asked.connection = codec.clone(self.answers[connection_id])
        return await self.client.request(asked)

    def clear(self):
        for record in (self.client_record, *self.records.values()):
            record.requests.clear()
            record.closes.clear()

    async def break_(self, *, control=True, data=False):
        """The endpoint dies: with it the control plane, the data plane, or both."""
        if data:
            self.packets.pass_ = False
        if control:
            await self.mesh.remove(NSMGR)
            await self.mesh.start(NSMGR)

    @property
    def state(self):
        """What the client asked for: how often with and without reselection, and how often it closed."""
        states = [each.connection.state == State.RESELECT_REQUESTED for each in self.client_record.requests]
        return {"again": states.count(False), "anew": states.count(True), "closes": len(self.client_record.closes)}

    def there(self):
        return self.mesh.connections()


@pytest.fixture
async def mesh():
    async with Mesh() as running:
        yield running


async def world_of(mesh, *own, packets=True, **options):
    made = World(mesh, Packets() if packets else None, **options)
    await made.add("one", "10.1.0.0/24", *own)
    return made


@pytest.mark.parametrize(
    ("control", "data", "asked"),
    [
        (False, False, {"again": False, "anew": 0, "closes": 0}),
        (True, False, {"again": True, "anew": 0, "closes": 0}),
        (False, True, {"again": False, "anew": 1, "closes": 1}),
        (True, True, {"again": False, "anew": 1, "closes": 1}),
    ],
)
async def test_case_1_what_is_down_says_whether_another_endpoint_is_chosen(mesh, control, data, asked):
    """Of the control plane and the data plane; without packets a wire moves, else it stays as it is."""
    world = await world_of(mesh)
    before = await world.connect()
    await world.break_(control=control, data=data)
    await asyncio.sleep(8)
    assert {**world.state, "again": bool(world.state["again"])} == asked
    now = await world.refresh()
    assert now.network_service_endpoint_name == ("two" if data else "one")
    assert (now.context.ip_context == before.context.ip_context) is not data


async def test_case_2_an_endpoint_that_dies_is_replaced_by_another_with_two_requests_in_all(mesh):
    world = await world_of(mesh)
    await world.client.request(call("c", "shop", timeout=15))
    await world.add("two", "10.2.0.0/24")
    await asyncio.sleep(6)
    world.packets.pass_ = False
    await mesh.remove("one")
    await asyncio.sleep(5)
    assert [len(record.requests) for record in world.records.values()] == [1, 1]
    now = await world.refresh()
    assert now.network_service_endpoint_name == "two"
    assert "10.2.0.1/32" in now.context.ip_context.src_ip_addrs
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, "two": 1}


@pytest.mark.parametrize("names", [[FORWARDER], [NSMGR], [NSMGR, FORWARDER]])
async def test_case_3_a_restart_of_what_is_between_is_a_refresh_for_the_endpoint(mesh, names):
    world = await world_of(mesh)
    before = await world.connect()
    for name in names:
        await mesh.remove(name)
    for name in names:
        await mesh.start(name)
    await asyncio.sleep(10)
    (request,) = world.records["one"].requests
    assert request.connection.path.path_segments[-1].id == before.path.path_segments[-1].id
    assert (world.records["one"].closes, world.client_record.closes) == ([], [])
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, "one": 1}


async def test_case_4_manager_restarts_and_endpoint_dies_at_once(mesh):
    world = await world_of(mesh)
    await world.connect()
    world.packets.pass_ = False
    await mesh.remove(NSMGR)
    await mesh.remove("one")
    await mesh.start(NSMGR)
    await asyncio.sleep(20)
    now = await world.refresh()
    assert now.network_service_endpoint_name == "two"
    assert (world.state["closes"], world.records["two"].closes) == (1, [])
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, "two": 1}


async def test_case_6_refreshes_close_nothing_and_the_last_close_reaches_everybody_without_a_registry(mesh):
    world = await world_of(mesh, interval=5.0)
    await world.connect()
    await asyncio.sleep(3600)
    assert (world.client_record.closes, world.records["one"].closes) == ([], [])
    assert len(world.records["one"].requests) > 5
    await mesh.remove(REGISTRY)
    await asyncio.sleep(1)
    await world.client.close(call("c"))
    assert (len(world.records["one"].closes), world.there()) == (1, {})


async def test_case_7_a_wire_keeps_its_forwarder_when_the_manager_restarts(mesh):
    await mesh.add_forwarder("forwarder-2")
    world = await world_of(mesh)
    for number in range(4):
        await world.connect(str(number))
    before = {name: count for name, count in world.there().items() if name.startswith(FORWARDER)}
    await mesh.remove(NSMGR)
    await mesh.start(NSMGR)
    await asyncio.sleep(20)
    assert {name: count for name, count in world.there().items() if name.startswith(FORWARDER)} == before
    assert world.there()[NSMGR] == 4


async def test_case_8_a_wire_still_heals_after_a_refresh_that_failed(mesh):
    fail = Fail()
    world = await world_of(mesh, fail)
    await world.connect()
    fail.error = Unavailable("out of order")
    with pytest.raises(Unavailable):
        await world.refresh()
    await asyncio.sleep(3)
    fail.error = None
    await asyncio.sleep(20)
    world.clear()
    world.packets.cut()
    await asyncio.sleep(5)
    assert len(world.records["two"].requests) == 1


@pytest.mark.parametrize("name", [NSMGR, FORWARDER, "one"])
async def test_case_9_a_component_that_is_killed_in_the_middle_of_a_request(mesh, name):
    delay = Delay()
    world = await world_of(mesh, delay)
    await world.connect()
    delay.gate.clear()
    asked = asyncio.ensure_future(world.refresh())
    await asyncio.sleep(1)
    assert delay.waiting == 1
    await mesh.remove(name)
    with pytest.raises(Unavailable):
        await asked
    delay.gate.set()
    if name == "one":
        world.packets.cut()
    else:
        await mesh.start(name)
    await asyncio.sleep(10)
    endpoint = "two" if name == "one" else "one"
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, endpoint: 1}
    await world.client.close(call("c"))
    assert world.there() == {}


async def test_case_9_no_task_remains_after_a_close_that_comes_while_a_wire_is_healed(mesh):
    world = await world_of(mesh)
    await world.connect()
    await mesh.remove(NSMGR)
    await asyncio.sleep(60)
    await mesh.start(NSMGR)
    await world.client.close(call("c"))
    world.clear()
    await asyncio.sleep(60)
    assert world.state == {"again": 0, "anew": 0, "closes": 0}
    assert not [task.get_name() for task in asyncio.all_tasks() if "of c" in task.get_name()]
    assert mesh.begins["client"].stores() == []
    assert world.packets.links == []


async def test_without_checks_of_the_wire_a_control_plane_that_is_down_means_another_endpoint(mesh):
    world = await world_of(mesh, packets=False)
    await world.connect()
    await mesh.remove("one")
    await asyncio.sleep(3)
    assert [len(record.requests) for record in world.records.values()] == [0, 1]


async def test_where_packets_cannot_be_checked_an_endpoint_that_is_gone_is_replaced_and_a_manager_is_not(mesh):
    """As in a pod whose processes may not ping, on another node than its endpoint: no link goes down there."""
    world = await world_of(mesh)
    await world.connect()
    world.packets.pass_ = None
    await world.break_()
    await asyncio.sleep(10)
    assert (world.state["anew"], world.state["closes"]) == (0, 0)
    await mesh.remove("one")
    await asyncio.sleep(10)
    assert (world.state["anew"], world.state["closes"]) == (1, 1)
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, "two": 1}


GONE = Cause(NAMESPACE_GONE, "the endpoint's network namespace is gone")


async def until_asked(record):
    """The seconds until an endpoint receives a request."""
    begun = asyncio.get_running_loop().time()
    while not record.requests:
        await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time() - begun


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_workload_that_is_gone_according_to_its_forwarder_is_left_without_a_check(mesh, is_closed):
    """Between two nodes a wire took a second longer to heal: its client looked for an endpoint that was known to be gone."""
    world = await world_of(mesh)
    await world.connect()
    (store,) = mesh.begins[FORWARDER].stores()
    assert world.packets.pass_  # the kernel takes a moment for a namespace
    store.get(REPORTER).report(store.connection_id, State.DOWN, GONE)
    if is_closed:
        await store.events.close()
    assert await until_asked(world.records["two"]) < 0.15
    assert world.state == {"again": 0, "anew": 1, "closes": 1}


async def test_endpoints_that_end_one_after_the_other_are_each_left_at_once(mesh):
    """Each next one within a second of the healing before: pauses grew as if one wire broke again and again."""
    world = await world_of(mesh, interval=0.1)
    await world.connect()
    world.packets.pass_ = True
    for number in range(8):
        ends, takes_over = ("one", "two") if number % 2 == 0 else ("two", "one")
        world.clear()
        world.packets.cut()
        await mesh.remove(ends)
        assert await until_asked(world.records[takes_over]) < 0.4
        world.packets.pass_ = True
        await world.add(ends, f"10.{number}.0.0/24")
        await asyncio.sleep(0.3)


async def test_a_link_that_goes_down_is_acted_on_at_once(mesh):
    world = await world_of(mesh)
    await world.connect()
    world.packets.cut()
    await asyncio.sleep(0.2)
    assert len(world.records["two"].requests) == 1


async def test_an_endpoint_that_hangs_with_its_links_up_is_left_within_two_seconds(mesh):
    """Neither its Close nor its turn among the candidates holds the wire up."""
    delay = Delay()
    world = await world_of(mesh, delay)
    await world.connect()
    delay.gate.clear()
    world.packets.pass_ = False
    begun = asyncio.get_running_loop().time()
    while not world.records["two"].requests:
        await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - begun < 1.8
    delay.gate.set()
    await asyncio.sleep(20)
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, "two": 1}


@pytest.mark.parametrize(("first", "answers_after", "heals"), [(6.0, 5.0, 0), (6.0, 60.0, 1), (0.0, 5.0, 1)])
async def test_a_new_wire_over_a_bad_line_has_time_for_a_second_handshake(mesh, first, answers_after, heals):
    """WireGuard repeats a handshake that got lost after five seconds, the kernel a question for an address after one."""
    world = await world_of(mesh, first=first)
    await world.add("two", "10.2.0.0/24")
    world.packets.pass_ = False
    await world.client.request(call("c", "shop", timeout=15))
    made = asyncio.get_running_loop().time()
    while world.packets.pass_ is False and asyncio.get_running_loop().time() < made + min(answers_after, 9.0):
        await asyncio.sleep(0.1)
    world.packets.pass_ = True
    assert world.state["anew"] == heals


async def test_a_wire_that_has_answered_is_left_after_one_check_that_fails(mesh):
    world = await world_of(mesh, first=60.0)
    await world.connect()
    world.packets.pass_ = False
    await asyncio.sleep(2)
    assert world.state["anew"] == 1


async def test_rounds_follow_one_another_ever_more_slowly_and_close_once(mesh):
    """Upstream's follow without a pause, each with a Close."""
    fail = Fail()
    world = await world_of(mesh, fail)
    await world.connect()
    await mesh.remove("two")
    fail.errors = [Unavailable("out of order") for _ in range(100)]
    world.packets.cut()
    await asyncio.sleep(60)
    assert 10 < world.state["anew"] < 30
    assert world.state["closes"] == 1
    fail.errors, world.packets.pass_ = [], True
    await asyncio.sleep(6)
    assert world.there() == {NSMGR: 1, FORWARDER: 1, "client": 1, "one": 1}


async def test_healing_can_be_bounded_and_what_refreshes_later_is_watched_again(mesh):
    world = await world_of(mesh, timeout=10.0)
    await world.connect()
    await mesh.remove(NSMGR)
    await asyncio.sleep(30)
    world.clear()
    await asyncio.sleep(60)
    assert world.state["again"] == 0
    await mesh.start(NSMGR)
    await asyncio.sleep(600)
    assert world.there()[NSMGR] == 1
    world.packets.cut()
    await asyncio.sleep(1)
    assert len(world.records["two"].requests) == 1


async def test_thirty_clients_of_an_endpoint_that_dies_do_not_ask_in_one_moment(mesh):
    asked = []
    world = await world_of(mesh)
    clients = []
    for number in range(30):
        packets = Packets(0.25)
        name = f"client-{number}"
        note = Check(lambda _: asked.append(asyncio.get_running_loop().time()))
        client = mesh.add_client(name, [note], heal=Heal(monitors(mesh.pool(name)), packets))
        await client.request(call(name, "shop", timeout=15))
        clients.append(packets)
    await world.add("two", "10.2.0.0/24")
    await asyncio.sleep(6)
    asked.clear()
    for packets in clients:
        packets.pass_ = False
    await mesh.remove("one")
    begun = asyncio.get_running_loop().time()
    await asyncio.sleep(0.5)
    for packets in clients:
        packets.pass_ = True
    await asyncio.sleep(10)
    assert mesh.connections()["two"] == 30
    assert max(asked) - begun < 1
    assert len({round(each, 2) for each in asked}) > 5


async def reported(world, state, kind=ConnectionEventType.UPDATE):
    """Have the client hear of its wire from its manager."""
    (theirs,) = await world.heal.monitors.present(world.mesh.url(NSMGR), MonitorScopeSelector())
    theirs.state = state
    (store,) = world.mesh.begins["client"].stores()
    store.get(world.heal._watched).heard(kind, theirs)


@pytest.mark.parametrize(
    ("state", "kind", "asked"),
    [
        (State.UP, ConnectionEventType.UPDATE, []),
        (State.DOWN, ConnectionEventType.UPDATE, [State.UP]),
        (State.UP, ConnectionEventType.DELETE, [State.UP]),
        (State.REFRESH_REQUESTED, ConnectionEventType.UPDATE, [State.UP]),
        (State.REFRESH_REQUESTED, ConnectionEventType.INITIAL_STATE_TRANSFER, [State.UP]),
        (State.RESELECT_REQUESTED, ConnectionEventType.UPDATE, [State.RESELECT_REQUESTED]),
    ],
)
async def test_what_the_mesh_asks_for_by_the_state_of_an_event(mesh, state, kind, asked):
    """Once for each Request, however often the state is reported."""
    world = await world_of(mesh)
    await world.connect()
    await reported(world, state, kind)
    await reported(world, state, kind)
    await asyncio.sleep(3)
    assert [each.connection.state for each in world.client_record.requests] == asked


async def test_a_peer_that_asks_for_refreshes_without_end_is_obeyed_a_few_times_a_minute(mesh):
    world = await world_of(mesh)
    await world.connect()

    async def nag():
        while True:
            await reported(world, State.REFRESH_REQUESTED)
            await asyncio.sleep(0.05)

    nagging = asyncio.ensure_future(nag())
    await asyncio.sleep(60)
    nagging.cancel()
    assert 5 < len(world.client_record.requests) < 60


def dataplane_wire(world):
    """The wire, as the forwarder has it."""
    (live,) = world.mesh.dataplanes[FORWARDER].wires.values()
    return live


async def test_a_dataplane_that_ends_and_is_started_again_makes_no_client_heal(mesh):
    """For five seconds no packet passes, and the link is gone for a while; the client is told, and waits."""
    world = await world_of(mesh)
    await world.connect()
    dataplane_wire(world).begin_repair("VPP ended; it is started again")
    await asyncio.sleep(0.01)
    world.packets.cut()
    await asyncio.sleep(5)
    dataplane_wire(world).end_repair()
    world.packets.pass_ = True
    await asyncio.sleep(5)
    assert world.state == {"again": 0, "anew": 0, "closes": 0}
    assert len(world.packets.links) == 1, "the link is watched again"
    world.packets.cut()
    await asyncio.sleep(0.5)
    assert world.state["anew"] == 1


async def test_packets_that_are_lost_again_after_a_repair_are_acted_on(mesh):
    """One check in vain: that which was under way when the repair ended means nothing."""
    world = await world_of(mesh)
    await world.connect()
    dataplane_wire(world).begin_repair("VPP ended")
    await asyncio.sleep(0.01)
    world.packets.pass_ = False
    await asyncio.sleep(3)
    dataplane_wire(world).end_repair()
    await asyncio.sleep(0.5)
    assert world.state["anew"] == 0
    await asyncio.sleep(2)
    assert world.state["anew"] == 1


async def test_a_repair_that_takes_longer_than_ten_seconds_is_not_waited_for(mesh):
    world = await world_of(mesh)
    await world.connect()
    begun = asyncio.get_running_loop().time()
    dataplane_wire(world).begin_repair("VPP ended")
    await asyncio.sleep(0.01)
    world.packets.pass_ = False
    while not world.state["anew"]:
        await asyncio.sleep(0.05)
    assert 10 < asyncio.get_running_loop().time() - begun < 12.5


async def test_a_component_that_reports_repairs_without_end_holds_no_client_up(mesh):
    world = await world_of(mesh)
    await world.connect()
    begun, wire = asyncio.get_running_loop().time(), dataplane_wire(world)
    wire.begin_repair("always the same")
    await asyncio.sleep(0.01)
    world.packets.pass_ = False
    while not world.state["anew"]:
        wire.end_repair()
        await asyncio.sleep(0.05)
        wire.begin_repair("always the same")
        await asyncio.sleep(0.05)
    assert asyncio.get_running_loop().time() - begun < 3


async def test_a_wire_that_its_dataplane_cannot_repair_is_requested_again(mesh):
    """The client keeps its endpoint: only the forwarder has to make the wire anew."""
    world = await world_of(mesh)
    await world.connect()
    dataplane_wire(world).begin_repair("VPP ended")
    dataplane_wire(world).end_repair(is_whole=False)
    await asyncio.sleep(0.5)
    assert world.state == {"again": 1, "anew": 0, "closes": 0}


async def test_a_manager_that_restarts_during_a_repair_moves_no_client_to_another_endpoint(mesh):
    world = await world_of(mesh)
    await world.connect()
    wire = dataplane_wire(world)
    wire.begin_repair("VPP ended")
    await asyncio.sleep(0.01)
    world.packets.pass_ = False
    await world.break_(control=True)
    await asyncio.sleep(3)
    wire.end_repair()
    world.packets.pass_ = True
    await asyncio.sleep(3)
    assert (world.state["anew"], world.there()) == (0, {NSMGR: 1, FORWARDER: 1, "client": 1, "one": 1})


async def test_the_answer_to_a_request_during_a_repair_says_so_and_the_next_one_no_longer(mesh):
    world = await world_of(mesh)
    await world.connect()
    dataplane_wire(world).begin_repair("VPP ended")
    assert fault_in(await world.refresh()) == "VPP ended"
    dataplane_wire(world).end_repair()
    assert fault_in(await world.refresh()) == ""


async def test_checks_of_the_wire_follow_one_another_and_end_with_it(mesh):
    world = await world_of(mesh, interval=0.2)
    await world.connect()
    before = world.packets.checks
    await asyncio.sleep(10)
    assert 45 <= world.packets.checks - before <= 52
    await world.client.close(call("c"))
    before = world.packets.checks
    await asyncio.sleep(10)
    assert world.packets.checks == before


async def test_where_nobody_was_dialled_the_wire_alone_is_watched():
    packets, record = Packets(), Record()
    chain = Chain([Begin(), Heal(Monitors(None), packets), record])
    await chain.request(call("c"))
    packets.cut()
    packets.pass_ = True
    await asyncio.sleep(1)
    assert len(record.requests) == 2
    await chain.aclose()


async def test_a_peer_that_ends_every_stream_at_once_gets_a_few_requests_a_minute(mesh):
    """Each end of a stream is a reason to heal, and each healing opens another one."""
    opened = []

    async def ends_at_once(target, selector):
        opened.append(target)
        raise Unavailable("no more to report")
        yield

    world = await world_of(mesh)
    world.heal.monitors = Monitors(ends_at_once)
    await world.client.request(call("c", "shop", timeout=15))
    world.clear()
    await asyncio.sleep(60)
    assert 2 < len(world.client_record.requests) < 20
    assert len(opened) < 20
    await world.heal.monitors.aclose()


async def test_forty_connections_through_one_manager_to_two_endpoints_need_four_streams(mesh):
    """The client's of the manager, the manager's of the forwarder, and the forwarder's of both endpoints."""
    world = await world_of(mesh)
    await world.add("two", "10.2.0.0/24")
    for number in range(40):
        await world.client.request(call(str(number), "shop", timeout=15))
    assert {len(record.requests) for record in world.records.values()} == {20}
    await asyncio.sleep(1)
    assert len([task for task in asyncio.all_tasks() if task.get_name().startswith("monitor of")]) == 4
