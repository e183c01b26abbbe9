"""A registry in a file: it survives kill -9, and says what is wrong with a file that it cannot use."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager

import pytest

from nsm.apis.registry import NetworkService, NetworkServiceEndpoint
from nsm.chains.core import ENDPOINTS, MeshError, Refused, Unavailable
from nsm.chains.registry.stored import collector
from nsm.services.registry.sqlite.database import Database
from tests.services.registry.calls import ANY, OTHER, asks, find, names, nse, opened


@contextmanager
def edited(path):
    """The file, by another program."""
    with closing(sqlite3.connect(path)) as database, database:
        yield database


@pytest.fixture
def path(tmp_path):
    return tmp_path / "registry.db"


async def test_records_and_their_owners_are_there_after_a_restart(path):
    async with opened(path) as registry:
        await registry.services.register(asks(NetworkService(name="svc", payload="ETHERNET")))
        record = await registry.endpoints.register(asks(nse("mine", "svc", url="tcp://h:1")))
        await registry.endpoints.register(asks(nse("gone")))
        await registry.endpoints.unregister(asks(nse("gone")))
    async with opened(path) as registry:
        assert await find(registry.endpoints, ANY) == [record]
        assert [service.payload for service in await find(registry.services, NetworkService())] == ["ETHERNET"]
        with pytest.raises(Refused, match="'mine' was registered by spiffe://test.mesh/one"):
            await registry.endpoints.register(asks(nse("mine"), OTHER))
        again = await registry.endpoints.register(asks(nse("mine")))
        assert again.initial_registration_time == record.initial_registration_time


async def test_what_has_ended_meanwhile_is_gone_after_a_restart_and_its_row_too(path, monkeypatch):
    monkeypatch.setattr(collector, "_SPREAD", 0.01)
    async with opened(path, lifetime=0.3) as registry:
        await registry.endpoints.register(asks(nse("late")))
        await registry.services.register(asks(NetworkService(name="svc")))
    await asyncio.sleep(0.3)
    async with opened(path) as registry:
        assert await names(registry.endpoints, ANY) == []
        await registry.endpoints.register(asks(nse("other"), OTHER))
        await asyncio.sleep(0.1)
    with edited(path) as database:
        assert [name for (name,) in database.execute("SELECT name FROM records ORDER BY version")] == ["svc", "other"]


async def test_a_service_that_nobody_provides_goes_when_its_time_is_over(path, monkeypatch):
    monkeypatch.setattr(collector, "_SPREAD", 0.01)
    async with opened(path, service_lifetime=0.3) as registry:
        for name in ("provided", "forgotten"):
            await registry.services.register(asks(NetworkService(name=name)))
        await registry.endpoints.register(asks(nse("nse", "provided")))
        async with asyncio.timeout(5):
            while await names(registry.services, NetworkService()) != ["provided"]:
                await asyncio.sleep(0.02)


async def test_a_registry_that_is_killed_while_it_writes_has_lost_nothing_that_it_confirmed(path):
    script = f"""
import asyncio, sys
from pathlib import Path
from tests.services.registry.calls import asks, nse, opened
async def main():
    async with opened(Path({str(path)!r})) as registry:
        async def one(number):
            await registry.endpoints.register(asks(nse(f"nse-{{number}}")))
            print(number, flush=True)
        for begin in range(0, 100_000, 8):
            await asyncio.gather(*(one(number) for number in range(begin, begin + 8)))
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with process:
        confirmed = [process.stdout.readline() for _ in range(100)]
        os.kill(process.pid, signal.SIGKILL)
        confirmed += process.stdout.readlines()
    numbers = {int(line) for line in confirmed if line.endswith("\n")}
    assert len(numbers) >= 100
    async with opened(path) as registry:
        there = set(await names(registry.endpoints, ANY))
    assert {f"nse-{number}" for number in numbers} <= there
    assert len(there) <= len(numbers) + 8


async def test_a_full_disk_refuses_what_is_new_and_loses_nothing(path):
    async with Database(path) as database:

        def limit(pages):
            return database._run(lambda: database._connection.execute(f"PRAGMA max_page_count = {pages}").fetchone())

        applied = []
        await database.put("kind", "before", 0.0, b"x", applied.append)
        await limit(1)
        with pytest.raises(Unavailable, match=r"registry\.db cannot be written: the disk is full"):
            await database.put("kind", "large", 0.0, bytes(100_000), applied.append)
        await asyncio.gather(
            *(database.put("kind", name, 0.0, bytes(size), applied.append) for name, size in (("a", 1), ("b", 1))),
        )
        assert {row.name for row in await database.rows()} == {"before", "a", "b"}
        await limit(1000)
        await database.put("kind", "large", 0.0, bytes(100_000), applied.append)
        assert applied == sorted(set(applied))


