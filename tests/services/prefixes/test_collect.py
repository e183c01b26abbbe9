"""`nsm prefixes` beside an API server: what changes there is in the file or the ConfigMap soon after."""

import asyncio
import os
import stat
from contextlib import asynccontextmanager

import pytest
import yaml

from nsm.chains.config import load
from nsm.kube import connect
from nsm.services.prefixes import main as module
from nsm.services.prefixes.main import PrefixesConfig, collect
from tests.kube.stand_in import eventually, forbidden, stand_in

NODE = "/api/v1/nodes/n1"
SERVICES = "/api/v1/namespaces/default/services"
KUBEADM = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
USER = "/api/v1/namespaces/default/configmaps/excluded-prefixes-config"
OUTPUT = "/api/v1/namespaces/default/configmaps/nsm-config"


def without_service_cidrs(request):
    if "servicecidrs" in request.path:
        return {"kind": "Status", "code": 404, "reason": "NotFound", "message": "could not find the resource"}
    return None


@pytest.fixture
async def server():
    async with stand_in() as server:
        server.refuse = without_service_cidrs
        server.put(NODE, spec={"podCIDRs": ["10.244.1.0/24"]})
        server.put(f"{SERVICES}/kubernetes", spec={"clusterIPs": ["10.96.0.1"]})
        yield server


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    monkeypatch.setattr(module, "_SETTLED", 0.01)
    monkeypatch.setattr(module, "_PAUSE", 0.05)


@asynccontextmanager
async def collecting(server, **environment):
    config = load(PrefixesConfig, environment).config
    async with connect(server.url) as api:
        task = asyncio.ensure_future(collect(config, api))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def in_file(path):
    return yaml.safe_load(path.read_text())["prefixes"] if path.exists() else None


def in_config_map(server):
    entry = server.at(OUTPUT)["data"].get("excluded_prefixes_output.yaml") if OUTPUT in server.paths() else None
    return entry and yaml.safe_load(entry)["prefixes"]


async def test_every_source_is_in_the_file_and_every_change_follows(server, tmp_path):
    file = tmp_path / "config" / "excluded.yaml"
    environment = {"NSM_OUTPUT_FILE_PATH": str(file), "NSM_EXCLUDED_PREFIXES": "172.16.0.0/24,fd00::/64"}
    async with collecting(server, **environment):
        await eventually(lambda: in_file(file) == ["10.96.0.1/32", "10.244.1.0/24", "172.16.0.0/24", "fd00::/64"])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        server.put("/api/v1/nodes/n2", spec={"podCIDR": "10.244.0.0/24"})
        await eventually(lambda: "10.244.0.0/23" in in_file(file))
        server.put(f"{SERVICES}/web", spec={"clusterIP": "10.96.0.0"})
        await eventually(lambda: "10.96.0.0/31" in in_file(file))
        server.remove(f"{SERVICES}/web")
        await eventually(lambda: "10.96.0.1/32" in in_file(file))
        server.put(KUBEADM, data={"ClusterConfiguration": "networking: {serviceSubnet: 10.96.0.0/12}"})
        server.put(USER, data={"excluded_prefixes_input.yaml": "prefixes: [192.0.2.0/24]"})
        await eventually(
            lambda: in_file(file) == ["10.96.0.0/12", "10.244.0.0/23", "172.16.0.0/24", "192.0.2.0/24", "fd00::/64"]
        )
    assert os.listdir(file.parent) == ["excluded.yaml"]


async def test_a_cluster_that_knows_its_service_range_needs_no_kubeadm(server, tmp_path):
    file = tmp_path / "excluded.yaml"
    server.refuse = None
    server.put("/apis/networking.k8s.io/v1/servicecidrs/kubernetes", spec={"cidrs": ["10.96.0.0/12"]})
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(lambda: in_file(file) == ["10.96.0.0/12", "10.244.1.0/24"])


async def test_a_permission_that_is_missing_at_the_beginning_is_told_once(server, tmp_path, capsys):
    file = tmp_path / "excluded.yaml"
    server.refuse = lambda request: forbidden(request) if "servicecidrs" in request.path else None
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(lambda: sum("servicecidrs" in request for request in server.requests) > 2)
        server.refuse = None
        await eventually(lambda: in_file(file) == ["10.96.0.1/32", "10.244.1.0/24"])
    assert capsys.readouterr().out.count("grant it the verb 'list' on servicecidrs.networking.k8s.io") == 1


async def test_other_config_maps_and_other_namespaces_do_not_count(server, tmp_path):
    file = tmp_path / "excluded.yaml"
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(file.exists)
    lists = [request for request in server.requests if "/configmaps?" in request]
    assert all("fieldSelector=metadata.name%3D" in request for request in lists)


async def test_what_a_user_writes_wrong_is_told_once_and_what_was_there_stays(server, tmp_path, capsys):
    file = tmp_path / "excluded.yaml"
    server.put(USER, data={"excluded_prefixes_input.yaml": "prefixes: [192.0.2.0/24]"})
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(lambda: "192.0.2.0/24" in (in_file(file) or []))
        server.put(USER, data={"excluded_prefixes_input.yaml": "prefixes: [everything]"})
        server.put("/api/v1/nodes/n2", spec={"podCIDR": "10.245.0.0/24"})
        await eventually(lambda: "10.245.0.0/24" in in_file(file))
        assert "192.0.2.0/24" in in_file(file)
        server.put("/api/v1/nodes/n3", spec={"podCIDR": "10.246.0.0/24"})
        await eventually(lambda: "10.246.0.0/24" in in_file(file))
    told = capsys.readouterr().out
    assert told.count("'everything' is not a prefix") == 1
    assert "default/excluded-prefixes-config" in told


