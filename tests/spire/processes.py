"""SPIRE without a cluster: servers and agents of several trust domains as processes of one network namespace.

A workload is told from others by its group: each component runs with a group id of its own.
"""

import json
import subprocess
import time

from tests.spire import binary

SVID_SECONDS = 60
_SERVER = """
server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  trust_domain = "{domain}"
  data_dir = "{folder}/server"
  default_x509_svid_ttl = "{seconds}s"
  federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {bundle_port}
      refresh_hint = "5s"
      profile "https_spiffe" {{}}
    }}
    {federated}
  }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{folder}/server/entries.sqlite3"
    }}
  }}
  KeyManager "disk" {{
    plugin_data {{
      keys_path = "{folder}/server/keys.json"
    }}
  }}
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
}}
"""
_FEDERATED = """
    federates_with "{domain}" {{
      bundle_endpoint_url = "https://127.0.0.1:{bundle_port}"
      bundle_endpoint_profile "https_spiffe" {{
        endpoint_spiffe_id = "spiffe://{domain}/spire/server"
      }}
    }}"""
_AGENT = """
agent {{
  data_dir = "{folder}/agent"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_bundle_path = "{folder}/bundle.pem"
  trust_domain = "{domain}"
}}
plugins {{
  NodeAttestor "join_token" {{
    plugin_data {{}}
  }}
  KeyManager "disk" {{
    plugin_data {{
      directory = "{folder}/agent"
    }}
  }}
  WorkloadAttestor "unix" {{
    plugin_data {{}}
  }}
}}
"""


class Domain:
    """One trust domain: its server, its agent, and who is who. `port` and the next one are its server's."""

    def __init__(self, host, folder, domain, port):
        self.host, self.folder, self.domain, self.port = host, folder, domain, port
        self.programs, self.running = binary.programs(), {}
        for each in ("server", "agent"):
            (folder / each).mkdir(parents=True)

    @property
    def workload_api(self):
        return f"unix://{self.folder}/agent.sock"

    def start_server(self, *federated):
        values = {"folder": self.folder, "domain": self.domain, "port": self.port, "bundle_port": self.port + 1}
        others = "".join(_FEDERATED.format(domain=each.domain, bundle_port=each.port + 1) for each in federated)
        text = _SERVER.format(**values, federated=others, seconds=SVID_SECONDS)
        (self.folder / "server.conf").write_text(text)
        self.restart("server")
        (self.folder / "bundle.pem").write_text(self.server("bundle", "show"))

    def trust(self, other):
        """Know the bundle of another domain's server to begin with: it authenticates its own from then on."""
        words = ["bundle", "set", "-id", f"spiffe://{other.domain}", "-format", "spiffe"]
        self.server(*words, stdin=other.server("bundle", "show", "-format", "spiffe"))

    def start_agent(self):
        text = _AGENT.format(folder=self.folder, domain=self.domain, port=self.port)
        (self.folder / "agent.conf").write_text(text)
        said = self.server("token", "generate", "-spiffeID", f"spiffe://{self.domain}/node", "-output", "json")
        self.restart("agent", "-joinToken", json.loads(said)["value"])

    def restart(self, name, *words):
        """Start the `server` or the `agent`; one that runs is killed before. Returns when it answers."""
        self.stop(name)
        program, config = self.programs / f"spire-{name}", self.folder / f"{name}.conf"
        log = (self.folder / f"{name}.log").open("ab")
        command = ["nsenter", f"--net={self.host.path}", program, "run", "-config", config, *words]
        self.running[name] = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        log.close()
        socket = self.folder / f"{name}.sock"
        assert eventually(lambda: self._is_healthy(program, socket)), (self.folder / f"{name}.log").read_text()[-3000:]

    def stop(self, name):
        if (process := self.running.pop(name, None)) is not None:
            process.kill()
            process.wait()

    def entry(self, name, group, *federated):
        """Whoever runs with that group id is `name`, and trusts the other domains too."""
        words = ["-parentID", f"spiffe://{self.domain}/node", "-spiffeID", f"spiffe://{self.domain}/{name}"]
        for other in federated:
            words += ["-federatesWith", f"spiffe://{other.domain}"]
        self.server("entry", "create", *words, "-selector", f"unix:gid:{group}", "-x509SVIDTTL", str(SVID_SECONDS))

    def server(self, *words, stdin=None):
        """What a command of the server says."""
        where = ["-socketPath", str(self.folder / "server.sock")]
        command = [str(self.programs / "spire-server"), *words, *where]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    def close(self):
        for name in ("agent", "server"):
            self.stop(name)

    def _is_healthy(self, program, socket):
        words = [str(program), "healthcheck", "-socketPath", str(socket)]
        return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0


def eventually(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return met
