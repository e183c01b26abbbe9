"""Patterns of SPIFFE IDs, and how far back a path is believed."""

from __future__ import annotations

import pytest

from nsm.chains.core import Peer
from nsm.chains.identity import Authority
from nsm.chains.policy import NOBODY, IdPatterns, verified_origin, vouched_chain
from nsm.chains.testing.identity import identity_of


@pytest.mark.parametrize(
    ("pattern", "spiffe_id", "meant"),
    [
        ("spiffe://a.org/x", "spiffe://a.org/x", True),
        ("spiffe://a.org/x", "spiffe://a.org/xy", False),
        ("spiffe://a.org/x", "spiffe://a.org/x/y", False),
        ("spiffe://a.org/*/nsmgr", "spiffe://a.org/node-1/nsmgr", True),
        ("spiffe://a.org/*/nsmgr", "spiffe://a.org/n/m/nsmgr", False),
        ("spiffe://a.org/pod/nsmgr-*", "spiffe://a.org/pod/nsmgr-x1", True),
        ("spiffe://a.org/pod/nsmgr-*", "spiffe://a.org/pod/nsmgr-x1/y", False),
        ("spiffe://a.org/**", "spiffe://a.org/x/y/z", True),
        ("spiffe://a.org/**", "spiffe://a.org", True),
        ("spiffe://a.org/**", "spiffe://a.orgx/y", False),
        ("spiffe://a.org/x/**", "spiffe://a.org/xy", False),
        ("spiffe://a.org/**", "spiffe://b.org/x", False),
        ("spiffe://*/x", "spiffe://b.org/x", True),
        ("spiffe://a.org/x", "spiffe://aXorg/x", False),
        ("spiffe://a.org/x", "spiffe://a.org/x\n", False),
    ],
)
def test_a_pattern_means_exactly_whom_it_says(pattern: str, spiffe_id: str, meant: bool) -> None:
    assert IdPatterns.parse(pattern).matches(spiffe_id) is meant


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "nsmgr",
        "spiffe://",
        "spiffe://a.org/",
        "spiffe://A/x",
        "spiffe://a/**/x",
        "spiffe://a/x**",
        "spiffe://a/***",
    ],
)
def test_what_cannot_be_a_pattern_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"spiffe://|\*\*"):
        IdPatterns([text])


def test_a_pattern_without_a_trust_domain_is_of_our_own():
    patterns = IdPatterns.parse("/ns/nsm/pod/nsmgr-*,spiffe://b.org/x")
    assert not patterns.matches("spiffe://a.org/ns/nsm/pod/nsmgr-1")
    ours = patterns.within("a.org")
    assert ours.matches("spiffe://a.org/ns/nsm/pod/nsmgr-1")
    assert not ours.matches("spiffe://c.org/ns/nsm/pod/nsmgr-1")
    assert ours.matches("spiffe://b.org/x")


def test_no_patterns_mean_nobody() -> None:
    assert not NOBODY.matches("")
    assert not IdPatterns.parse("").matches("spiffe://a.org/x")


def test_a_path_is_believed_as_far_back_as_intermediaries_vouch_for_it() -> None:
    authority = Authority.create("a.org")
    names = ["victim", "nsmgr", "forwarder", "client"]
    tokens = {name: identity_of(authority, name).token().token for name in names}
    peers = {name: Peer(f"spiffe://a.org/{name}", b"") for name in names}
    trusted = IdPatterns(["spiffe://a.org/nsmgr", "spiffe://a.org/forwarder"])

    def origin(path: list[str], intermediaries: IdPatterns) -> str:
        return verified_origin([tokens[name] for name in path], len(path), peers[path[-1]], intermediaries)

    assert origin(["victim", "nsmgr", "forwarder"], trusted) == "spiffe://a.org/victim"
    assert origin(["victim", "client"], trusted) == "spiffe://a.org/client"  # it may not vouch
    assert origin(["victim", "client", "nsmgr"], trusted) == "spiffe://a.org/client"
    assert origin(["victim", "nsmgr"], NOBODY) == "spiffe://a.org/nsmgr"
    assert origin(["client"], trusted) == "spiffe://a.org/client"


def test_an_intermediary_of_another_domain_is_believed_about_its_own_domain_only() -> None:
    patterns = IdPatterns([f"spiffe://{domain}.org/{name}" for domain in "ab" for name in ("nsmgr", "proxy")])

    def origin(*path: str, own: str = "b.org") -> str:
        return vouched_chain([f"spiffe://{each}" for each in path], patterns.within(own))[-1].removeprefix("spiffe://")

    assert origin("a.org/client", "a.org/nsmgr", "a.org/proxy", "b.org/proxy") == "a.org/client"
    assert origin("b.org/admin", "a.org/nsmgr", "a.org/proxy", "b.org/proxy") == "a.org/nsmgr"
    assert origin("c.org/client", "a.org/proxy") == "a.org/proxy"
    assert origin("c.org/client", "b.org/proxy") == "c.org/client"
