"""Names of the clients of a vL3, and the servers that endpoints use."""

from nsm.apis.connectioncontext import ConnectionContext, DnsConfig, DnsContext, IpContext
from nsm.chains.core import Begin, Chain, Element
from nsm.chains.elements.vl3_dns import Vl3DnsClient, Vl3DnsServer
from nsm.chains.elements.vl3_ipam import Vl3Ipam
from nsm.chains.testing import call
from tests.chains.elements.addresses import close
from tests.chains.elements.vl3 import Registered, network, share

TEMPLATE = '{{ index .Labels "podName" }}.{{ .NetworkService }}.'


class Names:
    """Remembers what it is told."""

    def __init__(self):
        self.clients, self.servers = {}, {}

    def set(self, connection_id, names, addresses):
        self.clients[connection_id] = (list(names), [str(each) for each in addresses])

    def learn(self, connection_id, servers):
        self.servers[connection_id] = [str(each) for each in servers]

    def forget(self, connection_id):
        self.clients.pop(connection_id, None)
        self.servers.pop(connection_id, None)


def endpoint(net, names, *templates):
    peers = Registered()
    return Chain([Begin(), Vl3DnsServer(net, peers, names, templates or [TEMPLATE]), Vl3Ipam(net, peers)])


async def ask(chain, connection_id="c", configs=(), src=(), **labels):
    context = ConnectionContext(
        dns_context=DnsContext(configs=list(configs)), ip_context=IpContext(src_ip_addrs=list(src))
    )
    connection = await chain.request(call(connection_id, "vl3", labels=labels, context=context))
    return [(each.dns_server_ips, each.search_domains) for each in connection.context.dns_context.configs]


async def test_a_client_has_a_name_and_the_server_of_its_endpoint():
    names = Names()
    chain = endpoint(network("172.16.0.0/24", "2001:db8::/64"), names)
    assert await ask(chain, podName="alice") == [(["172.16.0.0", "2001:db8::"], ["vl3"])]
    assert names.clients == {"c": (["alice.vl3"], ["172.16.0.1", "2001:db8::1"])}
    await close(chain)
    assert not names.clients


async def test_a_client_without_the_label_has_no_name_but_the_server():
    names = Names()
    assert await ask(endpoint(network("172.16.0.0/24"), names)) == [(["172.16.0.0"], [])]
    assert names.clients["c"][0] == []


async def test_every_template_makes_a_name():
    names = Names()
    chain = endpoint(network("172.16.0.0/24"), names, TEMPLATE, "{{ .Labels.app }}.shop.")
    assert await ask(chain, podName="alice", app="till") == [(["172.16.0.0"], ["vl3", "shop"])]
    assert names.clients["c"][0] == ["alice.vl3", "till.shop"]


async def test_servers_of_a_former_endpoint_are_replaced_and_others_stay():
    chain = endpoint(network("172.16.0.0/24"), Names())
    foreign, former = DnsConfig(dns_server_ips=["10.96.0.10"]), DnsConfig(dns_server_ips=["172.16.7.0"])
    assert await ask(chain, configs=[former, foreign]) == [(["10.96.0.10"], []), (["172.16.0.0"], [])]


async def test_a_client_cannot_make_the_endpoint_ask_its_server():
    names = Names()
    await ask(endpoint(network("172.16.0.0/24"), names), configs=[DnsConfig(dns_server_ips=["172.16.1.0"])])
    assert names.servers == {}


async def test_an_endpoint_learns_the_servers_of_younger_ones_and_names_them_not():
    names = Names()
    chain = endpoint(network("172.16.0.0/24"), names)
    theirs = DnsConfig(dns_server_ips=["172.16.1.0", "172.16.0.0", "8.8.8.8"])
    answer = await ask(chain, "other-1", [theirs], ["172.16.1.0/32"], podName="vl3-2")
    assert names.servers == {"other-1": ["172.16.1.0"]}
    assert (names.clients, answer) == ({}, [(["172.16.0.0"], [])])
    await close(chain, "other-1")
    assert names.servers == {}


class Older(Element):
    """An older endpoint, which adds its own server."""

    async def request(self, call, rest):
        self.asked = [each.dns_server_ips for each in call.connection.context.dns_context.configs]
        call.connection.context.dns_context.configs.append(DnsConfig(dns_server_ips=["172.16.0.0"]))
        return await rest.request(call)


async def test_an_endpoint_tells_older_ones_its_server_and_learns_theirs():
    names, older, net = Names(), Older(), network("172.16.1.0/24")
    chain = Chain([Begin(), Vl3DnsClient(net, names), older])
    await chain.request(call("c"))
    assert (older.asked, names.servers) == ([["172.16.1.0"]], {"c": ["172.16.0.0"]})
    net.set(0, share("172.16.5.0/24"))
    await chain.request(call("c"))
    assert older.asked == [["172.16.5.0"]]
    await close(chain)
    assert names.servers == {}
