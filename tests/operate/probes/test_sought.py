"""What a person is told if an end of a wire cannot be probed from here."""

import pytest

from nsm.operate.errors import DOWN, NOT_REACHED, OperatorError
from nsm.operate.probes import sought
from nsm.operate.probes.ends import CLIENT, ENDPOINT, End, Link, Spaces
from nsm.operate.target import Target
from nsm.view.model import Cause, Hop, Wire, WireState

REMOTE = Target(1.0, view="http://view")


def wire(state=WireState.UP, **more):
    own = {"id": "c-0", "client": "shop", "service": "s", "interface": "nsm-1", "endpoint": "db", "state": state}
    return Wire(**{**own, "node": "one", "endpoint_node": "two", **more})


@pytest.fixture
def found(monkeypatch):
    """No namespace of this machine has an end; `found` sets the wire that is looked up."""
    monkeypatch.setattr(Spaces, "add_all", lambda _: None)
    return lambda each: monkeypatch.setattr(sought, "_wire", lambda *_: each)


def fault(found, each, target=REMOTE):
    found(each)
    with pytest.raises(OperatorError) as error, sought.both_ends(target, "shop"):
        pass
    return error.value.code, str(error.value)


def test_a_wire_whose_ends_are_on_other_machines_names_them_and_their_nodes(found):
    code, told = fault(found, wire())
    assert code == NOT_REACHED
    assert told.startswith(
        "the client 'shop' (on node 'one') and the endpoint 'db' (on node 'two') of shop/nsm-1 is not in"
    )
    assert "run this command there, as root" in told


def test_a_wire_that_is_down_is_told_with_its_cause(found):
    cause = Cause(sentence="the endpoint has ended")
    code, told = fault(found, wire(WireState.DOWN, cause=cause))
    assert (code, told.partition(";")[0]) == (DOWN, "shop/nsm-1 is DOWN: the endpoint has ended")


def test_a_wire_without_an_interface_of_the_kernel_is_told_as_that(found):
    code, told = fault(found, wire(path=[Hop(name="shop", mechanism="MEMIF")]))
    assert (code, told) == (NOT_REACHED, "shop/nsm-1 is of mechanism MEMIF: it has no interface of the kernel to probe")


def test_what_needs_both_ends_names_the_one_that_is_elsewhere():
    here = {CLIENT: End(CLIENT, "shop/nsm-1", 0, Link(1, "nsm-1", b"", 1500, True))}
    with pytest.raises(OperatorError, match="^the endpoint 'db' .on node 'two'. of shop/nsm-1 is not in"):
        sought.need(wire(), here, [CLIENT, ENDPOINT], REMOTE)
    sought.need(wire(), here, [CLIENT], REMOTE)
