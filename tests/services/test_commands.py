"""The commands as processes: configuration faults, help, start times, what they import."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from nsm.chains.cli import main as nsm

NSM = [sys.executable, "-m", "nsm.chains"]
COMPONENTS = [
    "identity",
    "registry",
    "nsmgr",
    "nsmgr-proxy",
    "registry-proxy",
    "map-ip",
    "cluster-info",
    "dns-server",
    "nse",
    "nse-remote-vlan",
    "nse-vl3",
    "ipam",
    "lb-vl3",
    "nse-passthrough",
    "nse-firewall",
    "nse-supplier",
    "nse-vfio",
    "nsc",
    "nsc-init",
    "forwarder-kernel",
    "forwarder-sriov",
    "csi-driver",
    "prefixes",
    "node",
]


def run(*arguments, **environment):
    clean = {"PATH": os.environ["PATH"], **environment}
    return subprocess.run([*NSM, *arguments], env=clean, capture_output=True, text=True, timeout=20, check=False)


def too_long(text):
    """The lines that do not fit into 80 columns, but for defaults, which are in one piece: somebody may copy them."""
    return [line for line in text.splitlines() if len(line) > 80 and not line.strip().startswith("[")]


def test_the_dispatcher_shows_what_is_installed_and_helps_with_typos():
    done = run("--help", COLUMNS="80")
    assert done.returncode == 0
    assert too_long(done.stdout) == []
    for component in [*COMPONENTS, "mesh", "demo", "health", "find", "bench", "check"]:
        assert f"nsm {component} " in done.stdout
    wrong = run("registri")
    assert wrong.returncode == 2
    assert "did you mean 'registry'?" in wrong.stderr


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_describes_its_variables(component):
    done = run(component, "--help", COLUMNS="80")
    assert done.returncode == 0
    assert "NSM_LOG_LEVEL" in done.stdout
    assert "SPIFFE_ENDPOINT_SOCKET" in done.stdout
    assert too_long(done.stdout) == []


@pytest.mark.parametrize(
    ("component", "variable", "value", "told"),
    [
        ("nsmgr", "NSM_DIAL_TIMEOUT", "soon", "expected a duration"),
        ("nsmgr", "NSM_REGISTRY_SERVER_POLICIES", "mine.rego", "'mine.rego' selects neither a file nor any of"),
        ("nse", "NSM_CIDR_PREFIX", "10.0.0.0/99", "'10.0.0.0/99' is not a prefix"),
        ("nse", "NSM_PAYLOAD", "FRAMES", "expected IP or ETHERNET"),
        ("nse", "NSM_DNS_CONFIGS", "[5]", "5 is not a DNS configuration"),
        ("nse", "NSM_IPAM_POLICY", "lenient", "expected polite or strict"),
        ("nse", "NSM_CIDR_PREFIX", "10.0.0.0/24,10.0.0.0/25", "overlap; their addresses would be assigned twice"),
        ("nse-remote-vlan", "NSM_SERVICES", "", "expected one such as 'finance { vlan: 100; via: gw-1 }'"),
        (
            "nse-remote-vlan",
            "NSM_SERVICES",
            "a { vlan: 5000; via: b }",
            "service 'a': 5000 is not a VLAN id; expected 1",
        ),
        ("nse-remote-vlan", "NSM_SERVICES", "a { vlan: 5 }", "service 'a': via is missing"),
        ("nse-remote-vlan", "NSM_SERVICES", "a { via: b }, a { via: c }", "service 'a' is given twice"),
        ("nse-remote-vlan", "NSM_LISTEN_ON", "unix:///own.sock", "expected a TCP address, such as tcp://:5003"),
        ("nse-vl3", "NSM_PAYLOAD", "ETHERNET", "a vL3 network carries IP"),
        ("nse-vl3", "NSM_DNS_TEMPLATES", "{{ .Labels", "is not a template; expected one such as {{ .Labels.podName }}"),
        ("ipam", "NSM_PREFIX", "172.16.0.1/16", "has host bits set; expected a prefix such as 172.16.0.0/16"),
        ("ipam", "NSM_PREFIX", "", "expected a prefix such as 172.16.0.0/16, or several with commas between them"),
        (
            "nse-vl3",
            "NSM_PREFIX_SERVER_URL",
            "",
            "expected the prefix services, comma separated, such as vl3-ipam:5006",
        ),
        ("nse-vl3", "NSM_SERVICE_NAMES", "", "expected the services to provide"),
        ("ipam", "NSM_CLIENT_PREFIX_LEN", "x", "'x' is not a length of a prefix"),
        ("lb-vl3", "NSM_PORT", "0", "expected the port that connections are balanced of, 1 to 65535"),
        ("lb-vl3", "NSM_PROTOCOL", "SCTP", "expected TCP or UDP"),
        ("lb-vl3", "NSM_SELECTOR", "", "expected labels of the servers' connections, key:value,.."),
        ("ipam", "NSM_STORE", "k8s:", "expected memory: or sqlite:///PATH"),
        ("nsc", "NSM_NETWORK_SERVICES", "kernel://a/much-too-long-a-name", "an interface name has at most 15"),
        ("nsc", "NSM_NETWORK_SERVICES", "vxlan://a", "mechanism vxlan is not supported"),
        ("nsc", "NSM_NETWORK_SERVICES", "kernel://a/lo", "'lo' is a name that the kernel reserves"),
        ("nsc", "NSM_NETWORK_SERVICES", "kernel://a/default", "'default' is not an interface name"),
        ("nsc", "NSM_NETWORK_SERVICES", "kernel://a?app", "label 'app' has no ="),
        ("nsc-init", "NSM_NETWORK_SERVICES", "kernel://a?app=b;c=d", "label 'app=b;c=d' has a semicolon"),
        ("nsc", "NSM_AWARENESS_GROUPS", "[a]", "names no service"),
        ("nsc", "NSM_AWARENESS_GROUPS", "[kernel://a?b]", "label 'b' has no ="),
        ("nsc", "NSM_LIVENESS_CHECK_INTERVAL", "0", "expected 10ms or more"),
        ("nsc", "NSM_LIVENESS_CHECK_TIMEOUT", "-1s", "expected a duration"),
        ("nsc", "NSM_LIVENESS_CHECK_TIMEOUT", "1ms", "expected 10ms or more"),
        ("nsc", "NSM_LABELS", "app:a,app:b", "'app' is given twice"),
        ("nsmgr", "NSM_LIMITS", "adresses:3", "there is no limit 'adresses'; did you mean 'addresses'?"),
        (
            "nse",
            "NSM_DNS_CONFIGS",
            '[{"dnsServerIps": []}]',
            "dnsServerIps is not a field of a DNS configuration; expected d",
        ),
        ("nse-remote-vlan", "NSM_SERVICES", "a { via: b; vlna: 5 }", "did you mean vlan: …?"),
        ("nse-passthrough", "NSM_SERVICE_NAME", "", "expected the services to provide, comma separated"),
        ("nse-firewall", "NSM_ACL_CONFIG", "a: b", "rules in a variable is not supported"),
        (
            "nse-supplier",
            "NSM_SUPPLIES",
            "shop-1",
            "'shop-1': expected an endpoint and its node, such as shop-1@node-1",
        ),
        ("nse", "NSM_IDLE_TIMEOUT", "soon", "expected a duration"),
        ("identity", "NSM_ENTRIES", "uid:1=spiffe://a/b,uid:1=spiffe://a/c", "'uid:1' already has another identity"),
        ("forwarder-kernel", "NSM_TUNNEL_IP", "10.0.0", "expected an IP address of this node"),
        ("forwarder-kernel", "NSM_VXLAN_PORT", "70000", "expected a UDP port from 1 to 65535"),
        ("forwarder-kernel", "NSM_ROUTE_TABLES", "from-2", "expected from-1 or reserved"),
        ("forwarder-kernel", "NSM_RECONCILE", "fix", "expected repair or report"),
        ("forwarder-kernel", "NSM_DEVICE_SELECTOR_FILE", "/nowhere", "cannot read it: No such file"),
        ("forwarder-kernel", "NSM_MECHANISM_PRIORITY", "GRE,VXLAN", "GRE is not offered by this forwarder"),
        ("forwarder-sriov", "NSM_SRIOV_CONFIG_FILE", "/nowhere", "cannot read it: No such file"),
        ("forwarder-sriov", "NSM_RESOURCE_POLL_TIMEOUT", "10ms", "expected 1s or more"),
        ("nse-vfio", "NSM_SERVICE_NAMES", "a: { vlan: 5 }", "service 'a': addr is missing"),
        ("identity", "NSM_ENTRIES", "uid:x=spiffe://a/b", "expected socket:/path="),
        ("registry", "NSM_SOCKET_MODE", "rw", "expected a file mode"),
        ("registry", "NSM_STORE", "redis:", "expected memory:, sqlite:///PATH, etcd:"),
        ("registry", "NSM_STORE", "k8s:Nsm_System", "is not the name of a namespace"),
        ("registry", "NSM_ADMITTED_DOMAINS", "other", "'other' is not a rule; expected TRUST_DOMAIN=SERVICE|SERVICE"),
        ("nsmgr-proxy", "NSM_REGISTRY_URL", "nowhere", "expected unix:///path, tcp://host:port or host:port"),
        ("registry-proxy", "NSM_DNS_SERVERS", "dns.local", "is not the address of a name server; expected ip or"),
        ("identity", "NSM_FEDERATED_BUNDLES", "two=x", "'x' is neither a path nor an https:// URL"),
        ("cluster-info", "NSM_TRANSLATION_MAP", "id", "expected key:value"),
        ("prefixes", "NSM_EXCLUDED_PREFIXES", "10.0.0.1", "'10.0.0.1' is not a prefix"),
        ("prefixes", "NSM_PREFIXES_OUTPUT_TYPE", "stdout", "expected file or config-map"),
        ("csi-driver", "NSM_DRIVER_NAME", "a b", "expected the name of a driver"),
        ("csi-driver", "NSM_SOCKET_DIR", "mesh", "expected the absolute path of a folder"),
    ],
)
def test_a_bad_value_stops_a_component_before_it_begins(component, variable, value, told):
    done = run(component, **{variable: value})
    assert done.returncode == 2
    assert f"nsm {component}: {variable}='{value}'" in done.stderr
    assert told in done.stderr


def test_an_unknown_variable_is_a_warning():
    done = run("identity", NSM_ENTRYES="x", NSM_LISTEN_ON="/proc/none/s")
    assert done.returncode == 1
    assert "did you mean NSM_ENTRIES?" in done.stderr


def test_a_misspelt_variable_is_named_beside_what_is_missing():
    done = run("identity", NSM_ENTRYES="x")
    assert done.returncode == 2
    assert "did you mean NSM_ENTRIES?" in done.stderr
    assert "no socket is configured" in done.stderr


def test_an_endpoint_that_was_given_what_clients_are_given_is_told_what_was_meant():
    done = run("nse", NSM_NETWORK_SERVICES="kernel://web", NSM_DIAL_TIMEOUT="soon")
    assert done.returncode == 2
    assert "NSM_NETWORK_SERVICES is not a variable of this component; did you mean NSM_SERVICE_NAMES?" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["nsc", "--timeout"],
            "nsm nsc: unexpected argument '--timeout': environment variables configure it; see `nsm nsc --help`",
        ),
        (
            ["mesh", "up", "--timeout", "-1"],
            "argument --timeout: '-1' is not a number of seconds; expected one such as 30",
        ),
        (["mesh", "up", "--timeout", "soon"], "argument --timeout: 'soon' is not a number of seconds"),
        (["mesh", "up", "--timout", "3"], "unrecognized arguments: --timout 3; did you mean --timeout?"),
        (["mesh", "stauts"], "did you mean status?"),
        (["policy", "tset"], "did you mean test?"),
        (
            ["bench", "connect", "--url", "x", "--service", "y", "-n", "0"],
            "argument -n: '0' is not a whole number; expected 1 or more",
        ),
        (["bench", "connect", "--url", "x", "--service", "y", "--pause", "-1"], "'-1' is not a number of seconds"),
        (["find", "endpoint", "--registry", "x"], "did you mean endpoints?"),
    ],
)
def test_an_argument_that_is_wrong_is_told_in_words_with_the_right_one(words, told, capsys):
    try:
        code = nsm(words)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert told in error
    assert "_seconds" not in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["exec", "client"], "which command? write it after --: nsm mesh exec client -- CMD..."),
        (["exec", "client", "ls", "-l"], "write the command after --: nsm mesh exec client -- ls -l"),
    ],
)
def test_a_command_for_a_workload_is_asked_for_behind_its_dashes(words, told, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert nsm(["mesh", *words]) == 127
    assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        nsm(["mesh", "exec", "--help"])
    assert "usage: nsm mesh exec [-h] [--name NAME] WORKLOAD|NODE -- CMD..." in capsys.readouterr().out


POD = {"NSM_PODS": "true", "NODE_NAME": "n", "NSM_LISTEN_ON": "unix:///x/s"}


@pytest.mark.parametrize(
    ("component", "environment", "told"),
    [
        ("csi-driver", {}, "NODE_NAME is empty"),
        ("webhook", {}, "no images are configured: set NSM_CONTAINER_IMAGES"),
        ("forwarder-kernel", {"NSM_PROMETHEUS_KEY_FILE": "/a.pem"}, "set both or neither"),
        ("forwarder-sriov", {}, "NSM_SRIOV_CONFIG_FILE is not set: it names the file with the node's network cards"),
        ("forwarder-kernel", {"NSM_PROMETHEUS_CA_FILE": "/a.pem"}, "needs a certificate of ours"),
        ("identity", {"NSM_SVID_LIFETIME": "0", "NSM_LISTEN_ON": "/x/s"}, "expected more than 0"),
        ("identity", {"NSM_PODS": "true"}, "NODE_NAME and NSM_LISTEN_ON are required too"),
        ("identity", {**POD, "NSM_ENTRIES": "uid:1=spiffe://a/b"}, "unset them"),
        ("identity", {**POD, "NSM_AUTHORITY_FILE": "/a.pem"}, "unset them"),
        ("identity", {**POD, "NSM_AUTHORITY_LIFETIME": "3h"}, "at least four times NSM_SVID_LIFETIME"),
    ],
)
def test_what_does_not_go_together_is_one_line_before_anything_is_waited_for(component, environment, told):
    done = run(component, **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"nsm {component}: ")
    assert told in line


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({**POD, "HOME": "/nowhere"}, "not in a pod, KUBECONFIG is not set"),
        ({**POD, "KUBECONFIG": "/nowhere"}, "cannot find the API server"),
    ],
)
def test_who_cannot_ask_a_cluster_says_where_it_looked(environment, told):
    done = run("identity", **environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert told in line


def test_an_identity_serves_within_a_second_and_stops_cleanly(tmp_path):
    """As a process of its own, from nothing; a second of the processor, which others may want as well."""
    socket = tmp_path / "s"
    begin = time.monotonic()
    environment = {"PATH": os.environ["PATH"], "NSM_ENTRIES": f"socket:{socket}=spiffe://local.mesh/x"}
    process = subprocess.Popen([*NSM, "identity"], env=environment, stderr=subprocess.PIPE, text=True)
    while not socket.exists():
        assert time.monotonic() - begin < 15
        time.sleep(0.01)
    times = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    assert sum(map(int, times)) / os.sysconf("SC_CLK_TCK") < 1
    process.terminate()
    _, errors = process.communicate(timeout=5)
    assert process.returncode == 0
    assert '"ready"' in errors
    assert not socket.exists()


def identity_for(stack, folder):
    """A running issuer; gives the environment of who uses it."""
    socket = folder / "identity.sock"
    environment = {"PATH": os.environ["PATH"], "NSM_ENTRIES": f"socket:{socket}=spiffe://local.mesh/x"}
    issuer = stack.enter_context(subprocess.Popen([*NSM, "identity"], env=environment, stderr=subprocess.DEVNULL))
    stack.callback(issuer.terminate)
    while not socket.exists():
        time.sleep(0.01)
    return {"PATH": os.environ["PATH"], "SPIFFE_ENDPOINT_SOCKET": f"unix://{socket}"}


def start(stack, component, environment, *options):
    words = [sys.executable, *options, "-m", "nsm.chains", component]
    process = stack.enter_context(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    return process


def read_until(process, text):
    """The lines up to the one with `text`."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} was never logged: {lines[-5:]}")


