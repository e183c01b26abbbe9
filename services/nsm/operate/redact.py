"""Removes keys, tokens and passwords from what leaves a machine."""

from __future__ import annotations

import json
import re
from typing import Any

REMOVED = "(removed)"
_WORDS = r"(?:password|passwd|passphrase|secret|token|private_?key|pre_?shared_?key|psk|cookie|authorization)s?"
_NAMES = re.compile(rf"(?i){_WORDS}$")
_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_WHOLE = (
    re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"),  # JSON Web Tokens
    re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])"),  # keys of 32 bytes, such as WireGuard's
    re.compile(r"(?<=://)[^/\s:@\"']+:[^/\s@\"']+(?=@)"),  # user and password of a URL
)
_NAMED = re.compile(
    rf"(?i)([\w-]*{_WORDS}[\"']?\s*[:=]\s*)(?:(?:bearer|basic)\s+)?(?:\"[^\"]*\"|'[^']*'|[^\s,;&)}}\]\"']+)"
)
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}")


def text(value: str) -> str:
    """`value` without secrets: private keys in PEM or base64, JSON Web Tokens, and values that are named so."""
    value = _KEY.sub(REMOVED, value)
    for pattern in _WHOLE:
        value = pattern.sub(REMOVED, value)
    value = _BEARER.sub(rf"\g<1>{REMOVED}", value)
    return _NAMED.sub(rf"\g<1>{REMOVED}", value)


def plain(value: Any) -> Any:
    """JSON data without secrets: values whose keys are named as secrets, and what `text` removes from the others."""
    if isinstance(value, dict):
        if _NAMES.search(str(value.get("key", ""))):  # attributes of traces
            return {**value, "value": REMOVED}
        return {key: REMOVED if _is_secret(key, each) else plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return text(value) if isinstance(value, str) else value


def _is_secret(key: Any, value: Any) -> bool:
    return bool(_NAMES.search(str(key))) and isinstance(value, str | bytes | list | dict) and bool(value)


def lines(value: str) -> str:
    """Text of which lines may be JSON, such as a log, without secrets."""
    whole = _KEY.sub(REMOVED, value)
    return "\n".join(_line(line) for line in whole.split("\n"))


def _line(line: str) -> str:
    if line[:1] in {"{", "["}:
        try:
            return json.dumps(plain(json.loads(line)))
        except ValueError:
            pass
    return text(line)
