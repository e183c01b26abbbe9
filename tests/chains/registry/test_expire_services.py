"""How long a network service stays that nobody registers again."""

import asyncio

import pytest

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry.begin import RegistryBegin
from nsm.chains.registry.expire_services import ExpireServices
from nsm.chains.registry.memory import Memory
from nsm.chains.testing import Delay

DAY = 86_400.0


class Mesh:
    def __init__(self, lifetime=DAY):
        self.providers, self.kept, self.begin = Memory(), Memory(), RegistryBegin()
        endpoints = RegistryChain([self.providers])
        self.services = RegistryChain([self.begin, ExpireServices(endpoints, lifetime), self.kept])

    async def register(self, name="svc"):
        await self.services.register(RegistryCall(NetworkService(name=name)))

    def provide(self, name="nse"):
        self.providers.records.put(NetworkServiceEndpoint(name=name, network_service_names=["svc"]))

    @property
    def left(self):
        return len(self.kept.records), len(self.begin)


@pytest.fixture
async def mesh():
    mesh = Mesh()
    yield mesh
    await mesh.services.aclose()


async def test_a_service_that_nobody_provides_goes_after_a_day(mesh):
    await mesh.register()
    await asyncio.sleep(DAY - 1)
    assert mesh.left == (1, 1)
    await asyncio.sleep(2)
    assert mesh.left == (0, 0), "and nothing of it is left"


async def test_a_service_that_is_registered_again_stays(mesh):
    await mesh.register()
    for _ in range(3):
        await asyncio.sleep(DAY - 1)
        await mesh.register()
    assert mesh.left == (1, 1)


async def test_a_service_that_is_registered_again_in_the_moment_of_its_end_stays():
    """The end waited for the registration, and then took it back."""
    mesh, delay = Mesh(), Delay()
    services = RegistryChain([mesh.begin, ExpireServices(RegistryChain([mesh.providers]), DAY), delay, mesh.kept])
    await services.register(RegistryCall(NetworkService(name="svc")))
    await asyncio.sleep(DAY - 1)
    delay.gate.clear()
    again = asyncio.ensure_future(services.register(RegistryCall(NetworkService(name="svc"))))
    await asyncio.sleep(2)
    delay.gate.set()
    await again
    await asyncio.sleep(1)
    assert mesh.left == (1, 1)
    await services.aclose()


async def test_a_service_that_was_registered_once_stays_as_long_as_somebody_provides_it(mesh):
    await mesh.register()
    mesh.provide()
    await asyncio.sleep(5 * DAY)
    assert mesh.left == (1, 1)
    mesh.providers.records.pop("nse")
    await asyncio.sleep(DAY + 1)
    assert mesh.left == (0, 0)


async def test_a_registry_that_cannot_be_asked_takes_no_service_away():
    class Down(RegistryElement):
        async def find(self, call, rest):
            raise Unavailable("it is down")
            yield

    begin, kept = RegistryBegin(), Memory()
    services = RegistryChain([begin, ExpireServices(RegistryChain([Down()]), DAY), kept])
    await services.register(RegistryCall(NetworkService(name="svc")))
    await asyncio.sleep(3 * DAY)
    assert len(kept.records) == 1
    await services.aclose()


async def test_services_stay_for_ever_where_that_is_wanted():
    mesh = Mesh(lifetime=0)
    await mesh.register()
    await asyncio.sleep(100 * DAY)
    assert mesh.left == (1, 1)
    await mesh.services.aclose()


async def test_a_service_that_is_only_forgotten_stays_where_its_record_is_stored():
    begin, kept = RegistryBegin(), Memory()
    services = RegistryChain([begin, ExpireServices(RegistryChain([Memory()]), 60, forgets=True), kept])
    await services.register(RegistryCall(NetworkService(name="svc")))
    await asyncio.sleep(70)
    assert (len(begin), len(kept.records)) == (0, 1)
    await services.register(RegistryCall(NetworkService(name="svc")))
    await services.unregister(RegistryCall(NetworkService(name="svc")))
    assert len(kept.records) == 0
