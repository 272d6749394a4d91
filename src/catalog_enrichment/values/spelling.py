"""What two spellings of one value have in common."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
"""Control characters and those of zero width."""
_LAST_MARK = 0x1FFFF
"""The combining marks of scripts are up to here; those above choose variants of a character."""
_KEPT_PUNCTUATION = frozenset("#*%")
_KEPT_AT_DIGITS = frozenset(".,/:-'\"")
SAME_SIGNS = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
    | dict.fromkeys("\u2018\u2019\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u2033", '"')
    | dict.fromkeys("\u00a9\u00ae\u2120\u2122", " ")
)
"""Hyphens, the en dash and the minus are one sign each, as are single and double quotes and primes; the signs of
copyrights and trademarks are spaces: LEGO® is LEGO."""
UNSPACED = (
    "\u3005-\u3007\u3041-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0edf"
    "\u1000-\u1049\u1050-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd\u17e0-\u17e9"
)
"""Characters of scripts without spaces (kana, Han, Thai, Lao, Burmese, Khmer), as ranges of a regular expression; their
punctuation marks, such as the middle dot, are not among them, and half-width kana are only after NFKC."""
TURKIC = ("tr", "az")
"""The languages that have a dotted and a dotless i."""


def fold(text: str) -> str:
    """Return the words of a text for searching: NFKC, case-folded, a space for runs of spaces and punctuation.

    Different values can have the same words (A and A+); :func:`spelling` tells them apart.
    """
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def spelling(text: str, language: str | None = None) -> str:
    """Return what two spellings of one value have in common: the same for "Navy-Blue" and "navy blue".

    Unicode NFKC and case folding, with Turkish dotted and dotless i where ``language`` has them; soft hyphens and
    zero-width characters are dropped. Signs that carry meaning stay: symbols such as + < > $, combining marks, # * %,
    . , / : - and quotes beside digits, and - at the end of a word. Hyphens, the en dash and the minus are one sign.
    Runs of spaces, of © ® ™ and of other punctuation are one space; a text of nothing else stays as it is.
    """
    plain = _INVISIBLE.sub("", text).translate(SAME_SIGNS)
    if primary_language(language) in TURKIC:
        plain = plain.replace("I", "\u0131").replace("\u0130", "i")
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    if plain.isascii() and plain.replace(" ", "").isalnum():
        return " ".join(plain.split())
    kept = [char if carries_meaning(plain, place) else " " for place, char in enumerate(plain)]
    return " ".join("".join(kept).split()) or " ".join(plain.split())


def text_key(text: str) -> str:
    """Return what the spellings of one text have in common: :func:`spelling` without spaces."""
    return spelling(text).replace(" ", "")


def without_invisible(text: str) -> str:
    """Return a text without control characters and characters of zero width, such as marks of the writing direction."""
    return _INVISIBLE.sub("", text)


def primary_language(language: str | None) -> str | None:
    """Return the first part of a language tag, in lower case: tr for tr-TR and TR."""
    return language and re.split("[-_]", language.lower(), maxsplit=1)[0]


@cache
def combining_marks() -> str:
    """Return the marks that belong to the letter before them: the vowel signs of Devanagari, Thai and Arabic, accents
    that stand apart from their letter. Python's ``\\w`` leaves them out."""
    return "".join(char for char in map(chr, range(_LAST_MARK + 1)) if unicodedata.category(char)[0] == "M")


def says_something(text: str) -> bool:
    """Return whether a text is more than spaces and punctuation."""
    return any(carries_meaning(text, place) for place in range(len(text)))


def carries_meaning(text: str, place: int) -> bool:
    """Return whether the character at ``place`` tells values apart, so that :func:`spelling` keeps it."""
    char = text[place]
    kind = unicodedata.category(char)
    if kind[0] in "LNMS" or char in _KEPT_PUNCTUATION:
        return True
    if char not in _KEPT_AT_DIGITS:
        return False
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if char in "'\"":  # feet and inches
        return before.isdigit()
    if before.isdigit() and after.isdigit():
        return True
    if char == "-" and text[:place].rstrip("-")[-1:].isalnum() and not text[place:].lstrip("-")[:1].isalnum():
        return True  # the grade A-
    if char == "-" and not text[:place].strip(" (") and text[place + 1 :].strip()[:1].isdigit():
        return True  # the sign of a number at the beginning, also in brackets and before a space
    return char in "-." and after.isdigit() and not before.strip()  # a sign, or .5
