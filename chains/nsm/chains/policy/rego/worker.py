"""The process that evaluates Rego: started by its path, without the rest of NSM, and killed at any time.

Standard input is a socket. Requests and responses are lines of JSON:

| request | response |
| --- | --- |
| `{"load": NAME, "text": TEXT, "package": PACKAGE}` | `{}`, or `{"error": TEXT, "line": LINE or null}` |
| `{"ask": [NAME, ...], "input": DOCUMENT}` | `{"values": [VALUE, ...]}`, up to the first that is not `true` |

A value is `true`, `false`, `undefined`, `other` (anything else), or where the engine gave up. What a policy prints or
returns beyond that is discarded: it may contain a token.

The engine is regorus. It has no functions for tokens and certificates; this module adds those that NSM's policies use.
"""

import base64
import binascii
import json
import os
import re
import resource
import signal
import sys
from typing import Any

MEMORY = 512 << 20
"""Memory limit in bytes: a policy that exceeds it ends this process instead of exhausting the node's memory."""
_LONGEST = 10.0
"""Seconds after which this process ends itself if its parent is gone."""
MOST_TOKEN = 64 << 10

_TOKENS = """package nsm__tokens
decode(token) = parts { parts := nsm__tokens.decode(token); parts != null }
verify_es256(token, key) = valid { valid := nsm__tokens.verify(token, key); valid != null }
parse_certificates(pem) = found { found := nsm__tokens.certificates(pem); found != null }
"""
"""Makes a failing function undefined in Rego, which a Python function cannot express."""
_WORDS = re.compile(
    r'"(?:\\.|[^"\\\n])*"|`[^`]*`|#[^\n]*'  # strings and comments
    r"|\b(?:io\.jwt|crypto\.x509)\.(?P<function>decode|verify_es256|parse_certificates)(?=\()"
    r"|\b(?P<missing>io\.jwt\.\w+|crypto\.x509\.\w+|http\.send|net\.lookup_ip_addr|providers\.[\w.]+)(?=\()|(?<![.\w])(?P<keyword>if|contains|every|in)(?![.\w(])"
)
_KEYWORDS_ARE_IMPORTED = re.compile(r"^[ \t]*import[ \t]+(?:future\.keywords|rego\.v1)\b", re.MULTILINE)
_PLACE = re.compile(r"--> policy:(\d+):")
_FAULT = re.compile(r"^error: ([^\n]*)", re.MULTILINE)
_OF_THE_POLICY = ("could not find function", "recursion detected", "not a valid rule path", "rule conflicts")
"""Faults that do not depend on the input, besides those with the word `unsafe`."""


class _Fault(Exception):
    """A policy cannot be used."""

    def __init__(self, what: str, line: int | None) -> None:
        super().__init__(what)
        self.what, self.line = what, line


class _Policy:
    """One compiled module, isolated from others."""

    def __init__(self, text: str, package: str) -> None:
        self._rule = f"data.{package}.valid"
        _check_functions(text)
        code = _WORDS.sub(lambda found: f"data.nsm__tokens.{name}" if (name := found["function"]) else found[0], text)
        try:
            self._engine = _engine(code, v0=False)
        except RuntimeError as of_v1:
            _check_keywords(text, of_v1)
            try:
                self._engine = _engine(code, v0=True)
            except RuntimeError as error:
                raise _fault(error) from None
        try:
            self.value({})
        except _Fault as fault:
            if fault.what.startswith(_OF_THE_POLICY) or "unsafe" in fault.what:
                raise

    def value(self, document: Any) -> str:
        """The value of the rule `valid` for `document`. Raises `_Fault`."""
        try:
            self._engine.set_input(document)
            value = self._engine.eval_rule(self._rule)
        except RuntimeError as error:
            raise _fault(error) from None
        if value is None:
            return "undefined"
        return str(value).lower() if isinstance(value, bool) else "other"


def _engine(code: str, *, v0: bool) -> Any:
    from regorus import Engine  # noqa: PLC0415 - after the limits are set

    engine = Engine()
    engine.set_rego_v0(True)
    engine.add_extension("nsm__tokens.decode", 1, _decode)
    engine.add_extension("nsm__tokens.verify", 2, _is_signed)
    engine.add_extension("nsm__tokens.certificates", 1, _certificates)
    engine.add_policy("tokens", _TOKENS)
    engine.set_rego_v0(v0)
    engine.add_policy("policy", code)
    return engine


def _check_functions(text: str) -> None:
    """Find unknown functions at load time: the engine reports one only when it is called, which may be much later."""
    for found in _WORDS.finditer(text):
        if found["missing"]:
            line = text.count("\n", 0, found.start()) + 1
            raise _Fault(f"the function {found['missing']} is not available", line)
        if found["function"] in {"verify_es256", "parse_certificates"}:
            _is_signed("", "")  # loads its libraries now instead of during a call


