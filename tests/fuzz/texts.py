"""What people, other workloads and records say as text: wishes, selectors, templates, addresses, configuration."""

import contextlib
import json

import yaml

from nsm.apis.connection import Connection, MonitorScopeSelector, Path, PathSegment
from nsm.apis.connectioncontext import PolicyRoute
from nsm.apis.registry import Destination, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from nsm.chains.config import ConfigError, load
from nsm.chains.config.address import parse_address
from nsm.chains.core import InvalidRequest, Refused
from nsm.chains.elements.excluded_prefixes import prefixes_of
from nsm.chains.elements.policy_routing import policies_of
from nsm.chains.identity import trust_domain_of
from nsm.chains.model.addresses import read_address, read_interface
from nsm.chains.model.dns import parse_dns_configs
from nsm.chains.model.interface_name import LENGTH, fault, generate
from nsm.chains.model.matching import match_endpoints, selects, weigh_endpoints
from nsm.chains.model.nsurl import parse_groups, parse_nsurl, parse_strict_nsurl
from nsm.chains.model.policies import check
from nsm.chains.model.templates import compile_template
from nsm.chains.model.vlans import parse_vlan_services
from nsm.chains.policy import IdPatterns
from nsm.forwarder_kernel.main import KernelConfig
from nsm.mesh.topology import TopologyError, parse
from nsm.services.csi_driver.main import CsiDriverConfig
from nsm.services.dns.resolv_conf import read_original
from nsm.services.identity.cgroups import DRIVERS, Layout, Recogniser
from nsm.services.identity.entries import Entries
from nsm.services.identity.main import IdentityConfig
from nsm.services.nsc.config import NscConfig, NscInitConfig
from nsm.services.nse.main import NseConfig
from nsm.services.nse_firewall.main import NseFirewallConfig
from nsm.services.nse_passthrough.main import NsePassthroughConfig
from nsm.services.nse_remote_vlan.main import NseRemoteVlanConfig
from nsm.services.nse_supplier.main import NseSupplierConfig
from nsm.services.nsmgr.main import NsmgrConfig
from nsm.services.nsmgr_proxy.main import NsmgrProxyConfig
from nsm.services.prefixes.main import PrefixesConfig
from nsm.services.registry.main import RegistryConfig
from nsm.services.registry_proxy.main import RegistryProxyConfig
from nsm.webhook.annotation import read as read_annotation
from nsm.webhook.config import WebhookConfig

from .target import Target, of_text, raises
from .wire import JSON

LABELS = {"app": "web", "zone": "north", "long": "x" * 64}
LARGEST_OUTPUT = 65536
"""Bytes of what a template may make, whatever it is: a label is some hundred bytes."""


@of_text
@raises(ValueError)
def nsurl(text):
    wish = parse_nsurl(text)
    assert wish.network_service
    assert wish.mechanism.type == wish.mechanism.type.upper()
    assert sum(len(key) + len(value) for key, value in wish.labels.items()) <= len(text)


@of_text
@raises(ValueError)
def wish(text):
    assert parse_strict_nsurl(text) == parse_nsurl(text)


@of_text
@raises(ValueError)
def nsurl_groups(text):
    assert sum(len(group) for group in parse_groups(text)) <= len(text)


@of_text
@raises(ValueError)
def annotation(text):
    read_annotation(text)


@of_text
def template(text):
    compiled = compile_template(text)
    if compiled is not None:
        for values in (LABELS, {}):
            made = compiled(values)
            assert isinstance(made, str)
            assert len(made) <= LARGEST_OUTPUT + 8 * len(text)
            assert made == compiled(values)


@of_text
@raises(ValueError)
def selector(text):
    """A service's matches and a monitor's selector, as JSON: text in place of each of what they compare."""
    words = json.loads(text)
    if not isinstance(words, dict):
        return
    labels = {str(key): str(value) for key, value in words.items()}
    routes = [Destination(labels, weight) for weight in (0, 3)]
    service = NetworkService(
        name="s", matches=[Match(labels, routes), Match({}, [Destination(labels)], fallthrough=True), Match({})]
    )
    endpoints = [
        NetworkServiceEndpoint(f"e{n}", ["s"], {"s": NetworkServiceLabels(labels if n else LABELS)}) for n in range(3)
    ]
    found = match_endpoints(LABELS, service, endpoints)
    assert all(each in endpoints for each in found)
    weighed = weigh_endpoints(LABELS, service, endpoints)
    assert all(each in endpoints and share > 0 for each, share in weighed)
    segments = [PathSegment(name=key, id=value) for key, value in labels.items()]
    known = Connection(id="c", network_service="s", path=Path(path_segments=segments))
    assert selects(MonitorScopeSelector(path_segments=segments), known)
    selects(MonitorScopeSelector(network_services=list(labels), path_segments=segments[1:]), known)


