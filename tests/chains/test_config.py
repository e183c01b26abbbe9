"""Configuration: upstream's variables, and every fault named at once."""

from dataclasses import dataclass

import pytest

from nsm.chains.config import (
    Common,
    ConfigError,
    address_groups,
    duration,
    flag,
    items,
    load,
    not_yet,
    octal,
    pairs,
    text,
    url,
    variable,
)
from nsm.chains.config.loader import describe
from nsm.forwarder_kernel.main import KernelConfig
from nsm.services.nse.main import NseConfig


@dataclass(frozen=True, kw_only=True)
class Config(Common):
    name: str = variable("nmgr", text, "the name")
    dial_timeout: float = variable("750ms", duration, "how long a dial may take")
    connect_to: str = variable("registry:5002", url, "whom to ask")
    later: str = not_yet("5", "what comes later")


def test_values_come_from_the_environment_and_defaults_are_upstream_s():
    config = load(Config, {"NSM_NAME": "me", "NSM_DIAL_TIMEOUT": "1m30s", "NODE_NAME": "n"}).config
    assert (config.name, config.dial_timeout, config.connect_to, config.node_name) == ("me", 90.0, "registry:5002", "n")
    assert config.max_token_lifetime == 600
    assert config.socket_mode == 0o660


def test_all_faults_are_named_at_once_with_variable_value_and_what_would_do():
    with pytest.raises(ConfigError) as raised:
        load(Config, {"NSM_DIAL_TIMEOUT": "soon", "NSM_CONNECT_TO": "here", "NSM_LATER": "6", "NSM_LOG_LEVEL": "LOUD"})
    faults = "\n".join(raised.value.faults)
    assert "NSM_DIAL_TIMEOUT='soon': expected a duration such as 750ms" in faults
    assert "NSM_CONNECT_TO='here': expected unix:///path" in faults
    assert "NSM_LATER='6': what comes later is not supported; leave it unset or at its default '5'" in faults
    assert "NSM_LOG_LEVEL='LOUD': expected one of TRACE" in faults


@pytest.mark.parametrize("value", ["tcp://fd00::5:5001", "tcp://host", "tcp://host:port", "http://host:80", "unix://"])
def test_a_place_that_nobody_could_dial_is_a_fault_before_anything_is_waited_for(value):
    with pytest.raises(ConfigError, match=f"NSM_CONNECT_TO='{value}': expected unix:///path, tcp://host:port"):
        load(Config, {"NSM_CONNECT_TO": value})


def test_a_variable_that_has_to_be_set_is_named_when_it_is_not():
    """Its default is a bad value."""

    @dataclass(frozen=True, kw_only=True)
    class Needy(Config):
        how_long: float = variable("", duration, "how long")

    with pytest.raises(ConfigError, match="NSM_HOW_LONG='': expected a duration"):
        load(Needy, {})
    assert load(Needy, {"NSM_HOW_LONG": "1s"}).config.how_long == 1


def test_a_later_feature_s_variable_may_have_its_default():
    assert load(Config, {"NSM_LATER": "5"}).config.later == "5"


def test_an_unknown_variable_is_a_warning_with_the_nearest_known_name():
    """An orchestrator may inject more."""
    loaded = load(Config, {"NSM_DIAL_TIMOUT": "1s", "NSM_SOMETHING": "x", "OTHER": "y"})
    assert loaded.warnings == (
        "NSM_DIAL_TIMOUT is not a variable of this component; did you mean NSM_DIAL_TIMEOUT?",
        "NSM_SOMETHING is not a variable of this component",
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("NSM_NETWORK_SERVICES", "did you mean NSM_SERVICE_NAMES?"),
        ("NSM_SERVICES", "did you mean NSM_SERVICE_NAMES?"),
        ("NSM_SERVICE_NAME", "did you mean NSM_SERVICE_NAMES?"),
        ("NSM_PREFIX", "did you mean NSM_CIDR_PREFIX?"),
        ("NSM_REGISTRY_URL", "did you mean NSM_CONNECT_TO?"),
        ("nsm_name", "did you mean NSM_NAME?"),
        ("NSM_VPP_INIT", "is a variable of other components and has no effect on this one"),
        ("NSM_SRIOV_TOKENS_worker.domain/100G", "is a variable of other components"),
        ("NSM_READY_FILE", "is a variable of other components"),
    ],
)
def test_a_variable_of_another_component_is_a_warning_with_the_one_that_means_the_same(name, hint):
    """An endpoint that was given NSM_NETWORK_SERVICES provided the default service, and said nothing of it."""
    (warning,) = load(NseConfig, {name: "x"}).warnings
    assert hint in warning


