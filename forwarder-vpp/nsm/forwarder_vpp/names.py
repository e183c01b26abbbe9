"""Names by which a forwarder knows its interfaces again, after a restart of itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

CLIENT, ENDPOINT, UPLINK = "c", "e", "u"
_LONGEST_ID = 36


@dataclass(frozen=True, slots=True)
class Tag:
    """What a tag in VPP says (at most 63 bytes): which side of which connection it is, and what it is made of."""

    text: str
    side: str
    connection_id: str
    """Its digest if it is too long."""


class Names:
    """The names of the forwarder `owner`: another one's interfaces in the same VPP are none of its own."""

    def __init__(self, owner: str) -> None:
        self._mark = f"nsm {_digest(owner, 8)}"

    def tag(self, side: str, made_of: tuple[object, ...], connection_id: str) -> Tag:
        """The tag of an interface."""
        name = id_in_tag(connection_id)
        return Tag(f"{self._mark} {side} {_digest(repr(made_of), 8)} {name}", side, name)

    def read(self, text: str) -> Tag | None:
        """The tag, if it is one of ours."""
        parts = text.removeprefix(self._mark).split(maxsplit=2)
        return Tag(text, parts[0], parts[2]) if text.startswith(f"{self._mark} ") and len(parts) == 3 else None


def id_in_tag(connection_id: str) -> str:
    """What stands for a connection in a tag, and for that itself too."""
    return connection_id if len(connection_id.encode()) <= _LONGEST_ID else _digest(connection_id, _LONGEST_ID)


def host_name(alias: str, number: int) -> str:
    """The name of a link in the node's namespace that leads to end `number` of a wire."""
    return f"nsm{_digest(f'{alias} {number}', 12)}"


def _digest(text: str, size: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:size]
