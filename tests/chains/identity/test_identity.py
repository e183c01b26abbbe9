"""SVIDs and who is believed: every peer against its own trust domain."""

import asyncio
import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from nsm.chains.core import InvalidRequest, Refused, Unavailable
from nsm.chains.identity import Authority, Identity, Svid, source, spiffe_id_of, split_certificates, trust_domain_of
from nsm.chains.testing.identity import identity_of

OURS, THEIRS, STRANGERS = (Authority.create(name) for name in ("ours.mesh", "theirs.mesh", "strangers.mesh"))


def shake_hands(server, client):
    """The two ends of a TLS connection in memory, after the handshake."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.server_context().wrap_bio(to_server, to_client, server_side=True)
    other = client.client_context().wrap_bio(to_client, to_server)
    for _ in range(6):
        for end in (other, one):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return one, other


def with_svid(identity, svid):
    changed = Identity()
    changed.update(svid, identity.bundles)
    return changed


def test_peers_of_one_domain_and_of_a_federated_one_are_verified():
    server = identity_of(OURS, "server", THEIRS)
    for client in (identity_of(OURS, "client"), identity_of(THEIRS, "client", OURS)):
        one, other = shake_hands(server, client)
        assert server.verify(one).spiffe_id == client.spiffe_id
        assert client.verify(other).spiffe_id == "spiffe://ours.mesh/server"


def test_peers_whose_authorities_follow_one_another_trust_each_other_and_nobody_trusts_one_that_is_gone():
    """The two have the same name and different keys."""
    old, new = (Authority.create("ours.mesh") for _ in range(2))
    both = {"ours.mesh": [old.certificate, new.certificate]}
    early, late, later = Identity(), Identity(), Identity()
    early.update(old.issue("spiffe://ours.mesh/early"), both)
    late.update(new.issue("spiffe://ours.mesh/late"), both)
    later.update(new.issue("spiffe://ours.mesh/later"), {"ours.mesh": [new.certificate]})
    for server, client in ((early, late), (late, early)):
        one, other = shake_hands(server, client)
        assert server.verify(one).spiffe_id == client.spiffe_id
        assert client.verify(other).spiffe_id == server.spiffe_id
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(later, early)


def test_an_identity_of_our_domain_that_another_domain_issued_is_refused():
    """TLS alone would take it: the other domain's authority is trusted for its own identities."""
    impostor = Authority("ours.mesh", THEIRS.certificate, THEIRS.key).issue("spiffe://ours.mesh/admin")
    server = identity_of(OURS, "server", THEIRS)
    one, _ = shake_hands(server, with_svid(identity_of(OURS, "x", THEIRS), impostor))
    with pytest.raises(Refused, match="spiffe://ours.mesh/admin was not issued by its own trust domain"):
        server.verify(one)


def test_an_intermediate_authority_is_followed_to_the_domain_s_own():
    between = authorized(OURS, "ours.mesh")
    leaf = between.issue("spiffe://ours.mesh/client")
    chained = Svid(leaf.spiffe_id, (leaf.leaf, between.certificate), leaf.key)
    server = identity_of(OURS, "server")
    one, _ = shake_hands(server, with_svid(identity_of(OURS, "x"), chained))
    assert server.verify(one).spiffe_id == "spiffe://ours.mesh/client"


@pytest.mark.parametrize("called", [[x509.SubjectKeyIdentifier(b"made up in another way")], []])
def test_an_authority_that_was_made_elsewhere_issues_what_is_accepted(called):
    """Its key is called otherwise than we would call it (Go takes SHA-256), or nothing at all."""
    like, builder = OURS.certificate, x509.CertificateBuilder()
    for extension in [x509.BasicConstraints(ca=True, path_length=None), *called]:
        builder = builder.add_extension(extension, critical=False)
    builder = builder.subject_name(like.subject).issuer_name(like.subject).public_key(like.public_key())
    builder = builder.not_valid_before(like.not_valid_before_utc).not_valid_after(like.not_valid_after_utc)
    certificate = builder.serial_number(1).sign(OURS.key, hashes.SHA256())
    one, other = (identity_of(Authority("ours.mesh", certificate, OURS.key), name) for name in ("one", "other"))
    server, client = shake_hands(one, other)
    assert one.verify(server).spiffe_id == other.spiffe_id
    assert other.verify(client).spiffe_id == one.spiffe_id


