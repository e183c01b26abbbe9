"""The server as the API server meets it: HTTPS with real certificates on loopback."""

import asyncio
import datetime
import io
import json
import ssl
from asyncio import sslproto

import aiohttp
import jsonpatch
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from structlog.testing import capture_logs

from nsm.chains.core import InvalidRequest, Limits
from nsm.chains.identity import Authority, Identity, Svid
from nsm.chains.transport.urls import Address
from nsm.webhook.certificate import Chain, ServerCertificate
from nsm.webhook.files import FollowedFiles
from nsm.webhook.server import serving
from nsm.webhook.sources import show_svid
from tests.webhook.reviews import containers, patch_of, pod, review
from tests.webhook.serving import DAY, HOST, Caller, made, server


async def test_a_review_is_answered_over_tls():
    mine = made()
    async with server() as (port, certificate), Caller(port, mine.authority) as caller:
        certificate.show(Chain.read(mine.pem))
        status, answer = await caller.post("/mutate", json=review(pod("kernel://a/nsm-1"), uid="u-7"))
        assert status == 200
        assert answer["apiVersion"] == "admission.k8s.io/v1"
        assert answer["kind"] == "AdmissionReview"
        assert answer["response"]["uid"] == "u-7"
        stored = jsonpatch.apply_patch(pod("kernel://a/nsm-1"), patch_of(answer))
        assert containers(stored["spec"]) == ["app", "nsc"]


@pytest.mark.parametrize(
    "body",
    [
        {"data": b"{"},
        {"data": b"\xff"},
        {"data": b"[" * 100_000},
        {"json": []},
        {"json": {"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {}}},
        {"json": {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}},
        {"json": {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "1", "kind": []}}},
        *({"json": review(pod("kernel://a", namespace=name))} for name in ("", "?watch=true", "../../version", "a\nb")),
    ],
)
async def test_what_is_no_review_is_a_bad_request_in_one_line(body):
    mine = made()
    async with server() as (port, certificate), Caller(port, mine.authority) as caller:
        certificate.show(Chain.read(mine.pem))
        status, text = await caller.post("/mutate", **body)
        assert status == 400
        assert len(text.splitlines()) == 1


async def test_an_object_of_the_size_that_an_api_server_takes_is_answered():
    mine, big = made(), pod("kernel://a")
    big["metadata"]["annotations"]["big"] = "x" * 3_000_000
    async with server() as (port, certificate), Caller(port, mine.authority) as caller:
        certificate.show(Chain.read(mine.pem))
        status, answer = await caller.post("/mutate", data=io.BytesIO(json.dumps(review(big)).encode()))
        assert status == 200
        assert len(answer["response"]["patch"]) < 10_000


async def test_as_many_reviews_as_an_api_server_asks_at_once_are_answered():
    """Over a connection each, from one address: 200 by default."""
    mine = made()
    async with server() as (port, certificate), Caller(port, mine.authority) as caller:
        certificate.show(Chain.read(mine.pem))
        caller._session.connector._limit = 0
        answers = await asyncio.gather(*(caller.post("/mutate", json=review(pod("kernel://a"))) for _ in range(200)))
    assert {status for status, _ in answers} == {200}


@pytest.mark.parametrize("abort", ["this Python's", "Debian's"])
async def test_a_webhook_that_was_probed_for_a_day_is_still_ready(abort, monkeypatch):
    """Each probe of the kubelet is a connection from one address; none of them takes room when it has ended.

    With Python 3.11.2 a webhook was taken out of its Service for good after seven minutes.
    """
    if abort == "Debian's":
        monkeypatch.setattr(sslproto._SSLProtocolTransport, "abort", lambda self: self._ssl_protocol._abort())
    mine = made()
    async with server(limits=Limits(webhook_connections=8)) as (port, certificate):
        certificate.show(Chain.read(mine.pem))
        for _ in range(10):
            async with Caller(port, mine.authority) as kubelet:
                assert await kubelet.get("/ready") == (200, "ready\n")


async def test_a_namespace_that_cannot_be_asked_about_is_no_answer():
    """The configuration's failurePolicy decides then."""
    mine = made()
    async with server(namespaces={}) as (port, certificate), Caller(port, mine.authority) as caller:
        certificate.show(Chain.read(mine.pem))
        status, text = await caller.post("/mutate", json=review(pod("kernel://a")))
        assert status == 503
        assert text == "the API server cannot be reached\n"


async def test_without_a_certificate_nobody_gets_in_and_with_one_it_is_ready():
    mine = made()
    async with server() as (port, certificate), Caller(port, mine.authority) as caller:
        with pytest.raises(aiohttp.ClientConnectorError):
            await caller.get("/ready")
        assert certificate.fault() == "there is no certificate yet"
        certificate.show(Chain.read(mine.pem))
        assert await caller.get("/ready") == (200, "ready\n")


async def test_a_new_certificate_is_shown_in_the_next_handshake_and_open_connections_go_on():
    one, other = made(), made()
    async with server() as (port, certificate), Caller(port, one.authority) as before:
        certificate.show(Chain.read(one.pem))
        assert (await before.get("/ready"))[0] == 200
        certificate.show(Chain.read(other.pem))
        assert (await before.get("/ready"))[0] == 200
        async with Caller(port, other.authority) as after:
            assert (await after.get("/ready"))[0] == 200
        async with Caller(port, one.authority) as late:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await late.get("/ready")


async def test_a_client_that_names_no_server_sees_the_certificate_too():
    """A configuration by URL with an address in it."""
    mine = made()
    async with server() as (port, certificate):
        certificate.show(Chain.read(mine.pem))
        context = ssl.create_default_context(cadata=mine.authority)
        context.check_hostname = False
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="")
        assert writer.get_extra_info("peercert")["subjectAltName"][-1] == ("DNS", HOST)
        writer.close()
        await writer.wait_closed()


