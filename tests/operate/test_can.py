"""Which endpoint a client would get, and why the others are passed over."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest

from nsm.operate.can import answer_to, labels_in, show
from nsm.operate.errors import UsageError
from nsm.operate.output import JSON, Output
from nsm.view.model import (
    Attempt,
    Candidate,
    Cause,
    Component,
    Endpoint,
    Kind,
    Match,
    Route,
    Service,
    Snapshot,
    Wire,
    WireState,
)

NOW = datetime.now(UTC)


def endpoint(name, *, expires_in=86400, **labels):
    expires = NOW + timedelta(seconds=expires_in)
    return Endpoint(
        name=name, services=["web"], labels={"web": labels}, node="node-1", url="tcp://1.1.1.1:5001", expires=expires
    )


def mesh(*endpoints, matches=(), attempts=(), forwarders=("forwarder-node-1",), **labels):
    return Snapshot(
        at=NOW,
        wires=[Wire(id="a-0", client="alice", service="dns", node="node-1", labels=labels, state=WireState.UP)],
        attempts=attempts,
        services=[Service(name="web", payload="IP", matches=matches), Service(name="dns", payload="IP")],
        endpoints=endpoints,
        components=[Component(name=name, kind=Kind.FORWARDER, node="node-1") for name in forwarders],
    )


def told(snapshot, client="alice", service="web", **labels):
    out = io.StringIO()
    code = show(Output.to(out), answer_to(snapshot, client, service, labels))
    return code, out.getvalue()


def choices(snapshot, **labels):
    return {each.endpoint: (each.share, each.reason) for each in answer_to(snapshot, "alice", "web", labels).choices}


def test_without_matches_every_endpoint_is_used_in_turn():
    code, text = told(mesh(endpoint("one"), endpoint("two")))
    assert code == 0
    assert text.splitlines()[0] == "alice asks for web with any labels: yes"
    assert "√  one       node-1  1 of 2 requests" in text
    assert "forwarder:  forwarder-node-1" in text


WEB = Match(
    selector={"tier": "front"},
    routes=[Route(selector={"app": "web"}, weight=2), Route(selector={"app": "canary"}, weight=1)],
)


def test_shares_are_those_of_the_matchs_weights():
    found = choices(mesh(endpoint("w", app="web"), endpoint("c", app="canary"), matches=[WEB], tier="front"))
    assert found == {"w": (2, ""), "c": (1, "")}


def test_an_endpoint_whose_label_differs_says_which():
    snapshot = mesh(endpoint("w", app="web"), endpoint("db", app="db"), endpoint("bare"), matches=[WEB], tier="front")
    found = choices(snapshot)
    assert found["db"] == (0, "app of the endpoint is 'db', not 'web' and app of the endpoint is 'db', not 'canary'")
    assert found["bare"][1].startswith("the endpoint has no label app=web")
    assert told(snapshot)[1].count("match 1 of 1: clients with tier=front get endpoints with app=web (weight 2)") == 1


def test_a_client_that_no_match_is_for_is_told_which_label_it_is():
    code, text = told(mesh(endpoint("w", app="web"), matches=[WEB], tier="frnt"))
    assert code == 1
    assert "no match decides: match 1 does not: tier of the client is 'frnt', not 'front'" in text
    assert "why:        no endpoint of 'web' matches labels" in text


def test_a_label_of_the_question_replaces_that_of_the_client():
    snapshot = mesh(endpoint("w", app="web"), matches=[WEB], tier="frnt", zone="a")
    answer = answer_to(snapshot, "alice", "web", {"tier": "front"})
    assert answer.labels == {"tier": "front", "zone": "a"}
    assert [each.share for each in answer.choices] == [2]


def test_templates_are_compared_with_the_clients_labels():
    near = Match(routes=[Route(selector={"nodeName": "{{.nodeName}}"})])
    found = choices(
        mesh(endpoint("here", nodeName="n1"), endpoint("there", nodeName="n2"), matches=[near], nodeName="n1")
    )
    assert found == {"here": (1, ""), "there": (0, "nodeName of the endpoint is 'n2', not 'n1'")}


def test_an_endpoint_of_weight_0_and_one_that_has_expired_are_passed_over():
    spare = Match(routes=[Route(selector={"app": "web"}, weight=1), Route(selector={"app": "spare"})])
    found = choices(
        mesh(
            endpoint("w", app="web"),
            endpoint("s", app="spare"),
            endpoint("old", expires_in=-90, app="web"),
            matches=[spare],
        )
    )
    assert found == {
        "w": (1, ""),
        "s": (0, "the match gives it the weight 0"),
        "old": (0, "its record expired 1m30s ago: it does not renew it"),
    }


def test_what_an_endpoint_answered_lately_stands_beside_it():
    failed = Candidate(
        endpoint="one", sentence="no two addresses are left in 10.0.0.0/31", at=NOW - timedelta(seconds=4)
    )
    attempts = [Attempt(id="a-1", client="alice", service="web", node="node-1", candidates=[failed], last=NOW)]
    assert choices(mesh(endpoint("one"), attempts=attempts))["one"] == (
        1,
        "answered 4s ago: no two addresses are left in 10.0.0.0/31",
    )


def test_a_policy_that_refuses_the_client_is_named():
    cause = Cause(sentence="no sufficient privileges: odd", code="PermissionDenied", component="nsmgr-node-1")
    attempts = [
        Attempt(id="a-1", client="alice", service="web", node="node-1", cause=cause, last=NOW - timedelta(seconds=3))
    ]
    code, text = told(mesh(endpoint("one"), attempts=attempts))
    assert code == 1
    assert "policy:     nsmgr-node-1 refused it 3s ago: no sufficient privileges: odd" in text


def test_a_node_without_a_forwarder_makes_no_wire():
    code, text = told(mesh(endpoint("one"), forwarders=()))
    assert code == 1
    assert "no forwarder of node node-1 responds" in text


def test_a_service_without_endpoints():
    code, text = told(mesh())
    assert code == 1
    assert "why:        no endpoint of 'web' is registered" in text
    assert "what to do: start an endpoint of it" in text


def test_an_unknown_client_is_asked_for_with_the_labels_given():
    code, text = told(mesh(endpoint("w", app="web"), matches=[WEB]), client="carol", tier="front")
    assert code == 0
    assert "carol has no wires yet: only the labels given here are known" in text


def test_a_misspelt_service_gets_the_nearest_name():
    with pytest.raises(UsageError, match="there is no network service 'wbe'; did you mean web?"):
        told(mesh(), service="wbe")


def test_json_says_whether_it_is_possible():
    out = io.StringIO()
    show(Output.to(out, JSON), answer_to(mesh(endpoint("one")), "alice", "web", {}))
    found = json.loads(out.getvalue())
    assert found["possible"] is True
    assert found["choices"] == [{"endpoint": "one", "node": "node-1", "share": 1, "reason": ""}]


@pytest.mark.parametrize("text", ["", "=", "=x", "key"])
def test_a_label_has_a_key_and_a_value(text):
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        labels_in([text])


def test_endpoints_of_a_match_that_is_fallen_through_to_are_chosen_later():
    near = Match(routes=[Route(selector={"zone": "a"})], fallthrough=True)
    anywhere = Match(routes=[Route()])
    found = choices(mesh(endpoint("near", zone="a"), endpoint("far", zone="b"), matches=[near, anywhere]))
    assert found == {"near": (1, ""), "far": (0, "of a later match: it is chosen if none of the others can be reached")}


def test_what_an_endpoint_answered_long_ago_does_not_count():
    failed = Candidate(endpoint="one", sentence="full", at=NOW - timedelta(hours=1))
    attempts = [Attempt(id="a-1", client="alice", service="web", node="node-1", candidates=[failed], last=failed.at)]
    assert told(mesh(endpoint("one"), attempts=attempts))[0] == 0
