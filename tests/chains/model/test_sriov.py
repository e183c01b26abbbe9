"""Tokens in the environment of a pod, and the labels by which clients ask for them."""

import pytest

from nsm.chains.model.sriov import is_token, seen_by_others, tokens_in

TOKENS = [f"sriov-{n:08d}-0000-0000-0000-000000000000" for n in range(3)]


def test_tokens_are_found_by_their_names():
    environment = {"NSM_SRIOV_TOKENS_worker.domain/10G": ",".join(TOKENS[:2]), "NSM_NAME": "x", "PATH": "/bin"}
    assert tokens_in(environment) == {"worker.domain/10G": (TOKENS[0], TOKENS[1])}


def test_what_is_no_list_of_tokens_is_named():
    with pytest.raises(ValueError, match=r"NSM_SRIOV_TOKENS_a/b='sriov-1': 'sriov-1' is not the id of a token"):
        tokens_in({"NSM_SRIOV_TOKENS_a/b": "sriov-1"})


@pytest.mark.parametrize("text", ["", "sriov-", TOKENS[0][:-1], TOKENS[0] + "\n", TOKENS[0].upper(), f" {TOKENS[0]}"])
def test_nothing_else_is_a_token(text):
    assert is_token(TOKENS[0])
    assert not is_token(text)


def test_others_see_the_domain_and_not_the_token():
    assert seen_by_others({"app": "a", "sriovToken": "worker.domain/10G"}) == {
        "app": "a",
        "serviceDomain": "worker.domain",
    }
    assert seen_by_others({"app": "a"}) == {"app": "a"}
    assert seen_by_others({"serviceDomain": "x", "sriovToken": "y/z"}) == {"serviceDomain": "x"}
