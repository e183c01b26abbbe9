"""What clients of a vL3 in a local mesh reach: every other client, and every endpoint."""


def addresses(mesh):
    """The addresses of all clients, by name, and of all endpoints under the empty one."""
    found, status = {"": set()}, mesh.status()
    clients = [each["name"] for each in status["components"] if each["command"] in {"nsc", "lb-vl3"}]
    for wire in [each for each in status["wires"] if each["client"] in clients]:
        found[wire["client"]] = {each.partition("/")[0] for each in wire["src_ips"]}
        found[""] |= {each.partition("/")[0] for each in wire["dst_ips"]}
    return found


def unreached(mesh, *, names=()):
    """The pairs of a client and an address, of any other client or any endpoint, or a name, that do not answer."""
    found = addresses(mesh)
    missing = set()
    for client in found:
        if client:
            others = {address for name, own in found.items() if name != client for address in own} | set(names)
            missing |= {(client, address) for address in silent(mesh, client, others)}
    return missing


def silent(mesh, client, targets):
    """Those of the targets that do not answer a ping of a workload; all are sent at once."""
    ping = " ".join(f"(ping -n -c 1 -W 1 {each} >/dev/null 2>&1 || echo {each}) &" for each in sorted(targets))
    return set(mesh.run(client, "sh", "-c", f"{ping} wait").stdout.split())
