"""The authorities of all nodes in one Secret: made once, renewed by one, taken over by all."""

import asyncio
from base64 import b64encode
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from nsm.chains.identity import Authority
from nsm.kube import connect
from nsm.services.identity.secret import authorities_in, data_of, shared_authorities
from tests.kube.stand_in import eventually, forbidden, stand_in

SECRET = "/api/v1/namespaces/default/secrets/keys"
LIFETIME = timedelta(days=30)
MINE = Authority.create("test.mesh")
LEAF = MINE.issue("spiffe://test.mesh")
ENCRYPTED = MINE.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"words"))


@pytest.fixture
async def server():
    async with stand_in() as server:
        yield server


@asynccontextmanager
async def node(server, lifetime=LIFETIME):
    async with connect(server.url) as api, shared_authorities(api, "keys", "test.mesh", lifetime=lifetime) as shared:
        yield shared


def writes(server):
    return [request for request in server.requests if request.startswith(("POST", "PUT"))]


def kept(server):
    return [each.certificate for each in authorities_in(server.at(SECRET), "test.mesh")]


@pytest.mark.parametrize("there", [False, True])
async def test_nodes_that_start_together_share_one_authority(server, there):
    """Whether the Secret is there and empty, as the manifests have it, or is not."""
    if there:
        server.put(SECRET, type="Opaque")
    async with AsyncExitStack() as stack:
        nodes = await asyncio.gather(*[stack.enter_async_context(node(server)) for _ in range(5)])
        assert len({shared.signing.certificate.serial_number for shared in nodes}) == 1
        assert kept(server) == nodes[0].bundle
    assert all("fieldSelector=metadata.name%3Dkeys" in r for r in server.requests if r.startswith("GET"))


async def test_the_authority_is_the_same_after_a_restart(server):
    async with node(server) as before:
        pass
    async with node(server) as after:
        assert after.bundle == before.bundle
    assert len(writes(server)) == 1


async def test_half_way_one_node_makes_a_successor_and_all_trust_both(server):
    old = Authority.create("test.mesh", lifetime=timedelta(minutes=0.5))  # it began a minute ago
    server.put(SECRET, data={"other": "", **data_of([old])})
    async with AsyncExitStack() as stack:
        nodes = await asyncio.gather(*[stack.enter_async_context(node(server)) for _ in range(3)])
        await eventually(lambda: all(len(shared.bundle) == 2 for shared in nodes))
        assert [shared.bundle for shared in nodes] == [kept(server)] * 3
        assert {shared.signing.certificate.serial_number for shared in nodes} == {old.certificate.serial_number}
        new = kept(server)[1]
        assert new.not_valid_after_utc - new.not_valid_before_utc >= LIFETIME


async def test_what_else_is_in_the_secret_is_still_there_after_a_renewal(server):
    old = Authority.create("test.mesh", lifetime=timedelta(minutes=0.5))
    mine = {name.replace("1.", "corporate."): value for name, value in data_of([old]).items()}
    server.put(SECRET, data={"note": "bWluZQ==", "spare.key": "", **mine})
    async with node(server):
        assert len(kept(server)) == 2
    assert set(server.at(SECRET)["data"]) == {"note", "spare.key", "1.crt", "1.key", "2.crt", "2.key"}


async def test_a_secret_that_is_deleted_is_written_again_as_it_was(server):
    """Nobody's SVID stops being trusted."""
    async with node(server) as shared:
        before = shared.bundle
        server.remove(SECRET)
        await eventually(lambda: SECRET in server.paths())
        assert kept(server) == before == shared.bundle


async def test_a_secret_that_is_deleted_and_made_again_empty_is_filled_as_it_was(server):
    """As the manifests do it, where nobody else may make one."""
    server.refuse = lambda request: forbidden(request) if request.method == "POST" else None
    server.put(SECRET, type="Opaque")
    async with node(server) as shared:
        before = shared.bundle
        server.remove(SECRET)
        await eventually(lambda: any(request.startswith("POST") for request in server.requests))
        server.put(SECRET, type="Opaque")
        await eventually(lambda: server.at(SECRET).get("data"))
        assert kept(server) == before == shared.bundle


async def test_a_secret_that_is_emptied_gets_a_new_authority_and_the_old_one_is_trusted_no_more(server):
    """For who fears that a key was stolen."""
    async with AsyncExitStack() as stack:
        nodes = await asyncio.gather(*[stack.enter_async_context(node(server)) for _ in range(3)])
        (before,) = kept(server)
        server.put(SECRET, type="Opaque", data={})
        await eventually(lambda: all(before not in shared.bundle for shared in nodes))
        assert [shared.bundle for shared in nodes] == [kept(server)] * 3
        assert len(kept(server)) == 1


async def test_authorities_that_somebody_puts_in_are_taken_over(server):
    """To rotate at once, or to bring an authority along."""
    mine = Authority.create("test.mesh")
    async with node(server) as shared:
        version = shared.version
        server.put(SECRET, data=data_of([*authorities_in(server.at(SECRET), "test.mesh"), mine]))
        await asyncio.wait_for(shared.changed(version), 5)
        assert mine.certificate in shared.bundle


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"1.crt": "bm9uc2Vuc2U="}, "1.crt and 1.key"),
        ({"1.crt": "%%"}, "1.crt and 1.key"),
        (data_of([Authority.create("other.mesh")]), "the trust domain 'other.mesh', not of 'test.mesh'"),
        (
            {**data_of([Authority.create("test.mesh")]), "1.key": data_of([Authority.create("test.mesh")])["1.key"]},
            "the key does not belong to the certificate",
        ),
        (data_of([Authority("test.mesh", LEAF.leaf, LEAF.key)]), "not that of a self-signed authority"),
        ({**data_of([MINE]), "1.key": b64encode(ENCRYPTED).decode()}, "1.crt and 1.key: Password was not given"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_told_and_changes_nothing(server, data, told, capsys):
    async with node(server) as shared:
        before = shared.bundle
        server.put(SECRET, data=data)
        said = ""

        def has_said():
            nonlocal said
            said += capsys.readouterr().out
            return "cannot be used" in said

        await eventually(has_said)
        assert told in said
        assert shared.bundle == before
        assert server.at(SECRET)["data"] == data
        server.put(SECRET, data=data_of([MINE]))
        await eventually(lambda: shared.bundle == [MINE.certificate])


async def test_without_the_permission_it_says_which_one_and_goes_on_when_it_is_granted(server, capsys, monkeypatch):
    monkeypatch.setattr("nsm.services.identity.secret._PAUSE", 0.05)
    server.refuse = lambda request: forbidden(request) if request.method == "POST" else None
    async with AsyncExitStack() as stack:
        starting = asyncio.ensure_future(stack.enter_async_context(node(server)))
        await eventually(lambda: writes(server))
        await asyncio.sleep(0.05)
        assert "the verb 'create' on secrets by a Role" in capsys.readouterr().out
        assert not starting.done()
        server.refuse = None
        assert (await asyncio.wait_for(starting, 5)).bundle == kept(server)
