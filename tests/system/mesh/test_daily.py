"""A mesh that failed to start, kept to look into it, and put right."""

import json
import subprocess
import tarfile

import pytest

from .conftest import NSM, local_mesh

pytestmark = pytest.mark.system

GOOD = """
nodes: [{name: node-1}]
endpoints: [{name: store, node: node-1, services: [store]}]
clients: [{name: shop, node: node-1, wires: [kernel://store/nsm-1]}]
"""
BAD = GOOD.replace("services: [store]}", "services: [store], labels: {app: store}}") + (
    "services: [{name: store, payload: IP, matches: [{routes: [{destination_selector: {app: shop}}]}]}]\n"
)


def first_line(mesh, *words):
    """The first line of a command that goes on."""
    command = [*NSM, "mesh", "--name", mesh.name, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        line = running.stdout.readline()
        running.terminate()
    return line


def test_a_mesh_that_failed_is_kept_looked_into_and_put_right(tmp_path):
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_text(BAD)
    good.write_text(GOOD)
    with local_mesh(has_view=True) as mesh:
        failed = mesh.up("-f", str(bad), "--keep", "--timeout", "4", code=1)
        assert "not up after 4 s" in failed.stderr
        assert f"the mesh is kept: `nsm mesh status --name {mesh.name}` shows it" in failed.stderr

        (row,) = [each for each in json.loads(mesh.nsm("ls", "--json").stdout) if each["mesh"] == mesh.name]
        assert (row["state"], row["nodes"], row["wires"], row["down"]) == ("up", ["node-1"], 1, 1)

        assert "lo:" in mesh.run("node-1", "ip", "-o", "link").stdout
        assert [line.split()[0] for line in mesh.tool("node-1", "find endpoints --registry $NSM_CONNECT_TO") if line]

        assert json.loads(first_line(mesh, "status", "--watch", "--json"))["mesh"] == mesh.name
        assert "nsmgr-node-1" in first_line(mesh, "logs", "shop", "nsmgr-node-1", "-f", "--since", "1h")
        assert len(mesh.nsm("logs", "--tail", "3").stdout.splitlines()) == 3

        steps = json.loads(mesh.up("--dry-run", "--json", "-f", str(good)).stdout)
        what = {each["component"]: each["step"] for each in steps}
        assert (what["nsmgr-node-1"], what["store"], what["shop"]) == ("keep", "restart", "keep")

        mesh.up("-f", str(good))
        assert mesh.wire("shop")["state"] == "UP"
        look_into_a_bundle(mesh, tmp_path / "found.tar.gz")


def look_into_a_bundle(mesh, path):
    """It has the states, logs and kernel objects, and no key or token of the mesh."""
    subprocess.run([*NSM, "bundle", str(path), "--name", mesh.name], check=True, timeout=50, capture_output=True)
    with tarfile.open(path) as archive:
        found = {name.partition("/")[2]: archive.extractfile(name).read().decode() for name in archive.getnames()}
    assert json.loads(found["snapshot.json"])["wires"][0]["client"] == "shop"
    assert "nsm-1" in found["kernel/shop.txt"]
    assert {"status.json", "events.json", "logs/shop", "kernel/node-1.txt", "versions.json"} <= found.keys()
    assert found["missing.txt"] == ""
    keys = [line for file in mesh.folder.glob("*.pem") for line in file.read_text().splitlines() if "-" not in line]
    everything = "".join(found.values())
    assert keys
    assert [each for each in [(mesh.folder / "view.token").read_text(), *keys] if each in everything] == []
