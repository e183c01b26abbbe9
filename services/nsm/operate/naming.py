"""Finds the wire that an operator names: by its client and interface, by its connection id, or by the beginning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from nsm.chains.reading import nearest

from .errors import UsageError

_SHOWN = 5


class Named(Protocol):
    """What names a wire."""

    @property
    def id(self) -> str:
        """The connection id at the client."""
        ...

    @property
    def client(self) -> str:
        """The client's name."""
        ...

    @property
    def interface(self) -> str:
        """The interface's name at the client; empty if it has none."""
        ...


W = TypeVar("W", bound=Named)


def name_of(wire: Named) -> str:
    """How a wire is called: ``client/interface``, else its connection id."""
    return f"{wire.client}/{wire.interface}" if wire.client and wire.interface else wire.id


def find_wire(wires: Iterable[W], word: str) -> W:
    """The wire that `word` names: ``client/nsm-1``, a connection id, a client with one wire, or a unique beginning.

    Raises `UsageError` if there is none, or several.
    """
    known = [*wires]
    for matches in (
        [wire for wire in known if word in (name_of(wire), wire.id)],
        [wire for wire in known if word and word == wire.client],
        [wire for wire in known if word and (wire.id.startswith(word) or name_of(wire).startswith(word))],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UsageError(f"{word!r} names {len(matches)} wires: {_some(matches)}")
    raise UsageError(_nothing(known, word))


def _nothing(known: Sequence[W], word: str) -> str:
    if not known:
        return f"there is no wire {word!r}: the mesh has none"
    names = [name_of(wire) for wire in known]
    near = nearest(word, names)
    return f"there is no wire {word!r}; " + (f"did you mean {near}?" if near else f"there are {_some(known)}")


def _some(wires: Sequence[W]) -> str:
    names = [name_of(wire) for wire in wires]
    if len(set(names)) < len(names):  # one client's name at several places
        names = [wire.id for wire in wires]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