async def test_an_expired_certificate_makes_the_webhook_unready_and_says_since_when():
    expired = made(datetime.timedelta(seconds=-1))
    async with server() as (port, certificate), Caller(port, expired.authority) as caller:
        certificate.show(Chain.read(expired.pem))
        assert certificate.fault().startswith("the certificate expired at 20")
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="expired"):
            await caller.get("/ready")


async def test_once_it_was_ready_each_change_of_that_is_told_once():
    """Such as a certificate that expires: the kubelet throws away what it is told."""
    mine, certificate = made(), ServerCertificate(HOST)
    certificate.show(Chain.read(mine.pem))
    faults = iter(["not yet", "", "", "expired", "expired", "expired", ""])
    certificate.fault = lambda: next(faults)
    async with server(certificate=certificate) as (port, _), Caller(port, mine.authority) as caller:
        with capture_logs() as logs:
            answers = [await caller.get("/ready") for _ in range(7)]
    assert answers[2:4] == [(200, "ready\n"), (503, "expired\n")]
    assert logs == [
        {"event": "not ready", "reason": "expired", "log_level": "error"},
        {"event": "ready again", "log_level": "info"},
    ]


async def test_a_certificate_that_lacks_the_services_name_makes_the_webhook_unready():
    """An SVID without a DNS name, which the API server would refuse."""
    certificate = ServerCertificate(HOST)
    certificate.show(Chain.read(Authority.create("example.org").issue("spiffe://example.org/webhook").pem()))
    assert certificate.fault() == f"the certificate is missing the DNS name {HOST}"
    certificate.show(Chain.read(made(service="other").pem))
    assert certificate.fault() == f"the certificate is missing the DNS name {HOST}"


@pytest.mark.parametrize("service", ["*", "WebHook"])
async def test_a_certificate_whose_name_covers_the_services_is_ready(service):
    """An API server takes it, so the webhook does."""
    mine = made(service=service)
    async with server() as (port, certificate), Caller(port, mine.authority) as caller:
        certificate.show(Chain.read(mine.pem))
        assert await caller.get("/ready") == (200, "ready\n")


@pytest.mark.parametrize("service", ["*.webhook", "a.*", "*b"])
def test_a_star_is_one_label_and_the_first(service):
    certificate = ServerCertificate(HOST)
    certificate.show(Chain.read(made(service=service).pem))
    assert certificate.fault() == f"the certificate is missing the DNS name {HOST}"


def svid(source):
    """An SVID that has the Service's name too, as SPIRE makes them by its dnsNameTemplates."""
    key = load_pem_private_key(split(source.pem)[1], None)
    return Svid("spiffe://example.org/webhook", (x509.load_pem_x509_certificate(source.pem),), key)


async def test_an_svid_is_shown_and_its_successor_too():
    one, other, identity = made(), made(), Identity()
    bundles = {"example.org": [Authority.create("example.org").certificate]}
    identity.update(svid(one), bundles)
    async with server() as (port, certificate):
        show_svid(certificate, identity)
        async with Caller(port, one.authority) as caller:
            assert await caller.get("/ready") == (200, "ready\n")
        identity.update(svid(other), bundles)
        async with Caller(port, other.authority) as caller:
            assert await caller.get("/ready") == (200, "ready\n")


async def test_a_port_that_is_taken_is_one_line():
    certificate = ServerCertificate(HOST)
    async with server(certificate=certificate) as (port, _):
        with pytest.raises(InvalidRequest, match=rf"cannot listen on tcp://127.0.0.1:{port}: "):
            async with serving(aiohttp.web.Application(), Address(host="127.0.0.1", port=port), certificate.context):
                pass


def split(chain):
    """The certificate and the key of a chain."""
    at = chain.index(b"-----BEGIN PRIVATE KEY")
    return chain[:at], chain[at:]


@pytest.fixture
def files(tmp_path):
    return tmp_path / "tls.crt", tmp_path / "tls.key"


async def test_files_that_change_are_used_and_half_of_a_change_is_waited_for(files):
    one, other = made(), made()
    for path, content in zip(files, split(one.pem), strict=True):
        path.write_bytes(content)
    async with server() as (port, certificate):
        followed = FollowedFiles([str(path) for path in files], lambda pem: certificate.show(Chain.read(pem)))
        followed.read()
        files[0].write_bytes(split(other.pem)[0])
        with capture_logs() as logs:
            followed.look()
            followed.look()
        assert [line["event"] for line in logs] == ["files cannot be used; their previous content stays in force"]
        async with Caller(port, one.authority) as caller:
            assert (await caller.get("/ready"))[0] == 200
        files[1].write_bytes(split(other.pem)[1])
        followed.look()
        async with Caller(port, other.authority) as caller:
            assert (await caller.get("/ready"))[0] == 200


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (None, None, "No such file or directory"),
        (b"", b"", "[Uu]nable to load PEM|valid PEM|MalformedFraming|no certificate"),
        (split(made().pem)[0], split(made().pem)[1], "the key does not belong to the certificate"),
        (split(made(DAY).pem)[0], b"", "the key does not belong to the certificate"),
    ],
)
def test_files_that_hold_no_certificate_and_its_key_are_one_line(files, certificate, key, said):
    if certificate is not None:
        files[0].write_bytes(certificate)
        files[1].write_bytes(key)
    with pytest.raises(InvalidRequest, match=said) as caught:
        FollowedFiles([str(path) for path in files], Chain.read).read()
    assert "tls.crt" in str(caught.value)
