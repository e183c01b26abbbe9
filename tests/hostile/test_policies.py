"""A policy in a file that a caller can make slow, greedy or endless: who calls so is refused, and nobody else waits."""

import asyncio
import resource
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from nsm.apis.connection import Connection
from nsm.apis.networkservice import NetworkServiceRequest
from nsm.chains.composed import client, endpoint
from nsm.chains.core import Begin, Call, MeshError, Refused, merge_with_returned
from nsm.chains.identity import Authority
from nsm.chains.policy import SERVER_MASKS
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Pool, RemoteNetworkService, serve
from tests.chains.policy import regos

from .bystander import p99

AUTHORITY = Authority.create("test.mesh")
ENDLESS = """package nsm

default valid = false

depth(n) = total { n > 0; total := 1 + depth(n + 1) }

valid { not input.path_segments }
valid { input.path_segments[0].name == "bad"; depth(1) > 0 }
valid { input.path_segments[0].name != "bad" }
"""
POLICIES = {"slow": regos.LOOP, "greedy": regos.CRASH, "endless": ENDLESS}
ATTACKS = 12
"""Calls at once: they and the closes that undo them take a second each, one after the other, on a busy machine."""
CALLER = {"slow": "slow", "greedy": "bad", "endless": "bad"}


def ask(number):
    return Call(NetworkServiceRequest(connection=Connection(id=f"c{number}", network_service="icmp")))


@asynccontextmanager
async def attacked(tmp_path, policy):
    """An endpoint that goes by the policy too, and who asks it: the attacker, then two bystanders."""
    (tmp_path / "mine.rego").write_text(POLICIES[policy])
    url = f"unix://{tmp_path}/nse.sock"
    server = endpoint("nse", identity_of(AUTHORITY, "nse"), [], policies=[*SERVER_MASKS, f"{tmp_path}/mine.rego"])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        await stack.enter_async_context(serve([url], server.methods(), identity_of(AUTHORITY, "nse"), name="nse"))
        asking = []
        for workload, name in (("attacker", CALLER[policy]), ("bystander", "bystander"), ("second", "second")):
            pool = await stack.enter_async_context(Pool(identity_of(AUTHORITY, workload), dial_timeout=2))
            begin = Begin(merge=merge_with_returned)
            asking.append(client(name, [], RemoteNetworkService(pool), url=url, begin=begin))
        yield asking


@pytest.mark.parametrize("policy", POLICIES)
async def test_who_makes_a_policy_slow_waits_alone(policy, tmp_path):
    async with attacked(tmp_path, policy) as (attacker, bystander, second):
        await asyncio.gather(*(each.request(ask("first")) for each in (bystander, second)))  # both processes run
        calls = [asyncio.create_task(attacker.request(ask(number))) for number in range(ATTACKS)]
        await asyncio.sleep(0.05)
        took = []
        for number in range(60):
            begun = time.monotonic()
            await bystander.request(ask(number))
            took.append(time.monotonic() - begun)
        assert p99(took) < 0.5, took
        done = [call for call in calls if call.done()]
        assert all(isinstance(call.exception(), Refused) for call in done)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        last = ask("last")
        last.deadline = asyncio.get_running_loop().time() + 40
        with pytest.raises(Refused, match="mine \\("):
            await attacker.request(last)
        await bystander.request(ask(0))


async def test_what_a_policy_takes_is_not_taken_from_the_component(tmp_path):
    async with attacked(tmp_path, "greedy") as (attacker, bystander, _):
        await bystander.request(ask(0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(3):
            with suppress(MeshError):
                await attacker.request(ask(number))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10
        await bystander.request(ask(0))
