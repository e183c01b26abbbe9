"""The two emulated network cards, which are on one cable, and a forwarder's dataplane of their virtual functions."""

import ipaddress
import os
import subprocess
import uuid
from pathlib import Path

from nsm.chains.devices import Permissions
from nsm.chains.forwarding.dataplane import Client
from nsm.chains.forwarding.sides import KernelInterface, Nothing, VirtualFunction
from nsm.chains.forwarding.wires import End, Settings, Wire
from nsm.chains.libc import CLONE_NEWNET, setns
from nsm.forwarder_sriov.configuration import Card
from nsm.forwarder_sriov.dataplane import SriovDataplane
from nsm.forwarder_sriov.pool import Pool
from nsm.forwarder_sriov.sysfs import Pci
from nsm.forwarder_sriov.tokens import Tokens

NAMES = ("master.domain/10G", "worker.domain/10G")
EACH = 2
"""Functions that a card gets: each one's driver takes half a second."""


def run(command):
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=50)
    print("$", command, done.stdout + done.stderr, sep="\n")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


class Cards:
    """The node, in the first network namespace, where functions come back to when theirs ends."""

    def __init__(self):
        with open("/proc/1/ns/net") as first:
            setns(first.fileno(), CLONE_NEWNET)
        for module in ("igb", "igbvf", "vfio-pci"):
            run(f"modprobe {module}")
        self.addresses = sorted(path.name for path in Path("/sys/bus/pci/drivers/igb").glob("0000:*"))
        assert len(self.addresses) == 2
        self.interfaces = [self.interface(address) for address in self.addresses]
        for address, interface in zip(self.addresses, self.interfaces, strict=True):
            number = Path(f"/sys/bus/pci/devices/{address}/sriov_numvfs")
            if number.read_text().strip() == "0":
                number.write_text(str(EACH))
            run(f"ip link set {interface} up")

    def interface(self, address):
        return Pci().interface(address)

    def cards(self):
        return [Card(address, "igb", "igbvf", (name,)) for address, name in zip(self.addresses, NAMES, strict=True)]

    def forwarder(self, tokens=None, cgroups="/sys/fs/cgroup"):
        """A dataplane, as after the start of a forwarder, whose kubelet has given `tokens` to pods."""
        pci, cards = Pci(), self.cards()
        functions = [each for card in cards for each in pci.functions(card)]
        made = Tokens({card.address: card.names for card in cards}, {card.address: EACH for card in cards})
        made.restore(tokens or {})
        pool = Pool(pci, functions, made, "/dev/vfio")
        return SriovDataplane("sriov", pci, pool, Permissions(cgroups))


def new_tokens(count=EACH):
    return {name: [f"sriov-{uuid.uuid4()}" for _ in range(count)] for name in NAMES}


def wire(side, address="", *, vlan=0, mac=""):
    addresses = (ipaddress.ip_interface(address),) if address else ()
    settings = Settings(addresses, (), (), (), mac=mac)
    return Wire(End(side, settings), End(Nothing(), is_endpoints=True), 0, True, vlan=vlan)


def kernel(host, token, name="nsm-1"):
    return KernelInterface(host.path, name, token)


def vfio(token, path=""):
    return VirtualFunction(token, "", path)


def client(name):
    return Client((f"spiffe://test/{name}",), name)


def links():
    """The interfaces on the node, with what its cards know of their functions."""
    import json

    return {link["ifname"]: link for link in json.loads(run("ip -d -j link"))}


def own_process_path():
    return f"/proc/{os.getpid()}/ns/net"
