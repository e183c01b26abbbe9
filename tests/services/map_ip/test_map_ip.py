"""`nsm map-ip` beside an API server: the outside addresses of a cluster's nodes, and the file that a proxy reads."""

import asyncio
import stat
from contextlib import asynccontextmanager

import pytest
import yaml

from nsm.chains.config import load
from nsm.kube import connect
from nsm.services.map_ip import main as module
from nsm.services.map_ip.main import MapIpConfig, write_table
from nsm.services.map_ip.table import of_config_map, of_node, of_own
from tests.kube.stand_in import eventually, stand_in

OWN = "10.244.1.7"
CONFIG_MAP = "/api/v1/namespaces/default/configmaps/outside"


def node(**addresses):
    listed = [{"type": kind, "address": each} for kind, some in addresses.items() for each in some]
    return {"metadata": {"name": "n1"}, "status": {"addresses": listed}}


@pytest.mark.parametrize(
    ("addresses", "table"),
    [
        ({"InternalIP": ["10.0.0.1"]}, {"10.0.0.1": "10.0.0.1"}),
        (
            {"InternalIP": ["10.0.0.1", "10.0.1.1"], "ExternalIP": ["203.0.113.1"]},
            {"10.0.0.1": "203.0.113.1", "10.0.1.1": "203.0.113.1", "203.0.113.1": "203.0.113.1"},
        ),
        (
            {"InternalIP": ["10.0.0.1", "fd00::1"], "ExternalIP": ["2001:db8::1", "203.0.113.1"]},
            {
                "10.0.0.1": "203.0.113.1",
                "fd00::1": "2001:db8::1",
                "2001:db8::1": "2001:db8::1",
                "203.0.113.1": "203.0.113.1",
            },
        ),
        ({"Hostname": ["n1"], "InternalIP": ["nonsense"]}, {}),
    ],
)
def test_each_inside_address_has_the_outside_one_of_its_family_or_itself(addresses, table):
    assert of_node(node(**addresses)) == table


def test_the_pod_has_its_node_s_outside_address():
    assert of_own(OWN, node(InternalIP=["10.0.0.1"], ExternalIP=["203.0.113.1"])) == {OWN: "203.0.113.1"}
    assert of_own(OWN, node(InternalIP=["10.0.0.1"])) == {OWN: "10.0.0.1"}
    assert of_own("fd00::7", node(InternalIP=["10.0.0.1"])) == {}


def test_a_value_of_a_config_map_that_is_no_table_is_named():
    assert of_config_map({"data": {"a": "10.0.0.1: 203.0.113.1", "b": ""}}) == {"10.0.0.1": "203.0.113.1"}
    with pytest.raises(ValueError, match="b: 'here' is not an IP address"):
        of_config_map({"data": {"b": "10.0.0.1: here"}})


@asynccontextmanager
async def writing(server, path, **environment):
    config = load(MapIpConfig, {"NSM_OUTPUT_PATH": str(path), **environment}).config
    async with connect(server.url) as api:
        task = asyncio.ensure_future(write_table(config, api, OWN))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def written(path):
    return yaml.safe_load(path.read_text()) if path.exists() else None


async def test_the_file_follows_nodes_and_the_config_map_and_is_replaced_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED", 0.01)
    path = tmp_path / "table.yaml"
    async with stand_in() as server:
        server.put("/api/v1/nodes/n1", status=node(InternalIP=["10.0.0.1"])["status"])
        environment = {"NSM_NODE_NAME": "n1", "NSM_FROM_CONFIG_MAP": "outside"}
        async with writing(server, path, **environment):
            await eventually(lambda: written(path) == {OWN: "10.0.0.1", "10.0.0.1": "10.0.0.1"})
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
            assert path.read_text().endswith("\n")
            server.put("/api/v1/nodes/n2", status=node(InternalIP=["10.0.0.2"])["status"])
            await eventually(lambda: "10.0.0.2" in written(path))
            server.put(CONFIG_MAP, data={"x": "10.0.0.2: 203.0.113.2"})
            await eventually(lambda: written(path)["10.0.0.2"] == "203.0.113.2")
            server.put(CONFIG_MAP, data={"x": "10.0.0.2: nowhere"})
            server.remove("/api/v1/nodes/n1")
            await eventually(lambda: written(path) == {"10.0.0.2": "203.0.113.2"})
