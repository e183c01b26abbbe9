"""What commands and pages read a mesh through: a view, or the monitor of one manager, which knows less."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from nsm.chains.core import InvalidRequest, NotFound

from .model import Attempt, Change, Event, Snapshot, Wire

_MOST_NAMED = 5


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


def find(name: str, wires: Iterable[Wire]) -> Wire:
    """The wire that `name` means.

    That is its id or the beginning of it, its client's interface (`client/nsm-1`), or a client that has only one.
    Raises `NotFound`, and `InvalidRequest` if it names several.
    """
    known = [*wires]
    for fits in (
        lambda each: each.id == name,
        lambda each: f"{each.client}/{each.interface}" == name,
        lambda each: each.client == name,
        lambda each: each.id.startswith(name),
    ):
        found = [each for each in known if fits(each)]
        if len(found) == 1:
            return found[0]
        if found:
            raise InvalidRequest(f"{name!r} names {len(found)} wires: {_named(found)}")
    among = f"; there are {_named(known)}" if known else ": there are no wires"
    raise NotFound(f"no wire is called {name!r}{among}")


def _named(wires: Sequence[Wire]) -> str:
    names = [f"{each.client}/{each.interface}" if each.interface else each.id for each in wires[:_MOST_NAMED]]
    more = len(wires) - len(names)
    return ", ".join(names) + (f" and {more} others" if more else "")
