"""What never leaves a machine in a bundle."""

import json

import pytest

from nsm.operate import redact

PEM = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqGSM49AwEH\n-----END PRIVATE KEY-----"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmUifQ.c2lnbmF0dXJl"
WIREGUARD = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
SECRETS = ["MIGHAgEAMBMGByqGSM49", "AgEGCCqGSM49AwEH", JWT, WIREGUARD, "hunter2", "s3cr3tvalue"]


@pytest.mark.parametrize(
    "line",
    [
        PEM,
        PEM.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        f"authorization: Bearer {JWT}",
        "Authorization: Bearer s3cr3tvalue",
        f"private key {WIREGUARD} of wg0",
        "view http://127.0.0.1:7410/?token=s3cr3tvalue",
        "NSM_JOIN_TOKEN=s3cr3tvalue",
        "password: hunter2",
        "postgres://user:hunter2@host/db",
        json.dumps({"event": "joined", "token": "s3cr3tvalue", "nested": {"private_key": "hunter2"}}),
        json.dumps({"event": "failed", "exception": f"read {PEM}"}),
        json.dumps({"attributes": [{"key": "nsm.token", "value": {"stringValue": "s3cr3tvalue"}}]}),
        json.dumps({"secrets": ["hunter2", "s3cr3tvalue"]}),
    ],
)
def test_a_secret_is_removed(line):
    told = redact.lines(f"before\n{line}\nafter")
    assert not [secret for secret in SECRETS if secret in told]
    assert redact.REMOVED in told
    assert told.startswith("before\n")
    assert told.endswith("after")


def test_a_key_whose_end_is_missing_is_removed_too():
    assert redact.lines(PEM[:60]) == redact.REMOVED


@pytest.mark.parametrize(
    "line",
    [
        "16:40:01 info client wire up connection=a283c48b-6bc0-4269-a6ea-8fe7dea67871 ms=6.84",
        "the token expires in 12 s; the manager renews it",
        "spiffe://local.mesh/node-1/client",
        "4: nsm-1@if3: <BROADCAST,MULTICAST,UP> mtu 1440 link/ether 02:fe:aa:bb:cc:dd",
    ],
)
def test_everything_else_stays(line):
    assert redact.lines(line) == line


def test_json_stays_json():
    value = {"token": None, "expires": "2026-11-30T16:40:00Z", "tokens_left": 3, "labels": {"app": "web"}}
    assert redact.plain(value) == value
