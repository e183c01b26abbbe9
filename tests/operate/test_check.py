"""Whether a mesh is well, and how each fault is mended."""

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from nsm.mesh.check.model import State
from nsm.operate.check import check, main
from nsm.operate.target import Target
from nsm.view.model import (
    Attempt,
    Cause,
    Component,
    ComponentState,
    Domain,
    Endpoint,
    Hop,
    Kind,
    Node,
    Snapshot,
    Wire,
    WireState,
)

NOW = datetime(2026, 11, 30, 16, 40, tzinfo=UTC)
AGO = NOW - timedelta(seconds=12)
WIRE = Wire(id="shop-0", client="shop", service="web", endpoint="store", interface="nsm-1", state=WireState.UP)
NODE = Node(name="node-1", manager="nsmgr-1", state=ComponentState.UP, forwarders=["forwarder-1"], wires=1)
FORWARDER = Component(name="forwarder-1", kind=Kind.FORWARDER, node="node-1", state=ComponentState.REGISTERED)
WELL = Snapshot(
    at=NOW,
    wires=[WIRE],
    endpoints=[Endpoint(name="store", services=["web"], expires=NOW + timedelta(hours=1))],
    components=[FORWARDER],
    nodes=[NODE],
    domains=[Domain(name="local.mesh", state=ComponentState.UP, nodes=["node-1"])],
)


def faults(snapshot, apart=0.0):
    """What is not well, by its name."""
    at = snapshot.at + timedelta(seconds=apart)
    return {each.name: each for _, found in check(snapshot, at, at) for each in found if each.state is not State.OK}


def test_of_a_mesh_that_is_well_each_group_says_so():
    results = check(WELL, NOW, NOW)
    assert [name for name, _ in results] == ["clock", "registries", "nodes", "versions", "endpoints", "wires"]
    assert faults(WELL) == {}
    assert all(found for _, found in results)


@pytest.mark.parametrize(
    ("change", "name", "told"),
    [
        (
            {"nodes": [replace(NODE, state=ComponentState.UNHEARD, heard=AGO)]},
            "node-node-1",
            "the manager of node node-1 has not responded for 12s",
        ),
        ({"nodes": [replace(NODE, forwarders=[])]}, "node-node-1", "node node-1 has no forwarder"),
        (
            {"components": [replace(FORWARDER, state=ComponentState.UNHEARD)]},
            "node-node-1",
            "forwarder-1 of node node-1 does not respond",
        ),
        ({"nodes": []}, "nodes", "no node has a manager"),
        (
            {"domains": [Domain(name="local.mesh", state=ComponentState.UNHEARD, heard=AGO)]},
            "registry-local.mesh",
            "the registry of domain local.mesh has not responded for 12s",
        ),
        (
            {"components": [replace(FORWARDER, version="1"), replace(FORWARDER, name="nsmgr-1", version="2")]},
            "versions",
            "1: forwarder-1; 2: nsmgr-1",
        ),
        (
            {"endpoints": [Endpoint(name="store", services=["web"], expires=AGO)]},
            "endpoint-store",
            "the record of store expired 12s ago",
        ),
        ({"endpoints": []}, "service-web", "clients want web, and no endpoint provides it"),
        (
            {"wires": [replace(WIRE, state=WireState.DOWN, cause=Cause(sentence="cut", remedy="mend it"))]},
            "wire-shop/nsm-1",
            "shop/nsm-1 to store is DOWN: cut",
        ),
        (
            {"attempts": [Attempt(id="b", client="b", service="web", interface="nsm-1", tries=7)]},
            "wire-b/nsm-1",
            "b/nsm-1 to web was requested 7 times and does not exist",
        ),
        (
            {"wires": [replace(WIRE, path=[Hop(name="nsmgr-1", expires=AGO)])]},
            "token-shop/nsm-1",
            "a token of shop/nsm-1 has expired",
        ),
    ],
)
def test_a_fault_is_found_with_a_remedy(change, name, told):
    found = faults(replace(WELL, **change))
    assert list(found) == [name]
    assert told in found[name].detail
    assert found[name].hint


@pytest.mark.parametrize(("apart", "told"), [(90, "90 s behind"), (-90, "90 s ahead of")])
def test_clocks_that_differ_are_an_error(apart, told):
    assert told in faults(WELL, apart)["clock"].detail


def test_a_remedy_is_that_of_the_cause():
    wire = replace(WIRE, state=WireState.DOWN, cause=Cause(sentence="cut", remedy="mend it"))
    assert faults(replace(WELL, wires=[wire]))["wire-shop/nsm-1"].hint == "mend it"


def test_of_many_wires_the_first_are_listed_and_the_others_counted():
    wires = [replace(WIRE, id=str(each), interface=f"nsm-{each}", state=WireState.DOWN) for each in range(50)]
    found = faults(replace(WELL, wires=wires))
    assert len(found) == 21
    assert found["wires"].detail == "30 more wires are not well"


class Mesh:
    """A source."""

    def __init__(self, **change):
        self._change = change

    async def snapshot(self):
        return replace(WELL, at=datetime.now(UTC), **self._change)


def test_the_exit_code_and_the_last_line_tell_whether_it_is_well(monkeypatch, capsys):
    far = [replace(WELL.endpoints[0], expires=None)]
    monkeypatch.setattr(Target, "source", lambda _: contextlib.nullcontext(Mesh(endpoints=far)))
    assert main(["--view", "http://h"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The mesh is well."
    wires = [replace(WIRE, state=WireState.DOWN)]
    monkeypatch.setattr(Target, "source", lambda _: contextlib.nullcontext(Mesh(endpoints=far, wires=wires)))
    assert main(["--url", "tcp://h:1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["state"] == "error"


def test_a_mesh_that_cannot_be_reached_is_an_exit_code_of_its_own(tmp_path, capsys):
    assert main(["--view", f"unix://{tmp_path}/s"]) == 3
    assert "cannot be reached" in capsys.readouterr().err


def test_without_a_mesh_this_machine_is_checked(monkeypatch):
    monkeypatch.setattr("nsm.mesh.check.cli.main", lambda words: (words, "machine"))
    assert main(["--json"]) == (["--json"], "machine")
