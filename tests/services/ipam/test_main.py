"""The variables of the prefix service that have to fit together."""

import pytest

from nsm.chains.config import ConfigError, load
from nsm.services.ipam.main import IpamConfig


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (
            {"NSM_PREFIX": "10.0.0.0/16,fd00::/48"},
            "NSM_LISTEN_ON has 1 addresses for the 2 networks of NSM_PREFIX: each network has an address of its own",
        ),
        ({"NSM_CLIENT_PREFIX_LEN": "24,64"}, "NSM_CLIENT_PREFIX_LEN has 2 lengths for 1 networks"),
        (
            {"NSM_CLIENT_PREFIX_LEN": "12"},
            "NSM_CLIENT_PREFIX_LEN: prefixes of length 12 do not fit into 169.254.0.0/16: expected 16 to 32",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_named(environment, told):
    with pytest.raises(ConfigError) as error:
        load(IpamConfig, environment)
    assert error.value.faults == [told]


def test_two_networks_of_one_service_have_the_usual_lengths():
    listen_on = "tcp://127.0.0.1:5006,tcp://127.0.0.1:5007"
    config = load(IpamConfig, {"NSM_PREFIX": "172.16.0.0/16,2001:db8::/32", "NSM_LISTEN_ON": listen_on}).config
    assert config.lengths == (24, 64)
