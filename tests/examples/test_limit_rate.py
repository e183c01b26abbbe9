"""A stage of a chain in a few lines of a user's own."""

import importlib.util
from pathlib import Path

from nsm.apis.registry import Destination, Match
from nsm.chains.composed import passthrough
from nsm.chains.elements.descriptors import ReturnDescriptors
from nsm.chains.elements.kernel import KernelServer
from nsm.chains.elements.mechanisms import Mechanisms
from nsm.chains.elements.point2point_ipam import Point2PointIpam
from nsm.chains.testing import Mesh, call

EXAMPLE = Path(__file__).parents[2] / "examples" / "limit_rate.py"


def test_it_is_short():
    """Under 30 lines, imports included."""
    lines = EXAMPLE.read_text().split('"""', 2)[2].splitlines()
    assert sum(1 for line in lines if line.strip()) < 30


class Joints:
    def join(self, pair, on_joined):
        on_joined(pair.client_side, pair.server_side)

    async def leave(self, client_side):
        pass

    async def aclose(self):
        pass


async def test_it_sets_a_limit_at_the_clients_interface_of_each_wire(monkeypatch):
    spec = importlib.util.spec_from_file_location("limit_rate", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    commands = []
    monkeypatch.setattr(module.subprocess, "run", lambda words, **_: commands.append(words))
    async with Mesh() as mesh:
        await mesh.add_service("store", [match("store", app="limiter"), match("limiter")])
        url = mesh.url("nsmgr")
        stage = passthrough(
            "limiter", mesh.pool("limiter"), url=url, labels={"app": "limiter"}, joiner=Joints(), on_joined=module.limit
        )
        await mesh.add_endpoint("limiter", stage, services=["store"], app="limiter")
        last = [Point2PointIpam(["10.1.0.0/24"]), Mechanisms({"KERNEL": [KernelServer()]}), ReturnDescriptors()]
        await mesh.add_endpoint("store", last, services=["store"], app="store")
        await mesh.add_client().request(call("c", "store"))
    ((program, rule),) = commands
    assert program == "nft"
    assert rule.startswith("table netdev in-")
    assert "limit rate over 10 mbytes/second drop" in rule


def match(to, **source):
    return Match(source_selector=source, routes=[Destination(destination_selector={"app": to})])