LINKS = {
    "NSM_REGISTRY_SERVICE_HOST": "10.96.0.7",
    "NSM_REGISTRY_SERVICE_PORT": "5002",
    "NSM_REGISTRY_SERVICE_PORT_REGISTRY": "5002",
    "NSM_REGISTRY_PORT": "tcp://10.96.0.7:5002",
    "NSM_REGISTRY_PORT_5002_TCP": "tcp://10.96.0.7:5002",
    "NSM_REGISTRY_PORT_5002_TCP_PROTO": "tcp",
    "NSM_REGISTRY_PORT_5002_TCP_PORT": "5002",
    "NSM_REGISTRY_PORT_5002_TCP_ADDR": "10.96.0.7",
    "NSM_VXLAN_SERVICE_HOST": "fd00::7",
    "NSM_VXLAN_PORT": "udp://[fd00::7]:4789",
    "NSM_SERVICE_HOST": "10.96.0.8",
    "NSM_PORT": "tcp://10.96.0.8:80",
}


def test_what_kubernetes_sets_for_a_service_whose_name_begins_with_nsm_is_passed_over():
    """Also where the name is that of a variable: a Service called nsm-vxlan stopped the forwarders beside it."""
    loaded = load(KernelConfig, LINKS)
    assert loaded.warnings == ()
    assert loaded.config.vxlan_port == load(KernelConfig, {}).config.vxlan_port


def test_a_bad_value_and_a_misspelt_name_are_told_together():
    with pytest.raises(ConfigError) as raised:
        load(Config, {"NSM_DIAL_TIMEOUT": "soon", "NSM_CONECT_TO": "x", "NSM_ELSE": "y"})
    assert len(raised.value.faults) == 2
    assert "did you mean NSM_CONNECT_TO?" in raised.value.faults[1]


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("300ms", 0.3), ("1h2m3.5s", 3723.5), ("10us", 1e-5)])
def test_durations_are_written_as_in_go(value, seconds):
    assert duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "5", "s", "5 s", "-1s", "1d"])
def test_what_is_no_duration(value):
    with pytest.raises(ValueError):
        duration(value)


def test_a_token_s_lifetime_may_be_negative_to_try_what_checks_it():
    for value, seconds in (("-1m", -60), ("-1h0m30s", -3630), ("-0", 0), ("20s", 20)):
        assert load(Config, {"NSM_MAX_TOKEN_LIFETIME": value}).config.max_token_lifetime == seconds
    for value in ("-", "--1m", "-1", "1m-"):
        with pytest.raises(ConfigError, match="NSM_MAX_TOKEN_LIFETIME='.*': expected a duration"):
            load(Config, {"NSM_MAX_TOKEN_LIFETIME": value})


def test_lists_maps_flags_modes_and_groups():
    assert items(" a, b,,c ") == ("a", "b", "c")
    assert pairs("app:web,url:tcp://x") == {"app": "web", "url": "tcp://x"}
    assert (flag("true"), flag("0")) == (True, False)
    assert octal("0600") == 0o600
    assert address_groups("10.0.0.0/24,fd00::/64") == (("10.0.0.0/24",), ("fd00::/64",))
    assert address_groups("[10.0.0.0/24,10.1.0.0/24],[fd00::/64]") == (("10.0.0.0/24", "10.1.0.0/24"), ("fd00::/64",))
    for bad in (
        lambda: pairs("app"),
        lambda: pairs("app:a,app:b"),
        lambda: flag("yes"),
        lambda: octal("9"),
        lambda: address_groups("[10.0.0.0/24"),
        lambda: address_groups("x"),
    ):
        with pytest.raises(ValueError):
            bad()


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        ("", ()),
        ("10.0.0.0/24", (("10.0.0.0/24",),)),
        (" 10.0.0.0/24 , [fd00::/64 , fd01::/64] ", (("10.0.0.0/24",), ("fd00::/64", "fd01::/64"))),
        ("[10.0.0.0/24],10.1.0.0/24,", (("10.0.0.0/24",), ("10.1.0.0/24",))),
        ("10.0.0.5/24", (("10.0.0.5/24",),)),
    ],
)
def test_groups_of_prefixes(value, groups):
    assert address_groups(value) == groups


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("10.0.0.0/24 10.1.0.0/24", "expected prefixes such as"),
        ("[10.0.0.0/24][10.1.0.0/24]", "expected prefixes such as"),
        ("[[10.0.0.0/24]]", "expected prefixes such as"),
        ("10.0.0.0/24]", "expected prefixes such as"),
        ("10.0.0.0/33", "'10.0.0.0/33' is not a prefix"),
        (
            "10.0.0.0/24,10.0.0.128/25",
            "10.0.0.0/24 and 10.0.0.128/25 overlap; their addresses would be assigned twice",
        ),
        ("[10.0.0.0/16,10.0.7.0/24]", "10.0.0.0/16 and 10.0.7.0/24 overlap"),
        ("[fd00::/64],[fd01::/64,fd00::/64]", "fd00::/64 and fd00::/64 overlap"),
        ("10.0.0.0/24,10.0.0.9/24", "overlap"),
    ],
)
def test_what_are_no_groups_of_prefixes(value, told):
    """Also those that would give an address to two."""
    with pytest.raises(ValueError, match=told):
        address_groups(value)


def test_every_component_s_variables_can_be_described():
    names = [name for name, _, _ in describe(Config)]
    assert {"NSM_NAME", "NSM_DIAL_TIMEOUT", "NSM_LATER", "SPIFFE_ENDPOINT_SOCKET", "NODE_NAME"} <= set(names)
