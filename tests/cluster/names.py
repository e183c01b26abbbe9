"""The cluster's DNS server: `SERVICE.NAMESPACE.svc.cluster.local`, load balancers' names, and those of the other cluster.

It is no CoreDNS: that one's Go modules ask for other versions than Kubernetes' own. Services without an address of
their own (headless ones) have none here. A Service of type LoadBalancer has `SERVICE.NAMESPACE.my.clusterN`, with A and
SRV, as CoreDNS's plugin k8s_external answers, and the name in its annotation, as ExternalDNS publishes it.
"""

import socketserver
import sys
import time
from pathlib import Path
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from . import identities, layout
from .api_server import Api

SECONDS = 1
"""How long an answer, and what is known of services, is taken for true; how long the other cluster may take."""
ANNOTATION = "external-dns.alpha.kubernetes.io/hostname"


class Place(NamedTuple):
    """The addresses of a service, and its first port if others have to find that out."""

    addresses: list
    port: int = 0


class Names:
    """Where services are by their full names, as the API server tells them."""

    def __init__(self, api, zone):
        self._api, self._zone, self._known, self._since = api, zone, {}, 0.0

    def place(self, name):
        if time.monotonic() - self._since > SECONDS:
            services = self._api.get("/api/v1/services")["items"]
            self._known = {name: place for each in services for name, place in self._places(each)}
            self._since = time.monotonic()
        return self._known.get(name)

    def _places(self, service):
        about, spec = service["metadata"], service["spec"]
        full = f"{about['name']}.{about['namespace']}"
        yield f"{full}.svc.{layout.DOMAIN}.", Place([each for each in spec.get("clusterIPs", []) if each != "None"])
        if outside := [each["ip"] for each in service["status"].get("loadBalancer", {}).get("ingress", [])]:
            place = Place(outside, spec["ports"][0]["port"])
            yield f"{full}.{self._zone}.", place
            if hostname := about.get("annotations", {}).get(ANNOTATION):
                yield f"{hostname}.", place


def answer(wire, names, other):
    """What is answered to a query in wire format, in wire format; `other` is a server that may know names."""
    message = dns.message.from_wire(wire)
    response = dns.message.make_response(message)
    response.flags |= dns.flags.AA
    (question,) = message.question
    name = question.name.to_text().lower()
    place = names.place(name)
    if place is None and message.flags & dns.flags.RD and not name.endswith(f".{layout.DOMAIN}."):
        message.flags &= ~dns.flags.RD  # so that it does not come back
        try:
            return dns.query.udp(message, other, timeout=SECONDS).to_wire()
        except (dns.exception.DNSException, OSError):  # there is none, or it does not answer
            response.set_rcode(dns.rcode.NXDOMAIN)
    elif place is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype == dns.rdatatype.A:
        response.answer.append(dns.rrset.from_text(question.name, SECONDS, "IN", "A", *place.addresses))
    elif question.rdtype == dns.rdatatype.SRV and place.port:
        response.answer.append(dns.rrset.from_text(question.name, SECONDS, "IN", "SRV", f"0 100 {place.port} {name}"))
    return response.to_wire()


class Handler(socketserver.BaseRequestHandler):
    """Answers one datagram."""

    def handle(self):
        query, port = self.request
        port.sendto(answer(query, self.server.names, self.server.other), self.client_address)


class Server(socketserver.ThreadingUDPServer):
    """Answers several at a time: one may wait for the other cluster."""

    daemon_threads = True


def main(folder, where):
    api = Api(f"https://{where.control}:6443", identities.read(folder / "identities"), folder / "bin")
    with Server((where.control, 53), Handler) as server:
        server.names = Names(api, where.zone)
        (server.other,) = (each.control for each in layout.BY_NUMBER.values() if each != where)
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), layout.BY_NUMBER[int(sys.argv[2])])
