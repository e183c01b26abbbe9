"""An API server that is none, and a client of it."""

import pytest

from nsm.kube import connect

from .stand_in import stand_in


@pytest.fixture
async def server():
    async with stand_in() as server:
        yield server


@pytest.fixture
async def api(server):
    async with connect(server.url) as api:
        yield api
