"""The node's setting for RCU grace periods is on while VPP makes interfaces, and as before afterwards."""

import pytest

from nsm.forwarder_vpp.grace import GracePeriods


@pytest.fixture
def setting(tmp_path):
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    return path


def test_grace_periods_are_short_until_the_last_of_several_users_has_ended(setting, tmp_path):
    grace = GracePeriods(tmp_path / "folder" / "mark", setting)
    with grace.short():
        with grace.short():
            assert setting.read_text() == "1"
        assert setting.read_text() == "1"
    assert setting.read_text() == "0"


def test_a_failure_meanwhile_leaves_the_setting_as_it_was(setting, tmp_path):
    grace = GracePeriods(tmp_path / "mark", setting)
    with pytest.raises(RuntimeError), grace.short():
        raise RuntimeError
    assert setting.read_text() == "0"


def test_what_the_administrator_has_set_stays(setting, tmp_path):
    setting.write_text("1\n")
    grace = GracePeriods(tmp_path / "mark", setting)
    with grace.short():
        pass
    assert setting.read_text() == "1\n"


def test_a_forwarder_that_was_killed_meanwhile_leaves_it_to_its_next_process(setting, tmp_path):
    killed = GracePeriods(tmp_path / "mark", setting).short()
    killed.__enter__()
    assert setting.read_text() == "1"
    GracePeriods(tmp_path / "mark", setting)
    assert setting.read_text() == "0"


def test_where_it_cannot_be_written_wires_are_made_all_the_same(tmp_path):
    grace = GracePeriods(tmp_path / "mark", tmp_path / "nothing" / "rcu_expedited")
    with grace.short():
        pass
    assert not (tmp_path / "mark").exists()


def test_it_is_left_alone_if_that_is_wanted(setting):
    with GracePeriods(None, setting).short():
        assert setting.read_text() == "0\n"