def authorized(parent, domain):
    """An authority whose certificate `parent` signed."""
    child = Authority.create(domain)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "between")]))
        .issuer_name(parent.certificate.subject)
        .public_key(child.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1))
        .not_valid_after(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(parent.key, hashes.SHA256())
    )
    return Authority(domain, certificate, child.key)


def test_a_domain_that_is_not_federated_is_refused_in_the_handshake():
    with pytest.raises(ssl.SSLError):
        shake_hands(identity_of(OURS, "server"), identity_of(STRANGERS, "client", OURS))


def test_an_expired_identity_is_refused_in_the_handshake():
    old = OURS.issue("spiffe://ours.mesh/old", lifetime=datetime.timedelta(seconds=-30))
    with pytest.raises(ssl.SSLError):
        shake_hands(identity_of(OURS, "server"), with_svid(identity_of(OURS, "x"), old))


def test_the_certificate_of_an_authority_is_no_identity():
    server = identity_of(OURS, "server")
    authority = Svid("spiffe://ours.mesh", (OURS.certificate,), OURS.key)
    try:
        one, _ = shake_hands(server, with_svid(identity_of(OURS, "x"), authority))
    except ssl.SSLError:
        return
    with pytest.raises(Refused):
        server.verify(one)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "spiffe://",
        "http://ours.mesh/x",
        "spiffe://Ours.mesh/x",
        "spiffe://ours.mesh/a//b",
        "spiffe://ours.mesh/../x",
        "spiffe://ours.mesh/x?y",
        "spiffe://ours.mesh:80/x",
        "spiffe://" + "a" * 2100,
    ],
)
def test_what_is_no_spiffe_id_is_refused(bad):
    with pytest.raises(Refused):
        trust_domain_of(bad)


def test_a_leaf_names_exactly_one_uri():
    with pytest.raises(Refused, match="is not a SPIFFE ID"):
        OURS.issue("https://example.org")
    assert spiffe_id_of(OURS.issue("spiffe://ours.mesh/a/b").leaf) == "spiffe://ours.mesh/a/b"
    assert trust_domain_of("spiffe://ours.mesh") == "ours.mesh"


def test_the_workload_api_s_form_is_read_and_checked():
    svid, other = OURS.issue("spiffe://ours.mesh/x"), OURS.issue("spiffe://ours.mesh/y")
    der = svid.leaf.public_bytes(Encoding.DER)
    key, wrong = (s.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) for s in (svid, other))
    assert Svid.from_der(der, key).spiffe_id == "spiffe://ours.mesh/x"
    assert len(split_certificates(der + OURS.certificate.public_bytes(Encoding.DER))) == 2
    with pytest.raises(ValueError, match="does not belong"):
        Svid.from_der(der, wrong)
    with pytest.raises(ValueError):
        Svid.from_der(der[:-1], key)


def test_no_key_is_left_on_a_disk(monkeypatch):
    """OpenSSL reads files only; they are in memory."""
    import builtins

    opened = []
    monkeypatch.setattr(builtins, "open", lambda *a, **k: opened.append(a))
    identity_of(OURS, "x").client_context()
    assert opened == []


def test_an_identity_that_has_not_come_yet_is_told():
    with pytest.raises(Unavailable, match="has no identity yet"):
        _ = Identity().spiffe_id


# --- from the issuer to the source, over a real socket


async def test_an_identity_comes_from_the_issuer_and_is_renewed_at_half_of_its_life(tmp_path):
    """Who asks on another socket is somebody else; bundles of other domains come along."""
    from nsm.chains.identity.source import identity_from
    from nsm.chains.transport import SocketAccess, serve_plain
    from nsm.services.identity.authorities import Authorities
    from nsm.services.identity.entries import Entries
    from nsm.services.identity.issuer import Issuer

    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    entries = Entries.parse([f"socket:{one}=spiffe://ours.mesh/one", f"socket:{other}=spiffe://ours.mesh/other"])
    issuer = Issuer(
        Authorities([OURS]),
        entries.identify,
        lifetime=2.5,
        federated={"theirs.mesh": [THEIRS.certificate]},
        federates=lambda spiffe_id: spiffe_id.endswith("/one"),
    )
    async with serve_plain(one, issuer.methods(one), name="id", access=SocketAccess()):
        async with serve_plain(other, issuer.methods(other), name="id", access=SocketAccess()):
            async with identity_from(f"unix://{one}", token_lifetime=60) as first:
                async with identity_from(f"unix://{other}", token_lifetime=60) as second:
                    assert (first.spiffe_id, second.spiffe_id) == ("spiffe://ours.mesh/one", "spiffe://ours.mesh/other")
                    assert set(first.bundles) == {"ours.mesh", "theirs.mesh"}
                    assert set(second.bundles) == {"ours.mesh"}  # it is not to know the other domain
                    generation = first.generation
                    async with asyncio.timeout(10):
                        while first.generation < generation + 2:
                            await asyncio.sleep(0.05)
                    one_end, _ = shake_hands(first, second)
                    assert first.verify(one_end).spiffe_id == "spiffe://ours.mesh/other"


