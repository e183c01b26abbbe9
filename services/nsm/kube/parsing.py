"""Parses JSON from the API server, including excessively nested objects."""

from __future__ import annotations

import json
import re
from typing import Any

_DEEPEST = 100
"""More than twice as deep as any object that Kubernetes or this project defines."""
_PIECE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|[^"\[\]{}]+', re.DOTALL)


def parsed(text: bytes) -> Any:
    """The value of `text`. Raises ValueError if it is not JSON.

    A CRD that allows unknown fields also allows ten thousand nested lists. Python refuses to parse those, and one such
    object would then hide all others. So a part that is nested too deeply is parsed as None.
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
