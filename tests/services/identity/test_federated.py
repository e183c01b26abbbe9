"""Bundles of other trust domains: from files and from SPIFFE bundle endpoints over HTTPS."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from nsm.chains.identity import Authority
from nsm.services.identity import federated as module
from nsm.services.identity.authorities import Authorities
from nsm.services.identity.bundle_document import from_document, from_file, to_document
from nsm.services.identity.bundle_endpoint import fetch, serving
from nsm.services.identity.federated import Federated, Federation

ONE, TWO, OTHER = Authority.create("one"), Authority.create("two"), Authority.create("two")
ID = "spiffe://two/nsm/identity"


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch):
    for name in ("LOOK", "SHORTEST"):
        monkeypatch.setattr(module, name, 0.01)


def document(*authorities):
    return to_document([each.certificate for each in authorities], sequence=1, refresh_hint=0)


def pem(authority):
    return authority.certificate.public_bytes(Encoding.PEM)


@asynccontextmanager
async def following(text):
    changes = asyncio.Queue()
    async with Federated(Federation.parse(text), lambda: changes.put_nowait(True)) as federated:
        federated.changed = changes.get
        yield federated


@asynccontextmanager
async def endpoint(*authorities, svid=None):
    shown = [list(authorities)]

    def text():
        return document(*shown[0])

    async with serving("127.0.0.1", 0, text, svid or (lambda: TWO.issue(ID)), 3600.0) as port:
        yield f"https://127.0.0.1:{port}/", shown


def test_a_bundle_is_the_same_after_it_was_written_and_read():
    bundle = from_document(document(ONE, TWO))
    assert bundle.certificates == (ONE.certificate, TWO.certificate)
    key = json.loads(document(ONE))["keys"][0]
    assert (key["use"], key["kty"], key["crv"]) == ("x509-svid", "EC", "P-256")
    assert from_file(pem(ONE) + pem(TWO)).certificates == (ONE.certificate, TWO.certificate)


def test_keys_for_tokens_are_ignored():
    made = json.loads(document(ONE))
    made["keys"].append({"use": "jwt-svid", "kid": "x", "kty": "EC"})
    assert len(from_document(json.dumps(made)).certificates) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "expected a JSON object with a list 'keys'"),
        ("{", "not valid JSON"),
        ('{"keys": [{"use": "x509-svid"}]}', "has no certificate"),
        ('{"keys": [{"use": "x509-svid", "x5c": ["AAAA"]}]}', "a certificate cannot be read"),
        ('{"keys": [{"use": "x509-svid", "x5c": ["!"]}]}', "a certificate cannot be read"),
        ('{"keys": [], "spiffe_refresh_hint": "soon"}', "not a number of seconds"),
    ],
)
def test_a_document_that_is_no_bundle_says_why(text, words):
    with pytest.raises(ValueError, match=words):
        from_document(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two", "expected domain=/path/bundle.pem or"),
        ("=x", "expected"),
        ("two=relative.pem", "neither a path nor an https:// URL"),
        ("two=http://x/", "neither a path nor an https:// URL"),
        ("two=https://x/#nobody", "is not a SPIFFE ID"),
        ("two=/a,two=/b", "'two' is given twice"),
        ("Two=/a", "expected"),
    ],
)
def test_a_source_that_cannot_be_meant_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        Federation.parse(text)


async def test_a_file_is_followed_and_a_broken_one_leaves_the_last_bundle(tmp_path):
    path = tmp_path / "two.pem"
    with structlog.testing.capture_logs() as logs:
        async with following(f"two={path}") as federated:
            assert federated.bundles == {}
            path.write_bytes(pem(TWO))
            await federated.changed()
            assert federated.bundles == {"two": (TWO.certificate,)}
            path.write_text("half a certif")
            await _until(lambda: any("the last one stays" in line["event"] for line in logs))
            assert federated.bundles == {"two": (TWO.certificate,)}
            path.write_text(document(OTHER))
            await federated.changed()
            assert federated.bundles == {"two": (OTHER.certificate,)}
    assert any("none of its components is trusted yet" in line["event"] for line in logs)


async def test_an_endpoint_is_authenticated_by_the_bundle_that_is_known_and_followed(tmp_path):
    path = tmp_path / "two.pem"
    path.write_bytes(pem(TWO))
    async with endpoint(TWO) as (url, shown):
        shown[0] = [TWO, OTHER]
        async with following(f"two={path}|{url}#{ID}") as federated:
            await federated.changed()
            await federated.changed()
            assert federated.bundles == {"two": (TWO.certificate, OTHER.certificate)}


async def test_the_bundle_of_a_file_counts_until_the_endpoint_answers(tmp_path):
    path = tmp_path / "two.pem"
    path.write_bytes(pem(TWO))
    async with following(f"two={path}|https://127.0.0.1:1/#{ID}") as federated:
        assert federated.bundles == {"two": (TWO.certificate,)}


@pytest.mark.parametrize(
    ("svid", "words"),
    [
        (lambda: TWO.issue("spiffe://two/other"), "the server is spiffe://two/other, not spiffe://two/nsm/identity"),
        (lambda: OTHER.issue(ID), "certificate verify failed"),
        (lambda: ONE.issue("spiffe://one/nsm/identity"), "certificate verify failed"),
    ],
)
async def test_an_endpoint_of_somebody_else_is_not_believed(svid, words):
    async with endpoint(OTHER, svid=svid) as (url, _):
        with pytest.raises(OSError, match=words):
            await fetch(url, ID, [TWO.certificate])


async def test_an_endpoint_with_an_id_needs_a_bundle_first():
    with structlog.testing.capture_logs() as logs:
        async with endpoint(TWO) as (url, _), following(f"two={url}#{ID}") as federated:
            await _until(lambda: any("name a file first" in line.get("reason", "") for line in logs))
            assert federated.bundles == {}


async def test_whoever_follows_what_is_issued_is_woken():
    authorities = Authorities([ONE])
    version = authorities.version
    waiting = asyncio.ensure_future(authorities.changed(version))
    authorities.wake()
    await waiting


async def _until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
