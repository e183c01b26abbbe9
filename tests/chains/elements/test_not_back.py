"""A domain may resolve to the one that asks for it."""

import pytest

from nsm.chains.core import Chain, InvalidRequest
from nsm.chains.elements.not_back import NotBack
from nsm.chains.testing import call


async def test_a_domain_that_resolves_to_this_one_is_named_and_how_to_name_its_services():
    chain = Chain([NotBack({"tcp://10.0.0.4:5004"})])
    made = call("c", "shop@one")
    made.target = "tcp://10.0.0.5:5004"
    await chain.request(made)
    made.target = "tcp://10.0.0.4:5004"
    with pytest.raises(InvalidRequest, match="domain 'one' is this one.*inside a domain, request 'shop'"):
        await chain.request(made)
