"""The index of namespaces, and the label that mirrors their annotation."""

import asyncio

from structlog.testing import capture_logs

from nsm.kube import NAMESPACES
from nsm.webhook.namespaces import NamespaceIndex, keep_labels
from tests.webhook.cluster import FakeApi, FakeReflector
from tests.webhook.reviews import KEY, recipe

LABEL = recipe().namespace_label


def namespace(name, annotation=None, **labels):
    annotations = {KEY: annotation} if annotation is not None else {}
    return {"metadata": {"name": name, "annotations": annotations, "labels": labels}}


def stored(api, *items):
    for item in items:
        api._store(NAMESPACES, item)


def labels(api, name):
    return api.objects["namespaces", name]["metadata"]["labels"]


async def test_what_was_seen_is_not_asked_for():
    api = FakeApi()
    index = NamespaceIndex(api, FakeReflector(namespace("seen", "kernel://a", team="x")))
    found = await index.get("seen")
    assert (found.name, found.annotations, found.labels) == ("seen", {KEY: "kernel://a"}, {"team": "x"})
    stored(api, namespace("new", "kernel://b"))
    assert (await index.get("new")).annotations == {KEY: "kernel://b"}


async def test_namespaces_that_were_annotated_before_the_webhook_came_get_the_label():
    items = [
        namespace("annotated", "kernel://a", team="x"),
        namespace("labelled", "kernel://a", **{LABEL: "true"}),
        namespace("former", None, **{LABEL: "true", "team": "x"}),
        namespace("empty", " ", **{LABEL: "true"}),
        namespace("plain"),
    ]
    api, seen = FakeApi(), FakeReflector(*items, namespace("gone", "kernel://a"))
    stored(api, *items)
    before = api.writes
    running = asyncio.ensure_future(keep_labels(api, seen, recipe()))
    await seen.all_read()
    assert labels(api, "annotated") == {"team": "x", LABEL: "true"}
    assert labels(api, "labelled") == {LABEL: "true"}
    assert labels(api, "former") == {"team": "x"}
    assert labels(api, "empty") == {}
    assert labels(api, "plain") == {}
    assert api.writes == before + 3
    running.cancel()


async def test_a_label_that_cannot_be_set_is_told_and_the_next_one_is():
    api, seen = FakeApi(), FakeReflector()
    stored(api, namespace("one", "kernel://a"), namespace("two", "kernel://a"))
    running = asyncio.ensure_future(keep_labels(api, seen, recipe()))
    with capture_logs() as logs:
        api.down = True
        seen.change(namespace("one", "kernel://a"))
        await seen.all_read()
        api.down = False
        seen.change(namespace("two", "kernel://a"))
        await seen.all_read()
    (told,) = [line for line in logs if line["log_level"] == "error"]
    assert told["namespace"] == "one"
    assert labels(api, "two") == {LABEL: "true"}
    running.cancel()


async def test_a_label_that_could_not_be_set_is_set_once_it_can_be(monkeypatch):
    """The API server was away for a moment; the namespace does not change again."""
    monkeypatch.setattr("nsm.webhook.namespaces._AGAIN", 0.01)
    api, seen = FakeApi(), FakeReflector()
    for name in ("one", "gone", "former"):
        stored(api, namespace(name, "kernel://a"))
    stored(api, namespace("former", None, **{LABEL: "true"}))
    running = asyncio.ensure_future(keep_labels(api, seen, recipe()))
    with capture_logs() as logs:
        api.down = True
        seen.change(namespace("one", "kernel://a"))
        seen.change(namespace("gone", "kernel://a"))
        seen.change(namespace("former", None, **{LABEL: "true"}))
        await seen.all_read()
        del seen.objects["", "gone"]
        await asyncio.sleep(0.05)
        api.down = False
        async with asyncio.timeout(5):
            while labels(api, "one") != {LABEL: "true"} or labels(api, "former"):
                await asyncio.sleep(0.005)
    assert labels(api, "gone") == {}
    told = {line["namespace"]: line["event"] for line in logs if line["log_level"] == "error"}
    assert len([line for line in logs if line["log_level"] == "error"]) == 3
    assert told["one"] == "a namespace has the annotation but not the label: its pods get no wires"
    assert told["former"] == "a namespace has the label but not the annotation: its pods depend on the webhook"
    running.cancel()
