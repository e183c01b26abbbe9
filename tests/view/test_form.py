"""JSON of the model: the same both ways, and strict when it is read."""

import json
from datetime import UTC, datetime

import pytest

from nsm.view import form
from nsm.view.model import (
    Cause,
    Change,
    ChangeKind,
    Event,
    EventKind,
    Flow,
    Hop,
    HopState,
    Kind,
    Match,
    Route,
    Service,
    Snapshot,
    Traffic,
    Wire,
    WireState,
)

NOON = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)


def a_wire():
    cause = Cause(sentence="no packets come back", code="Silent", element="heal", component="client", at=NOON)
    hop = Hop(name="forwarder", kind=Kind.FORWARDER, state=HopState.DOWN, elapsed_ms=1.5, cause=cause, since=NOON)
    return Wire(
        id="c",
        client="client",
        service="shop",
        state=WireState.DOWN,
        way=("VXLAN",),
        labels={"app": "till"},
        mtu=1450,
        path=(hop,),
        cause=cause,
        traffic=Traffic(to_endpoint=Flow(packets=3, bytes=300), at=NOON),
    )


@pytest.mark.parametrize(
    "value",
    [
        a_wire(),
        Snapshot(at=NOON, position="00000000-1", wires=(a_wire(),)),
        Service(name="shop", matches=(Match(selector={"a": "b"}, routes=(Route(weight=2),), fallthrough=True),)),
        Change(kind=ChangeKind.WIRE, position="00000000-2", subject="c", wire=a_wire()),
        Event(number=1, at=NOON, kind=EventKind.WIRE_DOWN, sentence="it is down"),
    ],
)
def test_what_is_written_reads_the_same(value):
    written = json.loads(json.dumps(form.to_json(value)))
    assert form.from_json(type(value), written) == value


def test_times_are_rfc_3339_and_what_is_empty_is_left_out():
    assert form.to_json(Cause(sentence="no", at=NOON)) == {"sentence": "no", "at": "2026-01-31T12:00:00.250Z"}
    assert form.to_json(Flow()) == {"packets": 0, "bytes": 0, "drops": 0}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, "at is missing; Snapshot needs it"),
        ({"at": 3}, "at is 3; expected a time such as"),
        ({"at": "2026-01-31T12:00:00"}, "at is '2026-01-31T12:00:00'; expected a time such as"),
        ({"at": "2026-01-31T12:00:00Z", "wire": []}, "wire is not a field of a Snapshot; expected wires"),
        ({"at": "2026-01-31T12:00:00Z", "wires": {}}, "wires is {}; expected a list"),
        ({"at": "2026-01-31T12:00:00Z", "wires": [3]}, "wires[0] is 3; expected an object"),
        ({"at": "2026-01-31T12:00:00Z", "wires": [{"id": "x"}]}, "wires[0].client is missing; Wire needs it"),
        (
            {"at": "2026-01-31T12:00:00Z", "wires": [{"id": "x", "client": "c", "service": "s", "state": "up"}]},
            "wires[0].state is 'up'; expected UP or DOWN or HEALING or PENDING or UNHEARD",
        ),
        (
            {"at": "2026-01-31T12:00:00Z", "events": [{"number": True}]},
            "events[0].at is missing; Event needs it",
        ),
        ([], "expected an object"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_place_of_the_fault(value, said):
    with pytest.raises(ValueError) as raised:
        form.from_json(Snapshot, value)
    assert said in str(raised.value)


def test_a_schema_names_what_is_required_and_refers_to_what_is_inside():
    schema = form.schema(Wire)
    assert schema["required"] == ["id", "client", "service", "state"]
    assert schema["properties"]["path"] == {"type": "array", "items": {"$ref": "#/components/schemas/Hop"}}
    assert schema["properties"]["mtu"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert {Hop, Cause, Traffic, Flow} <= set(form.kinds(Wire))
