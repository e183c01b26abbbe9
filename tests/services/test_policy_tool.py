"""`nsm policy`: which policy decides on a call, why, and what is there to decide."""

import json
import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.policy import documents
from nsm.services.tools import policy
from tests.chains.policy import regos
from tests.chains.policy.paths import CLIENT, MANAGER, OTHER, path_of, peer, signed

PEM = CLIENT.svid.leaf.public_bytes(Encoding.PEM).decode()


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch):
    """The command sets the logs of its process up, which is that of all tests here."""
    monkeypatch.setattr(policy.logs, "set_up", lambda *_: None)


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Tests a call by the policies of an environment: the exit code, and what is printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy.logs, "set_up", lambda *_: None)  # it is for the whole process
    for name in [each for each in os.environ if each.startswith("NSM_")]:
        monkeypatch.delenv(name)

    def test(call, *options, command="test", **environment):
        (tmp_path / "call.json").write_text(call if isinstance(call, str) else json.dumps(call))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        arguments = [command, *(["call.json"] if command == "test" else []), *options]
        code = policy.main(arguments)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return test


def given(tokens=None, who=CLIENT, index=1):
    tokens = [signed(CLIENT), signed(MANAGER, CLIENT)] if tokens is None else tokens
    return documents.of_path(path_of(tokens, index), peer(who), whole=True)


def recorded(token=None, **more):
    segment = {"name": "client", "id": "c", "token": token or signed(CLIENT)}
    return {"connection": {"id": "c", "network_service": "icmp", "path": {"path_segments": [segment]}}, **more}


def registered(token=None, service="icmp", **more):
    return {
        "network_service_endpoint": {"name": "nse", "network_service_names": [service]},
        "path": {"Index": 0, "PathSegments": [{"token": token or signed(CLIENT)}]},
        **more,
    }


def test_a_good_call_is_allowed_by_each_policy_by_name(tool):
    code, printed = tool(given())
    assert code == 0
    lines = printed.splitlines()
    assert lines[0] == "connection: spiffe://test.mesh/client asked"
    assert [line.split()[:3] for line in lines[1:-1]] == [
        ["allows", name, "native"]
        for name in (
            "tokens_valid",
            "tokens_expired",
            "tokens_chained",
            "prev_token_signed",
            "caller_is_named",
            "certificate_is_valid",
        )
    ]
    assert lines[-1] == "allowed"


def test_the_first_policy_that_refuses_decides_and_the_others_are_shown_too(tool):
    tokens = [signed(CLIENT, OTHER, exp=5), signed(MANAGER, CLIENT)]
    code, printed = tool(given(tokens, OTHER))
    assert code == 1
    assert [line.split()[0] for line in printed.splitlines()[1:-1]] == [
        "allows", "refuses", "refuses", "refuses", "refuses", "allows"
    ]  # fmt: skip
    assert printed.splitlines()[-1] == (
        "refused by tokens_expired: the token of segment 0 has expired; see NSM_SERVER_POLICIES"
    )
    assert not any(token in printed for token in tokens)


def test_as_json_for_other_programs(tool):
    code, printed = tool(given([signed(CLIENT, OTHER), signed(MANAGER, CLIENT)]), "--json")
    told = json.loads(printed)
    assert code == 1
    assert (told["allowed"], told["decided_by"], told["variable"]) == (False, "tokens_chained", "NSM_SERVER_POLICIES")
    assert told["peer"] == told["origin"] == CLIENT.spiffe_id
    assert {each["verdict"] for each in told["policies"]} == {"allows", "refuses"}


def test_a_recorded_request_is_judged_where_it_arrives(tool):
    for call in (recorded(peer={"certificate": PEM}), {"request": recorded(), "peer": PEM}):
        assert tool(call)[0] == 0
    assert tool(recorded(signed(OTHER), peer=PEM))[0] == 1
    code, printed = tool(recorded(peer={"spiffe_id": CLIENT.spiffe_id}))
    assert code == 0
    assert "not asked  prev_token_signed    native: without the peer's certificate" in printed
    assert "refused by caller_is_named" in tool(recorded(), "--peer", OTHER.spiffe_id)[1]


def test_a_peer_may_be_named_on_the_command_line(tool, tmp_path):
    (tmp_path / "peer.pem").write_text(PEM)
    assert tool(recorded(), "--peer", "peer.pem")[0] == 0
    assert tool(recorded(peer=OTHER.spiffe_id), "--peer", CLIENT.spiffe_id)[0] == 0


def test_an_earlier_call_is_judged_but_for_its_age(tool):
    old = recorded(signed(CLIENT, exp=5), peer=PEM)
    assert "refused by tokens_expired" in tool(old)[1]
    code, printed = tool(old, "--ignore-expiry")
    assert code == 0
    assert "not asked  tokens_expired" in printed


def test_an_answer_is_judged_by_the_policies_of_who_asked(tool):
    answer = given(index=0, who=MANAGER)
    assert tool(answer, "--answer")[0] == 0
    code, printed = tool(given(index=0, who=OTHER), "--answer")
    assert code == 1
    assert "spiffe://test.mesh/other answered" in printed
    assert "refused by next_token_signed" in printed
    assert "see NSM_CLIENT_POLICIES" in printed


