"""PCI functions as the kernel shows them in /sys/bus/pci: virtual functions, drivers, IOMMU groups, interfaces.

All of it blocks, binding a driver for up to seconds: to be called in a thread.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nsm.chains.core import Conflict, InvalidRequest

from .configuration import Card

VFIO_DRIVER = "vfio-pci"
_HARMLESS = frozenset({VFIO_DRIVER, "pci-stub", "pcieport"})
"""Drivers of functions beside which vfio may use a group (Documentation/driver-api/vfio.rst)."""
_VIRTFN = re.compile(r"virtfn([0-9]+)")
_READY, _PAUSE = 5.0, 0.01
"""Seconds that a driver may take to show what it made, and between two looks."""


@dataclass(frozen=True, slots=True)
class Function:
    """A virtual function."""

    address: str
    card: Card
    number: int
    """By which its physical function knows it: the N of `virtfnN`, in `ip link set PF vf N`."""
    group: str
    """Its IOMMU group; empty: the node has no IOMMU, and vfio cannot use it."""


class Pci:
    """The functions below `devices`, and the drivers below `drivers`: both folders of sysfs."""

    def __init__(self, devices: str = "/sys/bus/pci/devices", drivers: str = "/sys/bus/pci/drivers") -> None:
        self._devices, self._drivers = Path(devices), Path(drivers)

    def functions(self, card: Card) -> list[Function]:
        """The virtual functions of a card in the kernel's order; creates all that it can have if there are none.

        Raises `InvalidRequest` that names what is wrong with the card.
        """
        folder = self._devices / card.address
        if not folder.is_dir():
            raise InvalidRequest(f"there is no PCI function {card.address} on this node; lspci -D lists them")
        try:
            total = int((folder / "sriov_totalvfs").read_text())
            if not int((folder / "sriov_numvfs").read_text()):
                (folder / "sriov_numvfs").write_text(str(total))
        except FileNotFoundError:
            raise InvalidRequest(
                f"{card.address} cannot have virtual functions (SR-IOV is off, or unknown to it)"
            ) from None
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"cannot create the virtual functions of {card.address}: {error}") from None
        found = [self._function(card, folder / name, number) for number, name in sorted(_numbered(folder))]
        if missing := card.only - {each.address for each in found}:
            raise InvalidRequest(f"{', '.join(sorted(missing))} is not a virtual function of {card.address}")
        return [each for each in found if not card.only or each.address in card.only]

    def driver(self, address: str) -> str:
        """The name of a function's driver; empty if it has none."""
        return _target(self._devices / address / "driver")

    def group(self, address: str) -> str:
        """The IOMMU group of a function; empty if it has none."""
        return _target(self._devices / address / "iommu_group")

    def interface(self, address: str) -> str:
        """The network interface of a function in this network namespace; empty if there is none.

        Raises `Conflict` if it has several.
        """
        try:
            names = [each.name for each in (self._devices / address / "net").iterdir()]
        except OSError:
            return ""
        if len(names) > 1:
            raise Conflict(f"{address} has the interfaces {', '.join(sorted(names))}; expected one")
        return names[0] if names else ""

    def others_in_use(self, address: str, own: Collection[str]) -> list[str]:
        """Functions in the IOMMU group of `address`, besides our `own`, whose drivers keep vfio from using it."""
        try:
            members = {each.name for each in (self._devices / address / "iommu_group/devices").iterdir()}
        except OSError as error:
            raise Conflict(f"cannot read what is in the IOMMU group of {address}: {error.strerror}") from None
        found = {other: self.driver(other) for other in members.difference(own)}
        return [f"{other} ({driver})" for other, driver in sorted(found.items()) if driver and driver not in _HARMLESS]

    def bind(self, address: str, driver: str) -> None:
        """Give a function to a driver, whichever others would accept it too. Raises `Conflict`."""
        folder = self._devices / address
        if (bound := self.driver(address)) == driver:
            return
        if not (self._drivers / driver).is_dir():
            raise Conflict(
                f"the kernel has no driver {driver} for {address}; load it, for example by modprobe {driver}"
            )
        try:
            (folder / "driver_override").write_text(driver)
            if bound:
                (folder / "driver/unbind").write_text(address)
            (self._drivers / driver / "bind").write_text(address)
        except OSError as error:
            if self.driver(address) != driver:
                raise Conflict(f"{address} cannot be given to the driver {driver}: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):  # else it would stay when the function is created again
                (folder / "driver_override").write_text("\n")

    def await_interface(self, address: str) -> str:
        """The interface that a driver makes for a function. Raises `Conflict` if there is none in time."""
        for _ in _looks():
            if name := self.interface(address):
                return name
        raise Conflict(f"the driver {self.driver(address)!r} of {address} shows no network interface on this node")

    def _function(self, card: Card, link: Path, number: int) -> Function:
        address = _target(link)
        return Function(address, card, number, self.group(address))


def await_file(path: Path) -> None:
    """Wait for a device's node. Raises `Conflict` if it is not there in time."""
    for _ in _looks():
        if path.exists():
            return
    raise Conflict(f"there is no {path}: is the folder of the node's vfio devices mounted there?")


def _looks() -> Iterator[None]:
    """Several looks; no event reports what is looked for."""
    end = time.monotonic() + _READY
    yield
    while time.monotonic() < end:
        time.sleep(_PAUSE)
        yield


def _numbered(folder: Path) -> Iterator[tuple[int, str]]:
    for entry in folder.iterdir():
        if (found := _VIRTFN.fullmatch(entry.name)) is not None:
            yield int(found[1]), entry.name


def _target(link: Path) -> str:
    """The base name of what a link points at; empty if there is none."""
    try:
        return link.readlink().name
    except OSError:
        return ""
