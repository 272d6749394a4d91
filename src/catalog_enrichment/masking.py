"""Masks secrets in what leaves the program: messages, progress, tables, MLflow; and control characters for a terminal.

A secret is known by its place: user and password of a URI, the path of a web hook's address, a parameter or setting
whose name says so (`token=`, `fs.s3a.secret.key`), an environment variable with such a name. Secrets of the config and
of the environment are masked wherever they occur; a secret that only a message or a feed has is masked in such a place.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import chain
from typing import Any, TextIO
from urllib.parse import unquote

MASK = "***"

USER_AND_PASSWORD = (
    r"://(?:[^/\s\"'<>]*@|[^/:@\[\s\"'<>]{1,200}:(?!\d{1,5}/)[^/@\s\"'<>]{0,300}/[^@\s\"'<>]{0,300}@"
    r"(?:[^/\s\"'<>]*@)?)"
)
"""In a URI, from the slashes on. A password may have slashes, if it is not a port. Patterns are valid in Python and in
Java, and their repeats are bounded: a text of a megabyte that a merchant wrote must not take hours."""
_NAME = (
    r"secret|passw(?:or)?d|credential|token(?!iz|s)|signature|(?:access|account|api|shared|private)[._-]?key|\bsig\b"
    r"|webhook"
)
_AUTHORIZATION = r"authorization[\"']?\s*[:=]\s*[\"']?(?:[a-z][\w-]*\s+(?=\S{6}))?"
NAMED_VALUE = (
    rf"(?i)((?:{_NAME})[\w.-]{{0,100}}[\"']?(?:\s*=\s*|[\"']\s*:\s*)[\"']?|{_AUTHORIZATION})"
    r"[^\s&;,\"'()<>\[\]{}]+"
)
"""A value after a name that tells a secret: `X-Amz-Signature=...`, `"token": "..."`, `Authorization: Bearer ...`. The
first group remains."""
_IN_ADDRESS = r"[^\s\"'<>?#]"
WEB_HOOK = (
    r"(?i)(https?://(?:(?:[\w-]{1,63}\.){0,8}(?:web-?)?hooks?(?:\.[\w-]{1,63}){1,8}(?::\d{1,5})?/"
    rf"|{_IN_ADDRESS}{{1,300}}?/(?:[\w-]{{0,30}}webhook\w{{0,9}}/|hooks/(?=[a-z0-9]{{16}})|bot(?=\d{{5,20}}:))))"
    rf"{_IN_ADDRESS}+"
)
"""The address of a web hook, whose path is its password: `https://hooks.slack.com/services/...`, Teams, Discord,
Mattermost, Telegram. The first group remains."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", flags=re.DOTALL
)
_SECRET_NAME = re.compile(rf"(?i){_NAME}|authorization|[._-]key\b")
_FEWEST_CHARACTERS = 6
"""A shorter value is masked in its place only, not wherever its characters occur."""
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move a terminal's cursor, change colours, start a new line or turn the reading direction."""


_secrets_of_jobs: list[Collection[str]] = []
"""The secrets of the jobs that this process is running (:func:`masked_output`)."""


def masked(text: str, secrets: Collection[str] = ()) -> str:
    """Return ``text`` without secrets: those known by their place, ``secrets``, and the secrets of the running job."""
    for secret in sorted({*secrets, *chain(*_secrets_of_jobs)}, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _PRIVATE_KEY.sub(MASK, text)
    text = re.sub(USER_AND_PASSWORD, f"://{MASK}@", text)
    return re.sub(NAMED_VALUE, rf"\1{MASK}", re.sub(WEB_HOOK, rf"\1{MASK}", text))


def tells_secret(name: str) -> bool:
    """Return whether a setting with this name, or dotted key, holds a secret."""
    return _SECRET_NAME.search(name) is not None


def masked_content(content: Any, secrets: Collection[str] = (), name: str = "") -> Any:
    """Return plain data with every text :func:`masked`, and every value whole whose ``name`` tells a secret."""
    if isinstance(content, Mapping):
        return {
            masked(key, secrets) if isinstance(key, str) else key: masked_content(value, secrets, str(key))
            for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [masked_content(value, secrets, name) for value in content]
    if not isinstance(content, str):
        return content
    return MASK if content and tells_secret(name) else masked(content, secrets)


def secrets_in(content: Any, name: str = "") -> frozenset[str]:
    """Return the secrets in plain data, for example a config, in every form in which they are printed."""
    if isinstance(content, Mapping):
        return frozenset().union(*(secrets_in(value, str(key)) for key, value in content.items()))
    if isinstance(content, list | tuple):
        return frozenset().union(*(secrets_in(value, name) for value in content))
    if not isinstance(content, str):
        return frozenset()
    found = [content] if tells_secret(name) else []
    for match in re.finditer(USER_AND_PASSWORD, content):
        user, _, password = match[0][3:-1].partition(":")
        found.append(password or user)
    for pattern in (NAMED_VALUE, WEB_HOOK):
        found += [match[0][len(match[1]) :] for match in re.finditer(pattern, content)]
    return frozenset(text for value in found for text in _forms(value) if len(text) >= _FEWEST_CHARACTERS)


def _forms(secret: str) -> Iterator[str]:
    """Yield the secret as it is, decoded from a URI, escaped as in JSON and in Python, and line by line."""
    yield from (secret, unquote(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1])
    yield from secret.splitlines()


def printable(text: str) -> str:
    """Replace control characters, which a terminal would obey, by question marks; tab and line feed stay."""
    return _CONTROL.sub("?", text)


@contextmanager
def masked_output(secrets: Collection[str]) -> Iterator[None]:
    """Mask ``secrets``, which may grow, in what this process prints inside the block, libraries included, and wherever
    :func:`masked` is called."""
    _secrets_of_jobs.append(secrets)
    try:
        with redirect_stdout(_Masked(sys.stdout)), redirect_stderr(_Masked(sys.stderr)):
            yield
    finally:
        _secrets_of_jobs.pop()


class _Masked:
    """A text stream that masks what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Collection[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
