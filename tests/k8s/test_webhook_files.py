"""The webhook by a certificate in files, as somebody else writes them, and what a real API server says of it."""

import datetime
import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cluster.identities import LIFETIME, certificate, pem
from tests.k8s.webhook_cluster import SPREAD, URLS, Refused, clients, cluster, pod, until

NAME = "webhook.nsm-system.svc"
SECOND = datetime.timedelta(seconds=1)


@pytest.fixture(scope="module")
def kube(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("webhook")) as found:
        yield found


class Issuer:
    """An authority, and the files that it writes for a webhook."""

    def __init__(self, folder):
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._authority = certificate("issuer", self._key, None, None)

    def issue(self, lifetime=LIFETIME, name=NAME):
        """Write a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = certificate("webhook", key, self._authority, self._key, names=[name], lifetime=lifetime)
        (self._folder / "tls.key").write_bytes(pem(key))
        (self._folder / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM))

    def tell(self):
        """Write the authority as the one to trust."""
        (self._folder / "ca.crt").write_bytes(self._authority.public_bytes(Encoding.PEM))

    def settings(self):
        return {
            "NSM_CERT_FILE_PATH": str(self._folder / "tls.crt"),
            "NSM_KEY_FILE_PATH": str(self._folder / "tls.key"),
            "NSM_CA_BUNDLE_FILE_PATH": str(self._folder / "ca.crt"),
        }


@pytest.fixture
def issuer(tmp_path):
    """One whose authority is told, and that has issued a certificate."""
    made = Issuer(tmp_path)
    made.issue()
    made.tell()
    return made


def refusal(kube, name):
    """What kubectl says when it makes an annotated pod."""
    with pytest.raises(Refused) as caught:
        kube.apply(pod(name, URLS))
    (stored,) = kube.apply(pod(f"{name}-plain"))
    assert clients(stored) == [[], ["app"]]
    return str(caught.value)


def is_injected(kube, name):
    try:
        (stored,) = kube.apply(pod(name, URLS))
    except Refused:
        return False
    return clients(stored) == [["nsc"], ["app"]]


def errors(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line["level"] == "error"]


def test_a_certificate_that_is_replaced_in_time_is_never_noticed(kube, issuer):
    issuer.issue(lifetime=8 * SECOND)
    with kube.webhook(**issuer.settings()) as (_, log):
        assert is_injected(kube, "first")
        issuer.issue()
        until(lambda: log.read_text().count('"event": "certificate"') == 2)
        time.sleep(8)
        assert is_injected(kube, "second")
        assert errors(log) == []


def test_an_expired_certificate_is_refused_by_its_name_until_there_is_a_new_one(kube, issuer):
    issuer.issue(lifetime=-SECOND)
    with kube.webhook(**issuer.settings()) as (_, log):
        assert "tls: failed to verify certificate: x509: certificate has expired or is not yet valid" in refusal(
            kube, "late"
        )
        (error,) = errors(log)
        assert error["event"] == "the API server will reject this certificate"
        assert error["reason"].startswith("the certificate expired at 20")
        issuer.issue()
        until(lambda: is_injected(kube, "late"))


def test_a_certificate_for_another_name_is_refused_by_its_name(kube, issuer):
    issuer.issue(name="other.nsm-system.svc")
    with kube.webhook(**issuer.settings()) as (_, log):
        assert f"certificate is valid for other.nsm-system.svc, not {NAME}" in refusal(kube, "misnamed")
        assert [error["reason"] for error in errors(log)] == [f"the certificate is missing the DNS name {NAME}"]


def test_a_wrong_authority_is_refused_until_the_right_one_is_told(kube, issuer, tmp_path):
    Issuer(tmp_path).tell()
    with kube.webhook(**issuer.settings()):
        assert "x509: certificate signed by unknown authority" in refusal(kube, "stranger")
        issuer.tell()
        until(lambda: is_injected(kube, "stranger"))


def test_another_authority_with_its_certificate_is_never_noticed(kube, issuer, tmp_path):
    """Neither before the API server has heard of it nor afterwards."""
    with kube.webhook(**issuer.settings()) as (_, log):
        assert is_injected(kube, "before")
        other = Issuer(tmp_path)
        other.tell()
        other.issue()
        end, number = time.monotonic() + 6 + SPREAD, 0
        while time.monotonic() < end:
            assert is_injected(kube, f"rotated-{number}")
            number += 1
        assert log.read_text().count('"event": "certificate"') == 2
        assert errors(log) == []
