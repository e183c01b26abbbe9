"""A forwarder's cache: the endpoints of services that were asked for lately, and their sockets."""

import asyncio
import os
import stat

import pytest

from nsm.apis.registry import NetworkServiceEndpoint
from nsm.chains.core import Found, InvalidRequest, RegistryCall, RegistryChain, RegistryElement, Unavailable
from nsm.chains.registry import cache_providers
from nsm.chains.registry.cache_providers import CacheProviders
from nsm.chains.registry.descriptors import ReceiveUrls
from nsm.chains.registry.memory import Memory
from nsm.chains.transport.inbox import FileInbox

PAUSE = 1
"""Seconds: longer than a watch takes to settle, or to be begun again."""


def nse(name, *services, url="tcp://10.0.0.1:5001"):
    return NetworkServiceEndpoint(name=name, network_service_names=list(services or ["svc"]), url=url)


def providers_of(*services):
    return NetworkServiceEndpoint(network_service_names=list(services))


def named(name):
    return NetworkServiceEndpoint(name=name)


async def find(chain, query):
    return sorted([found.record.name async for batch in chain.find(RegistryCall(query)) for found in batch])


class Manager(RegistryElement):
    """A registry that can be asked, watched and taken away; endpoints on files come with their descriptors."""

    def __init__(self, *records):
        self.memory, self.asked, self.watched, self.is_down = Memory(), [], [], asyncio.Event()
        self.inbox = FileInbox()
        for record in records:
            self.put(record)

    def put(self, record):
        self.memory.records.put(record)

    async def find(self, call, rest):
        if self.is_down.is_set():
            raise Unavailable("the manager is down")
        (self.watched if call.watch else self.asked).append(call.record)
        call.inbox = self.inbox
        batches = self.memory.find(call, rest)
        while True:
            step, gone = asyncio.ensure_future(anext(batches)), asyncio.ensure_future(self.is_down.wait())
            try:
                await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    raise Unavailable("the manager went away")
                batch = step.result()
            except StopAsyncIteration:
                return
            finally:
                step.cancel()
                gone.cancel()
            keys = [self.send(found) for found in batch if found.record.url.startswith("inode://")]
            yield batch
            for key in keys:
                self.inbox.settle(*key)

    def send(self, found):
        device, inode = found.record.url.removeprefix("inode://").split("/")
        self.inbox.arrived(os.open(self.files[found.record.url], os.O_PATH))
        return int(device), int(inode)

    files: dict[str, str] = {}

    def on_file(self, name, path, *services):
        """An endpoint whose socket comes as a descriptor."""
        os.mknod(path, stat.S_IFSOCK | 0o600)
        status = os.stat(path)
        url = f"inode://{status.st_dev}/{status.st_ino}"
        self.files = {**self.files, url: str(path)}
        return nse(name, *services, url=url)


