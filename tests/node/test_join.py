"""A host joins a domain by a token: once, in time, at the domain that the token is of, and at no other server."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.config.address import parse_address
from nsm.chains.core import Conflict, Exhausted, InvalidRequest, Refused, Unavailable
from nsm.chains.identity import Authority
from nsm.node.joining import exchange, join, request_for
from nsm.node.member import Member
from nsm.node.state import State
from nsm.services.identity.joining.server import joining
from nsm.services.identity.joining.store import JoinStore
from nsm.services.identity.joining.token import JoinToken, new_secret

from .domain import domain, new_key

NODE = "spiffe://test.mesh/node/edge-1"


def anyone():
    """TLS of somebody without a certificate, who does not care who the server is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_a_host_gets_its_identity_and_what_the_domain_tells_its_nodes(tmp_path):
    async with domain(tmp_path) as made:
        token = JoinToken.parse(f" {made.token()}\n")
        membership = await join(token, new_key())
    assert membership.svid.spiffe_id == NODE
    assert membership.bundles == {"test.mesh": made.authorities.bundle}
    assert membership.settings["registry"] == "tcp://192.0.2.1:5002"
    assert made.store.nodes() == ["edge-1"]


async def test_a_token_that_was_used_is_refused_with_when_and_what_to_do(tmp_path):
    async with domain(tmp_path) as made:
        token = made.token()
        await join(token, new_key())
        with pytest.raises(Refused, match=r"used at 1970-01-12 13:46:40 UTC.*forget edge-1"):
            await join(token, new_key())


async def test_a_host_whose_answer_was_lost_may_repeat_its_request_with_the_same_key(tmp_path):
    async with domain(tmp_path) as made:
        token, key = made.token(), new_key()
        await join(token, key)
        assert (await join(token, key)).svid.spiffe_id == NODE


async def test_a_token_that_has_expired_is_refused(tmp_path):
    async with domain(tmp_path) as made:
        token = made.token(lifetime=60.0)
        made.seconds += 60.0
        with pytest.raises(Refused, match=r"expired at .*nsm identity token edge-1"):
            await join(token, new_key())


async def test_a_token_of_another_domain_is_not_even_sent(tmp_path):
    async with domain(tmp_path) as made, domain(tmp_path, "other.mesh") as other:
        token = replace(made.token(), address=other.token().address)
        with pytest.raises(Refused, match=r"not that of the token.*another fingerprint.*was not sent"):
            await join(token, new_key())
        forged = replace(other.token(), secret=token.secret)
        with pytest.raises(Refused, match="there is no such join token"):
            await join(forged, new_key())
        with pytest.raises(Refused, match=r"is spiffe://other.mesh/join, not spiffe://test.mesh/join"):
            await join(replace(other.token(), trust_domain="test.mesh"), new_key())
        assert (await join(made.token(), new_key())).trust_domain == "test.mesh"


async def test_a_workload_cannot_stand_in_for_the_server(tmp_path):
    """Although its SVID is by the authority whose fingerprint is in the token."""
    async with domain(tmp_path) as made:
        (authority,) = made.authorities.all
        svid = authority.issue("spiffe://test.mesh/workload")
        pem = svid.pem() + authority.certificate.public_bytes(Encoding.PEM)
        (tmp_path / "chain").write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "chain")
        received = []

        async def listen(reader, writer):
            received.append(await reader.read())
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            token = replace(made.token(), address=parse_address(f"127.0.0.1:{port}"))
            with pytest.raises(Refused, match="is spiffe://test.mesh/workload, not spiffe://test.mesh/join"):
                await join(token, new_key())
    assert b"".join(received) == b""


async def test_whoever_guesses_is_slowed_down_and_does_not_find_out_what_exists(tmp_path):
    async with domain(tmp_path) as made:
        token = made.token()
        told = set()
        for _ in range(10):
            with pytest.raises(Refused) as refused:
                await join(replace(token, secret=new_secret()), new_key())
            told.add(refused.value.detail)
        assert len(told) == 1
        with pytest.raises(Exhausted, match="too many refused attempts to join from 127.0.0.1"):
            await join(token, new_key())


async def test_refused_attempts_of_a_workload_do_not_keep_its_node_from_renewing(tmp_path):
    async with domain(tmp_path) as made:
        member, token = await made.member(tmp_path / "host"), made.token()
        for _ in range(10):
            with pytest.raises(Refused):
                await join(replace(token, secret=new_secret()), new_key())
        await member.renew()