def _check_keywords(text: str, of_v1: RuntimeError) -> None:
    """In the older syntax, keywords without their import are names, and a rule `valid if {..}` would be true."""
    if _KEYWORDS_ARE_IMPORTED.search(text) is None:
        for found in _WORDS.finditer(text):
            if found["keyword"]:
                fault = _fault(of_v1)
                raise _Fault(f"{fault.what} (or `import future.keywords` is missing)", fault.line)


def _fault(error: RuntimeError) -> _Fault:
    """The engine's message and line, without the values involved."""
    text = str(error)
    fault, place = _FAULT.search(text), _PLACE.search(text)
    what = fault[1] if fault else text.partition("\n")[0]
    return _Fault(what, int(place[1]) if place else None)


def _decode(token: Any) -> Any:
    """Header, claims and signature (in hex) of a JWT; None if it is not one."""
    if not isinstance(token, str) or len(token) > MOST_TOKEN:
        return None
    try:
        header, claims, signature = (_bytes(part) for part in token.split("."))
        parts = [_object(header), _object(claims), signature.hex()]
    except (ValueError, RecursionError):
        return None
    return parts if isinstance(parts[0], dict) and isinstance(parts[1], dict) else None


def _bytes(part: str) -> bytes:
    """Decode unpadded base64url strictly."""
    if "=" in part:
        raise binascii.Error("padded")
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _object(content: bytes) -> Any:
    """Parse strict JSON: no infinite or huge numbers, no lone surrogates."""
    value = json.loads(content.decode(), parse_constant=_no_number, parse_float=_number)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _number(text: str) -> float:
    value = float(text)
    return value if abs(value) < 1e300 else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]} is not a number")


def _is_signed(token: Any, key: Any) -> bool | None:
    """Whether `key`, a certificate or public key (PEM), made the ES256 signature; None if either is invalid."""
    import jwt  # noqa: PLC0415 - few policies look at signatures
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    parts = _decode(token)
    if parts is None or not isinstance(key, str):
        return None
    try:
        pem = key.encode()
        public = x509.load_pem_x509_certificate(pem).public_key() if "CERTIFICATE" in key else load_pem_public_key(pem)
        jwt.api_jws.decode(token, public, algorithms=["ES256"])  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        return False
    except Exception:  # an invalid certificate or key
        return None
    return True


def _certificates(pem: Any) -> list[dict[str, Any]] | None:
    """The fields of certificates (PEM) that policies can read: names, with the SPIFFE ID as URI, and times; or None."""
    from cryptography import x509  # noqa: PLC0415

    try:
        found = x509.load_pem_x509_certificates(pem.encode()) if len(pem) <= MOST_TOKEN else []
        return [_certificate(each) for each in found] or None
    except Exception:  # an invalid certificate
        return None


def _certificate(found: Any) -> dict[str, Any]:
    from cryptography import x509  # noqa: PLC0415

    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        "URIStrings": names.get_values_for_type(x509.UniformResourceIdentifier),
        "DNSNames": names.get_values_for_type(x509.DNSName),
        "NotBefore": found.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "NotAfter": found.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _load(policies: dict[str, _Policy], question: dict[str, Any]) -> dict[str, Any]:
    try:
        policies[question["load"]] = _Policy(question["text"], question["package"])
    except _Fault as fault:
        return {"error": fault.what, "line": fault.line}
    return {}


def _values(policies: dict[str, _Policy], question: dict[str, Any]) -> list[str]:
    values: list[str] = []
    for name in question["ask"]:
        try:
            values.append(policies[name].value(question["input"]))
        except _Fault as fault:  # the message may contain a value, so only the line is reported
            values.append(f"it cannot be evaluated: line {fault.line}")
        if values[-1] != "true":
            break
    return values


def _limit_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = mapped + MEMORY if most == resource.RLIM_INFINITY else min(mapped + MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no files
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # signals of a terminal; this process ends with its parent
    import regorus  # noqa: PLC0415, F401 - before the first question: it takes a while

    _limit_memory()
    policies: dict[str, _Policy] = {}
    with os.fdopen(os.dup(0), "wb", buffering=0) as answers, os.fdopen(0, "rb", closefd=False) as questions:
        answers.write(b"{}\n")
        for line in questions:
            signal.setitimer(signal.ITIMER_REAL, _LONGEST)
            question = json.loads(line)
            answer = _load(policies, question) if "load" in question else {"values": _values(policies, question)}
            signal.setitimer(signal.ITIMER_REAL, 0)
            answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _main()
    sys.exit(0)
