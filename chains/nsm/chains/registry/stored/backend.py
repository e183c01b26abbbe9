"""What stores a registry's records: get, put and delete by version, and a stream of changes.

A backend knows nothing of owners, lifetimes or queries: `Stored` does, for all of them alike. It is an async context
manager: between entering and leaving it reports what it holds and each change, whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol

from nsm.chains.core import R

Key = Hashable
"""Where an entry is stored; each record's name has one such place that is written to."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Generic[R]):
    """A record as it is stored, at one version."""

    key: Key
    version: int
    """Grows with each change of what is at `key`, also if it is deleted and stored anew."""
    record: R | None
    """None if what is there cannot be read as a record: what was read there before counts."""
    renewed: float = 0.0
    """When it was written last, in seconds since the epoch; 0 if the backend does not keep that."""
    precedence: tuple[Any, ...] = ()
    """Of several entries with records of one name, Find returns the least."""
    is_ours: bool = True
    """Whether this registry may delete it when its time is over."""
    blocked: str = ""
    """Why it can neither be overwritten nor deleted for now, as a sentence."""
    fault: str = ""
    """Why an entry without a record must not be overwritten where nothing was read before, as a sentence."""
    place: str = ""
    """What the backend calls it, for errors: `the object 'x'`."""
    raw: Any = None
    """The backend's own."""


Observe = Callable[[Key, "Entry[R] | None"], None]
"""Is called with each entry that is new or changed, and with None for one that is gone. Must not block."""


class Changed(Exception):
    """The entry is not at the expected version any more, or there is one where none was expected."""


class Missing(Exception):
    """The entry to be overwritten or deleted is not there."""


def expect(there: Entry[R] | None, held: Entry[R] | None) -> None:
    """Raise `Changed` or `Missing` unless `held` is what is there: for a backend that knows that itself."""
    if held is not None and there is None:
        raise Missing
    if (there.version if there else 0) != (held.version if held else 0):
        raise Changed


class Backend(Protocol[R]):
    """Stores records of one kind. Each method raises `Unavailable` if the storage cannot be reached."""

    @property
    def is_cut_off(self) -> bool:
        """Whether changes may be missed at present: nothing expires then, since nothing can be renewed."""
        ...

    def observe(self, observe: Observe[R]) -> None:
        """Report to `observe`; called once, before entering."""
        ...

    async def __aenter__(self) -> object:
        """Start reporting."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        ...

    async def synced(self) -> None:
        """Wait until everything that was stored has been reported."""
        ...

    def key_of(self, name: str) -> Key:
        """Where the record of that name is written to."""
        ...

    async def get(self, key: Key) -> Entry[R] | None:
        """What is there, read from the storage itself."""
        ...

    async def put(self, record: R, held: Entry[R] | None) -> Entry[R]:
        """Store `record` in place of `held` (None: there was nothing).

        Raises `Changed` if something else is there, `Missing` if `held` is gone, `InvalidRequest` for a record that
        could not be read again.
        """
        ...

    async def delete(self, held: Entry[R]) -> None:
        """Delete exactly that version. Raises `Changed`, `Missing`."""
        ...

    def complain(self, about: Entry[R], fault: str) -> None:
        """Report that an entry is ignored, to whoever may correct it."""
        ...
