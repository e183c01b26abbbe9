"""Which services clients of other domains may use."""

import pytest

from nsm.chains.core import Chain, Peer, Refused
from nsm.chains.elements.admit_domains import AdmitDomains
from nsm.chains.identity import Authority
from nsm.chains.policy import Admitted
from nsm.chains.testing import call, identity_of

OWN = identity_of(Authority.create("own"), "nsmgr-proxy")


def call_of(spiffe_id, service):
    asked = call("c", service)
    asked.peer = Peer(spiffe_id, b"")
    return asked


@pytest.mark.parametrize(
    ("rules", "service", "is_admitted"),
    [
        ("", "shop", False),
        ("other=shop", "shop", True),
        ("other=shop", "shop@own", True),
        ("other=shop", "bank", False),
        ("other=*", "bank", True),
        ("*=*", "bank", True),
        ("other=,*=*", "bank", False),
        ("third=*", "shop", False),
    ],
)
async def test_a_call_from_another_domain_passes_if_its_service_is_admitted(rules, service, is_admitted):
    chain = Chain([AdmitDomains(Admitted.parse(rules), OWN)])
    asked = call_of("spiffe://other/nsmgr-proxy", service)
    if is_admitted:
        await chain.request(asked)
    else:
        with pytest.raises(Refused, match="NSM_ADMITTED_DOMAINS controls who may"):
            await chain.request(asked)
    await chain.close(asked)


async def test_calls_of_our_own_domain_and_of_this_process_pass():
    chain = Chain([AdmitDomains(Admitted(), OWN)])
    await chain.request(call_of("spiffe://own/forwarder", "shop@other"))
    await chain.request(call("c", "shop"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other", "is not a rule"),
        ("spiffe://other/a=shop", "is not a rule"),
        ("other=shop@own", "the names that the services have in this domain"),
        ("a=b,a=c", "'a' has two rules"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named(text, words):
    with pytest.raises(ValueError, match=words):
        Admitted.parse(text)