def test_files_decide_as_in_a_component(tool, tmp_path):
    path = tmp_path / "etc/nsm/opa/common/tokens_expired.rego"
    path.parent.mkdir(parents=True)
    path.write_text(regos.NOBODY)
    code, printed = tool(given())
    assert code == 1
    assert f"refuses    tokens_expired       {path}: its rule `valid` is false" in printed
    assert tool(given(), "--ignore-expiry")[0] == 0
    (tmp_path / "mine.rego").write_text(regos.EVERYBODY)
    assert tool(given(), "--policies", "mine.rego")[0] == 0
    assert "see --policies" in tool(given(), "--policies", str(path))[1]
    (tmp_path / "mine.rego").write_text("package nsm\n\nvalid {")
    code, printed = tool(given(), NSM_SERVER_POLICIES="mine.rego")
    assert (code, printed) == (2, f"nsm policy: {tmp_path}/mine.rego:3: expecting }}\n")


def test_a_registration_is_judged_by_names_and_services(tool):
    taken = {"resource_path_ids_map": {"nse": [OTHER.spiffe_id]}}
    assert tool(registered(peer=PEM))[0] == 0
    code, printed = tool(registered(peer=PEM, **taken))
    assert code == 1
    assert (
        "refused by client_allowed: 'nse' was registered by spiffe://test.mesh/other; see NSM_REGISTRY_SER" in printed
    )
    shape = {"resource_id": CLIENT.spiffe_id, "resource_name": "nse", "index": 1, **taken}
    shape |= {"path_segments": [{"token": signed(CLIENT)}], "auth_info": {"certificate": PEM}}
    assert "refused by client_allowed" in tool(shape)[1]
    code, printed = tool(registered(service="forwarder", peer=PEM))
    assert code == 1
    assert "refused by registration: spiffe://test.mesh/client may not register for 'forwarder'" in printed
    assert tool(registered(service="forwarder", peer=PEM), NSM_REGISTRATION_POLICY="forwarder=/client")[0] == 0


def test_who_may_vouch_says_whom_a_call_comes_from(tool):
    tokens = [signed(CLIENT), signed(MANAGER, OTHER)]
    call = {"connection": {"path": {"index": 1, "path_segments": [{"token": each} for each in tokens]}}}
    assert tool(call, "--peer", MANAGER.spiffe_id)[1].startswith(f"connection: {MANAGER.spiffe_id} asked\n")
    code, printed = tool(call, "--peer", MANAGER.spiffe_id, NSM_INTERMEDIARIES="spiffe://test.mesh/man*")
    assert (code, printed.splitlines()[0]) == (0, f"connection: {MANAGER.spiffe_id} asked, for {CLIENT.spiffe_id}")


def test_a_monitor_sees_its_own_connections_and_viewers_see_all(tool, tmp_path):
    call = documents.of_monitor(peer(CLIENT), ["a"], {CLIENT.spiffe_id: ["a"], OTHER.spiffe_id: ["b"]})
    assert tool(call)[0] == 0
    assert "see NSM_MONITOR_VIEWERS" in tool({**call, "selector_connection_ids": ["b"]})[1]
    (tmp_path / "mine.rego").write_text(regos.SERVICE_CONNECTION)
    assert tool({**call, "selector_connection_ids": ["b"]}, "--policies", "mine.rego")[0] == 1
    assert tool({**call, "selector_connection_ids": ["b"]}, NSM_MONITOR_VIEWERS=CLIENT.spiffe_id)[0] == 0


BAD = {
    "nothing": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "5",
    "another object": '{"a": 1}',
    "a path that is none": '{"path_segments": 5}',
    "segments that are none": '{"path_segments": [5]}',
    "an index that is none": '{"path_segments": [], "index": "x"}',
    "a negative index": '{"path_segments": [], "index": -1}',
    "an endless index": '{"path_segments": [], "index": 1e400}',
    "a field that a Request has not": '{"connection": {"color": "red"}}',
    "a peer that is none": '{"path_segments": [], "peer": "me"}',
    "a certificate that is none": '{"path_segments": [], "auth_info": {"certificate": "-----BEGIN CERTIFICATE-----"}}',
    "a Register of nothing": '{"network_service": {}}',
    "deep": '{"path_segments": ' + "[" * 100_000,
    "long": '"' + "x" * (5 << 20) + '"',
    "a terminal's commands": '{"path_segments": [], "peer": "spiffe://a/\\u001b[31m"}',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_one_line_and_code_2(text, tool):
    code, printed = tool(text)
    assert code == 2
    assert printed.startswith("nsm policy: call.json: ")
    assert len(printed.splitlines()) == 1
    assert len(printed) < 600
    assert printed.strip().isprintable()


def test_what_is_not_there_is_code_2(tool):
    assert policy.main(["test", "nowhere.json"]) == 2
    assert tool(given(), "--policies", "nowhere.rego")[0] == 2
    assert tool(given(), NSM_INTERMEDIARIES="everybody")[0] == 2
    with pytest.raises(SystemExit) as ended:
        policy.main(["try"])
    assert ended.value.code == 2


def test_what_there_is_is_listed_by_variable(tool):
    code, printed = tool("", command="list", NSM_INTERMEDIARIES="spiffe://a/nsmgr", NSM_REGISTRATION_POLICY="a=/b|/c")
    assert code == 0
    for line in (
        "NSM_CLIENT_POLICIES",
        "  etc/nsm/opa/registry/client_allowed.rego     native",
        "  etc/nsm/opa/common/tokens_valid.rego         Every token is a JWT.",
        "  a                                            /b|/c",
        "  spiffe://a/nsmgr",
    ):
        assert line in printed.splitlines()
    told = json.loads(tool("", "--json", command="list")[1])
    assert told["NSM_REGISTRATION_POLICY"]["a"] == "/b|/c"
    assert told["NSM_SERVER_POLICIES"]["etc/nsm/opa/server/prev_token_signed.rego"] == "native"


def test_as_a_command_with_standard_input():
    command = [sys.executable, "-m", "nsm.chains", "policy", "test", "-"]
    done = subprocess.run(command, input=json.dumps(given()), capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "allowed")
