"""Which control groups may open devices, on both versions of cgroups of a real kernel."""

import os
from pathlib import Path

import pytest

from nsm.chains.core import Conflict, InvalidRequest
from nsm.chains.devices import Permissions
from tests.chains.devices.groups import FULL, V1, ZERO, groups_of_v1, groups_of_v2, node, opens

NAMES = "pod1/main", "pod1/side", "pod2/main"


@pytest.fixture(params=["v1", "v2"])
def groups(request, tmp_path):
    """Permissions on a hierarchy, three groups of two pods, and the path of the groups' parent there."""
    if request.param == "v1" and not (V1 / "devices.list").exists():
        root = fake(tmp_path)
        made = [root / "kubepods" / name for name in NAMES]
        yield Permissions(str(root)), made, allows, "/kubepods"
        return
    nodes = {device: node(tmp_path, device) for device in (ZERO, FULL)}
    making = groups_of_v1(*NAMES) if request.param == "v1" else groups_of_v2(tmp_path / "cgroup", *NAMES)
    with making as (root, made):
        above = f"/{made[0].parents[1].relative_to(root)}"
        yield Permissions(str(root)), made, lambda group, device: opens(group, nodes[device]), above


def test_both_groups_of_a_pod_may_open_the_devices_until_that_is_revoked(groups):
    """Upstream leaves all but the first group without, and revokes nothing."""
    permissions, (main, side, others), can_open, above = groups
    mine = permissions.matching(f"{above}/pod1/*")
    assert mine == [main, side]
    permissions.permit(mine, [FULL, ZERO])
    assert [can_open(group, ZERO) for group in (main, side, others)] == [True, True, False]
    assert can_open(main, FULL)
    assert [each for each in permissions.holders(ZERO) if main.parents[1] in each.parents] == [main, side]
    permissions.revoke(mine, ZERO, FULL)
    assert [can_open(group, ZERO) for group in (main, side, others)] == [False, False, False]
    assert not can_open(main, FULL)
    assert permissions.given(side, 1) == []


def test_what_two_devices_have_in_common_stays_for_the_second(groups):
    permissions, (main, *_), can_open, _ = groups
    common, third = (1, 8), (1, 9)
    permissions.permit([main], [common, ZERO])
    permissions.permit([main], [common, third])
    permissions.revoke([main], ZERO, common)
    assert not can_open(main, ZERO)
    assert permissions.given(main, 1) == [common, third]


def test_permitting_and_revoking_again_changes_nothing(groups):
    permissions, (main, *_), can_open, _ = groups
    for _ in range(2):
        permissions.permit([main], [ZERO])
    assert permissions.given(main, 1) == [ZERO]
    assert can_open(main, ZERO)
    for _ in range(2):
        permissions.revoke([main], ZERO, FULL)
    assert not can_open(main, ZERO)


def test_a_group_that_is_gone_has_nothing_to_revoke(groups):
    permissions, (main, side, _), *_ = groups
    permissions.permit([main], [ZERO])
    gone = side.parent / "gone"
    permissions.revoke([gone, main], ZERO, FULL)
    assert permissions.given(main, 1) == []


def test_the_groups_of_processes_are_found(groups, tmp_path):
    permissions, (main, side, _), *_ = groups
    root = main.parents[2]
    proc = tmp_path / "proc"
    for pid, group in ((1, main), (2, side), (3, main)):
        (proc / str(pid)).mkdir(parents=True)
        path = f"/{group.relative_to(permissions._root)}"
        (proc / str(pid) / "cgroup").write_text(f"7:memory:/x\n5:devices:{path}\n0::{path}\n")
    (proc / "4").mkdir()
    (proc / "4" / "cgroup").write_text("5:devices:/../../up\n0::/../../up\n")
    seen = Permissions(str(permissions._root), str(proc))
    assert seen.of_processes([1, 2, 3, 4, 5]) == [main, side]
    assert root.exists()


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("/kubepods/../../../etc/*", "is not a control group"),
        ("/kubepods/pod1/..", "is not a control group"),
        ("../*", "is not a control group"),
        ("/kubepods/pod*/main", "is not a control group"),
        ("/kubepods/pod1/ma?n", "is not a control group"),
        ("/kubepods//main", "is not a control group"),
        ("/*", "names more than the groups of one pod"),
        ("/kubepods/*", "names more than the groups of one pod"),
        ("/kubepods/link/*", "contains a symbolic link, which is not followed"),
        ("/kubepods/pod1\n/*", "is not a control group"),
    ],
)
def test_a_path_that_climbs_out_or_names_other_pods_is_refused(tmp_path, pattern, told):
    root = fake(tmp_path)
    (root / "kubepods/link").symlink_to("/etc")
    with pytest.raises(InvalidRequest, match=told):
        Permissions(str(root)).matching(pattern)


def test_a_group_that_is_not_there_is_named(tmp_path):
    permissions = Permissions(str(fake(tmp_path)))
    with pytest.raises(Conflict, match="there is no control group /kubepods/pod9/main below"):
        permissions.matching("/kubepods/pod9/main")
    assert permissions.matching("/kubepods/pod1/main") == [tmp_path / "devices/kubepods/pod1/main"]


def test_what_a_group_may_by_a_wider_permission_is_neither_given_nor_revoked(tmp_path):
    """Denying a device to a privileged container's group would forbid it there."""
    root = fake(tmp_path, "a *:* rwm")
    permissions, group = Permissions(str(root)), root / "kubepods/pod1/main"
    permissions.permit([group], [ZERO])
    permissions.revoke([group], ZERO, FULL)
    assert not (group / "devices.allow").read_text()
    assert not (group / "devices.deny").read_text()


def test_where_no_control_groups_are_mounted_the_forwarder_says_so(tmp_path):
    with pytest.raises(InvalidRequest, match="is no hierarchy of control groups"):
        Permissions(str(tmp_path)).check()


def test_upstreams_default_stands_for_v2_where_there_is_no_v1(tmp_path):
    (tmp_path / "cgroup.controllers").touch()
    permissions = Permissions(str(tmp_path / "devices"))
    permissions.check()
    assert permissions.is_v2


def test_a_group_that_refuses_is_named(tmp_path):
    root = fake(tmp_path)
    group = root / "kubepods/pod1/main"
    os.unlink(group / "devices.allow")
    (group / "devices.allow").mkdir()
    with pytest.raises(Conflict, match=f"cannot permit devices to the control group {group}: Is a directory"):
        Permissions(str(root)).permit([group], [ZERO])


def fake(tmp_path, listed=""):
    """A tree of files like v1's hierarchy, which notes what is written."""
    root = tmp_path / "devices"
    for folder in (root, *(root / "kubepods" / name for name in NAMES)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "devices.list").write_text(listed)
        for name in ("devices.allow", "devices.deny"):
            (folder / name).touch()
    return root


def allows(group, device):
    return f"c {device[0]}:{device[1]} rwm" in Path(group, "devices.allow").read_text()
