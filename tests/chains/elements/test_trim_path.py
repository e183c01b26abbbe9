"""The path that an endpoint answers with."""

from nsm.chains.core import Begin, Chain
from nsm.chains.elements.connect import Connect
from nsm.chains.elements.trim_path import TrimPath
from nsm.chains.testing import call
from tests.chains.elements.paths import path


async def test_an_endpoint_cuts_what_is_left_of_a_longer_way():
    connection = await Chain([TrimPath()]).request(call(path=path("a", "b", "old", index=1)))
    assert [s.name for s in connection.path.path_segments] == ["a", "b"]

    class End:
        async def request(self, call):
            return call.connection

        async def close(self, call): ...

    passed_on = await Chain([Begin(), TrimPath(), Connect(End())]).request(call(path=path("a", "b", "next", index=1)))
    assert len(passed_on.path.path_segments) == 3
