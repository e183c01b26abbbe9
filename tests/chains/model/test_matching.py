"""Which endpoints match a client."""

from nsm.apis.registry import Match
from nsm.chains.model.matching import match_endpoints
from tests.chains.elements.records import nse
from tests.chains.elements.selection import route, service


def test_weights_change_nothing_of_what_matches():
    """What other programs of the mesh answer: in the order of the routes, with duplicates."""
    weighted = service(Match(routes=[route(1, app="x"), route(0, v="1")]))
    found = match_endpoints({}, weighted, [nse("a", v="1", app="x"), nse("b", app="x")])
    assert [each.name for each in found] == ["a", "b", "a"]
