"""Facts (texts by name) in a registry that has no place for each: packed into a few tags, or behind a description.

Unity Catalog takes at most 50 tags of an object, values of at most 1,000 characters, and no ``. , - = / :`` in keys;
some pages of its documentation say the same of values, so that these have capitals and digits alone (base 32).
The facts are one compressed text, cut into pieces. The tag :data:`_HEAD` says which pieces count. Pieces are written
under new keys before it, and the old ones deleted after it, so that a process that is killed between leaves the facts
as they were, or as they are to be.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping

from catalog_enrichment.errors import ModelContractError

_HEAD, _PIECE = "catalog_enrichment", "catalog_enrichment_"
_LONGEST = 1000
_CHANGED = "cannot be read: somebody changed it, and it has what the jobs keep. Use another version"
MOST_PIECES = 24
"""So that the old and the new ones are fewer than 50 tags."""
_BEHIND = re.compile(r"\s*<!-- catalog-enrichment (\w*) -->")
_LONGEST_TEXT = 65_535
"""Characters that an open-source server takes as a description."""


def to_tags(facts: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that hold ``facts``, in the order in which they are to be set; ``before``: the tags so far.

    Raises ModelContractError for facts that do not fit.
    """
    text = _packed(facts)
    pieces = [text[start : start + _LONGEST] for start in range(0, len(text), _LONGEST)]
    if len(pieces) > MOST_PIECES:
        raise ModelContractError(
            f"what is kept with a model version has {len(text):,} characters, and Unity Catalog's tags hold "
            f"{MOST_PIECES * _LONGEST:,}: a version of fewer attributes fits"
        )
    generation = 1 - _head(before)[0]
    named = {f"{_PIECE}{generation}_{number}": piece for number, piece in enumerate(pieces)}
    return named | {_HEAD: f"{generation} {len(pieces)}"}


def outdated(before: Mapping[str, str], stored: Mapping[str, str]) -> list[str]:
    """Return the keys of pieces in ``before`` that count no more after ``stored`` was set."""
    return [key for key in before if key.startswith(_PIECE) and key not in stored]


def of_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the facts that tags hold; none where :func:`to_tags` has written none."""
    if _HEAD not in tags:
        return {}
    try:
        generation, count = _head(tags)
        return _unpacked("".join(tags[f"{_PIECE}{generation}_{number}"] for number in range(count)))
    except (KeyError, ValueError, zlib.error):
        raise ModelContractError(f"its tags {_HEAD}* {_CHANGED}") from None


def to_text(description: str, facts: Mapping[str, str]) -> str:
    """Return a description with ``facts`` behind it, in a comment of Markdown.

    Raises ModelContractError for facts that do not fit.
    """
    text = f"{description}\n\n<!-- catalog-enrichment {_packed(facts)} -->"
    if len(text) > _LONGEST_TEXT:
        raise ModelContractError(
            f"what is kept with a model version has {len(text):,} characters, and the description of an open-source "
            f"Unity Catalog holds {_LONGEST_TEXT:,}: a version of fewer attributes fits"
        )
    return text


def of_text(description: str | None) -> dict[str, str]:
    """Return the facts behind a description; none where there are none."""
    found = _BEHIND.findall(description or "")
    try:
        return _unpacked(found[-1]) if found else {}
    except (ValueError, zlib.error):
        raise ModelContractError(f"the comment behind its description {_CHANGED}") from None


def without(description: str | None) -> str:
    """Return a description without the facts behind it."""
    return _BEHIND.sub("", description or "")


def _head(tags: Mapping[str, str]) -> tuple[int, int]:
    """Return the generation of the pieces that count, and their number."""
    generation, count = tags.get(_HEAD, "1 0").split()
    return int(generation), int(count)


def _packed(facts: Mapping[str, str]) -> str:
    return base64.b32encode(zlib.compress(json.dumps(facts, sort_keys=True).encode(), 9)).decode().rstrip("=")


def _unpacked(text: str) -> dict[str, str]:
    facts: dict[str, str] = json.loads(zlib.decompress(base64.b32decode(text + "=" * (-len(text) % 8))))
    return facts
