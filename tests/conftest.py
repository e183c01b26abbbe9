"""Which clock a test runs by."""

import asyncio
import signal

from nsm.chains.testing.clock import VirtualTimeLoop

VIRTUAL = ("tests/chains/core", "tests/chains/elements", "tests/chains/registry", "tests/services/dns/test_steps")
"""Where time is virtual: what tests no sockets."""


def pytest_asyncio_loop_factories(config, item):
    path = item.path.relative_to(config.rootpath).as_posix()
    return {"virtual": VirtualTimeLoop} if path.startswith(VIRTUAL) else {"real": asyncio.SelectorEventLoop}


def pytest_configure(config):
    """A shell starts background jobs deaf to Ctrl-C; what the tests start must not inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
