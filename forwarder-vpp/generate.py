"""Writes nsm/forwarder_vpp/api/messages.json from the API files of an installed VPP: called by `make vpp-messages`.

    make vpp-messages VPP=26.06 API=/usr/share/vpp/api [ERRORS=/usr/include/vnet/error.h]

VPP's API files (*.api.json) describe each message by its fields; only these facts, for the messages that we use, are
taken over: names, types, defaults and checksums. What other versions of VPP have is kept: a version of a message is
known by its checksum. The order in which versions are added makes no difference.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent
OUT = ROOT / "nsm/forwarder_vpp/api/messages.json"
REQUESTS = (ROOT / "messages.txt").read_text().split("\n")
NEEDED = {line.strip() for line in REQUESTS if line.strip() and not line.startswith("#")}
NO_TYPES = {"u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f64", "bool", "string"}
ABOUT = "Made by `make vpp-messages` of the API files of VPP; not edited by hand."


def read(folder):
    """The types, messages and services of an API folder, by name."""
    types, messages, services = {}, {}, {}
    files = sorted(Path(folder).rglob("*.api.json"))
    if not files:
        sys.exit(
            f"{folder} has no file *.api.json: give the API folder of an installed VPP, such as /usr/share/vpp/api"
        )
    for file in files:
        said = json.loads(file.read_text())
        for kind in ("enums", "enumflags"):
            for name, *values, options in said[kind]:
                as_what = "flags" if kind == "enumflags" or "flag" in name else "enum"
                types[name] = {as_what: options["enumtype"], "values": dict(values)}
        for name, *fields in said["types"]:
            types[name] = {"fields": [field_of(one) for one in fields if isinstance(one, list)]}
        for name, *fields in said["unions"]:
            types[name] = {"union": [field_of(one)[:2] for one in fields if isinstance(one, list)]}
        for name, alias in said["aliases"].items():
            types[name] = {"alias": [plain(alias["type"]), *([alias["length"]] if "length" in alias else [])]}
        for name, *fields, options in said["messages"]:
            messages[name] = (options["crc"], [field_of(one) for one in fields])
        services.update(said["services"])
    return types, messages, services


def plain(kind):
    """A type's name as it is declared."""
    return re.sub(r"^vl_api_(.*)_t$", r"\1", kind)


def field_of(said):
    """A field without notes about it."""
    kind, name, *rest = said
    options = rest[-1] if rest and isinstance(rest[-1], dict) else {}
    default = {"true": True, "false": False}.get(options.get("default"), options.get("default"))
    sizes = [one for one in rest if not isinstance(one, dict)]
    return [plain(kind), name, *sizes, *([{"default": default}] if default is not None else [])]


def expanded(kind, types):
    """A type with all that it stands on, so that two versions of it can be compared.

    Values of enumerations are not part of that: VPP adds some without another checksum.
    """
    if kind in NO_TYPES:
        return kind
    said = {part: value for part, value in types[kind].items() if part != "values"}
    for part in ("fields", "union"):
        if part in said:
            said[part] = [[expanded(one[0], types), *one[1:]] for one in said[part]]
    if "alias" in said:
        said["alias"] = [expanded(said["alias"][0], types), *said["alias"][1:]]
    return {"type": kind.partition("~")[0], **said}


def service_of(name, services):
    """What a request is answered with, by the names that `Service` has."""
    said = services.get(name)
    if said is None:
        return {"reply": f"{name}_reply"}
    if "stream_msg" in said:
        return {"reply": said["reply"], "details": said["stream_msg"]}
    if said.get("stream"):
        return {"details": said["reply"]}
    return {"reply": said["reply"], **({"events": said["events"]} if "events" in said else {})}


def known():
    """What was written before: versions of messages with their types expanded."""
    if not OUT.exists():
        return {}, {}, {}, {}
    said = json.loads(OUT.read_text())
    messages = {
        name: {
            checksum: (variant["in"], [[expanded(one[0], said["types"]), *one[1:]] for one in variant["fields"]])
            for checksum, variant in variants.items()
        }
        for name, variants in said["messages"].items()
    }
    values = {name: type_["values"] for name, type_ in said["types"].items() if "values" in type_}
    return messages, said["services"], said["errors"], values