async def test_of_many_writes_at_once_one_that_cannot_be_written_fails_alone(path):
    async with Database(path) as database:
        await database._run(lambda: database._connection.execute("PRAGMA max_page_count = 12").fetchone())
        results = await asyncio.gather(
            *(
                database.put("kind", f"{number}", 0.0, bytes(1_000_000 if number == 3 else 10), lambda version: None)
                for number in range(8)
            ),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None)] * 3 + [Unavailable] + [type(None)] * 4


async def test_a_caller_that_leaves_before_its_write_is_done_does_not_lose_what_was_written(path):
    async with Database(path) as database:
        applied = []
        writing = asyncio.ensure_future(database.put("kind", "name", 0.0, b"", applied.append))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        await database.put("kind", "next", 0.0, b"", applied.append)
        assert len(applied) == len(await database.rows()) == 2


@pytest.mark.parametrize("holder", ["here", "elsewhere"])
async def test_a_file_that_another_registry_has_open_is_said_so(path, holder):
    async with Database(path):
        if holder == "here":
            with pytest.raises(MeshError, match=r"registry\.db is in use by another process; each registry needs"):
                await Database(path).__aenter__()
        else:
            script = f"import asyncio; from tests.services.registry.test_sqlite import opened; from pathlib import Path\nasync def main():\n    async with opened(Path({str(path)!r})):\n        pass\nasyncio.run(main())"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stderr=asyncio.subprocess.PIPE)
            said = (await process.communicate())[1].decode()
            assert process.returncode == 1
            assert "is in use by another process" in said


def no_database(path):
    path.write_text("a diary of " + "many words " * 500)


def another_programs(path):
    with edited(path) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")


def a_newer_version(path):
    with edited(path) as database:
        database.execute(f"PRAGMA application_id = {0x4E534D31}")
        database.execute("PRAGMA user_version = 9")


def cut_off(path):
    with edited(path) as database:
        database.execute("CREATE TABLE t (x)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 100)
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_database, "is not an SQLite database; move it away, or use another file"),
        (another_programs, "is a database of another program; use another file"),
        (a_newer_version, "has format 9, of a newer version; this one reads up to 1"),
        (cut_off, "is (damaged|a database of another program)"),
        (lambda path: path.mkdir(), "cannot be opened or created; check that its folder exists and can be written"),
    ],
)
async def test_a_file_that_is_no_registry_is_left_as_it_is_and_said_so(path, make, said):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(MeshError, match=rf"registry\.db {said}"):
        async with opened(path):
            pass
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(MeshError, match=r"none/registry\.db cannot be opened or created; check that its folder exists"):
        async with opened(tmp_path / "none" / "registry.db"):
            pass


async def test_a_row_that_is_no_record_is_ignored_and_may_be_registered_anew(path):
    async with opened(path) as registry:
        await registry.endpoints.register(asks(nse("sound")))
        await registry.endpoints.register(asks(nse("spoilt")))
        await registry.endpoints.register(asks(nse("renamed")))
    with edited(path) as database:
        database.execute("UPDATE records SET record = ? WHERE name = 'spoilt'", (b"\xff\xff\xff",))
        database.execute("UPDATE records SET name = 'another' WHERE name = 'renamed'")
    async with opened(path) as registry:
        assert await names(registry.endpoints, ANY) == ["sound"]
        await registry.endpoints.register(asks(nse("spoilt"), OTHER))
        assert await names(registry.endpoints, ANY) == ["sound", "spoilt"]


async def test_unknown_fields_of_a_newer_component_are_kept(path):
    record = NetworkServiceEndpoint(name="nse", network_service_names=["svc"])
    newer = ENDPOINTS.record().parse(bytes(record) + b"\xf2\x3e\x03abc")
    async with opened(path) as registry:
        await registry.endpoints.register(asks(newer))
    async with opened(path) as registry:
        (found,) = await find(registry.endpoints, ANY)
    assert b"\xf2\x3e\x03abc" in bytes(found)
