"""Which part of a text says a value."""

from __future__ import annotations

import re


def parts(text: str, evidence: str) -> tuple[str, str, str]:
    """Return the text before the first place of the evidence, that place, and the text behind it.

    The evidence is a quote of the cleaned text: how many spaces there are between its words does not count. Where it is
    not in the text, all of the text is the first part.
    """
    words = [re.escape(word) for word in evidence.split()]
    found = re.search(r"\s+".join(words), text) if words else None
    return (text[: found.start()], found.group(), text[found.end() :]) if found else (text, "", "")
