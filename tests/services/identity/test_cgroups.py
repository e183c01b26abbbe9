"""From the control groups of a process to its pod, as runtimes and cgroup drivers write them."""

import pytest

from nsm.chains.core import Refused
from nsm.services.identity.cgroups import (
    BOTH,
    CGROUPFS,
    QOS,
    SYSTEMD,
    Claim,
    Layout,
    Own,
    Recogniser,
    group_names,
    is_own_container,
    layout_around,
)

UID = "8b1b2e0c-6f5e-4a51-9d3c-0a5c9b7a1e42"
UID_ = UID.replace("-", "_")
OTHER = "11111111-2222-3333-4444-555555555555"
OTHER_ = OTHER.replace("-", "_")
SELF = "22222222-2222-3333-4444-555555555555"
ID = "3f2a" * 16
NODE = "a process of the node itself"

KIND = ("kubelet",)
AT_THE_ROOT = [Layout(SYSTEMD), Layout(CGROUPFS)]
IN_A_NAMESPACE = Recogniser(AT_THE_ROOT, Own(SELF, "BestEffort", "0::/\n"))


@pytest.mark.parametrize(
    ("path", "claim", "layouts"),
    [
        (f"/kubepods/besteffort/pod{UID}/{ID}", ("BestEffort", ID, CGROUPFS), AT_THE_ROOT),
        (f"/kubepods/burstable/pod{UID}/{ID}", ("Burstable", ID, CGROUPFS), AT_THE_ROOT),
        (f"/kubepods/pod{UID}/{ID}", ("Guaranteed", ID, CGROUPFS), AT_THE_ROOT),
        (f"/kubepods/burstable/pod{UID}/crio-{ID}", ("Burstable", f"crio-{ID}", CGROUPFS), AT_THE_ROOT),
        (f"/kc/n1/kubepods/pod{UID}/{ID}", ("Guaranteed", ID, CGROUPFS), [Layout(CGROUPFS, outer="/kc/n1")]),
        (f"/kc/n1/kubepods/pod{UID}/{ID}", ("Guaranteed", ID, CGROUPFS), [Layout(CGROUPFS, root=("kc", "n1"))]),
        (
            f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
            ("Guaranteed", f"cri-containerd-{ID}.scope", SYSTEMD),
            AT_THE_ROOT,
        ),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/docker-{ID}.scope",
            ("BestEffort", f"docker-{ID}.scope", SYSTEMD),
            AT_THE_ROOT,
        ),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope/container",
            ("Burstable", f"crio-{ID}.scope", SYSTEMD),
            AT_THE_ROOT,
        ),
        (
            f"/my_root.slice/my_root-kubepods.slice/my_root-kubepods-pod{UID_}.slice/crio-{ID}.scope",
            ("Guaranteed", f"crio-{ID}.scope", SYSTEMD),
            [Layout(SYSTEMD, ("my-root",))],
        ),
        (
            f"/system.slice/containerd.service/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}",
            ("BestEffort", ID, BOTH),
            [Layout(BOTH)],
        ),
        (
            f"/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
            f"/kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope",
            ("BestEffort", f"cri-containerd-{ID}.scope", SYSTEMD),
            [Layout(SYSTEMD, KIND, f"/docker/{ID}")],
        ),
    ],
)
@pytest.mark.parametrize("line", ["0::{}", "9:name=systemd:{0}\n4:memory:{0}\n3:cpuset:/\n0::/"])
def test_the_claim_is_found_whoever_made_the_groups(path, claim, layouts, line):
    qos, group, driver = claim
    assert Recogniser(layouts).claim(line.format(path) + "\n") == Claim(UID, qos, group, driver)


