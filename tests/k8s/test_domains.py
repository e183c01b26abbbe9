"""Upstream's examples between clusters as people run them, with images changed only, in two clusters of this machine."""

from functools import partial

import pytest

from tests.k8s.domains import replaced, two_domains
from tests.k8s.system import NAMESPACE, eventually
from tests.k8s.upstream.between import TABLE
from tests.k8s.upstream.pods import namespace, namespace_of
from tests.k8s.upstream.running import apply, are_ready, is_told, run

pytestmark = pytest.mark.timeout(500)


@pytest.fixture(scope="module")
def domains(system):
    with two_domains(system) as domains:
        yield domains


@pytest.mark.parametrize("name", TABLE)
def test_an_example_between_clusters_does_what_its_readme_says(domains, name):
    example, space = TABLE[name], namespace_of(name.removeprefix("heal_"))
    mine = {which: getattr(domains, which).within(space) for which in ("one", "two")}
    try:
        for which in ("two", "one"):
            apply(getattr(domains, which), [namespace(name.removeprefix("heal_"))])
            apply(mine[which], getattr(example, which))
            are_ready(mine[which])
        do_as_told(example, mine)
        of_system = [(kubectl.within(NAMESPACE), app) for app in example.deaths for kubectl in domains.both]
        if ended := [*of_system, *((mine["two"], app) for app in example.gone)]:
            replaced(*ended)
            do_as_told(example, mine)
    finally:
        for kubectl in domains.both:
            kubectl("delete", "namespace", space, "--ignore-not-found", "--wait=false")


def do_as_told(example, mine):
    for which, where, command, told in example.commands:
        asked = partial(run, mine[which], where, command)
        assert eventually(lambda asked=asked, told=told: is_told(asked(), told), 100), f"{where}: {command}\n{asked()}"
    if example.check:
        assert eventually(lambda: not example.check(mine), 100), example.check(mine)
