"""What `nsm mesh logs` shows of the files that components write."""

import argparse
import json
from datetime import UTC, datetime, timedelta

import pytest

from nsm.mesh.logfile import LogFile, old
from nsm.mesh.logs import Folds, Log, follow, lines, moment


def event(second, text, **values):
    time = f"2026-11-30T16:40:{second:02}.000000Z"
    return json.dumps({"timestamp": time, "event": text, "level": "info", **values}).encode() + b"\n"


def texts(found):
    """Without times and the padding of columns."""
    return [" ".join(line.split()[2:]) for line in found]


def test_several_components_are_merged_by_time(tmp_path):
    (tmp_path / "a").write_bytes(event(1, "one") + event(3, "three"))
    (tmp_path / "b").write_bytes(event(2, "two"))
    assert texts(lines(tmp_path, ["a", "b"])) == ["a one", "b two", "a three"]


def test_a_line_that_a_component_repeats_is_shown_once_with_a_count(tmp_path):
    """Also if another component logs in between; and the time that something took is no difference."""
    (tmp_path / "a").write_bytes(b"".join(event(2 * each, "retry", ms=each) for each in range(20)) + event(50, "ok"))
    (tmp_path / "b").write_bytes(b"".join(event(2 * each + 1, "busy") for each in range(20)))
    assert texts(lines(tmp_path, ["a", "b"])) == [
        "a retry ms=0 (repeated 20 times, until 16:40:38)",
        "b busy (repeated 20 times, until 16:40:39)",
        "a ok",
    ]


def test_lines_with_different_values_are_not_folded(tmp_path):
    (tmp_path / "a").write_bytes(event(1, "wire up", connection="x") + event(2, "wire up", connection="y"))
    assert len(lines(tmp_path, ["a"])) == 2


def test_since_and_tail_choose_the_last_lines(tmp_path):
    (tmp_path / "a").write_bytes(b"".join(event(each, f"line {each}") for each in range(10)))
    assert texts(lines(tmp_path, ["a"], since="2026-11-30T16:40:07")) == ["a line 7", "a line 8", "a line 9"]
    assert texts(lines(tmp_path, ["a"], tail=2)) == ["a line 8", "a line 9"]
    assert lines(tmp_path, ["a"], tail=0) == []


def test_a_traceback_stays_behind_its_event(tmp_path):
    (tmp_path / "a").write_bytes(event(1, "failed") + b"Traceback:\n  line\n" + event(3, "end"))
    (tmp_path / "b").write_bytes(event(2, "other"))
    assert [line.split()[-1] for line in lines(tmp_path, ["a", "b"])] == [
        "failed",
        "Traceback:",
        "line",
        "other",
        "end",
    ]


def test_followed_logs_show_what_comes_from_new_components_too_until_the_mesh_is_gone(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "a").write_bytes(event(1, "first"))
    found = follow(folder, [], pause=0)
    assert texts([next(found)]) == ["a first"]
    (folder / "b").write_bytes(event(2, "second"))
    assert texts([next(found)]) == ["b second"]
    for name in "ab":
        (folder / name).unlink()
    folder.rmdir()
    assert list(found) == []


def test_a_log_is_followed_through_its_rotation(tmp_path, monkeypatch):
    monkeypatch.setattr("nsm.mesh.logfile.LARGEST", 150)
    written = LogFile(tmp_path / "a", "INFO")
    log = Log(tmp_path / "a")
    found = []
    for each in range(6):
        written.append(event(each, f"line {each}"), None)
        found += [line.text for line in log.read()]
    assert old(tmp_path / "a").exists()
    assert texts(found) == [f"a line {each}" for each in range(6)]
    log.close()
    written.close()


def test_half_a_line_is_not_shown_before_it_is_complete(tmp_path):
    whole = event(1, "whole")
    path = tmp_path / "a"
    path.write_bytes(whole[:20])
    log = Log(path)
    assert list(log.read()) == []
    with path.open("ab") as more:
        more.write(whole[20:])
    assert texts(line.text for line in log.read()) == ["a whole"]
    log.close()


def test_repeats_that_are_followed_are_counted_when_they_end_or_after_two_seconds(tmp_path):
    (tmp_path / "a").write_bytes(event(1, "retry") + event(2, "retry") + event(3, "retry"))
    log, folds = Log(tmp_path / "a"), Folds()
    one, two, three = log.read()
    assert [*folds.add([one, two], 0.0)] == [one.text]
    assert texts(folds.add([three], 2.5)) == ["repeats its last line 2 times more"]
    assert [*folds.end()] == []
    log.close()


@pytest.mark.parametrize(("text", "ago"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("2d", 172800)])
def test_since_is_an_age(text, ago):
    wanted = datetime.now(UTC) - timedelta(seconds=ago)
    assert abs((datetime.fromisoformat(moment(text)) - wanted).total_seconds()) < 5


def test_since_is_a_time():
    assert moment("2026-11-30T17:40:00+01:00") == "2026-11-30T16:40:00+00:00"


@pytest.mark.parametrize("text", ["yesterday", "5", "-3m", ""])
def test_a_time_that_cannot_be_read_says_what_is_expected(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected an age such as 90s"):
        moment(text)
