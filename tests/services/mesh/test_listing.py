"""What `nsm mesh ls` shows."""

import json

import pytest

from nsm.mesh.cli import main
from nsm.mesh.rundir import RunDir


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path / "meshes")
    return tmp_path / "meshes"


def test_without_meshes_it_says_how_to_start_one(folder, capsys):
    assert main(["ls"]) == 0
    assert capsys.readouterr().out == "there is no local mesh; `nsm mesh up` starts one\n"


def test_a_failed_mesh_is_listed_with_the_place_of_its_logs(folder, capsys):
    (folder / "lab.logs").mkdir(parents=True)
    assert main(["ls", "--json"]) == 0
    (mesh,) = json.loads(capsys.readouterr().out)
    assert (mesh["mesh"], mesh["state"]) == ("lab", "failed")
    assert mesh["folder"] == str(folder / "lab.logs")
    assert mesh["hint"] == "`nsm mesh logs --name lab` shows why"


def test_what_a_killed_mesh_left_is_listed(folder, capsys):
    (folder / "lab").mkdir(parents=True)
    assert main(["ls"]) == 0
    assert "killed" in (text := capsys.readouterr().out)
    assert "`nsm mesh down --name lab` removes what is left" in text


def test_wires_that_are_down_are_counted(folder, monkeypatch, capsys):
    wires = [{"state": "UP"}, {"state": "DOWN"}]
    monkeypatch.setattr("nsm.mesh.listing.ask", lambda *_, **__: {"nodes": [{"name": "node-1"}], "wires": wires})
    monkeypatch.setattr(RunDir, "is_up", lambda _: True)
    (folder / "lab").mkdir(parents=True)
    (folder / "lab" / "control").touch()
    assert main(["ls"]) == 0
    heads, row = capsys.readouterr().out.splitlines()
    assert heads.split() == ["MESH", "STATE", "SINCE", "NODES", "WIRES"]
    assert "node-1" in row
    assert "2, 1 down" in row


def test_other_folders_are_no_meshes(folder):
    (folder / "not a mesh").mkdir(parents=True)
    assert RunDir.all() == []
