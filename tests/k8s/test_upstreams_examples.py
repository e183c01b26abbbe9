"""Upstream's examples as people run them, with images changed only: side by side, in a system for such pods."""

import json
import shlex
from functools import partial

import pytest

from tests.k8s.system import MANIFESTS, eventually, rolled_out
from tests.k8s.upstream.examples import TABLE
from tests.k8s.upstream.pods import namespace, namespace_of

pytestmark = pytest.mark.timeout(500)

SYSTEM = MANIFESTS.parent / "tests/k8s/upstream"


@pytest.fixture(scope="module")
def applied(system):
    """All that the examples apply, at once; afterwards the system is what it was."""
    kubectl = system.kubectl
    spaces = [namespace(name, **dict(example.labels)) for name, example in TABLE.items()]
    try:
        kubectl("apply", "-k", SYSTEM)
        rolled_out(kubectl)
        apply(kubectl, spaces)
        for name, example in TABLE.items():
            apply(kubectl.within(namespace_of(name)), example.objects)
        yield kubectl
    finally:
        names = [each["metadata"]["name"] for each in spaces]
        kubectl("delete", "namespace", *names, "--ignore-not-found", "--timeout=150s", seconds=160)
        kubectl("apply", "-k", MANIFESTS)
        rolled_out(kubectl)
    assert eventually(lambda: not system.left()), system.left()


def apply(kubectl, objects):
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


@pytest.mark.parametrize("name", TABLE)
def test_an_example_of_upstreams_does_what_its_readme_says(applied, name):
    example, mine = TABLE[name], applied.within(namespace_of(name))
    are_ready(mine)
    if example.annotation:
        applied("annotate", "namespace", namespace_of(name), f"networkservicemesh.io={example.annotation}")
        apply(mine, example.later)
        are_ready(mine)
    for where, command, told in example.commands:
        said = run(mine, where, command)
        assert told in said, f"{where}: {command}\n{said}"
    if example.gone:
        mine("delete", *example.gone, "--timeout=60s")
        apply(mine, example.instead)
        are_ready(mine)
    for where, command, told in example.afterwards:
        asked = partial(run, mine, where, command)
        assert eventually(lambda asked=asked, told=told: is_told(asked(), told), 90), f"{where}: {command}\n{asked()}"


def is_told(said, told):
    """Whether a command said so; with `!` before it, whether it did not."""
    return told[1:] not in said if told.startswith("!") else told in said


def are_ready(mine):
    """As READMEs wait for them: the pods of Deployments are there a moment after those."""
    wanted = mine.get("deployments,daemonsets")["items"]
    mine.rolled_out(*[f"{each['kind'].lower()}/{each['metadata']['name']}" for each in wanted], seconds=200)
    mine("wait", "--for=condition=Ready", "pod", "--all", "--timeout=200s", seconds=210)


def run(mine, where, command):
    """What a command in a pod writes, or what a container has written: also when it fails."""
    words = shlex.split(command)
    if words[0] == "logs":
        done = mine.run("logs", where, "-c", words[1])
    else:
        done = mine.run("exec", where, "--", *words, seconds=60)
    return done.stdout + done.stderr
