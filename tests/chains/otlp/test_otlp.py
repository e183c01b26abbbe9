"""Spans, metrics and logs of a component arrive at a collector, over gRPC and over HTTP."""

import asyncio
import os
import signal
import sys

import pytest

from nsm.chains.config import Common, ConfigError, load
from tests.chains.otlp.collectors import over_grpc, over_http

COMPONENT = """
import asyncio, sys
from nsm.chains.component import run_plain
from nsm.chains.config import Common
from nsm.chains.core import counts
from nsm.chains.core import tracing
from nsm.chains.logs import log

async def work(config, stopping):
    counts.LIMITS.add("routes")
    counts.CALL_SECONDS.observe(0.003, "t/Ask")
    with tracing.hooks.span("element.Request"):
        log.warning("a route is refused", route="10.0.0.0/8")
    print("working", flush=True)
    await stopping.wait()

sys.exit(run_plain("router", Common, work, []))
"""


@pytest.mark.parametrize("collector", [over_grpc, over_http])
async def test_what_a_component_does_is_seen_at_the_collector(collector):
    async with collector() as collected:
        variables = {**os.environ, **collected.variables, "OTEL_LOGS_EXPORTER": "otlp"}
        component = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMPONENT, stdout=asyncio.subprocess.PIPE, env=variables
        )
        async with asyncio.timeout(30):
            assert await component.stdout.readline() == b"working\n"
            component.send_signal(signal.SIGTERM)
            assert await component.wait() == 0
        assert {kind: collected.names_of_services(kind) for kind in collected.requests} == {
            "traces": {"router"},
            "metrics": {"router"},
            "logs": {"router"},
        }
        metrics = collected.metrics()
        (refusals,) = metrics["nsm_limit_refusals"].sum.data_points
        assert (refusals.as_int, refusals.attributes[0].value.string_value) == (1, "routes")
        assert metrics["nsm_limit_refusals"].sum.is_monotonic
        (durations,) = metrics["nsm_call_duration_seconds"].histogram.data_points
        assert (durations.count, sum(durations.bucket_counts), durations.sum) == (1, 1, 0.003)
        assert durations.bucket_counts[[*durations.explicit_bounds].index(0.005)] == 1
        assert metrics["nsm_build_info"].gauge.data_points
        (line,) = [line for line in collected.lines() if line.body.string_value == "a route is refused"]
        assert line.severity_text == "WARNING"
        assert {each.key: each.value.string_value for each in line.attributes} == {"route": "10.0.0.0/8"}
        (span,) = collected.requests["traces"][0].resource_spans[0].scope_spans[0].spans
        assert line.span_id == span.span_id


async def test_a_collector_that_is_away_is_logged_once_and_delays_nobody():
    variables = {
        "TELEMETRY": "true",
        "NSM_OPEN_TELEMETRY_ENDPOINT": "127.0.0.1:9",
        "NSM_METRICS_EXPORT_INTERVAL": "5ms",
    }
    component = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMPONENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
    )
    async with asyncio.timeout(30):
        assert await component.stdout.readline() == b"working\n"
        while b"MetricsService" not in (line := await component.stderr.readline()):
            assert line
        await asyncio.sleep(0.1)
        component.send_signal(signal.SIGTERM)
        _, rest = await component.communicate()
    assert component.returncode == 0
    assert b"did not accept" in line
    assert b"MetricsService" not in rest


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_METRICS_EXPORTER": "prometheus"}, "OTEL_METRICS_EXPORTER='prometheus': expected otlp or none"),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, "need a collector"),
        ({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "file:///tmp/x"}, "need a collector"),
        ({"TELEMETRY": "true", "NSM_METRICS_EXPORT_INTERVAL": "0"}, "must be longer than 0"),
        ({"NSM_OPEN_TELEMETRY_ENDPOINT": "nowhere"}, "expected unix:///path, tcp://host:port or host:port"),
    ],
)
def test_what_cannot_be_sent_is_refused_at_the_start(variables, told):
    with pytest.raises(ConfigError, match=told):
        load(Common, variables)


async def test_the_log_level_changes_while_a_component_runs():
    """SIGUSR1: from DEBUG on; SIGUSR2: as configured again. Loggers that exist by then change, too."""
    program = COMPONENT.replace('with tracing.hooks.span("element.Request")', "if True").replace(
        "    await stopping.wait()",
        "    bound = log.bind(part='x')\n"
        "    bound.debug('hidden')\n"
        "    while not stopping.is_set():\n"
        "        bound.debug('fine detail')\n"
        "        await asyncio.sleep(0.01)\n",
    )
    component = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    told = []

    async def until(text):
        while text not in (line := await component.stderr.readline()):
            assert line
            told.append(line)
        told.append(line)

    async with asyncio.timeout(30):
        assert await component.stdout.readline() == b"working\n"
        component.send_signal(signal.SIGUSR1)
        await until(b"fine detail")
        assert not [line for line in told if b"hidden" in line]
        component.send_signal(signal.SIGUSR2)
        await until(b'"logs_from": "INFO"')
        component.send_signal(signal.SIGTERM)
        rest = await component.stderr.read()
        await component.wait()
    assert b"fine detail" not in rest
