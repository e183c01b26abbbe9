"""Who gets which identity on a node: what is attached by the socket in its folder, all others by the node's entries."""

import asyncio
from contextlib import suppress

import pytest

from nsm.chains.core import Refused
from nsm.node.attached import Attached
from nsm.services.agent.attachments import ISSUER, Attachment, Folder
from nsm.services.agent.places import NETNS, Place
from nsm.services.identity.entries import Entries

NODE = "spiffe://my.cluster/node/edge"


def attach(folder, name):
    Folder(folder / name).write(Attachment(name, Place(NETNS, "/x"), ("kernel://s",), "unix:///m", ""))
    return str(Folder(folder / name).identity)


async def test_an_attachment_has_an_identity_as_long_as_it_is_attached(tmp_path):
    attached = Attached(str(tmp_path), NODE, Entries.parse([f"socket:/run/shop={NODE}/shop"]))
    served = asyncio.Queue()

    async def serve(paths):
        served.put_nowait(list(paths))

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        following = group.create_task(attached.follow(serve))
        socket = attach(tmp_path, "web")
        (tmp_path / "no name").mkdir()
        (tmp_path / "no name" / "attachment.json").touch()
        assert await served.get() == [socket]
        assert await attached.identify(socket, None) == f"{NODE}/web"
        assert await attached.identify("/run/shop", None) == f"{NODE}/shop"
        Folder(tmp_path / "web").remove()
        assert await served.get() == []
        with pytest.raises(Refused):
            await attached.identify(socket, None)
        following.cancel()


def test_the_command_knows_whether_the_node_issues_identities(tmp_path):
    folder = tmp_path / "agent"
    with Attached(str(folder), NODE, Entries()).told():
        assert (folder / ISSUER).read_text() == f"{NODE}\n"
        assert folder.stat().st_mode & 0o077 == 0
    assert not (folder / ISSUER).exists()


async def test_without_a_folder_there_are_no_such_identities():
    attached = Attached("", NODE, Entries())
    with attached.told(), suppress(TimeoutError):
        await asyncio.wait_for(attached.follow(lambda _: pytest.fail("served")), 1)