@of_text
def address(text):
    for read in (read_address, read_interface):
        found = read(text)
        if found is not None:
            assert read(str(found)) == found


@of_text
@raises(InvalidRequest)
def url(text):
    found = parse_address(text)
    assert found.path or 0 <= found.port < 65536


@of_text
def interface_name(text):
    assert fault(text) is None or isinstance(fault(text), str)
    made = generate(text)
    assert fault(made) is None, made
    assert len(made.encode()) == LENGTH


@of_text
@raises(ValueError)
def policy(text):
    parts = [*text.split("\n"), "", "", "", ""]
    check(PolicyRoute(from_=parts[0], proto=parts[1], dst_port=parts[2], src_port=parts[3]))


@of_text
@raises(Refused)
def spiffe_id(text):
    domain = trust_domain_of(text)
    assert text.startswith(f"spiffe://{domain}")
    assert text.isascii()


@of_text
@raises(ValueError)
def id_patterns(text):
    pattern, _, spiffe_id = text.partition("\n")
    patterns = IdPatterns.parse(pattern)
    patterns.matches(spiffe_id)
    assert not patterns.matches(spiffe_id + "\n")


@of_text
@raises(Refused)
def cgroup(text):
    """The name of a group that a pod may have made."""
    path = text.replace("\n", "")
    uid = _RECOGNISER.claim(f"0::/{path}\n").uid
    assert len(uid.replace("-", "")) == 32
    assert uid.replace("-", "") in path.replace("-", "").replace("_", "")
    assert path.startswith(("kubepods", "system.slice/containerd.service/kubepods"))


_RECOGNISER = Recogniser(map(Layout, DRIVERS))


@of_text
@raises(TopologyError)
def topology(text):
    parse(text, "f")


