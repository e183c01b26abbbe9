"""Finds the wire that an operator names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from nsm.chains.errors import MeshError
from nsm.view.source import Named, find, name_of

from .errors import UsageError

W = TypeVar("W", bound=Named)


def find_wire(wires: Iterable[W], word: str) -> W:
    """The wire or attempt that `word` means, as `nsm.view.source.find`. Raises `UsageError` if that is not one."""
    try:
        return find(word, wires)
    except MeshError as error:
        raise UsageError(error.detail) from None


__all__ = ["Named", "find_wire", "name_of"]
