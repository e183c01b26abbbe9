"""Ids of path segments that are bound to an owner.

A component finds a connection by the id of its segment, and others learn that id: components on the path, and
monitors. So an id is bound to the owner of its connection: a UUID of version 8 (RFC 9562 5.8) whose second half is a
digest of the owner and of the first half. Anyone can verify it without a secret or any state, and an identity cannot
create an id that belongs to another.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import blake2b

_LENGTH, _DASHES = 36, (8, 13, 18, 23)
_VERSION, _VARIANT = 0x8 << 76, 0x2 << 62
_LOW_62, _LOW_12 = (1 << 62) - 1, (1 << 12) - 1


def make_id(owner: Sequence[str], proposal: str = "") -> str:
    """An id for a connection of `owner` (see `Call.owner`); the same for the same `proposal`, random without one."""
    nonce = _digest(proposal) >> 4 if proposal else secrets.randbits(60)
    return _id_of(nonce, owner)


def is_bound(segment_id: str) -> bool:
    """Whether it looks like an id that is bound to an owner."""
    return len(segment_id) == _LENGTH and segment_id[14] == "8" and all(segment_id[at] == "-" for at in _DASHES)


def is_made_for(owner: Sequence[str], segment_id: str) -> bool:
    """Whether it is bound to `owner`."""
    if not is_bound(segment_id):
        return False
    try:
        first = int(segment_id[:8] + segment_id[9:13], 16) << 12 | int(segment_id[15:18], 16)
    except ValueError:
        return False
    return _id_of(first, owner) == segment_id


def _id_of(nonce: int, owner: Sequence[str]) -> str:
    tag = _digest("\n".join((f"{nonce:x}", *owner))) & _LOW_62
    text = f"{(nonce >> 12) << 80 | _VERSION | (nonce & _LOW_12) << 64 | _VARIANT | tag:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
