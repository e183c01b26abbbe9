"""What users reported of meshes whose parts were restarted, replaced or cut off: each in the mesh of `make chaos`.

`CHAOS_SECONDS=40 make test`, as in CI, runs them; random schedules have the same faults.
"""

import os

import pytest
import pytest_asyncio

from .faults import BEFORE_THE_REPLY, LONGER_THAN_TOKENS, REFRESHED, Fault
from .mesh import NODES, OTHER_NODE
from .run import Chaos

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(240),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(SECONDS < 40, reason="these take more than a minute: CHAOS_SECONDS=40 runs them"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory):
    """One for all, which each leaves as it was; its logs are kept."""
    folder = tmp_path_factory.mktemp("chaos")
    async with Chaos.begun(f"cases-{os.getpid()}") as chaos:
        yield chaos
        await chaos.mesh.keep_logs(folder / "chaos.log")
        print(f"the logs of the mesh are in {folder}/chaos.log")


async def test_a_client_and_its_manager_are_killed_at_once_and_the_client_is_back_on_another_node(mesh):
    await mesh.round(Fault("move", ("ada",)), "the case")


async def test_a_request_is_cancelled_when_the_link_is_made_and_before_the_reply_is_sent(mesh):
    await mesh.round(Fault("interrupt a request", ("bob",), 0.3, BEFORE_THE_REPLY), "the case")


@pytest.mark.parametrize("order", [("cat", "dan"), ("dan", "cat")], ids="-".join)
async def test_forwarders_restart_and_two_clients_with_policy_routes_come_back_in_another_order(mesh, order):
    await mesh.round(Fault("restart in this order", order), "the case")


async def test_an_endpoint_is_replaced_while_its_client_refreshes(mesh):
    await mesh.round(Fault("replace during a refresh", (mesh.endpoint_of(("cat", "nsm-2")),), REFRESHED), "the case")


async def test_a_node_is_cut_off_for_longer_than_a_token_lives(mesh):
    await mesh.round(Fault("cut", NODES, LONGER_THAN_TOKENS), "the case")


async def test_a_manager_restarts_while_its_client_renames_an_interface(mesh):
    await mesh.round(Fault("rename", ("cat", "nsm-1"), 1.5), "the case")


async def test_the_registry_is_lost_and_empty_when_it_is_back(mesh):
    """It keeps its records in memory."""
    await mesh.round(Fault("kill", ("registry-node-1",), 1.0), "the case")


async def test_another_node_is_rebooted(mesh):
    await mesh.round(Fault("reboot", (OTHER_NODE,)), "the case")
