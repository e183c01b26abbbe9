"""Which wires carry most, and what components do and use."""

import contextlib
import io
import json
import math
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nsm.operate import figures
from nsm.operate.errors import UsageError
from nsm.operate.figures import Figures
from nsm.operate.output import JSON, Output
from nsm.operate.target import Target
from nsm.operate.top import ComponentRow, Rates, Sample, components, main, ordered, show
from nsm.view.model import Component, ComponentState, Flow, Kind, Node, Snapshot, Traffic, Wire, WireState

NOW = datetime(2026, 11, 30, 16, 40, tzinfo=UTC)
METRICS = """# TYPE nsm_calls counter
nsm_calls_total{method="Request",code="OK",element=""} %d
nsm_calls_total{method="Request",code="NotFound",element="discover"} %d
# TYPE nsm_call_duration_seconds histogram
nsm_call_duration_seconds_bucket{le="0.01",method="Request"} %d
nsm_call_duration_seconds_bucket{le="0.1",method="Request"} %d
nsm_call_duration_seconds_bucket{le="+Inf",method="Request"} %d
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 3.1457280e+07
"""


def wire(packets, seconds=0, *, name="nsm-1", state=WireState.UP, drops=0):
    """One that has carried so many packets of 100 bytes each way, as counted then."""
    flow = Flow(packets=packets, bytes=100 * packets, drops=drops)
    traffic = Traffic(to_endpoint=flow, to_client=flow, at=NOW + timedelta(seconds=seconds))
    return Wire(id=f"{name}-id", client="shop", service="web", state=state, interface=name, traffic=traffic)


def test_rates_are_by_the_times_of_the_counters():
    """Not by the times of the readings: a forwarder reports less often."""
    rates = Rates()
    assert rates.row(wire(100)).packets_per_s is None
    row = rates.row(wire(600, 10))
    assert (row.packets, row.packets_per_s, row.bytes_per_s, row.drops_per_s) == (1200, 100, 10000, 0)
    assert rates.row(wire(600, 10)).packets_per_s == 100


def test_counters_that_begin_anew_give_no_rate():
    rates = Rates()
    rates.row(wire(100))
    rates.row(wire(200, 1))
    assert rates.row(wire(5, 2)).packets_per_s is None


def test_a_wire_without_counters_is_shown_all_the_same():
    row = Rates().row(replace(wire(0), traffic=None))
    assert (row.wire, row.packets, row.packets_per_s) == ("shop/nsm-1", 0, None)


@pytest.mark.parametrize(("by", "first"), [("packets", "shop/a"), ("drops", "shop/b")])
def test_wires_are_ordered_by_what_was_asked(by, first):
    rates = Rates()
    for each in (wire(0, name="a"), wire(0, name="b")):
        rates.row(each)
    rows = [rates.row(wire(90, 1, name="a")), rates.row(wire(10, 1, name="b", drops=7))]
    assert ordered(rows, by)[0].wire == first


def sample(at, known):
    parts = [Component(name="nsmgr-1", kind=Kind.MANAGER, node="node-1", state=ComponentState.UP)]
    return Sample(at, Snapshot(at=NOW, components=parts), known)


def test_calls_errors_and_latency_are_those_between_two_readings():
    before, after = figures.read(METRICS % (100, 0, 100, 100, 100)), figures.read(METRICS % (190, 10, 110, 190, 200))
    (row,) = components(sample(0, {"nsmgr-1": before}), sample(10, {"nsmgr-1": after}))
    assert row == ComponentRow("nsmgr-1", "node-1", "UP", 10.0, 1.0, 100.0, None, 30 << 20)


def test_latency_beyond_the_largest_bound_is_told_as_that():
    assert figures.quantile({}, {0.1: 1.0, math.inf: 10.0}, 0.9) == math.inf
    assert figures.quantile({0.1: 5.0}, {0.1: 5.0}, 0.9) is None


def test_a_component_that_restarted_has_no_rate():
    old, new = Figures(cpu=10.0, calls=100.0), Figures(cpu=0.5, calls=3.0)
    (row,) = components(sample(0, {"nsmgr-1": old}), sample(1, {"nsmgr-1": new}))
    assert (row.cpu, row.calls_per_s) == (None, None)


def test_a_process_has_memory_and_processor_time():
    found = figures.of_process(os.getpid())
    assert found.memory > 1 << 20
    assert found.cpu > 0
    assert figures.of_process(2**22 + 1) == Figures()


def test_metrics_are_named_or_called_by_their_address():
    assert figures.named("nsmgr=http://h:1/metrics") == ("nsmgr", "http://h:1/metrics")
    assert figures.named("http://h:1/metrics?x=1") == ("h:1", "http://h:1/metrics?x=1")
    with pytest.raises(UsageError, match="expected"):
        figures.named("nsmgr")


def test_tables_are_short_and_columns_that_nobody_knows_are_left_out():
    rates, out = Rates(), io.StringIO()
    rates.row(wire(0))
    row = rates.row(wire(1_234_567, 1, drops=1))
    read = sample(0, {})
    show(Output.to(out), read, [row], components(read, sample(1, {"nsmgr-1": Figures(memory=31 << 20)})))
    text = out.getvalue()
    assert "shop/nsm-1  web      UP     2.47M      1.98G   2.47M    247M   2" in text
    assert "nsmgr-1    node-1  UP     31.0 MiB" in text
    assert "CALLS/S" not in text


class Mesh:
    """A source whose counters grow."""

    def __init__(self):
        self.read = 0

    async def snapshot(self):
        self.read += 1
        nodes = [Node(name="node-1", state=ComponentState.UP)]
        wires = [wire(10 * self.read, self.read), wire(0, name="nsm-2", state=WireState.DOWN)]
        return Snapshot(at=NOW, wires=wires, nodes=nodes)


def test_json_is_one_measurement_and_the_exit_code_tells_of_wires_that_are_down(monkeypatch, capsys):
    mesh = Mesh()
    monkeypatch.setattr(Target, "source", lambda _: contextlib.nullcontext(mesh))
    assert main(["--view", "http://h", "--json", "-i", "0"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(each["wire"], each["packets_per_s"]) for each in told["wires"]] == [
        ("shop/nsm-1", 20),
        ("shop/nsm-2", None),
    ]
    assert mesh.read == 3


def test_metrics_that_cannot_be_read_are_a_line_and_not_the_end(monkeypatch, capsys):
    monkeypatch.setattr(Target, "source", lambda _: contextlib.nullcontext(Mesh()))
    assert main(["--view", "http://h", "--once", "-i", "0", "--metrics", "gone=http://127.0.0.1:9/metrics"]) == 1
    assert "gone: http://127.0.0.1:9/metrics: [Errno 111] Connection refused" in capsys.readouterr().out


def test_json_has_no_infinite_numbers():
    out = io.StringIO()
    show(Output.to(out, JSON), sample(0, {}), [], [ComponentRow("a", p90_ms=math.inf)])
    assert json.loads(out.getvalue())["components"][0]["p90_ms"] is None
