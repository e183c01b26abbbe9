"""An existing wire: its ends, as the kernel has them, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nsm.chains.core import FileKey, Store
from nsm.chains.forwarding import dataplane
from nsm.chains.forwarding.dataplane import LIVE, NOBODY, Client
from nsm.chains.forwarding.sides import KernelInterface
from nsm.chains.forwarding.wires import Settings, Wire
from nsm.chains.netlink import Address, LinkEnd, Namespace

from .devices import Device


@dataclass(slots=True)
class LiveEnd:
    """One end of a wire that exists, or is about to."""

    namespace: Namespace
    place: KernelInterface
    index: int
    mac: str
    key: FileKey = (0, 0)
    """Device and inode of the namespace."""
    number: int | None = None
    """How the kernel identifies the namespace, even while it is released."""
    handle: bytes = b""
    """The handle to enter it again then; empty on a kernel that has none."""
    is_loose: bool = False
    """Whether the namespace is released, and `namespace` must not be used."""
    renamed: str = ""
    """The link's new name if others renamed it."""

    @property
    def name(self) -> str:
        """The link's current name."""
        return self.renamed or self.place.name

    @property
    def link(self) -> LinkEnd:
        """The end as it has to be made."""
        return LinkEnd(self.name, self.index, self.mac, self.namespace.descriptor)


@dataclass(slots=True)
class LiveWire(dataplane.LiveWire):
    """An existing wire and its settings."""

    ends: tuple[LiveEnd, ...]
    """Its interfaces, those of `wire.kernel_ends`."""
    alias: str
    device: Device
    is_settled: bool = False
    """Whether packets were seen to pass since it was last set."""
    is_leaving: bool = False
    """Whether it is being removed: its addresses are free for others at once."""
    client: Client = NOBODY
    reached: tuple[tuple[FileKey, Address], ...] = ()
    """The client's addresses, with the namespaces that reach them by this wire."""
    superseded: list[LiveWire] = field(default_factory=list)
    """Wires that were removed for this one: of the same client's connection, which came back under another id."""

    @property
    def is_loose(self) -> bool:
        """Whether its namespaces are released."""
        return any(end.is_loose for end in self.ends)

    def metrics(self) -> Mapping[str, str]:
        """What its device says of it."""
        return self.device.metrics()

    def sides(self, wire: Wire | None = None) -> list[tuple[LiveEnd, str, Settings]]:
        """Each end with the hardware address of the opposite one, and its settings in `wire`, or as they are."""
        macs = [end.mac for end in reversed(self.ends)]
        settings = [end.settings for end in (wire or self.wire).kernel_ends]
        return list(zip(self.ends, macs, settings, strict=True))


def live_in(store: Store) -> LiveWire | None:
    """The wire of a connection, if it has interfaces of the kernel."""
    live = store.get(LIVE)
    return live if isinstance(live, LiveWire) else None
