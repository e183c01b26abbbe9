"""The interface of a registry's storage: get, put and delete by version, and a stream of changes.

A backend knows nothing about owners, lifetimes or queries: `Stored` handles those for all backends. It is an async
context manager: while open, it reports what it holds and each change, whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol

from nsm.chains.core import R

Key = Hashable
"""The key of an entry; each record's name has one key that is written to."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Generic[R]):
    """A record as it is stored, at one version."""

    key: Key
    version: int
    """Increases with each change at `key`, also across deletion and re-creation."""
    record: R | None
    """None if the entry cannot be parsed as a record: the last valid record then counts."""
    renewed: float = 0.0
    """The time of the last write, in seconds since the epoch; 0 if the backend does not store it."""
    precedence: tuple[Any, ...] = ()
    """If several entries have records of one name, Find returns the one with the lowest precedence."""
    is_ours: bool = True
    """Whether this registry may delete it when it expires."""
    blocked: str = ""
    """Why it currently can be neither overwritten nor deleted, as a sentence."""
    fault: str = ""
    """Why an entry without a record must not be overwritten if no valid record is known, as a sentence."""
    place: str = ""
    """The backend's name for it, for errors: `the object 'x'`."""
    size: int = 0
    """Of the encoded record, in bytes; 0 if it is not known."""
    raw: Any = None
    """The backend's own data."""


Observe = Callable[[Key, "Entry[R] | None"], None]
"""Called with each new or changed entry, and with None for a deleted one. Must not block."""


class Changed(Exception):
    """The entry is not at the expected version, or exists although none was expected."""


class Missing(Exception):
    """The entry to be overwritten or deleted does not exist."""


def expect(there: Entry[R] | None, held: Entry[R] | None) -> None:
    """Raise `Changed` or `Missing` unless `held` is the current entry `there`."""
    if held is not None and there is None:
        raise Missing
    if (there.version if there else 0) != (held.version if held else 0):
        raise Changed


class Backend(Protocol[R]):
    """Stores records of one kind. Each method raises `Unavailable` if the storage is unreachable."""

    @property
    def is_cut_off(self) -> bool:
        """Whether changes may currently be missed: then nothing expires, since nothing can be renewed."""
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
        """The key that the record of that name is written to."""
        ...

    async def get(self, key: Key) -> Entry[R] | None:
        """The current entry, read from the storage itself."""
        ...

    async def put(self, record: R, held: Entry[R] | None) -> Entry[R]:
        """Store `record` in place of `held` (None: no entry is expected).

        Raises `Changed` if there is another entry, `Missing` if `held` is gone, `InvalidRequest` for a record that
        could not be read back.
        """
        ...

    async def delete(self, held: Entry[R]) -> None:
        """Delete exactly that version. Raises `Changed`, `Missing`."""
        ...

    def complain(self, about: Entry[R], fault: str) -> None:
        """Report that an entry is ignored, where operators will see it."""
        ...
