"""What an API server passes on: custom resources that anybody may have applied, and reviews of any object."""

import asyncio
import json

from nsm.apis import codec
from nsm.apis.jsonform import to_json
from nsm.chains.core import MeshError
from nsm.services.registry.custom_resources.names import object_name
from nsm.services.registry.custom_resources.objects import ENDPOINT_FORM, SERVICE_FORM
from tests.webhook.reviews import KEY, Cluster, patch_of, review

from .target import Target, of_text, raises
from .wire import JSON


@of_text
@raises(ValueError, RecursionError)
def custom_resource(text):
    """The object as JSON; what is read as a record is written as one that is read the same, and can travel."""
    found = json.loads(text)
    if not isinstance(found, dict):
        return
    for form in (SERVICE_FORM, ENDPOINT_FORM):
        _read_as(form, {**found, "metadata": {"name": "applied", "namespace": "default"}})


@raises(ValueError)
def _record_of(form_and_object):
    form, found = form_and_object
    return form.from_object(found)


def _read_as(form, found):
    record = _record_of((form, found))
    if record is not None:
        assert form.from_object(form.to_object(record, "default")) == record
        try:
            encoded = codec.encode(record)
        except codec.EncodeError:  # JSON has text that UTF-8 does not: it was read, but cannot go out
            raise AssertionError(f"a record that cannot be sent: {to_json(record)}") from None
        assert codec.decode(type(record), encoded) == record


@of_text
def name_of_object(text):
    name = object_name(text)
    assert 1 <= len(name) <= 253
    assert name == object_name(name)


@of_text
@raises(ValueError, RecursionError)
def admission_review(text):
    """A whole review, and the same as the object of one that is well made."""
    document = json.loads(text)
    for asked in (document, *([review(document)] if _is_an_object(document) else [])):
        _answered(asked)


def _is_an_object(document):
    return (
        isinstance(document, dict)
        and isinstance(document.get("kind"), str)
        and isinstance(document.get("metadata", {}), dict)
    )


@raises(ValueError, MeshError)
def _answered(asked):
    before = json.dumps(asked)
    answer = asyncio.run(_CLUSTER.admission.review(asked))
    assert json.dumps(asked) == before
    assert answer["response"]["uid"] == asked["request"]["uid"]
    if answer["response"]["allowed"]:
        patch_of(answer)
    assert len(json.dumps(answer)) <= 40 * len(before) + 20_000


_CLUSTER = Cluster(namespaces={"default": {}, "annotated": {"annotations": {KEY: "kernel://a/nsm-1"}}})

TARGETS = (
    Target(
        "custom_resource",
        custom_resource,
        (
            b'"spec"',
            b'"name"',
            b'"matches"',
            b'"routes"',
            b'"weight"',
            b'"network_service_labels"',
            b'"labels"',
            b'"expiration_time"',
            b'"seconds"',
            b'"url"',
            *JSON,
        ),
        (
            (b'{"spec":{"name":"', b"n", b'"}}'),
            (b'{"spec":{"matches":[{}', b",{}", b"]}}"),
            (b'{"spec":{"expiration_time":{"seconds":1', b"0", b"}}}"),
            (b'{"spec":', b'{"a":', b""),
        ),
    ),
    Target(
        "name_of_object",
        name_of_object,
        (b".", b"-", b"A", "é".encode(), b"\0"),
        ((b"", b"a.", b""), (b"", b"a-", b""), (b"", b"-", b""), (b"", b"a", b"-")),
    ),
    Target(
        "admission_review",
        admission_review,
        (
            b'"request"',
            b'"object"',
            b'"metadata"',
            b'"annotations"',
            b'"networkservicemesh.io"',
            b'"kernel://a/b"',
            b'"spec"',
            b'"containers"',
            b'"kind"',
            b'"Pod"',
            b'"Deployment"',
            *JSON,
        ),
        (
            (
                b'{"kind":"Pod","metadata":{"annotations":{"networkservicemesh.io":"',
                b"kernel://a,",
                b'"}},"spec":{"containers":[]}}',
            ),
            (
                b'{"kind":"Pod","metadata":{"annotations":{"networkservicemesh.io":"kernel://a"}},"spec":{"containers":[{}',
                b",{}",
                b"]}}",
            ),
            (b'{"kind":"Pod","metadata":{"labels":{"a":"b"', b',"c":"d"', b"}}}"),
        ),
    ),
)
