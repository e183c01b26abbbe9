"""What an agent stores of its attachments."""

import json

import pytest
from structlog.testing import capture_logs

from nsm.chains.core import InvalidRequest
from nsm.services.agent.attachments import Attachment, Folder, stored_in
from nsm.services.agent.places import NETNS, Place

WEB = Attachment("web", Place(NETNS, "/run/netns/x"), ("kernel://s/nsm-1",), "unix:///m", "unix:///id", "n", {"a": "b"})


def test_an_attachment_is_read_as_it_was_written(tmp_path):
    Folder(tmp_path / "web").write(WEB)
    assert stored_in(tmp_path) == [WEB]
    assert Folder(tmp_path / "web").services.read_text() == "kernel://s/nsm-1\n"
    assert (tmp_path / "web").stat().st_mode & 0o077 == 0


def test_one_that_cannot_be_read_is_told_and_does_not_stop_the_others(tmp_path):
    Folder(tmp_path / "web").write(WEB)
    for name, text in (("odd", "{"), ("list", "[]"), ("less", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "attachment.json").write_text(text)
    with capture_logs() as logs:
        assert stored_in(tmp_path) == [WEB]
    assert len(logs) == 3


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".", "-x", "x" * 64, "a b"])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(InvalidRequest, match="expected up to 63 letters"):
        Attachment.read({**WEB.plain(), "name": name})


@pytest.mark.parametrize("name", ["log", "issuer", "agent.sock"])
def test_a_name_that_is_a_file_of_the_agent_is_refused(name):
    with pytest.raises(InvalidRequest, match="a file of the agent"):
        Attachment.read({**WEB.plain(), "name": name})


def test_without_a_url_there_is_nothing_to_attach():
    with pytest.raises(InvalidRequest, match="which wires"):
        Attachment.read({**WEB.plain(), "urls": []})


def test_the_last_line_of_a_client_s_log_tells_why_it_ended(tmp_path):
    folder = Folder(tmp_path)
    assert folder.last_words() == ""
    folder.log.write_text('{"event": "a"}\n' + json.dumps({"event": "stopped", "error": "no identity"}) + "\n")
    assert folder.last_words() == "stopped: no identity"
    folder.log.write_text("Traceback\nValueError: odd\n")
    assert folder.last_words() == "ValueError: odd"
