"""Which peers are managers and forwarders, to whom more is allowed."""

import pytest

from nsm.chains.policy import NO_TRUST, IdPatterns, Trust, acts_for_many

OWN = "spiffe://a.mesh/registry"
LISTED = Trust(intermediaries=IdPatterns(["spiffe://a.mesh/gate-*"]))


@pytest.mark.parametrize(
    ("trust", "spiffe_id", "expected"),
    [
        (NO_TRUST, "spiffe://a.mesh/nsmgr", True),
        (NO_TRUST, "spiffe://a.mesh/ns/nsm-system/pod/forwarder-ovs-x7", True),
        (NO_TRUST, "spiffe://b.mesh/nsmgr", False),
        (NO_TRUST, "spiffe://a.mesh/ns/default/pod/nsmgr-x", False),
        (NO_TRUST, "spiffe://a.mesh/nsc", False),
        (LISTED, "spiffe://a.mesh/gate-1", True),
        (LISTED, "spiffe://a.mesh/nsmgr", False),
    ],
)
def test_managers_and_forwarders_are_those_that_are_listed_or_else_named_so(trust, spiffe_id, expected):
    assert acts_for_many(trust, OWN)(spiffe_id) is expected
