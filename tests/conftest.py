"""Which clock a test runs by, and how long a test that is a coroutine may take."""

import asyncio
import functools
import inspect
import signal

import pytest

from nsm.chains.testing.clock import VirtualTimeLoop
from tests.workers import (  # noqa: F401  (pytest's hooks)
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)

VIRTUAL = (
    "tests/chains/core",
    "tests/chains/elements",
    "tests/chains/forwarding",
    "tests/chains/life",
    "tests/chains/registry",
    "tests/chains/testing",
    "tests/chains/transport/test_monitors",
    "tests/services/dns/test_steps",
    "tests/services/lb_vl3/test_servers",
    "tests/services/nse_vl3/test_endpoints",
    "tests/services/nse_vl3/test_names",
    "tests/services/nse_vl3/test_prefix_client",
    "tests/services/test_services",
    "tests/services/test_wires",
)
"""Where time is virtual: what tests no sockets."""

SHARE = 0.8
"""Of a test's time limit: what the body of a coroutine may take before it is cancelled, which fails it alone, with a
traceback of where it stood. The limit itself ends pytest, and with it all other tests."""


def pytest_asyncio_loop_factories(config, item):
    return {"virtual": VirtualTimeLoop} if is_virtual(item) else {"real": asyncio.SelectorEventLoop}


def is_virtual(item):
    return item.path.relative_to(item.config.rootpath).as_posix().startswith(VIRTUAL)


def pytest_itemcollected(item):
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and not is_virtual(item):
        item.obj = within(SHARE * limit_of(item), item.obj)


def limit_of(item):
    """Seconds; its own, or else everybody's."""
    own = item.get_closest_marker("timeout")
    return float(own.args[0] if own else item.config.getini("timeout"))


def within(seconds, test):
    @functools.wraps(test)
    async def limited(*arguments, **named):
        async with asyncio.timeout(seconds):
            return await test(*arguments, **named)

    return limited


def pytest_configure(config):
    """A shell starts background jobs deaf to Ctrl-C; what the tests start must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
