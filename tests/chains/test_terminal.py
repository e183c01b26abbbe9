"""What an operator sees of names that somebody else chose."""

import pytest

from nsm.chains import logs
from nsm.chains.terminal import escaped, escaped_lines

HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "a\u202eb",
    "\u2066x\u2069",
    "a\u200bb",
    "\x9b31m",
    "a\rb",
    "a\nb",
    "\x00",
    "\x7f",
    "\ufeff",
    "\U000e0041",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_that_a_terminal_obeys_or_hides_is_left(text):
    assert escaped(text).isprintable()
    assert escaped(text) != text
    assert all(line.isprintable() for line in escaped_lines(f"first\n{text}").split("\n"))


def test_what_is_simply_seen_stays_as_it_is():
    for text in ("icmp-responder@my.domain", "└─ nsm-1 → 10.0.0.1/32", "имя", "日本"):
        assert escaped(text) == text
    assert escaped("a\x1b[1mb\u202e") == "a\\x1b[1mb\\u202e"
    assert escaped_lines("a\nb\t") == "a\nb\\t"


def test_logs_on_a_terminal_show_names_of_peers_escaped(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    event = {"event": "refused \x1b[2J", "level": "info", "peer": "\x1b]0;x\x07\u202e", "names": ["\u200b"]}
    try:
        raise RuntimeError("it is called \x1b[2J\u202e")
    except RuntimeError as error:
        event["exc_info"] = error
    for processor in logs._readable():
        event = processor(None, "info", event)
    assert all(line.isprintable() for line in event.split("\n"))
    assert "\\x1b[2J" in event
    assert event.count("\n") > 3, "a traceback keeps its lines"
