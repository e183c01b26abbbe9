"""These tests need a container engine and the images: make test-compose has both ready."""

import os
import socket

import pytest

from tests.compose.engine import Project, composes

COMMANDS = composes()
with socket.create_server(("127.0.0.1", 0)) as _free:  # a mesh beside them has the view's usual port
    os.environ["NSM_VIEW_PORT"] = str(_free.getsockname()[1])


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="session", params=COMMANDS, ids=" ".join)
def command(request):
    return request.param


@pytest.fixture(scope="session")
def mesh(command):
    """A mesh that all tests use; each leaves it as it was."""
    project = Project(f"nsmtest{os.getpid()}{len(command)}", command)
    try:
        project.up()
        for client in ("client", "remote-client", "app-client"):
            project.until_healthy(client)
        yield project
    finally:
        project.down()
