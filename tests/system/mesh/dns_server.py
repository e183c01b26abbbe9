"""A tiny DNS server for the tests: ``python dns_server.py ADDRESS NAME=IP...`` answers A questions on port 53."""

import asyncio
import sys

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class Server(asyncio.DatagramProtocol):
    def __init__(self, names):
        self._names = names

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, address):
        message = dns.message.from_wire(data)
        answer, question = dns.message.make_response(message), message.question[0]
        ip = self._names.get(question.name.to_text().lower().removesuffix("."))
        if ip is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 30, "IN", "A", ip))
        print(question.name, flush=True)
        self._transport.sendto(answer.to_wire(), address)


async def main(host, *names):
    known = dict(name.split("=") for name in names)
    await asyncio.get_running_loop().create_datagram_endpoint(lambda: Server(known), local_addr=(host, 53))
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
