"""docs/configuration.md is what the code says today."""

from importlib.metadata import entry_points

from tests.docs.pages import generator

TOOLS = {
    "attach",
    "bench",
    "can",
    "capture",
    "check",
    "demo",
    "detach",
    "find",
    "health",
    "measure",
    "mesh",
    "ping",
    "policy",
    "why",
    "wires",
}
"""Commands that are no components: their options are in their `--help`."""


def test_the_page_is_not_stale():
    """If it is: `make docs`."""
    written = generator()
    assert written.PAGE.read_text() == written.page()
    assert written.VARIABLES.read_text() == written.variables()


def test_every_component_is_on_the_page():
    assert set(generator().COMPONENTS) | TOOLS == {point.name for point in entry_points(group="nsm.commands")}


def test_every_variable_is_on_the_page():
    """Also those that are refused."""
    written = generator()
    text = written.PAGE.read_text()
    for kind in written.COMPONENTS.values():
        assert [name for name, _, _ in written.describe(kind) if f"`{name}`" not in text] == []
