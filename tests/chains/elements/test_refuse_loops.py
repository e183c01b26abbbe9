"""Chains of services that lead back to themselves."""

import pytest

from nsm.apis.connection import Path, PathSegment
from nsm.chains.core import Begin, Chain, InvalidRequest
from nsm.chains.elements.refuse_loops import PASSED_AS, RefuseLoops
from nsm.chains.testing import call


def through(*segments):
    """A request whose path has these segments, each a name or a name with the labels that it went on with."""
    made = [
        PathSegment(name=name, id=f"{number}", metrics={PASSED_AS: labels[0]} if labels else {})
        for number, (name, *labels) in enumerate(segments)
    ]
    return call("c", "shop", path=Path(index=len(made) - 1, path_segments=made))


def chain():
    return Chain([Begin(), RefuseLoops("firewall", {"app": "firewall", "tier": "a"})])


async def test_a_request_that_passes_for_the_first_time_goes_on_and_shows_with_which_labels():
    answer = await chain().request(through(["client"], ["other", "app=other"], ["firewall"]))
    assert answer.path.path_segments[2].metrics[PASSED_AS] == "app=firewall,tier=a"


@pytest.mark.parametrize("before", [["firewall"], ["replica", "app=firewall,tier=a"]])
async def test_a_request_that_was_here_or_at_a_replica_is_refused_with_its_path(before):
    with pytest.raises(InvalidRequest) as caught:
        await chain().request(through(["client"], before, ["nsmgr"], ["firewall"]))
    assert str(caught.value) == (
        f"the chain of 'shop' leads back to itself: client → {before[0]} → nsmgr → firewall; a match of the service"
        " sends clients with the labels app=firewall,tier=a to endpoints with the same labels, or to 'firewall' again"
        " (refuse_loops)"
    )


async def test_a_refresh_whose_path_goes_on_behind_us_is_no_loop():
    request = through(["client"], ["firewall"], ["nsmgr"], ["firewall-2", "app=firewall,tier=a"])
    request.connection.path.index = 1
    await chain().request(request)
