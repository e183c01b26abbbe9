"""The difference of two JSON documents as a JSON Patch (RFC 6902)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .kinds import Json


def difference(before: Json, after: Json, at: Sequence[str] = ()) -> list[Json]:
    """Operations that turn `before`, at the path `at`, into `after`.

    Mappings are changed key by key, lists as a whole: an `add` replaces an existing value.
    """
    return list(_operations(before, after, "".join(f"/{_escaped(key)}" for key in at)))


def _operations(before: Json, after: Json, path: str) -> Iterator[Json]:
    for key in [*after, *(key for key in before if key not in after)]:
        here = f"{path}/{_escaped(key)}"
        old, new = before.get(key), after.get(key)
        if key not in after:
            yield {"op": "remove", "path": here}
        elif key not in before or old != new:
            yield from _change(old, new, here)


def _change(old: Any, new: Any, path: str) -> Iterator[Json]:
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _operations(old, new, path)
    else:
        yield {"op": "add", "path": path, "value": new}


def _escaped(key: str) -> str:
    """A key, escaped for a JSON Pointer (RFC 6901 3)."""
    return key.replace("~", "~0").replace("/", "~1")
