"""Imports that take less time: the garbage collector is off meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """While modules are imported, which make much and throw little away; what there is then is never looked at again.

    To look for garbage in it over and over would take a sixth of the time, and half where there are many classes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
