"""What commands and pages read a mesh through: a view, or the monitor of one manager, which knows less."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol, TypeVar

from nsm.chains.errors import InvalidRequest, NotFound
from nsm.chains.reading import nearest

from .model import Attempt, Change, Event, Snapshot, Wire

_MOST_NAMED = 5


class Named(Protocol):
    """What has the name of a wire: a wire, or an attempt."""

    @property
    def id(self) -> str:
        """The connection's id at the client."""
        ...

    @property
    def client(self) -> str:
        """The client's name."""
        ...

    @property
    def interface(self) -> str:
        """The interface's name at the client."""
        ...


W = TypeVar("W", bound=Named)


class Source(Protocol):
    """The state of a mesh and its changes. All methods raise `MeshError`, such as `Unavailable`."""

    async def snapshot(self) -> Snapshot:
        """Everything at this moment."""
        ...

    async def wires(self) -> Sequence[Wire]:
        """All wires, ordered by client and interface."""
        ...

    async def wire(self, name: str) -> Wire:
        """The wire `name`; see `find`. Raises `NotFound`, and `InvalidRequest` if it names several."""
        ...

    async def attempts(self) -> Sequence[Attempt]:
        """Wires that were requested and do not exist."""
        ...

    async def events(self, wire: str = "") -> Sequence[Event]:
        """What occurred, oldest first; of one wire, if its id is given."""
        ...

    def changes(self, position: str = "") -> AsyncIterator[Change]:
        """Every change behind `position`, endlessly. It begins with a snapshot, unless `position` is still known."""
        ...


def find(name: str, wires: Iterable[W]) -> W:
    """The wire (or attempt) that `name` means.

    That is its id or the beginning of it, its client's interface (`client/nsm-1`), or a client that has only one.
    Raises `NotFound`, and `InvalidRequest` if it names several.
    """
    known = [*wires]
    for found in (
        [each for each in known if name in (each.id, name_of(each))],
        [each for each in known if name and name == each.client],
        [each for each in known if name and (each.id.startswith(name) or name_of(each).startswith(name))],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidRequest(f"{name!r} names {len(found)} wires: {_named(found)}")
    if not known:
        raise NotFound(f"there is no wire {name!r}: the mesh has none")
    near = nearest(name, [name_of(each) for each in known])
    raise NotFound(f"there is no wire {name!r}; " + (f"did you mean {near}?" if near else f"there are {_named(known)}"))


def name_of(wire: Named) -> str:
    """How people call a wire: its client and the interface there."""
    return f"{wire.client}/{wire.interface}" if wire.interface else wire.id


def _named(wires: Sequence[Named]) -> str:
    names, more = [*map(name_of, wires)], len(wires) - _MOST_NAMED
    if len({*names}) < len(names):  # one client's name in several places
        names = [each.id for each in wires]
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} others" if more > 0 else "")
