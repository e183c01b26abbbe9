"""From the control groups of a process to its pod, as runtimes and cgroup drivers write them."""

import pytest

from nsm.chains.core import Refused
from nsm.services.identity.cgroups import is_own_container, pod_uid

UID = "8b1b2e0c-6f5e-4a51-9d3c-0a5c9b7a1e42"
UID_ = UID.replace("-", "_")
OTHER = "11111111-2222-3333-4444-555555555555"
OTHER_ = OTHER.replace("-", "_")
ID = "3f2a" * 16


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubepods/burstable/pod{UID}/{ID}",
        f"/kubepods/pod{UID}/{ID}",
        f"/kubepods/burstable/pod{UID}/crio-{ID}",
        f"/kc/n1/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{ID}.scope",
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope/container",
        f"/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}",
        f"/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
        f"/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
        f"/../../kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
        f"/../../pod{UID}/{ID}",
        f"/../pod{UID}/{ID}",
    ],
)
@pytest.mark.parametrize("line", ["0::{}", "9:name=systemd:{0}\n4:memory:{0}\n3:cpuset:/\n0::/"])
def test_the_pod_is_found_whoever_made_the_groups(path, line):
    assert pod_uid(line.format(path) + "\n") == UID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0::/\n",
        "0::/init.scope\n",
        "0::/system.slice/kubelet.service\n",
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/kubepods.slice/kubepods-besteffort.slice/{ID}\n",
        f"0::/podman/pod{ID}\n",
        f"0::/x/notpod{UID}\n",
        f"0::/system.slice/shop.service/kubepods.slice/kubepods-pod{UID_}.slice/x.scope\n",
        f"0::/../../../system.slice/shop.service/kubepods-pod{UID_}.slice:cri-containerd:{ID}\n",
        f"0::/user.slice/user-1000.slice/user@1000.service/kubepods-besteffort-pod{UID_}.slice/x.scope\n",
    ],
)
def test_a_process_of_the_node_is_in_no_pod_whatever_its_user_or_service_calls_a_group(text):
    with pytest.raises(Refused, match="a process of the node itself"):
        pod_uid(text)


@pytest.mark.parametrize(
    "below", [f"kubepods-besteffort-pod{OTHER_}.slice", f"pod{OTHER}", f"kubepods/besteffort/pod{OTHER}/{ID}"]
)
def test_a_group_that_a_pod_made_below_its_own_does_not_make_it_another_pod(below):
    assert pod_uid(f"0::/kubepods/besteffort/pod{UID}/{ID}/{below}\n") == UID
    assert pod_uid(f"0::/../../kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope/{below}\n") == UID


@pytest.mark.parametrize("break_", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_group_whose_name_looks_like_the_next_line_makes_nobody_another_pod(break_):
    """The kernel refuses a line feed in the name of a group, and nothing else that breaks a line."""
    for line in ("0::", "7:"):
        below = f"x{break_}{line}/kubepods/pod{OTHER}/{ID}"
        assert pod_uid(f"0::/kubepods/besteffort/pod{UID}/{ID}/{below}\n") == UID
        with pytest.raises(Refused, match="a process of the node itself"):
            pod_uid(f"0::/user.slice/user-1000.slice/user@1000.service/{below}\n")
        with pytest.raises(Refused, match="a process of the node itself"):
            pod_uid(f"0::/{below}\n", "0::/\n")


@pytest.mark.parametrize("up", ["..", "../.."])
@pytest.mark.parametrize("container", [f"cri-containerd-{ID}.scope", f"crio-{ID}.scope/container", ID])
@pytest.mark.parametrize("below", [f"kubepods-besteffort-pod{OTHER_}.slice", f"kubepods/besteffort/pod{OTHER}/{ID}"])
def test_another_container_of_our_own_pod_is_not_who_it_calls_a_group_after(up, container, below):
    """The name of the pod that both are in is not in the path."""
    with pytest.raises(Refused, match="a process of the node itself"):
        pod_uid(f"0::/{up}/{container}/{below}\n", "0::/\n")


@pytest.mark.parametrize("below", [f"kubepods-besteffort-pod{OTHER_}.slice/x", f"kubepods/besteffort/pod{OTHER}/{ID}"])
def test_who_is_in_our_own_container_is_not_who_it_calls_a_group_after(below):
    with pytest.raises(Refused, match="a process of the node itself"):
        pod_uid(f"0::/{below}\n", "0::/\n")
    assert pod_uid(f"0::/{below}\n", "0::/kubepods/pod{UID}/{ID}\n") == OTHER, "seen from no namespace it is that pod"


def test_groups_that_do_not_agree_are_nobody_s():
    """Only somebody with power over the node can bring that about."""
    with pytest.raises(Refused, match=f"several pods: {OTHER}, {UID}"):
        pod_uid(f"4:memory:/kubepods/pod{UID}/{ID}\n3:cpu:/kubepods/pod{OTHER}/{ID}\n")


def test_a_static_pod_has_its_own_kind_of_uid():
    assert pod_uid(f"0::/kubepods/burstable/pod{'ab12' * 8}/{ID}\n") == "ab12" * 8


@pytest.mark.parametrize(
    ("caller", "own", "is_own"),
    [
        ("0::/\n", "0::/\n", True),
        ("4:memory:/\n0::/\n", "4:memory:/\n0::/\n", True),
        ("0::/../../init.scope\n", "0::/\n", False),
        (f"0::/../../kubepods-pod{UID_}.slice/x.scope\n", "0::/\n", False),
        ("0::/system.slice/nsm.service\n", "0::/system.slice/nsm.service\n", False),
        ("", "0::/\n", False),
    ],
)
def test_what_is_at_the_root_of_a_container_s_own_namespace_is_in_that_container(caller, own, is_own):
    assert is_own_container(caller, own) is is_own
