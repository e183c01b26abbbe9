"""The address of a mesh's view, as its status shows it."""

from types import SimpleNamespace

import pytest

from nsm.mesh.plan import Component
from nsm.mesh.tree import tree
from nsm.mesh.view import PORT, MeshView

PART = Component("view", "view", "node-1", "node-1", {"NSM_LISTEN_ON": "unix:///v"})


@pytest.fixture
def view(tmp_path):
    return MeshView(SimpleNamespace(view_token=tmp_path / "token"))


def process(*listen_on, state="ready"):
    return SimpleNamespace(said={"listen_on": listen_on} if listen_on else {}, pid=7, state=state, last="")


def asked(part):
    return part.environment["NSM_LISTEN_ON"].split(",")[1]


def test_a_view_has_no_address_before_it_says_where_it_listens(view):
    """The usual port was shown, where another mesh's view may answer: it refuses this one's token."""
    view.starting(PART)
    assert view.described(process(state="starting"))["url"] == ""
    shown = view.described(process("unix:///v", "http://127.0.0.1:7411"))["url"]
    assert shown.startswith("http://127.0.0.1:7411/?token=")


def test_a_view_that_is_started_again_is_asked_to_listen_where_it_was(view):
    assert asked(view.starting(PART)) == f"tcp://127.0.0.1:{PORT}"
    view.described(process("http://127.0.0.1:7411"))
    assert asked(view.starting(PART)) == "tcp://127.0.0.1:7411"


def test_a_status_without_an_address_says_so():
    parts = {"url": "", "pid": 7, "state": "starting", "last_warning": ""}
    status = {"mesh": "m", "nodes": [], "links": [], "uplinks": [], "services": [], "components": [], "wires": []}
    assert tree({**status, "view": parts})[-1] == "view has no address yet"
