"""Files that change while a component runs: what is seen, when, and what is told about faults."""

import os
import time

import pytest
import structlog

from nsm.chains.config.watched_file import WatchedFile


def names(document):
    if document is None:
        return []
    if not isinstance(document, list):
        raise ValueError("expected a list")
    return document


@pytest.fixture
def path(tmp_path):
    return tmp_path / "names.yaml"


def test_a_file_that_is_not_there_says_nothing_until_it_comes(path):
    file = WatchedFile(str(path), names)
    with structlog.testing.capture_logs() as logs:
        assert file.value() == []
        path.write_text("[a, b]")
        assert file.value() == ["a", "b"]
        path.unlink()
        assert file.value() == []
    assert [line["log_level"] for line in logs] == ["info", "info"]


def test_every_way_to_change_a_file_is_seen_at_once(path, tmp_path):
    """Written in place, also within one tick of the file system's clock; replaced; a link that is switched."""
    file = WatchedFile(str(path), names)
    for number in range(50):
        path.write_text(f"[{number:02}x]")
        assert file.value() == [f"{number:02}x"]
    (tmp_path / "new").write_text("[replaced]")
    os.replace(tmp_path / "new", path)
    assert file.value() == ["replaced"]
    for version in ("..v1", "..v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "names.yaml").write_text(f"[{version}]")
    (tmp_path / "link").symlink_to("..v1")
    linked = WatchedFile(str(tmp_path / "link" / "names.yaml"), names)
    assert linked.value() == ["..v1"]
    (tmp_path / "other").symlink_to("..v2")
    os.replace(tmp_path / "other", tmp_path / "link")
    assert linked.value() == ["..v2"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"names: [a]", "expected a list"),
        (b"[a, b", "while parsing a flow sequence"),
        (b"\xff\xfe\xfd", "can't decode"),
        (b"!!python/object:os.system {}", "could not determine a constructor"),
        (b"[!!bool x]", "a value does not match its tag"),
        (b"[!!timestamp x]", "a value does not match its tag"),
        (b"[!!int '']", "a value does not match its tag"),
    ],
)
def test_content_that_cannot_be_used_is_told_once_and_the_last_good_one_stays(path, content, told):
    path.write_text("[a]")
    file = WatchedFile(str(path), names)
    assert file.value() == ["a"]
    with structlog.testing.capture_logs() as logs:
        path.write_bytes(content)
        assert [file.value() for _ in range(5)] == [["a"]] * 5
        path.write_text("[c]")
        assert file.value() == ["c"]
    warning, news = logs
    assert warning["log_level"] == "warning"
    assert told in warning["error"]
    assert warning["path"] == str(path)
    assert news["event"] == "configuration file read"


def test_a_folder_in_its_place_is_told(path):
    path.mkdir()
    with structlog.testing.capture_logs() as logs:
        assert WatchedFile(str(path), names).value() == []
    assert "Is a directory" in logs[0]["error"]


def test_a_file_that_stays_as_it_is_is_read_once(path):
    path.write_text("[a]")
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))
    reads = []
    file = WatchedFile(str(path), lambda document: reads.append(document) or names(document))
    time.sleep(0.15)  # ctime cannot be set: until then a change might go unseen
    for _ in range(5):
        assert file.value() == ["a"]
    assert reads == [None, ["a"]]


@pytest.mark.parametrize("half", ["", "[a", "[a]"], ids=["empty", "in a value", "without the end of the line"])
def test_a_file_that_is_half_written_leaves_the_last_value_until_it_is_whole(path, half):
    path.write_text("[old]\n")
    file = WatchedFile(str(path), names, whole=True)
    assert file.value() == ["old"]
    with structlog.testing.capture_logs() as logs:
        path.write_text(half)
        assert file.value() == ["old"]
    assert "the last good one stays" in logs[0]["event"]
    path.write_text("[a, b]\n")
    assert file.value() == ["a", "b"]
    path.unlink()
    assert file.value() == []
