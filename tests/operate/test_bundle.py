"""One file with what somebody else needs to see what is wrong."""

import json
import tarfile

import pytest

from nsm.operate.bundle import main

TOKEN = "f00dfeedf00dfeedf00dfeedf00dfeed"


@pytest.fixture
def failed_mesh(tmp_path, monkeypatch):
    """The logs of a mesh that failed to start, with a token in one of them."""
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path / "meshes")
    logs = tmp_path / "meshes" / "lab.logs"
    logs.mkdir(parents=True)
    (logs / "registry").write_text(json.dumps({"event": "ready", "token": TOKEN}) + "\n")
    return tmp_path


def texts(path):
    with tarfile.open(path) as archive:
        return {name.partition("/")[2]: archive.extractfile(name).read().decode() for name in archive.getnames()}


def test_a_mesh_that_failed_gives_its_logs_and_says_what_is_missing(failed_mesh, capsys):
    path = failed_mesh / "found.tar.gz"
    assert main([str(path), "--name", "lab", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = texts(path)
    assert sorted(found) == told["contents"]
    assert {"logs/registry", "versions.json", "kernel/host.txt", "missing.txt"} <= found.keys()
    assert found["logs/registry"].startswith('{"event": "ready"')
    assert TOKEN not in "".join(found.values())
    assert "nsm-services" in json.loads(found["versions.json"])["nsm"]
    assert any(each.startswith("states: mesh 'lab' is not up") for each in told["missing"])


def test_a_bundle_is_for_its_owner_only_and_never_replaces_a_file(failed_mesh, capsys):
    path = failed_mesh / "found.tar.gz"
    assert main([str(path), "--name", "lab"]) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    capsys.readouterr()
    assert main([str(path), "--name", "lab"]) == 2
    assert "File exists; name another FILE" in capsys.readouterr().err


def test_without_a_mesh_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nsm.mesh.rundir._base", lambda: tmp_path / "meshes")
    assert main([str(tmp_path / "b.tar.gz")]) == 3
    assert "is not up" in capsys.readouterr().err
    assert not (tmp_path / "b.tar.gz").exists()


def test_of_a_long_log_the_end_is_taken_from_the_beginning_of_a_line(failed_mesh, monkeypatch):
    monkeypatch.setattr("nsm.operate.bundle._LARGEST", 40)
    log = failed_mesh / "meshes" / "lab.logs" / "registry"
    log.write_text(f'{{"event": "long", "token": "{TOKEN}"}}\n{{"event": "last"}}\n')
    path = failed_mesh / "found.tar.gz"
    assert main([str(path), "--name", "lab"]) == 0
    assert texts(path)["logs/registry"] == '{"event": "last"}\n'