COMMON_NEVER = {
    "pyroute2",
    "aiohttp",
    "opentelemetry.sdk",
    "yaml",
    "typer",
    "rich.console",
    "pygments",
    "google",
    "requests",
}


@pytest.mark.parametrize(
    ("component", "told", "needs", "never"),
    [
        ("registry", '"ready"', set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nsmgr"}),
        ("nsmgr", "the watch on the registry failed", set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        ("nsmgr-proxy", '"ready"', set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        ("registry-proxy", '"ready"', {"dns"}, {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        ("nse", "cannot register yet", set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nsc"}),
        ("nse-remote-vlan", "cannot register yet", set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        (
            "nse-vl3",
            "no stream to the prefix service",
            {"dns"},
            {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nsc"},
        ),
        ("ipam", '"ready"', set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        ("nse-passthrough", "cannot register yet", set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        ("nse-supplier", "cannot register yet", set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.kube"}),
        ("nsc", "no wire yet", set(), {"nsm.mesh", "nsm.forwarder_kernel", "nsm.services.nse"}),
        ("forwarder-kernel", "cannot register yet", {"pyroute2"}, {"nsm.mesh", "nsm.services"}),
    ],
)
def test_a_component_that_runs_has_imported_what_its_chain_needs_and_nothing_else(
    tmp_path, component, told, needs, never
):
    """Import time is start time, and memory. Each says what it waits for, and stops at once if asked to."""
    with ExitStack() as stack:
        environment = {
            **identity_for(stack, tmp_path),
            "NSM_CONNECT_TO": f"unix://{tmp_path}/nobody.sock",
            "NSM_REGISTRY_URL": f"unix://{tmp_path}/nobody.sock",
            "NSM_LISTEN_ON": "tcp://127.0.0.1:0" if component == "nse-remote-vlan" else f"unix://{tmp_path}/own.sock",
            "NSM_SERVICES": "a { via: b }",
            "NSM_SERVICE_NAMES": "a",
            "NSM_SERVICE_NAME": "a",
            "NSM_SUPPLIES": "b@node-1",
            "NSM_CIDR_PREFIX": "10.0.0.0/24",
            "NSM_NETWORK_SERVICES": "kernel://a/nsm-1",
            "NSM_PREFIX_SERVER_URL": f"unix://{tmp_path}/nobody.sock",
        }
        process = start(stack, component, environment, "-X", "importtime")
        lines = read_until(process, told)
        asked = time.monotonic()
        process.terminate()
        rest = process.communicate(timeout=10)[0] or ""
        assert time.monotonic() - asked < 3
        assert process.returncode == 0, rest
        imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
        assert {"nsm.chains", "asyncio"} <= imported
        assert "clean-up failed" not in "".join(lines)  # nobody has heard of it, so there is nothing to close
        assert needs <= imported
        assert imported & (COMMON_NEVER - needs | never) == set()


@pytest.mark.parametrize("component", ["registry", "nsmgr", "nse", "nsc", "forwarder-kernel"])
def test_a_component_without_an_identity_says_so_and_can_be_stopped(tmp_path, component):
    with ExitStack() as stack:
        environment = {"PATH": os.environ["PATH"], "SPIFFE_ENDPOINT_SOCKET": f"unix://{tmp_path}/nobody.sock"}
        process = start(stack, component, environment)
        read_until(process, "no identity from the Workload API")
        asked = time.monotonic()
        process.terminate()
        assert process.wait(timeout=10) == 0
        assert time.monotonic() - asked < 2


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("nsm.services.registry.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.nsmgr.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.nsc.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.nse.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.nse_vl3.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.lb_vl3.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "dns", "nsm.mesh"]),
        ("nsm.services.ipam.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "dns", "nsm.mesh"]),
        ("nsm.services.nse_remote_vlan.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.nse_passthrough.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        ("nsm.services.nse_firewall.main", ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh"]),
        (
            "nsm.services.nse_supplier.main",
            ["pyroute2", "aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh", "nsm.kube"],
        ),
        ("nsm.forwarder_kernel.main", ["aiohttp", "opentelemetry.sdk", "yaml", "nsm.mesh", "nsm.services"]),
        ("nsm.mesh.cli", ["pyroute2", "opentelemetry.sdk", "typer", "rich.console"]),
        ("nsm.mesh.check.cli", ["pyroute2", "grpclib", "structlog", "cryptography", "nsm.chains.core", "yaml"]),
    ],
)
def test_a_component_imports_what_its_chain_needs_and_nothing_else(module, never):
    """Import time is start time, and memory."""
    script = f"import {module}, sys; print([m for m in {never!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
