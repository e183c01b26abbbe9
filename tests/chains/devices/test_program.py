"""Programs that decide which devices a group may open: what is put before them, and taken away again."""

import pytest

from nsm.chains.devices.program import (
    _instruction,
    devices_in,
    has_programs,
    permit,
    permitted,
    with_devices,
)
from tests.chains.devices.groups import FULL, NOTHING, ZERO, groups_of_v2, node, opens

OURS = [(10, 196), (511, 0), (1, 5)]


def test_what_was_put_before_a_program_is_found_and_the_program_behind_it_unchanged():
    assert devices_in(with_devices(NOTHING, OURS)) == (OURS, NOTHING)
    assert devices_in(with_devices(b"", OURS)) == (OURS, b"")
    assert with_devices(NOTHING, []) == NOTHING


@pytest.mark.parametrize("program", [b"", NOTHING, NOTHING[:8], _instruction(0xB7, 0, 0, 0, 0x6E736D) + NOTHING])
def test_a_program_of_others_is_not_taken_for_ours(program):
    assert devices_in(program) == ([], program)


def test_a_group_may_open_what_it_is_permitted_and_nothing_else(tmp_path):
    zero, full = node(tmp_path, ZERO), node(tmp_path, FULL)
    with groups_of_v2(tmp_path / "cgroup", "pod1/main", "pod2/main") as (_, (mine, others)):
        assert not opens(mine, zero)
        permit(str(mine), [ZERO, FULL])
        assert permitted(str(mine)) == [ZERO, FULL]
        assert opens(mine, zero)
        assert opens(mine, full)
        assert not opens(others, zero)
        permit(str(mine), [FULL])
        assert not opens(mine, zero)
        assert opens(mine, full)
        permit(str(mine), [])
        assert permitted(str(mine)) == []
        assert not opens(mine, full)
        assert has_programs(str(mine))


def test_a_group_to_which_nothing_is_forbidden_stays_as_it_is(tmp_path):
    with groups_of_v2(tmp_path / "cgroup", "pod1/main") as (root, (mine,)):
        inner = mine / "inner"
        inner.mkdir()
        assert not has_programs(str(inner))
        permit(str(inner), [ZERO])
        assert not has_programs(str(inner))
        assert root.is_dir()