async def test_an_issuer_that_comes_late_or_back_is_waited_for(tmp_path, capsys):
    from nsm.chains.identity.source import identity_from
    from nsm.chains.transport import SocketAccess, serve_plain
    from nsm.services.identity.authorities import Authorities
    from nsm.services.identity.entries import Entries
    from nsm.services.identity.issuer import Issuer

    path = str(tmp_path / "late")
    issuer = Issuer(Authorities([OURS]), Entries.parse([f"socket:{path}=spiffe://ours.mesh/late"]).identify)
    source = identity_from(f"unix://{path}", token_lifetime=60)
    entering = asyncio.ensure_future(source.__aenter__())
    await asyncio.sleep(0.2)
    assert not entering.done()
    assert "No such file" in capsys.readouterr().out
    async with serve_plain(path, issuer.methods(path), name="id", access=SocketAccess()):
        identity = await asyncio.wait_for(entering, 5)
    async with serve_plain(path, issuer.methods(path), name="id", access=SocketAccess()):
        async with asyncio.timeout(5):
            while identity.generation < 2:
                await asyncio.sleep(0.05)
    await source.__aexit__(None, None, None)


@pytest.mark.parametrize("fault", ["contains no SPIFFE ID", "private key is encrypted"])
async def test_an_svid_that_cannot_be_used_is_told_and_the_next_one_is_taken(tmp_path, capsys, fault):
    from nsm.apis.workload import X509Svid, X509SvidRequest, X509SvidResponse
    from nsm.chains.identity.source import identity_from
    from nsm.chains.transport import SocketAccess, Streaming, serve_plain
    from nsm.services.identity.issuer import FETCH_SVID

    def told(certificate, key, encryption=None):
        secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption or NoEncryption())
        der, bundle = (each.public_bytes(Encoding.DER) for each in (certificate, OURS.certificate))
        return X509SvidResponse(svids=[X509Svid(x509_svid=der, x509_svid_key=secret, bundle=bundle)])

    good, nameless = OURS.issue("spiffe://ours.mesh/x"), authorized(OURS, "ours.mesh")
    faulty = {
        "contains no SPIFFE ID": told(nameless.certificate, nameless.key),
        "private key is encrypted": told(good.leaf, good.key, BestAvailableEncryption(b"words")),
    }
    answers = [told(good.leaf, good.key), faulty[fault]]

    async def svids(_request, _incoming):
        yield [answers.pop()]
        await asyncio.Event().wait()

    path = str(tmp_path / "s")
    async with serve_plain(path, {FETCH_SVID: Streaming(X509SvidRequest, svids)}, name="id", access=SocketAccess()):
        async with asyncio.timeout(5), identity_from(f"unix://{path}", token_lifetime=60) as identity:
            assert identity.spiffe_id == "spiffe://ours.mesh/x"
    assert fault in capsys.readouterr().out


async def test_who_is_not_known_yet_says_so_once_and_is_soon_told_who_it_is(tmp_path, capsys):
    """As a new pod, which SPIRE's agent hears of some seconds after it has started."""
    from nsm.chains.identity.source import identity_from
    from nsm.chains.transport import SocketAccess, serve_plain
    from nsm.services.identity.authorities import Authorities
    from nsm.services.identity.entries import Entries
    from nsm.services.identity.issuer import Issuer

    path, asked = str(tmp_path / "s"), []
    entries = Entries.parse([f"socket:{path}=spiffe://ours.mesh/late"])

    async def identify(socket_path, caller):
        asked.append(asyncio.get_running_loop().time())
        if asked[-1] < asked[0] + 2:
            raise Refused("no identity issued")
        return await entries.identify(socket_path, caller)

    issuer = Issuer(Authorities([OURS]), identify)
    async with serve_plain(path, issuer.methods(path), name="id", access=SocketAccess()):
        async with asyncio.timeout(10):
            async with identity_from(f"unix://{path}", token_lifetime=60) as identity:
                assert identity.spiffe_id == "spiffe://ours.mesh/late"
    assert asked[-1] < asked[0] + 3.5
    assert capsys.readouterr().out.count("is there an entry for this process?") == 1


