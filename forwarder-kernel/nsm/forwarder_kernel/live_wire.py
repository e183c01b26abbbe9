"""A wire that exists: its ends, as the kernel has them, and what they are set to."""

from __future__ import annotations

from dataclasses import dataclass

from .devices import Device
from .ends import Place, Settings, Wire
from .netlink import LinkEnd, Namespace


@dataclass(slots=True)
class LiveEnd:
    """One end of a wire that exists, or is about to."""

    namespace: Namespace
    place: Place
    index: int
    mac: str
    number: int | None = None
    """By which the kernel knows the namespace, also while it is let go."""
    handle: bytes = b""
    """By which it can be entered again then; empty on a kernel that cannot."""
    is_loose: bool = False
    """Whether the namespace is let go, and `namespace` is not to be used."""
    renamed: str = ""
    """What somebody else called the link since it was made."""

    @property
    def name(self) -> str:
        """What the link is called."""
        return self.renamed or self.place.name

    @property
    def link(self) -> LinkEnd:
        """As it is to be made."""
        return LinkEnd(self.name, self.index, self.mac, self.namespace.descriptor)


@dataclass(slots=True)
class LiveWire:
    """A wire that exists, and what it is set to."""

    wire: Wire
    ends: tuple[LiveEnd, ...]
    alias: str
    device: Device
    seconds: float = 0.0
    """How long the kernel's part of making it took."""
    is_settled: bool = False
    """Whether packets were seen to pass since it was last set."""

    @property
    def is_loose(self) -> bool:
        """Whether its namespaces were let go."""
        return any(end.is_loose for end in self.ends)

    def sides(self, wire: Wire | None = None) -> list[tuple[LiveEnd, str, Settings]]:
        """Each end with the hardware address of the opposite one, and its settings in `wire`, or as they are."""
        macs = [end.mac for end in reversed(self.ends)]
        settings = [end.settings for end in (wire or self.wire).ends]
        return list(zip(self.ends, macs, settings, strict=True))
