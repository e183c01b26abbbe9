"""The servers of a load balancer, as monitors report them."""

import asyncio
from ipaddress import ip_address

from nsm.apis.connection import Connection, ConnectionEvent, ConnectionEventType, State
from nsm.apis.connectioncontext import ConnectionContext, IpContext
from nsm.chains.core import Tasks, Unavailable
from nsm.services.lb_vl3.servers import GRACE, Servers

INITIAL, UPDATE, DELETE = (
    ConnectionEventType.INITIAL_STATE_TRANSFER,
    ConnectionEventType.UPDATE,
    ConnectionEventType.DELETE,
)


def connection(*addresses, state=State.UP, service="vl3", **labels):
    context = ConnectionContext(ip_context=IpContext(src_ip_addrs=[f"{each}/32" for each in addresses]))
    return Connection(network_service=service, labels=labels, state=state, context=context)


class Monitors:
    """Monitors that report what a test has them report; None breaks the stream."""

    def __init__(self):
        self.queues = {}

    async def __call__(self, target, selector):
        assert selector.network_services == ["vl3"]
        while (event := await self.queues.setdefault(target, asyncio.Queue()).get()) is not None:
            yield event
        raise Unavailable(f"{target} went away")

    async def say(self, target, kind, **connections):
        event = ConnectionEvent(type=kind, connections=connections)
        await self.queues.setdefault(target, asyncio.Queue()).put(event if kind is not None else None)
        await asyncio.sleep(0.01)


class Run:
    def __init__(self, *targets, selector=None):
        self.monitors, self.changes, self.tasks = Monitors(), 0, Tasks("test")
        self.servers = Servers("vl3", selector or {"app": "web"}, self.monitors, self._changed, self.tasks)
        self.servers.watch(targets or ["m"])

    def _changed(self):
        self.changes += 1

    def found(self, *own):
        return [str(each) for each in self.servers.addresses([ip_address(each) for each in own])]

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.tasks.aclose()


async def test_clients_with_any_of_the_labels_are_servers():
    async with Run(selector={"app": "web", "tier": "front"}) as run:
        await run.monitors.say(
            "m",
            INITIAL,
            a=connection("172.16.0.9", app="web"),
            b=connection("172.16.0.2", tier="front", app="other"),
            c=connection("172.16.0.3", app="db"),
            d=connection("172.16.0.4", app="web", service="another"),
            e=connection("172.16.0.5", "172.16.0.6", "2001:db8::5", app="web"),
        )
        assert run.found() == ["172.16.0.2", "172.16.0.5", "172.16.0.9", "2001:db8::5"]
        assert run.found("172.16.0.5", "2001:db8::5") == ["172.16.0.2", "172.16.0.9"]


async def test_a_server_that_is_down_or_gone_gets_no_new_connections():
    async with Run() as run:
        await run.monitors.say(
            "m", INITIAL, a=connection("172.16.0.1", app="web"), b=connection("172.16.0.2", app="web")
        )
        await run.monitors.say("m", UPDATE, a=connection("172.16.0.1", app="web", state=State.DOWN))
        assert run.found() == ["172.16.0.2"]
        await run.monitors.say("m", UPDATE, a=connection("172.16.0.7", app="web"))
        assert run.found() == ["172.16.0.2", "172.16.0.7"]
        await run.monitors.say("m", DELETE, b=connection("172.16.0.2", app="web"))
        assert run.found() == ["172.16.0.7"]
        before = run.changes
        await run.monitors.say("m", UPDATE, a=connection("172.16.0.7", app="web"))
        assert run.changes == before


async def test_a_wire_between_nodes_that_two_managers_report_is_one_server():
    async with Run("one", "two") as run:
        await run.monitors.say("one", INITIAL, a=connection("172.16.0.1", app="web"))
        await run.monitors.say("two", INITIAL, x=connection("172.16.0.1", app="web"))
        assert run.found() == ["172.16.0.1"]


async def test_servers_of_a_manager_that_restarts_stay_for_a_while():
    async with Run() as run:
        await run.monitors.say("m", INITIAL, a=connection("172.16.0.1", app="web"))
        await run.monitors.say("m", None)
        await asyncio.sleep(GRACE - 1)
        assert run.found() == ["172.16.0.1"]
        await run.monitors.say("m", INITIAL, a=connection("172.16.0.2", app="web"))
        await asyncio.sleep(GRACE + 1)
        assert run.found() == ["172.16.0.2"]
        await run.monitors.say("m", None)
        await asyncio.sleep(GRACE + 1)
        assert run.found() == []


async def test_a_component_that_is_no_longer_watched_is_forgotten():
    async with Run("one", "two") as run:
        await run.monitors.say("one", INITIAL, a=connection("172.16.0.1", app="web"))
        run.servers.watch(["two"])
        assert run.found() == []
