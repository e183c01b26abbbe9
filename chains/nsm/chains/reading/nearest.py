"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

_ALIKE = 0.6
"""The lowest similarity, as a ratio of difflib."""
_SHORTEST_PART = 4


def nearest(word: str, known: Collection[str], *, alike: float = _ALIKE) -> str | None:
    """The most similar one of `known`; None if none is similar enough.

    Case, ``_`` and ``-`` are ignored: the nearest name to `destinationSelector` is `destination_selector`.
    """
    plain = {_plain(each): each for each in sorted(known)}
    if (same := plain.get(_plain(word))) is not None:
        return same
    if found := difflib.get_close_matches(_plain(word)[:64], plain, n=1, cutoff=alike):
        return plain[found[0]]
    return None


def is_part_of(word: str, known: Collection[str]) -> str | None:
    """The one of `known` that contains `word`, or is contained in it: `network_service_labels` for `labels`."""
    plain = _plain(word)
    if len(plain) < _SHORTEST_PART:
        return None
    return next((each for each in sorted(known) if plain in _plain(each) or _plain(each) in plain), None)


def instead_of(word: str, known: Collection[str]) -> str:
    """What an error suggests instead of `word`: the nearest name, or all known names."""
    near = nearest(word, known)
    return near if near is not None else any_of(known)


def any_of(known: Iterable[str]) -> str:
    """All names, in order: ``a, b or c``."""
    *others, last = [*sorted(known)] or ["nothing"]
    return f"{', '.join(others)} or {last}" if others else last


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
