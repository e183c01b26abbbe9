"""Each test has a node of its own: what a forwarder owns is what it finds there, whatever runs beside it."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from nsm.forwarder_kernel import kernel_thread
from nsm.mesh import namespaces


@pytest.fixture(autouse=True)
def own_node(monkeypatch):
    descriptor = namespaces.new_network()

    def executor(threads, **options):
        return ThreadPoolExecutor(
            threads, **options, initializer=namespaces.enter, initargs=(descriptor, namespaces.NEW_NET)
        )

    monkeypatch.setattr(kernel_thread, "ThreadPoolExecutor", executor)
    yield
    os.close(descriptor)