async def test_connections_that_send_nothing_do_not_keep_others_away(tmp_path):
    """The oldest ones end: of the same address first."""
    async with domain(tmp_path) as made:
        address = made.token().address
        idle = [await asyncio.open_connection(address.host, address.port) for _ in range(20)]
        assert (await join(made.token(), new_key())).svid.spiffe_id == NODE
        for reader, _ in idle[:12]:
            with suppress(ConnectionError):
                assert await reader.read() == b""
        for _, writer in idle:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({}, "requests is not a map"),
        ({"requests": {}}, "0 certificates"),
        ({"requests": {"": "-----"}}, "cannot be read"),
        ({"requests": {"../other": "x"}}, "cannot be a workload's name"),
        ({"requests": {f"w{number}": "x" for number in range(33)}}, "33 certificates"),
        ({"join": [], "requests": {"": ...}}, "join is not a map"),
        ({"join": {"trust_domain": "test.mesh"}, "requests": {"shop": ...}}, "for itself"),
        ({"requests": {"": ...}}, "neither a join token nor a node's certificate"),
    ],
)
async def test_nonsense_is_refused_with_what_was_wrong(tmp_path, request_, told):
    wanted = request_.get("requests", {})
    sent = {name: request_for(new_key()) if pem is ... else pem for name, pem in wanted.items()}
    async with domain(tmp_path) as made:
        with pytest.raises((InvalidRequest, Refused), match=told):
            await exchange(made.token().address, anyone(), {**request_, **({"requests": sent} if wanted else {})}, id)


async def test_bytes_that_are_no_message_end_one_connection_only(tmp_path):
    async with domain(tmp_path) as made:
        address = made.token().address
        for sent in (b"\n", b"[]\n", b"{" * 300_000, b"\xff\n", b"[" * 100_000 + b"\n"):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=anyone())
            writer.write(sent)
            assert b'"InvalidRequest"' in await reader.read()
            writer.transport.abort()
        assert (await join(made.token(), new_key())).svid.spiffe_id == NODE


async def test_a_host_renews_itself_and_its_key_stays_on_it(tmp_path):
    async with domain(tmp_path) as made:
        member = await made.member(tmp_path / "host")
        before = member.membership.svid
        await member.renew()
        await member.renew()
        assert member.identity.spiffe_id == NODE
        assert member.identity.svid.key != before.key
        assert State(str(tmp_path / "host")).load().svid.leaf == member.membership.svid.leaf


async def test_workloads_get_identities_below_the_nodes_and_no_others(tmp_path):
    async with domain(tmp_path) as made:
        member = await made.member(tmp_path / "host")
        assert (await member.issue(f"{NODE}/shop", 60)).spiffe_id == f"{NODE}/shop"
        for other in ("spiffe://test.mesh/node/edge-2", "spiffe://test.mesh/nsmgr"):
            with pytest.raises(InvalidRequest, match="cannot be a workload's name"):
                await member.issue(other, 60)


async def test_a_workload_cannot_request_identities_although_its_domain_issued_its_own(tmp_path):
    async with domain(tmp_path) as made:
        member = await made.member(tmp_path / "host")
        workload = await member.issue(f"{NODE}/shop", 60)
        member.identity.update(workload, member.membership.bundles)
        with pytest.raises(Refused, match="is not a node that has joined"):
            await member.renew()


async def test_a_node_of_another_domain_cannot_renew_here(tmp_path):
    async with domain(tmp_path) as made, domain(tmp_path, "other.mesh") as other:
        member = await made.member(tmp_path / "host")
        stranger = await other.member(tmp_path / "stranger")
        bundles = {**stranger.membership.bundles, **member.membership.bundles}
        member.identity.update(stranger.membership.svid, bundles)
        with pytest.raises((Refused, Unavailable), match="closed the connection|TLS"):
            await member.renew()


async def test_a_state_that_was_copied_is_noticed_and_ends_for_both(tmp_path):
    async with domain(tmp_path) as made:
        member = await made.member(tmp_path / "host")
        stolen = State(str(tmp_path / "host")).load()
        thief = Member(State(str(tmp_path / "thief")), stolen, token_lifetime=600)
        await thief.renew()
        await thief.issue(f"{NODE}/shop", 60)
        with pytest.raises(Refused, match="its state may have been copied.*nsm identity token edge-1"):
            await member.renew()
        with pytest.raises(Refused, match="its state may have been copied"):
            await thief.renew()
        assert (await made.member(tmp_path / "host")).identity.spiffe_id == NODE


async def test_a_host_that_lost_an_answer_renews_with_the_certificate_that_it_has(tmp_path, monkeypatch):
    async with domain(tmp_path) as made:
        member = await made.member(tmp_path / "host")
        with monkeypatch.context() as disk:
            disk.setattr(State, "save", full_disk)
            with pytest.raises(OSError, match="No space left"):
                await member.renew()
        await member.renew()
        await member.renew()


