"""The cluster's DNS server: `SERVICE.NAMESPACE.svc.cluster.local`, and nothing else.

It is no CoreDNS: that one's Go modules ask for other versions than Kubernetes' own. Services without an address of
their own (headless ones) have none here.
"""

import socketserver
import sys
import time
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from . import identities, layout
from .api_server import Api

SECONDS = 1
"""How long an answer, and what is known of services, is taken for true."""


class Names:
    """The addresses of services by their full names, as the API server tells them."""

    def __init__(self, api):
        self._api, self._known, self._since = api, {}, 0.0

    def addresses(self, name):
        if time.monotonic() - self._since > SECONDS:
            self._known = dict(map(self._entry, self._api.get("/api/v1/services")["items"]))
            self._since = time.monotonic()
        return self._known.get(name)

    def _entry(self, service):
        about = service["metadata"]
        addresses = [each for each in service["spec"].get("clusterIPs", []) if each != "None"]
        return f"{about['name']}.{about['namespace']}.svc.{layout.DOMAIN}.", addresses


def answer(query, names):
    """What is answered to a query in wire format, in wire format."""
    message = dns.message.from_wire(query)
    response = dns.message.make_response(message)
    response.flags |= dns.flags.AA
    (question,) = message.question
    addresses = names.addresses(question.name.to_text().lower())
    if addresses is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.name, SECONDS, "IN", "A", *addresses))
    return response.to_wire()


class Handler(socketserver.BaseRequestHandler):
    """Answers one datagram."""

    def handle(self):
        query, port = self.request
        port.sendto(answer(query, self.server.names), self.client_address)


def main(folder):
    api = Api(f"https://{layout.CONTROL}:6443", identities.read(folder / "identities"), folder / "bin")
    with socketserver.UDPServer((layout.CONTROL, 53), Handler) as server:
        server.names = Names(api)
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
