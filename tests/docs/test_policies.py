"""The policy, the calls and the numbers that docs/policies.md shows."""

import json
import re

import pytest

from nsm.chains.identity import Authority
from nsm.chains.policy.policies import CLIENT_ALLOWED, POLICIES
from nsm.chains.policy.rego import engine, source, worker
from nsm.chains.testing.identity import identity_of
from nsm.services.tools import policy
from nsm.services.tools.verdicts import VARIABLES
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "policies.md"
AUTHORITY = Authority.create("example.org")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the policy of the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(policy.logs, "set_up", lambda *_: None)  # it is for the whole process
    (written,) = blocks(PAGE, "rego")
    (tmp_path / "friends.rego").write_text(written.text)
    monkeypatch.setenv("NSM_SERVER_POLICIES", "etc/nsm/opa/common/.*.rego,friends.rego")
    return tmp_path


def shown():
    """The session that the page shows: the call, and what is printed."""
    text = PAGE.read_text()
    session = re.search(r"^    \$ cat call.json\n((?:    .*\n)+)", text, re.MULTILINE)[1]
    lines = [line[4:] for line in session.splitlines()]
    command = next(number for number, line in enumerate(lines) if line.startswith("$ "))
    return "\n".join(lines[:command]), lines[command + 1 :]


def call_by(workload, folder):
    """The call of the page, by somebody, with a token that is one."""
    token = identity_of(AUTHORITY, workload).token().token
    call = shown()[0].replace("eyJ…", token).replace("ns/foes/pod/nsc", workload)
    assert json.loads(call)["peer"]["spiffe_id"] == f"spiffe://example.org/{workload}"
    (folder / "call.json").write_text(call)
    return policy.main(["test", "call.json"])


def test_the_policy_lets_friends_in_and_nobody_else(folder, capsys):
    assert call_by("ns/friends/pod/nsc", folder) == 0
    assert call_by("ns/friendship/pod/nsc", folder) == 1
    capsys.readouterr()


def test_the_command_prints_what_the_page_shows(folder, capsys):
    assert call_by("ns/foes/pod/nsc", folder) == 1
    printed = capsys.readouterr().out.replace(f"{folder}/", "/home/me/")
    assert printed.splitlines() == shown()[1]


def test_the_broken_file_is_told_as_the_page_says(folder, capsys):
    (folder / "friends.rego").write_text((folder / "friends.rego").read_text() + "\nlast { true }\n")
    assert policy.main(["list"]) == 2
    fault = re.search(r": /etc/policies/friends.rego:\d+: (.*)", PAGE.read_text())[1]
    assert capsys.readouterr().err.strip().endswith(f": {fault}")


def test_numbers_names_and_variables_are_those_of_the_code():
    text = PAGE.read_text()
    for row in (
        f"size of a file | {source.MOST_BYTES >> 10} KiB",
        f"all files for one call | {engine.SECONDS:g} s",
        f"concurrent calls of one identity | 1; {engine.WAITING} queue",
        f"that timed out, for that identity | {engine.PAUSE:g} s",
        f"size of the input | {engine.MOST_INPUT >> 20} MiB",
        f"memory of an evaluating process | {worker.MEMORY >> 20} MiB",
        f"tokens of more than {worker.MOST_TOKEN >> 10} KiB",
    ):
        assert row in " ".join(text.split())
    assert engine.PROCESSES == 2
    assert set(re.findall(r"^\| `(NSM_\w+)` \|", text, re.MULTILINE)) == set(VARIABLES)
    names = {name.removeprefix("etc/nsm/opa/").removesuffix(".rego") for name in [*POLICIES, CLIENT_ALLOWED]}
    assert set(re.findall(r"^\| `(\w+/\w+)` \|", text, re.MULTILINE)) == names