@pytest.mark.parametrize("text", ["[" * 5000, "prefixes: !!bool x", "prefixes: !!int ''", "prefixes: !!timestamp x"])
async def test_no_text_of_a_user_ends_it(server, tmp_path, text):
    file = tmp_path / "excluded.yaml"
    server.put(USER, data={"excluded_prefixes_input.yaml": text})
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)) as task:
        await eventually(lambda: task.done() or file.exists())
        assert in_file(file) == ["10.96.0.1/32", "10.244.1.0/24"]


@pytest.mark.parametrize("output", ["file", "config-map"])
async def test_what_was_there_stays_also_after_a_restart_while_a_user_s_entry_cannot_be_read(server, tmp_path, output):
    """The addresses that it named are not given out, and what is new is excluded too."""
    file = tmp_path / "excluded.yaml"
    environment = {"NSM_PREFIXES_OUTPUT_TYPE": output, "NSM_OUTPUT_FILE_PATH": str(file)}

    def excluded():
        return in_file(file) if output == "file" else in_config_map(server)

    server.put(USER, data={"excluded_prefixes_input.yaml": "prefixes: [192.0.2.0/24]"})
    async with collecting(server, **environment):
        await eventually(lambda: "192.0.2.0/24" in (excluded() or []))
    server.put(USER, data={"excluded_prefixes_input.yaml": "prefixes: [192.0.2.0/33]"})
    server.put("/api/v1/nodes/n2", spec={"podCIDR": "10.245.0.0/24"})
    async with collecting(server, **environment):
        await eventually(lambda: "10.245.0.0/24" in excluded())
        assert "192.0.2.0/24" in excluded()
        server.put(USER, data={"excluded_prefixes_input.yaml": "prefixes: [198.51.100.0/24]"})
        await eventually(lambda: excluded() == ["10.96.0.1/32", "10.244.1.0/24", "10.245.0.0/24", "198.51.100.0/24"])


async def test_nothing_is_written_before_all_is_known(server, tmp_path, capsys):
    """Half of the prefixes would let addresses be given out that the cluster uses; the file of before stays."""
    file = tmp_path / "excluded.yaml"
    file.write_text("prefixes: [10.0.0.0/8]\n")
    server.refuse = lambda request: (
        without_service_cidrs(request) or (forbidden(request) if "/nodes" in request.path else None)
    )
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(lambda: sum("/nodes" in request for request in server.requests) > 1)
        assert in_file(file) == ["10.0.0.0/8"]
        assert "grant it the verb 'list' on nodes by a ClusterRole" in capsys.readouterr().out
        server.refuse = without_service_cidrs
        await eventually(lambda: in_file(file) == ["10.96.0.1/32", "10.244.1.0/24"])


async def test_a_file_that_says_so_already_is_not_written_again(server, tmp_path):
    file = tmp_path / "excluded.yaml"
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(file.exists)
    before = file.stat()
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        server.put("/api/v1/nodes/n2", spec={"podCIDR": "10.245.0.0/24"})
        await eventually(lambda: file.stat().st_ino != before.st_ino)
    assert in_file(file) == ["10.96.0.1/32", "10.244.1.0/24", "10.245.0.0/24"]


async def test_a_folder_that_cannot_be_written_is_told_and_tried_again(server, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "excluded.yaml"
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(path)):
        await eventually(lambda: f"cannot write {path}" in capsys.readouterr().out)
        (tmp_path / "file").unlink()
        await eventually(path.exists)


async def test_the_config_map_is_made_and_followed_and_what_others_do_to_it_is_undone(server):
    async with collecting(server, NSM_PREFIXES_OUTPUT_TYPE="config-map"):
        await eventually(lambda: in_config_map(server) == ["10.96.0.1/32", "10.244.1.0/24"])
        server.put(NODE, spec={"podCIDR": "10.250.0.0/24"})
        await eventually(lambda: in_config_map(server) == ["10.96.0.1/32", "10.250.0.0/24"])
        server.put(OUTPUT, data={"excluded_prefixes_output.yaml": "prefixes: []", "other": "kept"})
        await eventually(lambda: in_config_map(server) == ["10.96.0.1/32", "10.250.0.0/24"])
        assert server.at(OUTPUT)["data"]["other"] == "kept"
        server.remove(OUTPUT)
        await eventually(lambda: in_config_map(server) == ["10.96.0.1/32", "10.250.0.0/24"])


async def test_the_config_map_is_left_alone_while_nothing_changes(server):
    async with collecting(server, NSM_PREFIXES_OUTPUT_TYPE="config-map"):
        await eventually(lambda: in_config_map(server))
        server.put(OUTPUT, data={**server.at(OUTPUT)["data"], "other": "x"})
        server.put(f"{SERVICES}/headless", spec={"clusterIP": "None"})
        await asyncio.sleep(0.1)
    assert [request.split()[0] for request in server.requests if not request.startswith("GET")] == ["POST"]


async def test_an_api_server_that_comes_late_is_waited_for(server, tmp_path, capsys):
    file = tmp_path / "excluded.yaml"
    await server.stop()
    async with collecting(server, NSM_OUTPUT_FILE_PATH=str(file)):
        await eventually(lambda: "cannot start" in capsys.readouterr().out)
        await server.start()
        await eventually(file.exists)