def add(version, folder, messages, services, values):
    """Add what a version of VPP has."""
    types, found, answers = read(folder)
    for kind, said in types.items():
        for name, number in said.get("values", {}).items():
            if values.setdefault(kind, {}).setdefault(name, number) != number:
                sys.exit(f"{name} of {kind} is {number} in VPP {version}, and {values[kind][name]} in others")
    names = set(NEEDED)
    for name in sorted(NEEDED & found.keys()):
        services[name] = service_of(name, answers)
        names |= {services[name].get("reply"), services[name].get("details"), *services[name].get("events", ())}
    for name in sorted(names & found.keys()):
        checksum, fields = found[name]
        fields = [[expanded(one[0], types), *one[1:]] for one in fields]
        versions, before = messages.setdefault(name, {}).setdefault(checksum, ([], fields))
        if before != fields:
            sys.exit(f"{name} {checksum} has other fields in VPP {version} than in others: its checksum does not tell")
        versions[:] = sorted({*versions, version})
    if lost := sorted(NEEDED - found.keys()):
        print(f"VPP {version} does not have {', '.join(lost)}")


def named(messages, values):
    """Types by name: the first of several that have one name has it, others have a number behind it."""
    chosen, types = {}, {}

    def name_of(type_):
        if isinstance(type_, str):
            return type_
        key = json.dumps(type_, sort_keys=True)
        if key not in chosen:
            said = {part: value for part, value in type_.items() if part != "type"}
            for part in ("fields", "union"):
                if part in said:
                    said[part] = [[name_of(one[0]), *one[1:]] for one in said[part]]
            if "alias" in said:
                said["alias"] = [name_of(said["alias"][0]), *said["alias"][1:]]
            number = 1 + sum(other.partition("~")[0] == type_["type"] for other in types)
            chosen[key] = type_["type"] if number == 1 else f"{type_['type']}~{number}"
            if type_["type"] in values and said.keys() & {"enum", "flags"}:
                said["values"] = dict(sorted(values[type_["type"]].items(), key=lambda one: (one[1], one[0])))
            types[chosen[key]] = said
        return chosen[key]

    out = {}
    for name in sorted(messages):
        variants = sorted(messages[name].items(), key=lambda one: (one[1][0], one[0]))
        out[name] = {
            checksum: {"in": versions, "fields": [[name_of(one[0]), *one[1:]] for one in fields]}
            for checksum, (versions, fields) in variants
        }
    return dict(sorted(types.items())), out


def errors_in(header):
    """The return values that a header of VPP names: _(UNSPECIFIED, -1, "Unspecified Error")."""
    return {number: name for name, number in re.findall(r"_\s*\(\s*(\w+),\s*(-\d+),", Path(header).read_text())}


def written(said):
    """One type, variant or service on a line."""
    lines = []
    for part, value in said.items():
        if part not in {"types", "messages", "services"}:
            lines.append(f'"{part}": {json.dumps(value)}')
        elif part == "messages":
            rows = []
            for name, variants in value.items():
                inner = ",\n".join(f'  "{checksum}": {json.dumps(one)}' for checksum, one in variants.items())
                rows.append(f' "{name}": {{\n{inner}}}')
            lines.append(f'"{part}": {{\n' + ",\n".join(rows) + "}")
        else:
            lines.append(
                f'"{part}": {{\n' + ",\n".join(f' "{key}": {json.dumps(one)}' for key, one in value.items()) + "}"
            )
    return "{" + ",\n".join(lines) + "}\n"


def main(version, folder, header=""):
    """Add one version of VPP to the file."""
    messages, services, errors, values = known()
    add(version, folder, messages, services, values)
    if header:
        errors.update(errors_in(header))
    types, messages = named(messages, values)
    versions = sorted({one for variants in messages.values() for said in variants.values() for one in said["in"]})
    said = {
        "about": ABOUT,
        "versions": versions,
        "errors": dict(sorted(errors.items(), key=lambda one: -int(one[0]))),
        "types": types,
        "messages": messages,
        "services": dict(sorted(services.items())),
    }
    OUT.write_text(written(said))
    print(f"{OUT.relative_to(ROOT)}: {len(messages)} messages of VPP {', '.join(versions)}")


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4 or not re.fullmatch(r"\d\d\.\d\d", sys.argv[1]):
        sys.exit("usage: make vpp-messages VPP=26.06 API=/usr/share/vpp/api [ERRORS=/usr/include/vnet/error.h]")
    main(*sys.argv[1:])
