"""A node whose forwarder has virtual functions: all components as processes, a kubelet, and a client with a token."""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import yaml

from tests.forwarder_sriov.kubelet import Kubelet
from tests.forwarder_sriov.tree import CARD, VETH, Tree
from tests.system.node import Node

NAME = "worker.domain/10G"
FUNCTIONS = 2


class SriovNode(Node):
    """Its card's functions are interfaces on a bridge, on which the endpoint is reached too."""

    def __init__(self, stack, folder, kubelet):
        super().__init__(stack, folder, alone=("client",))
        self.kubelet, self.tree, self.environment = kubelet, Tree(folder / "pci"), {}
        self.host.run("ip", "link", "add", "eth0", "type", "bridge", "mcast_snooping", "0")
        self.host.run("ip", "link", "set", "eth0", "up")
        self.host.run("ip", "address", "add", "10.0.0.0/32", "dev", "eth0")
        self.host.run("ip", "route", "add", "10.0.0.0/24", "dev", "eth0")
        for number in range(FUNCTIONS):
            self.host.run("ip", "link", "add", f"eth0v{number}", "type", "veth", "peer", "name", f"port{number}")
            self.host.run("ip", "link", "set", f"port{number}", "master", "eth0", "up")
        self.tree.card(functions=FUNCTIONS)
        card = {"pfKernelDriver": "igb", "vfKernelDriver": "igbvf", "capabilities": ["10G"]}
        content = {"physicalFunctions": {CARD: {**card, "serviceDomains": ["worker.domain"]}}}
        (folder / "sitecustomize.py").write_text(VETH)
        (folder / "sriov.config").write_text(yaml.safe_dump(content))

    def functions(self):
        return {name for name in self.links() if name.startswith("eth0v")}

    def _commands(self):
        commands = super()._commands()
        _, forwarder = commands["forwarder"]
        commands["forwarder"] = (
            "forwarder-sriov",
            {
                **{key: value for key, value in forwarder.items() if key != "NSM_NODE_NAMESPACE"},
                "PYTHONPATH": str(self.folder),
                "NSM_SRIOV_CONFIG_FILE": f"{self.folder}/sriov.config",
                "NSM_PCI_DEVICES_PATH": str(self.tree.devices),
                "NSM_PCI_DRIVERS_PATH": str(self.tree.drivers),
                "NSM_DEVICE_PLUGIN_PATH": str(self.kubelet.plugins),
                "NSM_POD_RESOURCES_PATH": str(self.kubelet.resources),
                "NSM_CGROUP_PATH": "/sys/fs/cgroup/devices",
                "NSM_VFIO_PATH": str(self.tree.vfio),
            },
        )
        manager = {"NSM_CONNECT_TO": commands["endpoint"][1]["NSM_CONNECT_TO"]}
        services = "ping: { addr: 0a:55:44:33:22:11 }"
        commands["endpoint"] = (
            "nse-vfio",
            {
                **manager,
                "NSM_SERVICE_NAMES": services,
                "NSM_CIDR_PREFIX": "10.0.0.0/24",
                "NSM_LABELS": "serviceDomain:worker.domain",
            },
        )
        wanted = f"kernel://ping/nsm-1?sriovToken={NAME}"
        commands["client"] = ("nsc", {**manager, "NSM_NETWORK_SERVICES": wanted, **self.environment})
        return commands


async def test_a_client_with_a_token_gets_a_function_and_a_killed_forwarder_knows_whose_it_is():
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sriov-")))
        async with Kubelet(folder) as kubelet:
            node = SriovNode(stack, folder, kubelet)
            for name in ("identity", "registry", "nsmgr", "forwarder", "endpoint"):
                await asyncio.to_thread(node.start, name)
            await kubelet.until(lambda: NAME in kubelet.devices)
            token, *_ = kubelet.healthy(NAME)
            node.environment = await kubelet.start_pod("client", NAME, token)
            await asyncio.to_thread(node.start, "client")
            assert node.functions() == {"eth0v1"}
            inside = f"--net=/proc/{node.processes['client'].pid}/ns/net"
            node.host.run("nsenter", inside, "ping", "-n", "-c", "1", "-W", "2", "10.0.0.0")
            node.kill("forwarder")
            await asyncio.to_thread(node.start, "forwarder")
            await kubelet.until(lambda: token in kubelet.devices[NAME])
            node.host.run("nsenter", inside, "ping", "-n", "-c", "1", "-W", "2", "10.0.0.0")
            await asyncio.to_thread(node.stop, "client")
            end = time.monotonic() + 10
            while node.functions() != {"eth0v0", "eth0v1"}:
                assert time.monotonic() < end, node.logs["forwarder"]
                await asyncio.sleep(0.02)
            await asyncio.to_thread(node.stop, "forwarder")
