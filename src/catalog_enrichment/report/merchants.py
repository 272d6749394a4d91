"""For the merchants and the dictionary: values that the dictionary lacks, and what each shop should correct.

From what an import and a run keep in `runs.attributes`; pure functions.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from catalog_enrichment.dictionary import Attribute, Dictionary, fold
from catalog_enrichment.records import Reason
from catalog_enrichment.validation.by_shop import KEY, UNMAPPED, merged

SHOWN_VALUES = 20
"""Values per attribute."""

SHOWN_SHOPS = 12
SHOWN_PROBLEMS = 5
"""Per shop."""

NEAR = 0.8
"""Similarity (difflib, 0..1) from which a canonical value is a guess: "navi blue" is near "Navy Blue", "wood" is not
near "Wool"."""

MOST_SPELLINGS = 20_000
"""Spellings of an attribute; of more nothing is guessed, since every one is compared."""

DEFAULT_LANGUAGE = "en"
"""Of aliases from products without a language: the dictionary needs one, and looks them up in all."""


def unmapped(imported: Mapping[str, Any], dictionary: Dictionary) -> list[dict[str, Any]]:
    """Per attribute the most frequent merchants' values that it lacks, each with the nearest canonical value or None.

    ``imported``: the column `attributes` of an import. ``snippet``: the guesses as a part of the dictionary's file, ""
    without any. Values that have become canonical or aliases since the import are left out.
    """
    found = []
    for name, values in imported.get(UNMAPPED, {}).items():
        if name not in dictionary:
            continue
        attribute = dictionary[name]
        known = attribute.spellings()
        rows = [
            {"value": value, "language": language or DEFAULT_LANGUAGE, "products": products}
            for value, language, products in values
            if fold(value) not in known
        ]
        if rows := rows[:SHOWN_VALUES]:
            rows = [row | {"guess": nearest(attribute, row["value"], row["language"])} for row in rows]
            found.append({"name": name, "values": rows, "snippet": snippet(name, rows)})
    return found


def nearest(attribute: Attribute, value: str, language: str | None = None) -> str | None:
    """The canonical value with the most similar spelling; None where none is near."""
    spellings = attribute.spellings(language)
    if len(spellings) > MOST_SPELLINGS or not (folded := fold(value)):
        return None
    close = difflib.get_close_matches(folded, spellings, n=1, cutoff=NEAR)
    return spellings[close[0]] if close else None


def snippet(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """JSON with ``aliases`` as the dictionary's file has them, of the ``rows`` with a guess; "" without any."""
    aliases: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["guess"] is not None:
            aliases.setdefault(row["language"], {})[row["value"]] = row["guess"]
    return json.dumps({"name": name, "aliases": aliases}, indent=2, ensure_ascii=False) if aliases else ""


_FEED = "correct the feed and send it again"
_PICTURE = "send a usable picture: the product is scored by its text alone, and fewer values are written"

_ADVICE = {
    Reason.UNPARSEABLE_ROW: ("rows that cannot be parsed", _FEED),
    Reason.MISSING_ID: ("rows without a product id", _FEED),
    Reason.DUPLICATE_ID: ("rows with a product id that is there twice", "give every product its own id"),
    Reason.EMPTY_TITLE: ("rows without a title", "give every product a title"),
    Reason.TEXT_TOO_LONG: ("rows with a text that is too long", "shorten title and description"),
    Reason.NO_IMAGE: ("products without a picture", _PICTURE),
    Reason.IMAGE_UNREACHABLE: ("pictures that could not be reached", "check that the picture's server answers"),
    Reason.IMAGE_MISSING: ("pictures that are not where the feed says", "correct the address of the picture"),
    Reason.IMAGE_EMPTY: ("pictures without bytes", _PICTURE),
    Reason.IMAGE_TRUNCATED: ("pictures that are cut off", _PICTURE),
    Reason.IMAGE_NOT_AN_IMAGE: ("files that are not pictures", _PICTURE),
    Reason.IMAGE_TOO_LARGE: ("pictures that are too large", "send a smaller picture"),
    Reason.IMAGE_UNREADABLE: ("pictures that cannot be decoded", _PICTURE),
    Reason.DISAGREES_WITH_MERCHANT: (
        "products whose {attribute} differs from what title and picture show",
        "check the value: export_suggestions lists them",
    ),
    Reason.BELOW_THRESHOLD: (
        "products whose title and picture do not show the {attribute}",
        "name the {attribute} in the title or description, or give it as a value",
    ),
    UNMAPPED: (
        "values of {attribute} that the dictionary lacks",
        "use a value of the list, or ask for the spelling as an alias",
    ),
}
"""Problem -> what the shop's products have, and what the merchant should do. Others are not the merchant's to solve."""


def shops(*attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The shops with the most problems, of the columns `attributes` of the import and the run; {} without any.

    Keys ``rows``: per shop its most frequent problems with what to do, and how many more it has; ``others``: the
    number of the other shops, and ``other_problems`` theirs.
    """
    counted = merged([of[KEY] for of in attributes if KEY in of])
    advised = {
        shop: {
            problem: number for problem, number in problems.items() if problem.partition(".")[0] in _ADVICE and number
        }
        for shop, problems in counted["shops"].items()
    }
    order = sorted((shop for shop in advised if advised[shop]), key=lambda shop: (-sum(advised[shop].values()), shop))
    rows = [{"shop": shop, **_problems(advised[shop])} for shop in order[:SHOWN_SHOPS]]
    others = counted["others"]["problems"]
    hidden = sum(sum(advised[shop].values()) for shop in order[SHOWN_SHOPS:])
    hidden += sum(number for problem, number in others.items() if problem.partition(".")[0] in _ADVICE)
    number = len(order[SHOWN_SHOPS:]) + counted["others"]["shops"]
    return {"rows": rows, "others": number, "other_problems": hidden} if rows else {}


def _problems(problems: Mapping[str, int]) -> dict[str, Any]:
    order = sorted(problems, key=lambda problem: (-problems[problem], problem))
    shown = [{"number": problems[problem], **_advice(problem)} for problem in order[:SHOWN_PROBLEMS]]
    return {"problems": shown, "more": sum(problems[problem] for problem in order[SHOWN_PROBLEMS:])}


def _advice(problem: str) -> dict[str, str]:
    reason, _, attribute = problem.partition(".")
    what, to_do = _ADVICE[reason]  # a Reason is its text
    return {"what": what.replace("{attribute}", attribute), "to_do": to_do.replace("{attribute}", attribute)}