async def test_the_issuer_refuses_who_is_unknown_and_who_does_not_speak_the_workload_api(tmp_path):
    from grpclib.client import Channel
    from grpclib.exceptions import GRPCError

    from nsm.apis import codec
    from nsm.apis.workload import SpiffeWorkloadApiStub, X509SvidRequest
    from nsm.chains.transport import SocketAccess, serve_plain
    from nsm.services.identity.authorities import Authorities
    from nsm.services.identity.entries import Entries
    from nsm.services.identity.issuer import Issuer

    path = str(tmp_path / "s")
    issuer = Issuer(Authorities([OURS]), Entries.parse(["uid:4242=spiffe://ours.mesh/somebody-else"]).identify)
    async with serve_plain(path, issuer.methods(path), name="id", access=SocketAccess()):
        channel = Channel(path=path, codec=codec.Codec())
        stub = SpiffeWorkloadApiStub(channel)
        with pytest.raises(GRPCError, match="workload.spiffe.io: true is missing"):
            await anext(stub.fetch_x_509_svid(X509SvidRequest()))
        with pytest.raises(GRPCError, match="no identity is issued to this caller .uid 0, pid"):
            await anext(stub.fetch_x_509_svid(X509SvidRequest(), metadata={"workload.spiffe.io": "true"}))
        channel.close()


async def test_callers_are_told_apart_by_what_the_kernel_says(tmp_path):
    import os

    from nsm.chains.identity.source import identity_from
    from nsm.chains.transport import SocketAccess, serve_plain
    from nsm.services.identity.authorities import Authorities
    from nsm.services.identity.entries import Entries
    from nsm.services.identity.issuer import Issuer

    path = str(tmp_path / "s")
    entries = Entries.parse(
        [f"uid:{os.getuid()}=spiffe://ours.mesh/by-uid", f"pid:{os.getpid()}=spiffe://ours.mesh/by-pid"]
    )
    issuer = Issuer(Authorities([OURS]), entries.identify)
    async with serve_plain(path, issuer.methods(path), name="id", access=SocketAccess()):
        async with identity_from(f"unix://{path}", token_lifetime=60) as identity:
            assert identity.spiffe_id == "spiffe://ours.mesh/by-pid"


@pytest.mark.parametrize("text", ["uid:x=spiffe://a/b", "socket:rel=spiffe://a/b", "gid:1=spiffe://a/b", "uid:1=nope"])
def test_an_entry_that_selects_nobody_is_named(text):
    from nsm.services.identity.entries import Entries

    with pytest.raises(ValueError, match="expected socket:/path="):
        Entries.parse([text])


async def test_a_workload_api_that_is_no_socket_is_named():
    from nsm.chains.identity.source import identity_from

    with pytest.raises(InvalidRequest, match="SPIFFE_ENDPOINT_SOCKET='http://x'"):
        async with identity_from("http://x", token_lifetime=1):
            pass


async def test_an_identity_that_was_not_renewed_in_time_is_told_once():
    """With what it means: what asks for anything is refused from then on, and each refusal would be a line."""
    identity, ready = Identity(), asyncio.Event()
    authority = Authority.create("test.mesh")
    svid = authority.issue("spiffe://test.mesh/a", lifetime=datetime.timedelta(seconds=-1))
    identity.update(svid, {"test.mesh": [authority.certificate]})
    ready.set()
    with capture_logs() as logs:
        telling = asyncio.ensure_future(source.tell_of_the_end(identity, "unix:///workload", ready))
        await asyncio.sleep(0.01)
        telling.cancel()
    (told,) = logs
    assert told["event"] == "our SVID has expired: nothing new passes until it is renewed, and wires stay as they are"
    assert identity.is_cut_off()
