"""What a component counts of itself, as Prometheus sees it."""

import asyncio
import socket
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from nsm.apis.health import HealthCheckRequest
from nsm.chains.config import Common, load
from nsm.chains.core import InvalidRequest, Limits, counts
from nsm.chains.identity import Authority
from nsm.chains.metrics import metrics
from nsm.chains.testing.identity import identity_of
from nsm.chains.transport import Health, Pool, Unary, check_health, serve

AUTHORITY = Authority.create("test.mesh")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def shown(port):
    """Every sample at /metrics: its value by name and labels."""

    def ask():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    async with asyncio.timeout(10):
        while True:
            try:
                text = await asyncio.to_thread(ask)
                break
            except OSError:
                await asyncio.sleep(0.05)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


async def test_limits_connections_and_calls_are_shown():
    """A refusal is counted by the name that NSM_LIMITS has for its limit, a policy's by the policy's."""
    port = free_port()
    config = load(Common, {"PROMETHEUS": "true", "NSM_PROMETHEUS_LISTEN_ON": f"127.0.0.1:{port}"}).config

    async def refuse(_message, _incoming):
        raise InvalidRequest("too many routes", limit="routes")

    methods = {**Health().methods(), "/t/Refuse": Unary(HealthCheckRequest, refuse)}
    server = identity_of(AUTHORITY, "server")
    async with (
        metrics(config),
        serve(["tcp://127.0.0.1:0"], methods, server, name="s", limits=Limits(selector=8)) as urls,
    ):
        before = await shown(port)
        async with Pool(identity_of(AUTHORITY, "client")) as pool:
            assert await check_health(pool, urls[0])
            with pytest.raises(InvalidRequest, match="NSM_LIMITS=selector:"):
                await check_health(pool, urls[0], "a service of a long name")
            with pytest.raises(InvalidRequest, match="too many routes"):
                await pool.channel(urls[0]).unary("/t/Refuse", HealthCheckRequest(), HealthCheckRequest)
            counts.POLICIES.add("tokens_valid")
            after = await shown(port)
    key = ("nsm_limit_refusals_total", "selector")
    assert after[key] == before.get(key, 0) + 1
    assert after["nsm_limit_refusals_total", "routes"] >= 1
    assert after["nsm_policy_refusals_total", "tokens_valid"] >= 1
    assert after[("nsm_peer_connections",)] == before[("nsm_peer_connections",)] + 1
    assert ("nsm_calls_running",) in after
    check = "grpc.health.v1.Health/Check"
    assert after["nsm_calls_total", "OK", "", check] >= 1
    assert after["nsm_calls_total", "InvalidArgument", "", "t/Refuse"] >= 1
    assert after["nsm_calls_total", "InvalidArgument", "transport", check] >= 1
    assert after["nsm_peer_calls_total", "InvalidArgument", "t/Refuse"] >= 1
    assert after["nsm_call_duration_seconds_count", check] >= 1
    assert after["nsm_peer_call_duration_seconds_count", check] >= 2
    assert ("nsm_calls_queued",) in after


async def test_nothing_is_served_unless_it_is_asked_for():
    """Nor is the library imported."""
    config = load(Common, {}).config
    async with metrics(config):
        pass
    program = (
        "import nsm.services.nsmgr.main, nsm.services.registry.main, sys; sys.exit('prometheus_client' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