async def test_a_service_that_was_asked_for_is_answered_without_asking_again_and_so_are_its_endpoints_by_name():
    manager = Manager(nse("a"), nse("b"), nse("other", "else"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        assert await find(chain, providers_of("svc")) == ["a", "b"]
        await asyncio.sleep(PAUSE)
        manager.asked.clear()
        assert await find(chain, providers_of("svc")) == ["a", "b"]
        assert await find(chain, named("b")) == ["b"]
        assert manager.asked == []
        assert await find(chain, named("other")) == ["other"]
        assert [query.name for query in manager.asked] == ["other"]
        assert manager.watched == [providers_of("svc")]


async def test_what_comes_changes_and_goes_is_known_at_once():
    manager = Manager(nse("a"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        await find(chain, providers_of("svc"))
        await asyncio.sleep(PAUSE)
        manager.asked.clear()
        manager.put(nse("b"))
        manager.put(nse("a", url="tcp://10.0.0.9:5001"))
        await asyncio.sleep(PAUSE)
        calls = [found async for batch in chain.find(RegistryCall(providers_of("svc"))) for found in batch]
        assert {found.record.name: found.record.url for found in calls} == {
            "a": "tcp://10.0.0.9:5001",
            "b": "tcp://10.0.0.1:5001",
        }
        manager.memory.records.pop("a")
        await asyncio.sleep(PAUSE)
        assert await find(chain, providers_of("svc")) == ["b"]
        assert manager.asked == []
        manager.memory.records.pop("b")
        await asyncio.sleep(PAUSE)
        assert await find(chain, providers_of("svc")) == []
        assert manager.asked == [providers_of("svc")]


async def test_a_service_without_endpoints_is_not_followed_and_neither_is_a_question_that_says_more():
    manager = Manager(nse("a"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        assert await find(chain, providers_of("nothing")) == []
        assert await find(chain, NetworkServiceEndpoint(name="a", network_service_names=["svc"])) == ["a"]
        await asyncio.sleep(PAUSE)
        assert manager.watched == []


async def test_an_endpoint_that_is_requested_by_name_is_known_from_then_on():
    manager = Manager(nse("a"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        assert await find(chain, named("a")) == ["a"]
        await asyncio.sleep(PAUSE)
        assert manager.watched == [providers_of("svc")]
        before = len(manager.asked)
        assert await find(chain, named("a")) == ["a"]
        assert len(manager.asked) == before


async def test_while_the_manager_is_away_it_is_asked_and_afterwards_it_is_watched_again():
    manager = Manager(nse("a"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        await find(chain, providers_of("svc"))
        await asyncio.sleep(PAUSE)
        manager.is_down.set()
        await asyncio.sleep(PAUSE)
        with pytest.raises(Unavailable, match="the manager is down"):
            await find(chain, providers_of("svc"))
        manager.is_down.clear()
        manager.memory.records.pop("a")
        manager.put(nse("b"))
        assert await find(chain, providers_of("svc")) == ["b"]
        await asyncio.sleep(20)
        manager.asked.clear()
        assert await find(chain, providers_of("svc")) == ["b"]
        assert manager.asked == []


async def test_of_many_services_those_that_were_asked_for_last_are_followed(monkeypatch):
    monkeypatch.setattr(cache_providers, "MOST_SERVICES", 2)
    manager = Manager(*(nse(name, name) for name in "abc"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        for service in ("a", "b"):
            await find(chain, providers_of(service))
        await asyncio.sleep(PAUSE)
        await find(chain, providers_of("a"))
        await find(chain, providers_of("c"))
        await asyncio.sleep(PAUSE)
        manager.asked.clear()
        for service in ("a", "c", "b"):
            assert await find(chain, providers_of(service)) == [service]
        assert manager.asked == [providers_of("b")]
        assert len(manager.memory.records._watchers) == 2


async def test_sockets_stay_open_as_long_as_their_endpoints_are_known_and_can_be_taken_again(tmp_path):
    manager = Manager()
    manager.put(manager.on_file("a", tmp_path / "a"))
    adopted = []

    def adopt(received):
        adopted.append(received)
        return f"unix://{received.path}"

    async with RegistryChain([ReceiveUrls(adopt), CacheProviders(), manager]) as chain:
        await find(chain, providers_of("svc"))
        await asyncio.sleep(PAUSE)
        manager.asked.clear()
        for _ in range(2):
            adopted.pop().release()  # as a pool does with a channel that is lost
            (found,) = [f async for batch in chain.find(RegistryCall(providers_of("svc"))) for f in batch]
            assert os.path.samefile(found.record.url.removeprefix("unix://"), tmp_path / "a")
        assert manager.asked == []
        manager.put(manager.on_file("a", tmp_path / "restarted"))
        await asyncio.sleep(PAUSE)
        adopted.pop().release()
        (found,) = [f async for batch in chain.find(RegistryCall(named("a"))) for f in batch]
        assert os.path.samefile(found.record.url.removeprefix("unix://"), tmp_path / "restarted")
        assert manager.asked == []
        assert len(manager.inbox) == 1
        adopted.pop().release()
        manager.memory.records.pop("a")
        await asyncio.sleep(PAUSE)
        assert len(manager.inbox) == 0


async def test_when_the_cache_ends_no_socket_stays(tmp_path):
    manager = Manager()
    manager.put(manager.on_file("a", tmp_path / "a"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        await find(chain, providers_of("svc"))
        await asyncio.sleep(PAUSE)
        assert len(manager.inbox) == 1
    assert len(manager.inbox) == 0


async def test_an_inbox_of_kept_sockets_says_which_it_does_not_have():
    manager = Manager(nse("a"))
    async with RegistryChain([CacheProviders(), manager]) as chain:
        await find(chain, providers_of("svc"))
        await asyncio.sleep(PAUSE)
        call = RegistryCall(providers_of("svc"))
        assert [found async for batch in chain.find(call) for found in batch] == [Found(nse("a"))]
        with pytest.raises(InvalidRequest, match="inode://1/2 is not kept"):
            await call.inbox.take(1, 2, timeout=1)