def test_in_a_cgroup_namespace_paths_begin_beside_our_own_group():
    """One step further with crun under systemd, which puts a container one step below its own group."""
    for path, qos in (
        (f"/../../kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope", "BestEffort"),
        (f"/../../../kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope/container", "BestEffort"),
        (f"/../../../kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/crio-{ID}.scope", "Burstable"),
        (f"/../../../kubepods-pod{UID_}.slice/crio-{ID}.scope", "Guaranteed"),
    ):
        assert IN_A_NAMESPACE.claim(f"0::{path}/below\n") == Claim(UID, qos, f"crio-{ID}.scope", SYSTEMD)
    for path, qos in (
        (f"/../../pod{UID}/{ID}", "BestEffort"),
        (f"/../../../pod{UID}/{ID}", "Guaranteed"),
        (f"/../../../burstable/pod{UID}/{ID}", "Burstable"),
    ):
        assert IN_A_NAMESPACE.claim(f"0::{path}/below\n") == Claim(UID, qos, ID, CGROUPFS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n",
        "0::/\n",
        "0::/init.scope\n",
        "0::/system.slice/kubelet.service\n",
        f"0::/system.slice/docker-{ID}.scope\n",
        f"0::/kubepods.slice/kubepods-besteffort.slice/{ID}\n",
        f"0::/kubepods/besteffort/pod{UID}\n",
        f"0::/kubepods/besteffort/pod{UID_}/{ID}\n",
        f"0::/kubepods/guaranteed/pod{UID}/{ID}\n",
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-besteffort-pod{UID_}.slice/crio-{ID}.scope\n",
        f"0::/kubepods.slice/kubepods-pod{UID}.slice/crio-{ID}.scope\n",
        f"0::/kubepods.slice/pod{UID}/{ID}\n",
        f"0::/../kubepods/besteffort/pod{UID}/{ID}\n",
    ],
)
def test_a_process_of_the_node_is_in_no_pod(text):
    with pytest.raises(Refused, match=NODE):
        Recogniser(AT_THE_ROOT).claim(text)


@pytest.mark.parametrize(
    "above",
    [
        "/machine.slice/libpod-{ID}.scope",
        "/machine.slice/machine-nspawn.scope/payload",
        "/lxc",
        "/lxc/web",
        "/lxc.payload.web",
        "/libpod_parent/x",
        "/podman",
        "/docker/{ID}",
        "/user.slice/user-1000.slice/user@1000.service/user.slice",
        "/system.slice/shop.service",
        "/system.slice/containerd.service",
    ],
)
@pytest.mark.parametrize(
    "named",
    [
        "/pod{UID}",
        "/pod{UID}/{ID}",
        "/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
        "/kubepods-besteffort-pod{UID_}.slice:cri-containerd:{ID}",
        "/kubepods/besteffort/pod{UID}/{ID}",
        "/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope",
        "/../../../kubepods/pod{UID}/{ID}",
    ],
)
def test_what_podman_lxc_nspawn_or_a_user_calls_a_group_makes_nobody_a_pod(above, named):
    path = (above + named).format(ID=ID, UID=UID, UID_=UID_)
    with pytest.raises(Refused, match=NODE):
        Recogniser(AT_THE_ROOT).claim(f"0::{path}\n4:memory:{path}\n")
    for ups in range(6):
        with pytest.raises(Refused, match=NODE):
            IN_A_NAMESPACE.claim(f"0::{'/..' * ups}{path}\n")


@pytest.mark.parametrize(
    "below", [f"kubepods-besteffort-pod{OTHER_}.slice", f"pod{OTHER}", f"kubepods/besteffort/pod{OTHER}/{ID}"]
)
def test_a_group_that_a_pod_made_below_its_own_does_not_make_it_another_pod(below):
    assert Recogniser(AT_THE_ROOT).claim(f"0::/kubepods/besteffort/pod{UID}/{ID}/{below}\n").uid == UID
    relative = f"0::/../../kubepods-besteffort-pod{UID_}.slice/cri-containerd-{ID}.scope/{below}\n"
    assert IN_A_NAMESPACE.claim(relative).uid == UID


