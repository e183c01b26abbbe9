"""What the kubelet may give to containers, and what becomes of it."""

import pytest

from nsm.chains.core import Conflict, NotFound, Refused
from nsm.chains.model.sriov import is_token
from nsm.forwarder_sriov.tokens import State, Tokens
from tests.forwarder_sriov.tree import given

A, B = "worker.domain/10G", "worker.domain/intel"


def two_names(count=2):
    return Tokens({"card": (A, B)}, {"card": count})


def states(tokens, name):
    return sorted(tokens.state(each).value for each in tokens.of(name))


def test_there_is_a_token_of_each_name_for_each_function():
    tokens = Tokens({"one": (A, B), "other": (A,)}, {"one": 2, "other": 3})
    assert {name: len(tokens.of(name)) for name in tokens.names()} == {A: 5, B: 2}
    assert all(is_token(each) and len(each) == 42 for each in tokens.of(A))


def test_a_function_that_is_given_away_by_one_name_is_not_offered_by_another():
    """Upstream closes the other name's token only when the function is used: two pods could be promised one."""
    tokens = two_names()
    first = given(tokens, A)
    assert states(tokens, B) == ["closed", "free"]
    second = given(tokens, A)
    assert list(tokens.of(B).values()) == [False, False]
    tokens.free(first)
    tokens.free(second)
    assert list(tokens.of(B).values()) == [True, True]


def test_a_name_that_another_card_has_too_stays_open():
    tokens = Tokens({"one": (A, B), "other": (A,)}, {"one": 1, "other": 1})
    given(tokens, A)
    assert states(tokens, A) == ["allocated", "free"]
    assert states(tokens, B) == ["free"]
    given(tokens, A)
    assert states(tokens, B) == ["closed"]


def test_use_and_its_end():
    tokens = two_names(1)
    token = given(tokens, A)
    tokens.use(token, "card")
    assert tokens.state(token) is State.IN_USE
    assert states(tokens, B) == ["closed"]
    tokens.stop_using(token)
    assert tokens.state(token) is State.ALLOCATED
    tokens.free(token)
    assert states(tokens, B) == ["free"]


def test_a_token_is_not_used_twice():
    tokens = two_names()
    token = given(tokens, A)
    tokens.use(token, "card")
    with pytest.raises(Conflict, match=f"token {token} is in use by another connection"):
        tokens.use(token, "card")


def test_a_token_that_no_container_has_is_refused():
    tokens = two_names()
    token = next(iter(tokens.of(A)))
    with pytest.raises(Refused, match="was not given to any container of this node"):
        tokens.use(token, "card")


def test_a_token_of_another_node_is_unknown():
    with pytest.raises(NotFound, match="there is no token 'sriov-1' on this node"):
        two_names().check("sriov-1")


def test_a_closed_token_is_not_allocated_nor_are_those_beside_it():
    tokens = two_names(1)
    given(tokens, A)
    (closed,) = tokens.of(B)
    with pytest.raises(Conflict, match="no virtual function is left for"):
        tokens.allocate([closed])
    assert tokens.state(closed) is State.CLOSED
    tokens.free(closed)
    assert tokens.state(closed) is State.CLOSED


def test_of_an_allocation_with_an_unknown_token_nothing_is_kept():
    tokens = two_names()
    token = next(iter(tokens.of(A)))
    with pytest.raises(NotFound):
        tokens.allocate([token, "sriov-1"])
    assert tokens.state(token) is State.FREE


def test_a_token_that_the_kubelet_gives_to_the_next_container_is_no_longer_in_use():
    tokens = two_names()
    token = given(tokens, A)
    tokens.use(token, "card")
    tokens.allocate([token])
    assert tokens.state(token) is State.ALLOCATED


def test_what_pods_have_keeps_its_ids_after_a_restart():
    old = ["sriov-" + "0" * 8 + "-0000-0000-0000-" + f"{n:012d}" for n in range(2)]
    tokens = two_names(3)
    tokens.restore({A: old, "other/name": ["sriov-x"]})
    assert states(tokens, A) == ["allocated", "allocated", "free"]
    assert set(old) < set(tokens.of(A))
    assert states(tokens, B) == ["closed", "closed", "free"]


def test_a_function_is_kept_for_the_name_that_no_other_card_has():
    tokens = Tokens({"one": (A, B), "other": (A,)}, {"one": 1, "other": 1})
    token = given(tokens, A)
    given(tokens, B)
    assert not tokens.leaves_enough(token, "one")
    assert tokens.leaves_enough(token, "other")


def test_whoever_watches_is_told_of_changes():
    tokens, told = two_names(), []
    tokens.on_change(lambda: told.append(1))
    token = given(tokens, A)
    tokens.use(token, "card")
    tokens.stop_using(token)
    tokens.stop_using(token)
    assert len(told) == 3