def full_disk(_state, _membership):
    raise OSError(28, "No space left on device")


async def test_a_node_that_is_forgotten_renews_no_longer_until_it_joins_again(tmp_path):
    async with domain(tmp_path) as made:
        member, unused = await made.member(tmp_path / "host"), made.token()
        assert made.store.forget("edge-1")
        with pytest.raises(Refused, match="not .or no longer. a node of this domain"):
            await member.renew()
        with pytest.raises(Refused, match="no such join token"):
            await join(unused, new_key())
        assert not made.store.forget("edge-1")


async def test_a_name_that_joins_again_is_lost_to_the_host_that_had_it(tmp_path):
    async with domain(tmp_path) as made:
        first = await made.member(tmp_path / "first")
        second = await made.member(tmp_path / "second")
        with pytest.raises(Refused):
            await first.renew()
        assert second.identity.spiffe_id == NODE


async def test_a_host_follows_the_authorities_of_its_domain_and_those_of_others(tmp_path):
    federated = {}
    async with domain(tmp_path, federated=federated) as made:
        member = await made.member(tmp_path / "host")
        another, other = Authority.create("test.mesh"), Authority.create("other.mesh")
        made.authorities.use([*made.authorities.all, another])
        federated["other.mesh"] = [other.certificate]
        waiting = asyncio.ensure_future(member.changed(member.version))
        await member.issue(f"{NODE}/shop", 60)
        await waiting
        assert member.bundle == made.authorities.bundle
        assert member.identity.bundles["other.mesh"] == [other.certificate]


async def test_a_host_whose_authority_was_replaced_at_once_is_told_to_join_again(tmp_path):
    """As after a theft of the authority's key."""
    async with domain(tmp_path) as made:
        member = await made.member(tmp_path / "host")
        made.authorities.use([Authority.create("test.mesh")])
        with pytest.raises(Refused, match="authority of its domain was replaced.*join with a new token"):
            await member.renew()


async def test_a_folder_that_others_can_read_is_not_used(tmp_path):
    for name, kind in (("join", JoinStore), ("node", State)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o750)
        with pytest.raises(InvalidRequest, match=r"open to other users.*chmod 700"):
            kind(str(tmp_path / name))
        kind(str(tmp_path / "fresh" / name))
        assert (tmp_path / "fresh" / name).stat().st_mode & 0o777 == 0o700


async def test_a_stored_state_can_be_read_by_its_owner_only(tmp_path):
    async with domain(tmp_path) as made:
        await made.member(tmp_path / "host")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "host").iterdir()] == [0o600]
    assert all(each.stat().st_mode & 0o077 == 0 for each in (tmp_path / "test.mesh").rglob("*") if each.name != "lock")


async def test_a_state_that_is_cut_off_says_which_file_it_is(tmp_path):
    async with domain(tmp_path) as made:
        await made.member(tmp_path / "host")
    file = tmp_path / "host" / "node.json"
    for content in ("", "[]", "{}", file.read_text().replace("BEGIN", "BEG1N"), file.read_text()[:-20]):
        file.write_text(content)
        with pytest.raises(InvalidRequest, match="node.json"):
            State(str(tmp_path / "host")).load()


async def test_two_issuers_do_not_serve_one_folder(tmp_path):
    async with domain(tmp_path) as made:
        with pytest.raises(Conflict, match="another `nsm identity` serves"):
            async with joining(made.server, made.store, made.authorities, parse_address("tcp://127.0.0.1:0"), ""):
                pass


def test_a_token_needs_an_issuer_and_a_name(tmp_path):
    store = JoinStore(str(tmp_path / "join"))
    with pytest.raises(Conflict, match="no `nsm identity` has served"):
        store.new_token("edge-1", lifetime=60)
    for name in ("", "-x", "a/b", "a" * 64, ".."):
        with pytest.raises(InvalidRequest, match="cannot be a node's name"):
            store.new_token(name, lifetime=60)


@pytest.mark.parametrize("text", ["", "join://edge-1", "join://edge-1:short@h:1/d#f", "https://example.org/token"])
def test_what_is_no_token_is_not_repeated_in_the_error(text):
    with pytest.raises(InvalidRequest, match="this is not a join token") as refused:
        JoinToken.parse(text)
    assert not text or text not in str(refused.value)


async def test_a_token_does_not_show_its_secret_in_logs(tmp_path):
    async with domain(tmp_path) as made:
        token = made.token(at="join.example.org:5007")
    assert token.secret in str(token)
    assert token.secret not in repr(token)
    assert "@join.example.org:5007/test.mesh#" in str(token)
    assert token.secret not in "".join(
        each.name + each.read_text() for each in (tmp_path / "test.mesh/tokens").iterdir()
    )
