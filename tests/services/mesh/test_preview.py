"""What `nsm mesh up --dry-run` says."""

import pytest

from nsm.mesh.cli import main
from nsm.mesh.plan import plan
from nsm.mesh.preview import steps
from nsm.mesh.rundir import RunDir
from nsm.mesh.topology import read

TOPOLOGY = read(None)


@pytest.fixture
def parts(tmp_path):
    return plan(RunDir("m", tmp_path), TOPOLOGY, {})


def test_a_new_mesh_starts_everything_in_its_order(parts):
    found = steps(parts)
    assert {each["step"] for each in found} == {"start"}
    names = [each["component"] for each in found]
    assert names.index("identity") < names.index("nsmgr-node-1") < names.index("client")
    assert len(found) == len(parts)


def test_what_runs_as_described_is_kept_and_what_is_described_differently_is_restarted(parts):
    *kept, gone = parts
    found = steps(kept, changed={"client"}, running={"identity", "registry-node-1"}, gone=[gone])
    what = {each["component"]: each["step"] for each in found}
    assert (what["identity"], what["client"], what["endpoint"]) == ("keep", "restart", "start")
    assert found[0] == {"step": "remove", "component": gone.name, "command": gone.command, "node": gone.node}


def test_a_dry_run_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path / "meshes")
    assert main(["up", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "  start      client                   nsc              node-1" in text.splitlines()
    assert "nothing was changed" in text
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_reports_mistakes_in_the_file(tmp_path, capsys):
    file = tmp_path / "mesh.yaml"
    file.write_text("nodes: [{name: a}]\nclients: [{name: c, node: b, wires: [kernel://x]}]\n")
    assert main(["up", "--dry-run", "-f", str(file)]) == 1
    assert "there is no node 'b'" in capsys.readouterr().err
