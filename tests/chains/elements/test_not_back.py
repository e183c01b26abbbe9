"""A domain may resolve to the one that asks for it."""

import pytest

from nsm.chains.core import Chain, InvalidRequest
from nsm.chains.elements.not_back import NotBack
from nsm.chains.testing import call
from nsm.chains.testing.domains import Table


@pytest.mark.parametrize("target", ["tcp://10.0.0.4:5004", "tcp://203.0.113.4:5004"])
async def test_a_domain_that_resolves_to_this_one_is_named_and_how_to_name_its_services(target):
    chain = Chain([NotBack("tcp://10.0.0.4:5004", Table({"10.0.0.4": "203.0.113.4"}))])
    made = call("c", "shop@one")
    made.target = "tcp://10.0.0.5:5004"
    await chain.request(made)
    made.target = target
    with pytest.raises(InvalidRequest, match="domain 'one' is this one.*inside a domain, request 'shop'"):
        await chain.request(made)
