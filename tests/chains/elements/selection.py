"""Chains that select endpoints, for tests, and endpoints that are full or hang."""

import asyncio

from nsm.apis.registry import Destination, NetworkService
from nsm.chains.core import Begin, Chain, Element
from nsm.chains.elements.discover import Discover
from nsm.chains.elements.round_robin import RoundRobin
from nsm.chains.testing import Record, call
from tests.chains.elements.records import registry_of


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


class Target(Element):
    """Notes whom the call would go to."""

    def __init__(self):
        self.targets = []

    async def request(self, call, rest):
        self.targets.append(call.target)
        return await rest.request(call)
