"""An annotation that seems to ask for wires and does not: whoever wrote it is warned."""

import pytest

from .reviews import KEY, Cluster, pod, workload

WIRE = "kernel://web/nsm-1"


async def warnings(item, **more):
    answer = await Cluster(**more).answer(item)
    assert answer["allowed"]
    assert "patch" not in answer
    return answer.get("warnings", [])


@pytest.mark.parametrize(
    "key",
    [
        "ns.networkservicemesh.io",
        "networkservicemesh.io/ns",
        "networkservicmesh.io",
        "networkservicemesh",
        "NetworkServiceMesh.io",
        "network-service-mesh.io",
    ],
)
async def test_a_key_that_is_like_the_right_one_is_a_warning_with_that(key):
    """It was ignored without a word."""
    for value in (WIRE, "web"):
        item = pod()
        item["metadata"]["annotations"] = {key: value}
        (warning,) = await warnings(item)
        assert warning.startswith(f"annotation {key!r} of Pod default/web is ignored; expected {KEY!r}")
        assert ("the key before NSM 1.0" in warning) == (key == "ns.networkservicemesh.io")


@pytest.mark.parametrize("kind", ["Deployment", "CronJob", "Job"])
async def test_a_template_s_and_a_workload_s_are_both_told(kind):
    item = workload(kind, annotations={"ns.networkservicemesh.io": "web"})
    item["metadata"]["annotations"] = {"wires": WIRE}
    first, second = await warnings(item)
    assert first.startswith(f"annotation 'wires' of {kind} default/web is ignored")
    assert second.startswith(
        f"annotation 'ns.networkservicemesh.io' of the pod template of {kind} default/web is ignored"
    )


async def test_a_namespace_s_is_told():
    item = {"kind": "Namespace", "metadata": {"name": "shop", "annotations": {"ns.networkservicemesh.io": "web"}}}
    (warning,) = await warnings(item)
    assert "of Namespace shop is ignored" in warning


async def test_who_writes_the_right_one_too_gets_the_wires_and_the_warning():
    item = pod(WIRE)
    item["metadata"]["annotations"]["ns.networkservicemesh.io"] = "web"
    answer = await Cluster().answer(item)
    assert "patch" in answer
    assert len(answer["warnings"]) == 1


@pytest.mark.parametrize(
    "annotations",
    [
        {},
        {"networkservicemesh.io/injected": "nsc"},
        {"linkerd.io/inject": "enabled", "sidecar.istio.io/inject": "true"},
        {"kubectl.kubernetes.io/last-applied-configuration": f'{{"annotations": {{"{KEY}": "{WIRE}"}}}}'},
        {"prometheus.io/scrape": "true", "url": "https://web"},
    ],
)
async def test_other_annotations_are_none_of_ours(annotations):
    item = pod()
    item["metadata"]["annotations"] = annotations
    assert await warnings(item) == []
