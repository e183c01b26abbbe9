"""Upstream's examples as people run them, with images changed only: side by side, in a system for such pods."""

from functools import partial

import pytest

from tests.k8s.system import EXAMPLES, MANIFESTS, check_example, eventually, rolled_out
from tests.k8s.upstream.examples import TABLE
from tests.k8s.upstream.pods import namespace, namespace_of
from tests.k8s.upstream.running import apply, are_ready, is_told, run

pytestmark = pytest.mark.timeout(500)

SYSTEM = MANIFESTS.parent / "tests/k8s/upstream"


AHEAD = 3
"""How many examples start while one is looked at: all at once would be a busy node."""


class Examples:
    """Those that are tested, each applied once, in a namespace of its own."""

    def __init__(self, kubectl, names):
        self._kubectl, self._waiting, self._ahead = kubectl, names, set()

    def take(self, name):
        """kubectl in the namespace of an example, which is applied by now; the next ones are too."""
        if name not in self._ahead:
            self._apply(name)
        self._ahead.remove(name)
        while self._waiting and len(self._ahead) < AHEAD:
            self._apply(self._waiting[0])
        return self._kubectl.within(namespace_of(name))

    def _apply(self, name):
        self._waiting.remove(name)
        apply(self._kubectl, [namespace(name, **dict(TABLE[name].labels))])
        apply(self._kubectl.within(namespace_of(name)), TABLE[name].objects)
        self._ahead.add(name)


@pytest.fixture(scope="module")
def examples(request, system):
    """In a system that takes such pods; afterwards it is what it was."""
    kubectl = system.kubectl
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    names = [item.callspec.params["name"] for item in items]
    try:
        kubectl("apply", "-k", SYSTEM)
        rolled_out(kubectl)
        yield Examples(kubectl, list(names))
    finally:
        spaces = [namespace_of(name) for name in names]
        if spaces:
            kubectl("delete", "namespace", *spaces, "--ignore-not-found", "--timeout=150s", seconds=160)
        kubectl("apply", "-k", MANIFESTS)
        rolled_out(kubectl)
    assert eventually(lambda: not system.left()), system.left()


@pytest.mark.parametrize("name", TABLE)
def test_an_example_of_upstreams_does_what_its_readme_says(kubectl, examples, name):
    example, mine = TABLE[name], examples.take(name)
    are_ready(mine)
    if example.later:
        if example.annotation:
            kubectl("annotate", "namespace", namespace_of(name), f"networkservicemesh.io={example.annotation}")
        apply(mine, example.later)
        are_ready(mine)
    for where, command, told in example.commands:  # clients without a probe may still wait for their wires
        asked = partial(run, mine, where, command)
        assert eventually(lambda asked=asked, told=told: is_told(asked(), told), 100), f"{where}: {command}\n{asked()}"
    if example.check:
        assert eventually(lambda: not example.check(mine), 100), example.check(mine)
    if example.gone:
        mine("delete", *example.gone, "--timeout=60s")
    if example.instead:
        apply(mine, example.instead)
        are_ready(mine)
    for where, command, told in example.afterwards:
        asked = partial(run, mine, where, command)
        assert eventually(lambda asked=asked, told=told: is_told(asked(), told), 150), f"{where}: {command}\n{asked()}"
    kubectl("delete", "namespace", namespace_of(name), "--wait=false")


@pytest.mark.usefixtures("examples")
def test_a_vl3_of_ours_and_its_balancer_do_what_they_say(system, kubectl):
    """The same system lets their pods be what they are."""
    with kubectl.applied(EXAMPLES / "vl3-balancer"):
        for name in ("vl3", "vl3-balancer"):
            check_example(system.cluster, name)
