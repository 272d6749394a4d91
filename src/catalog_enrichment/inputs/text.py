"""Text cleaning: valid, normalised, of bounded length."""

from __future__ import annotations

import re
import unicodedata

_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters other than white space, and surrogates, which UTF-8 cannot encode."""

_NFC_SHRINKS = 4
"""NFC composes up to four code points into one (base letter and marks, Hangul)."""


def clean_text(raw: str | None, max_chars: int) -> str:
    """``raw`` without control characters and surrogates, in NFC, one space between words, at most ``max_chars`` long.

    Every script, emoji (with joiners) and right-to-left mark is kept. None gives the empty string. The result can
    always be encoded as UTF-8.
    """
    if not raw:
        return ""
    words = " ".join(_UNWANTED.sub("", raw).split())
    # truncated before NFC too: reordering a megabyte of combining marks takes time quadratic in its length.
    text = unicodedata.normalize("NFC", words[: _NFC_SHRINKS * max_chars])
    return text[:max_chars].rstrip()
