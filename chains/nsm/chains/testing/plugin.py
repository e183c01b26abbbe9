"""A pytest plugin that runs coroutines as tests, in virtual time.

In conftest.py:

    pytest_plugins = ["nsm.chains.testing.plugin"]

With pytest-asyncio leave it out, and return `VirtualTimeLoop` from the hook ``pytest_asyncio_loop_factories``.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

from .clock import VirtualTimeLoop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    """Run a coroutine to its end, in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True
