"""Commands that a job prints for people to run next, quoted for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

ANY_CONFIG = ("--config", "FILE")
"""Options of a command whose config file is not known."""


def command(job: str, options: Sequence[str], positionals: Sequence[str] = ()) -> str:
    """The command line of ``job``. Positional arguments that begin with a dash are not taken for options."""
    separator = ["--"] if any(word.startswith("-") for word in positionals) else []
    return " ".join(map(quoted, [job, *options, *separator, *positionals]))


def quoted(word: str) -> str:
    """``word`` as one word of a shell; with control or invisible characters in the form $'...' of bash and zsh."""
    return shlex.quote(word) if word.isprintable() else f"$'{''.join(map(_escaped, word))}'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"
