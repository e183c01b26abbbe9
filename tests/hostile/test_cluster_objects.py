"""Objects of a cluster that say what they should not: the collector of prefixes and the CSI driver refuse them plainly."""

import contextlib
import os

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from nsm.apis import csi
from nsm.chains.core import InvalidRequest
from nsm.services.csi_driver.volumes import Volumes
from nsm.services.prefixes.sources import of_kubeadm, of_node, of_service, of_service_cidr, of_user

texts = st.text(max_size=20) | st.sampled_from(["10.0.0.0/8", "fd00::/64", "10.0.0.1", "::", "\x00", "\x1b[2J", "%s"])
plain = st.none() | st.booleans() | st.integers() | st.floats() | texts
trees = st.recursive(plain, lambda more: st.lists(more, max_size=3) | st.dictionaries(texts, more, max_size=3))


def fault(read, item):
    """What is wrong with an object, empty if nothing is; any other exception is a defect."""
    try:
        read(item)
    except ValueError as error:
        return str(error)
    return ""


def objects(**specs):
    return st.fixed_dictionaries({}, optional={"spec": trees | st.fixed_dictionaries({}, optional=specs)})


documents = st.one_of(
    texts,
    trees.map(yaml.safe_dump),
    trees.map(lambda tree: yaml.safe_dump({"prefixes": tree})),
    trees.map(lambda tree: yaml.safe_dump({"networking": tree})),
    st.builds(
        lambda pods, services: yaml.safe_dump({"networking": {"podSubnet": pods, "serviceSubnet": services}}),
        trees,
        trees,
    ),
)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    objects(podCIDR=trees, podCIDRs=trees),
    objects(clusterIP=trees, clusterIPs=trees),
    objects(cidrs=trees),
    st.fixed_dictionaries({}, optional={"data": st.dictionaries(texts, texts) | trees}),
    documents,
)
def test_a_node_a_service_or_a_config_map_of_any_kind_is_read_or_refused(node, service, cidr, config_map, document):
    data = {"x": document, "ClusterConfiguration": document}
    for read, item in (
        (of_node, node),
        (of_service, service),
        (of_service_cidr, cidr),
        (of_kubeadm, config_map),
        (of_kubeadm, {"data": data}),
        (lambda item: of_user(item, "x"), config_map),
        (lambda item: of_user(item, "x"), {"data": data}),
    ):
        told = fault(read, item)
        assert len(told) < 1000
        assert "\x1b" not in told


BOMBS = {
    "deep lists": "[" * 5_000,
    "deep mappings": "{a: " * 5_000,
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20))
    + "prefixes: *u\n",
    "a long number": "prefixes: [" + "9" * 20_000 + "]",
    "a long word": "prefixes: ['" + "9" * 200_000 + "']",
    "an object": "prefixes: !!python/object/apply:os.system ['true']",
    "a date": "prefixes: [2026-99-99]",
    "a megabyte": "prefixes: [" + "10.0.0.1/32," * 85_000 + "]",
    "many prefixes": "prefixes:\n" + "".join(f"- 10.{n >> 8}.{n & 255}.1/32\n" for n in range(5_000)),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BOMBS)
def test_a_config_map_that_unfolds_without_bound_is_refused(name):
    for read in (lambda item: of_user(item, "x"), of_kubeadm):
        data = {"x": BOMBS[name], "ClusterConfiguration": f"networking: {{podSubnet: [{BOMBS[name][:100_000]}]}}"}
        with pytest.raises(ValueError) as refused:
            read({"data": data})
        assert len(str(refused.value)) < 1000


# --- volumes

EPHEMERAL = {"csi.storage.k8s.io/ephemeral": "true"}
MOUNT = csi.VolumeCapability(mount=csi.VolumeCapabilityMountVolume())
POD = "pods/8b1b2e0c-6f5e-4a51-9d3c-0a5c9b7a1e42"
PLACE = f"{POD}/volumes/kubernetes.io~csi/nsm-socket/mount"


