"""JSON from the API server, also where somebody has nested it beyond all reason."""

from __future__ import annotations

import json
import re
from typing import Any

_DEEPEST = 100
"""Nothing that Kubernetes or we define is nested half as deep."""
_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|[^"\[\]{}]+', re.DOTALL)


def parsed(text: bytes) -> Any:
    """What `text` says. Raises ValueError if it is no JSON.

    A definition that lets unknown fields through lets through ten thousand lists in each other too. Python refuses to
    read those, and then one such object would hide all others from us: what is nested too deep is read as None.
    """
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(_flattened(text))


def _flattened(text: bytes) -> bytes:
    kept, depth = [], 0
    for piece in _PIECE.findall(text):
        depth += piece in (b"[", b"{")
        if depth <= _DEEPEST:
            kept.append(piece)
        elif depth == _DEEPEST + 1 and piece in (b"[", b"{"):
            kept.append(b"null")
        depth -= piece in (b"]", b"}")
    return b"".join(kept)
