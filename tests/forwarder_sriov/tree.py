"""A tree like /sys/bus/pci, as a kernel would keep it: a virtual function changes drivers when that is written there."""

import os
import shutil
import stat
import threading
from pathlib import Path

from nsm.forwarder_sriov.configuration import Card
from nsm.forwarder_sriov.pool import Pool
from nsm.forwarder_sriov.sysfs import Pci
from nsm.forwarder_sriov.tokens import Tokens

CARD = "0000:3b:00.0"
VETH = "from nsm.forwarder_sriov import interfaces; interfaces._KIND = 'veth'"
"""A sitecustomize.py for a forwarder: interfaces of cards have no kind, and those in their place are of this one."""
COMMON = (1, 7)
"""The numbers of a device that every kernel has, /dev/full, in the place of the one that all vfio devices share."""

OF_GROUPS = [(1, minor) for minor in (5, 3, 8, 9)]
"""The same for the devices of groups, in the order in which they come."""


class Tree:
    """Cards with virtual functions below `root`. What is written to its files is done when `kernel` is called."""

    def __init__(self, root):
        self.devices, self.drivers, self.groups, self.vfio = (
            Path(root, name) for name in ("devices", "drivers", "groups", "vfio")
        )
        for folder in (self.devices, self.groups, self.vfio):
            folder.mkdir(parents=True)
        for driver in ("igb", "igbvf", "vfio-pci", "pcieport", "e1000e"):
            (self.drivers / driver).mkdir(parents=True)
        make_node(self.vfio / "vfio", COMMON)
        self.pci = Kernel(self)
        self.node_links = None
        """Which interfaces the node has, if they are real ones that leave it."""

    def card(self, address=CARD, functions=4, *, group=None, names=("worker.domain/10G",), name="eth0", made=True):
        """A card with its functions, each in a group of its own or all in `group`; the card as it is configured."""
        self.function(address, "igb", group or "1", name)
        (self.devices / address / "sriov_totalvfs").write_text(f"{functions}\n")
        (self.devices / address / "sriov_numvfs").write_text(f"{functions if made else 0}\n")
        bus = address.split(":")[1]
        for number in range(functions):
            own = f"0000:{bus}:{0x10 + number // 8:02x}.{number % 8}"
            self.function(own, "igbvf", group or f"{bus}{number}", f"{name}v{number}")
            (self.devices / address / f"virtfn{number}").symlink_to(self.devices / own)
        return Card(address, "igb", "igbvf", tuple(names))

    def function(self, address, driver, group, name=""):
        folder = self.devices / address
        (folder / "net").mkdir(parents=True)
        if name:
            (folder / "net" / name).mkdir()
        (folder / "driver_override").touch()
        if driver:
            (folder / "driver").symlink_to(self.drivers / driver)
        if group:
            own = self.groups / group
            (own / "devices").mkdir(parents=True, exist_ok=True)
            (own / "devices" / address).symlink_to(folder)
            (folder / "iommu_group").symlink_to(own)

    def bind(self, address, driver):
        """What the kernel does when a driver gets a function."""
        folder = self.devices / address
        (folder / "driver").unlink(missing_ok=True)
        (folder / "driver").symlink_to(self.drivers / driver)
        shutil.rmtree(folder / "net")
        (folder / "net").mkdir()
        if driver == "vfio-pci":
            group = (folder / "iommu_group").readlink().name
            if not (self.vfio / group).exists():
                make_node(self.vfio / group, OF_GROUPS[len(list(self.vfio.iterdir())) - 1])
        else:
            (folder / "net" / f"eth{address[-1]}").mkdir()

    def drivers_of(self, *numbers, card=CARD):
        return [self.pci.driver((self.devices / card / f"virtfn{number}").readlink().name) for number in numbers]

    def pool(self, *cards):
        """The functions of cards, and their tokens."""
        functions = [each for card in cards for each in self.pci.functions(card)]
        counts = {card.address: sum(each.card is card for each in functions) for card in cards}
        tokens = Tokens({card.address: card.names for card in cards}, counts)
        return Pool(self.pci, functions, tokens, str(self.vfio)), tokens


class Kernel(Pci):
    """Reads the tree, and lets it do what is written to a driver's `bind`, as the kernel does before it returns."""

    def __init__(self, tree):
        super().__init__(str(tree.devices), str(tree.drivers))
        self._tree, self._turns = tree, threading.Lock()
        self.bound = []
        """Functions and the drivers that they were given to."""

    def interface(self, address):
        name = super().interface(address)
        return name if self._tree.node_links is None or name in self._tree.node_links() else ""

    def bind(self, address, driver):
        with self._turns:
            self._bind(address, driver)

    def _bind(self, address, driver):
        before = self.driver(address)
        super().bind(address, driver)
        written = self._tree.drivers / driver / "bind"
        if before != driver and written.exists():
            assert written.read_text() == address
            written.unlink()
            self._tree.bind(address, driver)
            self.bound.append((address, driver))


def make_node(path, device):
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*device))


def given(tokens, name, count=1):
    """Ids of a name that the kubelet gives to a container."""
    ids = [each for each, is_good in tokens.of(name).items() if is_good and tokens.state(each).value == "free"][:count]
    assert len(ids) == count
    tokens.allocate(ids)
    return ids[0] if count == 1 else ids