@of_text
def files_of_yaml(text):
    """What stands in files that a cluster's ConfigMaps are: YAML is read safely, then by ours."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    for read in (prefixes_of, policies_of):
        with contextlib.suppress(ValueError):
            read(document)


@of_text
@raises(ValueError)
def dns_configs(text):
    parse_dns_configs(text)


@of_text
@raises(ValueError)
def vlan_services(text):
    for service in parse_vlan_services(text):
        assert parse_vlan_services(str(service)) == (service,)


@of_text
@raises(ValueError)
def entries(text):
    Entries.parse(text.split("\n"))


def resolv_conf(data):
    found = read_original(data)
    assert all(isinstance(each, str) for each in (*found.servers, *found.search_domains))


CONFIGS = (
    CsiDriverConfig,
    KernelConfig,
    IdentityConfig,
    NscConfig,
    NscInitConfig,
    NseConfig,
    NseFirewallConfig,
    NsePassthroughConfig,
    NseRemoteVlanConfig,
    NseSupplierConfig,
    NsmgrConfig,
    NsmgrProxyConfig,
    PrefixesConfig,
    RegistryConfig,
    RegistryProxyConfig,
    WebhookConfig,
)
_FILES = ("_FILE", "_PATH", "SELECTOR", "BUNDLES")
"""Variables that name files: what is in those is another matter."""


def _variables():
    for kind in CONFIGS:
        for each in kind.__dataclass_fields__.values():
            name = each.metadata["env"] or f"NSM_{each.name.upper()}"
            if not any(part in name for part in _FILES):
                yield kind, name


VARIABLES = list(_variables())


def variable(data):
    """The first two bytes say which variable of which component the others are the value of."""
    if len(data) < 2:
        return
    kind, name = VARIABLES[int.from_bytes(data[:2], "big") % len(VARIABLES)]
    value = data[2:].decode("utf-8", "replace").replace("\0", "")
    with contextlib.suppress(ConfigError):
        load(kind, {name: value})


DIGITS, SPACES = (
    (b"0", b"9" * 4400, b"1_0", "٣".encode(), b"-1", b"+1", b" "),
    (b" ", b"\t", b"\n", b"\0", "\u202e".encode(), b"\x1b[2J"),
)

TARGETS = (
    Target(
        "nsurl",
        nsurl,
        (
            b"kernel://",
            b"memif://",
            b"?",
            b"&",
            b"=",
            b"%25",
            b"%00",
            b"[fe80::1%25eth0]",
            b"@",
            b":",
            b"/",
            b"#",
            *SPACES,
        ),
        (
            (b"kernel://a", b"a", b""),
            (b"kernel://", b"a:", b""),
            (b"kernel://", b"%", b""),
            (b"kernel://", b"%41", b"!"),
            (b"kernel://a?", b"a=b&", b""),
            (b"kernel://a?", b"a&", b""),
            (b"kernel://", b"a@", b"b"),
            (b"kernel://", b"[", b""),
            (b"kernel://[", b"0:", b"]"),
            (b"", b"a+", b"://b"),
            (b"kernel://a/", b"/", b""),
            (b"kernel://a?", "é".encode(), b""),
        ),
    ),
    Target(
        "wish",
        wish,
        (b"kernel://a/b?", b"a=b", b"&", b"=", b";", b"%25", b"#", *SPACES),
        (
            (b"kernel://a?", b"a=b&", b""),
            (b"kernel://a?", b"a=b&", b"c=d"),
            (b"kernel://a?", b"a=%41&", b"c=d"),
            (b"kernel://a#", b"#", b""),
        ),
    ),
    Target(
        "nsurl_groups",
        nsurl_groups,
        (b"[", b"]", b",", b"kernel://a/b", *SPACES),
        (
            (b"", b"[kernel://a],", b""),
            (b"", b" ", b"x"),
            (b"", b", ", b"x"),
            (b"", b"[] ", b"x"),
            (b"", b"[", b""),
            (b"[", b"kernel://a,", b"]"),
            (b"", b"[],", b"x"),
        ),
    ),
    Target(
        "annotation",
        annotation,
        (b"kernel://a/b", b",", b"?sriovToken=x/y", *SPACES),
        ((b"", b"kernel://a,", b""), (b"", b",", b"")),
    ),
    Target(
        "template",
        template,
        (
            b"{{",
            b"}}",
            b".app",
            b"print ",
            b"printf ",
            b'"%s"',
            b"with ",
            b"if ",
            b"else ",
            b"end",
            b" | ",
            b"(",
            b")",
            b"$",
            b"index . ",
            b"-",
            b"/*",
            b"*/",
        ),
        (
            (b"", b"{{.app}}", b""),
            (b"", b"{{", b""),
            (b"", b"{{/*", b""),
            (b"{{", b"(", b""),
            (b"{{.app", b"|print", b"}}"),
            (b'{{"', b"%s", b'"|printf}}'),
            (b'{{printf "', b"%s", b'"}}'),
            (b"{{print ", b"1 ", b"}}"),
            (b"", b"{{if .app}}", b""),
            (b"", b"{{- ", b""),
            (b"{{`", b"a", b""),
            (b'{{"', b"\\", b""),
            (b"{{", b" ", b"}}"),
            (b"{{.app", b" ", b"-}}"),
        ),
    ),
    Target(
        "selector",
        selector,
        (b'"app"', b'"{{.app}}"', b'"web"', *JSON),
        (
            (b'{"a":"b"', b',"app":"{{.app}}"', b"}"),
            (b'{"a":"', b"{{.app}}", b'"}'),
            (b'{"app":"', b"{{print .long .long}}", b'"}'),
        ),
    ),
    Target(
        "address",
        address,
        (b"/", b"::", b"10.0.0.1", b"fe80::1%eth0", b"::ffff:1.2.3.4", *DIGITS),
        ((b"", b"1.", b""), (b"", b"0:", b""), (b"10.0.0.1/", b"0", b"8")),
    ),
    Target(
        "url",
        url,
        (b"unix:", b"tcp://", b"[::1]", b":", b"%2f", b"//", *DIGITS),
        ((b"tcp://h:", b"1", b""), (b"unix:///", b"%41", b""), (b"tcp://", b"[", b""), (b"tcp://[", b"1.", b"]:1")),
    ),
    Target(
        "interface_name",
        interface_name,
        (b".", b"..", b"/", b":", b"%d", *SPACES),
        ((b"", b"a", b""), (b"", "é".encode(), b"")),
    ),
    Target(
        "policy",
        policy,
        (b"10.0.0.1/32", b"\n", b"-", b"6", *DIGITS),
        ((b"10.0.0.1/32\n", b"1", b""), (b"\n\n1", b"-", b"2")),
    ),
    Target(
        "spiffe_id",
        spiffe_id,
        (b"spiffe://", b"a.b", b"/", b"..", b"//", *SPACES),
        ((b"spiffe://a", b"/a", b""), (b"spiffe://", b"a", b"")),
    ),
    Target(
        "id_patterns",
        id_patterns,
        (b"spiffe://a/", b"*", b"**", b"/", b",", b"\n"),
        (
            (b"spiffe://a/", b"*", b"\nspiffe://a/b"),
            (b"spiffe://a/", b"*a", b"\nspiffe://a/" + b"a" * 60),
            (b"spiffe://a/*a*a*a\nspiffe://a/", b"a", b"b"),
            (b"", b"spiffe://a/b,", b"\nspiffe://a/b"),
        ),
        largest=16384,
    ),
    Target(
        "cgroup",
        cgroup,
        (
            b"kubepods.slice/",
            b"kubepods-burstable-pod",
            b"pod",
            b"8c1b5a3e-0b1f-4d1c-9c6e-2a3b4c5d6e7f",
            b".slice",
            b"/",
            b"..",
            b":",
            b"user.slice",
            b".service",
        ),
        ((b"", b"kubepods-", b""), (b"", b"a/", b""), (b"", b"a-", b"pod"), (b"", b".service", b"")),
    ),
    Target(
        "topology",
        topology,
        (
            b"nodes:",
            b"clients:",
            b"endpoints:",
            b"- {name: a",
            b"wires: [kernel://s]",
            b"&a ",
            b"*a",
            b"<<: ",
            b"!!python/object:os.system",
            b"\n",
            b"  ",
            b"links:",
            b"network: 10.0.0.0/24",
        ),
        (
            (b"nodes: [{name: a}", b",{name: a}", b"]"),
            (b"nodes: [{name: n}]\nservices: [{name: s", b", a: b", b"}]"),
            (b"nodes: [{name: n}]\nclients: [{name: c, node: n, wires: [", b"kernel://s,", b"]}]"),
            (b"nodes: [{name: n}]\nendpoints: [{name: e, node: n, prefixes: [", b"10.0.0.0/24,", b"]}]"),
        ),
        largest=8192,
    ),
    Target(
        "files_of_yaml",
        files_of_yaml,
        (
            b"prefixes:",
            b"- from: ",
            b"routes:",
            b"&a ",
            b"*a",
            b"[",
            b"]",
            b"2001:db8::/32",
            b"1:2:3",
            b"0x",
            b"2026-01-01",
            *SPACES,
        ),
    ),
    Target(
        "dns_configs",
        dns_configs,
        (b'"dns_server_ips"', b'"search_domains"', b'"10.0.0.1"', b'"a.b"', *JSON),
        ((b"", b"[", b""), (b'[{"search_domains":["', b"a.", b'"]}]'), (b'[{"search_domains":["', b"a-", b'"]}]')),
    ),
    Target(
        "vlan_services",
        vlan_services,
        (b"s { vlan: 1; via: a }", b"{", b"}", b";", b",", b"labels: a=b&c=d", *DIGITS, *SPACES),
        (
            (b"", b"s{via:a},", b""),
            (b"s {", b";", b"}"),
            (b"", b" ", b"s"),
            (b"s", b" ", b"x"),
            (b"", b"s", b""),
            (b"s{via:a;labels:a=b", b"&a=b", b"}"),
        ),
    ),
    Target(
        "entries",
        entries,
        (b"socket:/a=", b"uid:1=", b"pid:1=", b"spiffe://a/b", b"\n", *DIGITS),
        ((b"", b"uid:1=spiffe://a/b\n", b""),),
    ),
    Target(
        "resolv_conf",
        resolv_conf,
        (b"nameserver 10.0.0.1\n", b"search a b\n", b"options ndots:1\n", b"; nsm: begin", b"#"),
        ((b"", b"nameserver 10.0.0.1\n", b""), (b"search ", b"a ", b"\n")),
    ),
    Target(
        "variable",
        variable,
        (
            b"kernel://a/b",
            b"unix:///a",
            b"tcp://a:1",
            b"1m",
            b"true",
            b"a:b",
            b",",
            b"[",
            b"]",
            b"10.0.0.0/24",
            *DIGITS,
            *SPACES,
        ),
    ),
)
