"""The wire form of every message."""

import base64
import importlib

import pytest

from nsm.apis import codec, jsonform
from tests.golden.cases import cases


def kind_of(name):
    module, _, kind = name.rpartition(".")
    python = {"IPContext": "IpContext", "DNSContext": "DnsContext", "DNSConfig": "DnsConfig"}.get(kind, kind)
    return getattr(importlib.import_module(f"nsm.apis.{module}"), python)


@pytest.mark.parametrize("case", cases("wire"))
def test_reads_what_others_write_and_writes_what_reads_back(case):
    kind = kind_of(case["type"])
    if case.get("error"):
        with pytest.raises(codec.DecodeError):
            codec.decode(kind, base64.b64decode(case["base64"]))
        return
    message = codec.decode(kind, base64.b64decode(case["base64"]))
    assert jsonform.to_json(message) == case["json"]
    assert jsonform.to_json(codec.decode(kind, codec.encode(message))) == case["json"]
    assert jsonform.to_json(codec.clone(message)) == case["json"]
    written = codec.encode(jsonform.from_json(kind, case["json"]))
    assert jsonform.to_json(codec.decode(kind, written)) == case["json"]
