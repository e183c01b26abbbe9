"""The harness itself: an honest client is served, and a bystander notices what it should."""

import asyncio
import os
import signal

import pytest

from .attacker import endpoint_record, service_record


async def test_an_honest_client_of_the_real_mesh_is_served(mesh, victim):
    connection = await victim.request(victim.connection("honest"), victim.kernel("hon0"), files=[victim.network])
    assert connection.context.ip_context.src_ip_addrs
    await victim.close(connection)


async def test_an_honest_client_of_the_composed_chains_is_served(composed, victim_of_composed):
    victim = victim_of_composed
    connection = await victim.request(victim.connection("honest"), victim.kernel(), files=[victim.network])
    assert connection.context.ip_context.src_ip_addrs
    await victim.close(connection)


async def test_an_honest_registration_is_found_and_unregistered(mesh, victim):
    await victim.register(service_record("honest"))
    record = await victim.register_socket(endpoint_record("honest-1", "honest"))
    found = await victim.find(endpoint_record(record.name, "honest", url=""))
    assert [each.network_service_endpoint.name for each in found] == [record.name]
    await victim.unregister(record)


async def test_a_bystander_notices_that_a_manager_stands_still(mesh, bystander):
    with pytest.raises(AssertionError, match="others were made to wait"):
        async with bystander.watching(is_attack=False):
            os.kill(mesh.pids["nsmgr"], signal.SIGSTOP)
            await asyncio.sleep(max(0.5, bystander.quiet / 50))
            os.kill(mesh.pids["nsmgr"], signal.SIGCONT)


async def test_a_bystander_that_nobody_disturbs_notices_nothing(mesh, bystander):
    async with bystander.watching(is_attack=False) as seen:
        await asyncio.sleep(0.1)
    assert seen.requests >= 60


async def test_a_bystander_of_the_composed_chains_that_nobody_disturbs_notices_nothing(composed, bystander_of_composed):
    async with bystander_of_composed.watching(is_attack=False):
        pass