@pytest.fixture
def volumes(tmp_path):
    """Volumes of a folder, where nothing is ever mounted or made."""
    for name in ("sockets", "kubelet/pods", "outside"):
        (tmp_path / name).mkdir(parents=True)
    yield Volumes(str(tmp_path / "sockets"), kubelet_folder=str(tmp_path / "kubelet"))
    assert not os.listdir(tmp_path / "outside")


def publish(volumes, target, volume="csi-1"):
    volumes.publish(
        csi.NodePublishVolumeRequest(
            volume_id=volume, target_path=target, volume_capability=MOUNT, readonly=True, volume_context=EPHEMERAL
        )
    )


TARGETS = {
    "another folder of the node": "/etc",
    "up and out": "{kubelet}/pods/../../outside/x",
    "up and in again": "{kubelet}/" + PLACE.replace("mount", "x/../mount"),
    "a relative path": PLACE,
    "the kubelet's own": "{kubelet}",
    "its folder of pods": "{kubelet}/pods",
    "an emptyDir of a pod": "{kubelet}/" + f"{POD}/volumes/kubernetes.io~empty-dir/x/mount",
    "below a volume": "{kubelet}/" + f"{PLACE}/below",
    "a plugin's": "{kubelet}/plugins/kubernetes.io/csi/x/mount",
    "a NUL": "{kubelet}/" + PLACE.replace("nsm", "n\0sm"),
    "a line feed": "{kubelet}/" + PLACE.replace("nsm", "n\nsm"),
    "an escape": "{kubelet}/" + PLACE.replace("nsm", "\x1b[2J"),
    "half a pair": "{kubelet}/" + PLACE.replace("nsm", "\ud800"),
    "too long": "{kubelet}/" + PLACE.replace("nsm", "n" * 5000),
    "nothing": "",
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_volume_is_nowhere_but_where_the_kubelet_puts_one(volumes, tmp_path, name):
    target = TARGETS[name].replace("{kubelet}", str(tmp_path / "kubelet"))
    for act in (
        lambda: publish(volumes, target),
        lambda: volumes.unpublish(csi.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=target)),
    ):
        with pytest.raises(InvalidRequest) as refused:
            act()
        assert len(str(refused.value)) < 600
        assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("link", [POD, f"{POD}/volumes", f"{POD}/volumes/kubernetes.io~csi/nsm-socket", PLACE])
def test_a_link_on_the_way_to_a_volume_is_not_followed(volumes, tmp_path, link):
    at = tmp_path / "kubelet" / link
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(tmp_path / "outside")
    target = str(tmp_path / "kubelet" / PLACE)
    with pytest.raises(InvalidRequest, match="symbolic link"):
        publish(volumes, target)
    with pytest.raises(InvalidRequest, match="symbolic link"):
        volumes.unpublish(csi.NodeUnpublishVolumeRequest(volume_id="csi-1", target_path=target))
    assert at.is_symlink()


@pytest.mark.parametrize("volume", ["", "../../x\n", "\x1b[2J", "x" * 1000, "a\0", "\ud800"])
def test_a_volume_s_id_is_one_that_a_log_can_have(volumes, tmp_path, volume):
    target = str(tmp_path / "kubelet" / PLACE)
    with pytest.raises(InvalidRequest, match="id"):
        publish(volumes, target, volume)
    with pytest.raises(InvalidRequest, match="id"):
        volumes.unpublish(csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=target))


@hypothesis.settings(
    max_examples=100, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.text(), st.text(), st.dictionaries(st.text(), st.text(), max_size=3), st.booleans(), st.text())
def test_a_request_of_any_kind_is_refused_plainly(volumes, volume, target, context, readonly, word):
    mount = csi.VolumeCapabilityMountVolume(fs_type=word, mount_flags=[word])
    capability = csi.VolumeCapability(mount=mount) if readonly else None
    request = csi.NodePublishVolumeRequest(
        volume_id=volume,
        target_path=f"/{target}",
        volume_capability=capability,
        readonly=readonly,
        volume_context={**EPHEMERAL, **context},
    )
    with pytest.raises(InvalidRequest):
        volumes.publish(request)
    with contextlib.suppress(InvalidRequest):
        volumes.unpublish(csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=f"/{target}"))