@pytest.mark.parametrize("break_", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_group_whose_name_looks_like_the_next_line_makes_nobody_another_pod(break_):
    """The kernel refuses a line feed in the name of a group, and nothing else that breaks a line."""
    for line in ("0::", "7:"):
        below = f"x{break_}{line}/kubepods/pod{OTHER}/{ID}"
        assert Recogniser(AT_THE_ROOT).claim(f"0::/kubepods/besteffort/pod{UID}/{ID}/{below}\n").uid == UID
        for path in (f"/user.slice/user-1000.slice/user@1000.service/{below}", f"/{below}"):
            with pytest.raises(Refused, match=NODE):
                Recogniser(AT_THE_ROOT).claim(f"0::{path}\n")
            with pytest.raises(Refused, match=NODE):
                IN_A_NAMESPACE.claim(f"0::{path}\n")


@pytest.mark.parametrize("up", ["..", "../.."])
@pytest.mark.parametrize("container", [f"cri-containerd-{ID}.scope", f"crio-{ID}.scope/container", ID])
@pytest.mark.parametrize("below", [f"kubepods-besteffort-pod{OTHER_}.slice", f"kubepods/besteffort/pod{OTHER}/{ID}"])
def test_another_container_of_our_own_pod_is_not_who_it_calls_a_group_after(up, container, below):
    """The name of the pod that both are in is not in the path."""
    with pytest.raises(Refused, match=NODE):
        IN_A_NAMESPACE.claim(f"0::/{up}/{container}/{below}\n")


@pytest.mark.parametrize("below", [f"kubepods-besteffort-pod{OTHER_}.slice/x", f"kubepods/besteffort/pod{OTHER}/{ID}"])
def test_who_is_in_our_own_container_is_not_who_it_calls_a_group_after(below):
    with pytest.raises(Refused, match=NODE):
        IN_A_NAMESPACE.claim(f"0::/{below}\n")


def test_groups_that_do_not_agree_are_nobody_s():
    """Only somebody with power over the node can bring that about."""
    with pytest.raises(Refused, match=f"several pods: {OTHER}, {UID}"):
        Recogniser(AT_THE_ROOT).claim(f"4:memory:/kubepods/pod{UID}/{ID}\n3:cpu:/kubepods/pod{OTHER}/{ID}\n")


def test_a_static_pod_has_its_own_kind_of_uid():
    assert Recogniser(AT_THE_ROOT).claim(f"0::/kubepods/burstable/pod{'ab12' * 8}/{ID}\n").uid == "ab12" * 8


@pytest.mark.parametrize("qos", QOS)
@pytest.mark.parametrize(
    "layout",
    [
        *(Layout(driver) for driver in (SYSTEMD, CGROUPFS, BOTH)),
        Layout(SYSTEMD, KIND, "/docker/x"),
        Layout(SYSTEMD, ("a", "b")),
        Layout(CGROUPFS, outer="/nsm-cluster/n1"),
        Layout(CGROUPFS, outer="/kubelet"),
    ],
)
def test_our_own_pod_s_groups_show_where_those_of_pods_are(layout, qos):
    uid = UID if layout.driver == CGROUPFS else UID_
    path = layout.template(qos).replace("@", uid).replace("%", "c1")
    assert layout_around(Own(UID, qos, f"9:x:/\n4:memory:{path}\n")) == layout
    assert layout_around(Own(UID, qos, f"0::{path}/container\n")) == layout
    assert layout_around(Own(OTHER, qos, f"0::{path}\n")) is None
    assert layout_around(Own(UID, qos, "0::/system.slice/nsm.service\n")) is None


def test_a_container_s_group_has_its_runtime_s_name():
    ids = ["containerd://a1", "cri-o://b2", "docker://c3", "", "rkt://d4", "nonsense", "containerd://"]
    assert group_names(ids, SYSTEMD) == {"cri-containerd-a1.scope", "crio-b2.scope", "docker-c3.scope"}
    assert group_names(ids, CGROUPFS) == {"a1", "crio-b2", "c3"}
    assert group_names(ids, BOTH) == {"a1"}


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
