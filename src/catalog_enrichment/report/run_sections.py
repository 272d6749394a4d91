"""Sections of the page of a run, from rows of `runs` alone: coverage, values that the dictionary lacks, backfills."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from catalog_enrichment.catalog import coverage_groups
from catalog_enrichment.catalog.coverage_groups import BY, CHANGE_KEY, COVERAGE_KEY, Groups, from_rows
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.enrichment import outcomes
from catalog_enrichment.enrichment.outcomes import REASONS_KEY
from catalog_enrichment.monitoring.stages import add_seconds
from catalog_enrichment.reasons import DRIFT_KEY, PAUSED_KEY, UNSEEN_KEY, RunAttributes
from catalog_enrichment.records import add_counts
from catalog_enrichment.validation.by_shop import KEY, UNMAPPED, merged
from catalog_enrichment.values.spelling import spelling

# --- coverage per category and per shop ------------------------------------------------------------------------------

SHOWN_GROUPS = 12
"""Rows per table; the others are summed."""

_TITLES = {"category": "categories", "shop": "shops"}


def coverage_tables(attributes: RunAttributes) -> list[dict[str, Any]]:
    """Return a table per category and a table per shop, before and after the run; [] where it has no such numbers.

    Rows are about a group and an attribute: most changed first, then most products without a value. The rows that are
    not shown are summed per attribute.
    """
    if COVERAGE_KEY not in attributes:
        return []
    after, change = from_rows(attributes[COVERAGE_KEY]["groups"]), from_rows(attributes.get(CHANGE_KEY, {}))
    found = [_coverage_table(by, after, change) for by in BY]
    return [table for table in found if table["rows"]]


def _coverage_table(by: str, after: Groups, change: Groups) -> dict[str, Any]:
    keys = {(name, attribute) for kind, name, attribute, _ in [*after, *change] if kind == by}
    rows = {(name, attribute): _group(by, name, attribute, after, change) for name, attribute in keys}
    named = sorted((key for key in rows if key[0] is not None), key=lambda key: (*_weakest(rows[key]), key))
    rest: dict[str, Counter[str]] = {}
    for key in (key for key in rows if key not in named[:SHOWN_GROUPS]):
        rest.setdefault(key[1], Counter()).update(rows[key])
    return {
        "title": _TITLES[by],
        "heading": by,
        "rows": [_coverage_row(name or f"no {by}", of, rows[name, of]) for name, of in named[:SHOWN_GROUPS]],
        "rest": [_coverage_row(f"other {_TITLES[by]}", of, numbers) for of, numbers in sorted(rest.items())],
    }


def _group(by: str, name: str | None, attribute: str, after: Groups, change: Groups) -> Counter[str]:
    numbers: Counter[str] = Counter()
    for has_value, kind in ((False, "applicable"), (True, "covered")):
        number = after.get((by, name, attribute, has_value), 0)
        numbers[kind] = number
        numbers[f"{kind}_before"] = number - change.get((by, name, attribute, has_value), 0)
    return numbers


def _weakest(numbers: Mapping[str, int]) -> tuple[int, int]:
    """Return a key that sorts most changed groups first, then most products without a value."""
    return -abs(numbers["covered"] - numbers["covered_before"]), numbers["covered"] - numbers["applicable"]


def _coverage_row(name: str, attribute: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    before, after = (
        numbers[f"covered{when}"] / numbers[f"applicable{when}"] if numbers[f"applicable{when}"] else None
        for when in ("_before", "")
    )
    return {
        "name": name,
        "attribute": attribute,
        "products": numbers["applicable"],
        "more": numbers["covered"] - numbers["covered_before"],
        "before": before,
        "after": after,
        "start": min(before or 0.0, after or 0.0),
        "gain": max((after or 0.0) - (before or 0.0), 0.0),
    }


# --- merchants' values that the dictionary lacks ---------------------------------------------------------------------

SHOWN_VALUES = 20
"""Values per attribute."""

NEAR = 0.8
"""Similarity (difflib, 0..1) from which a canonical value is a guess: "navi blue" is near "Navy Blue", "wood" is not
near "Wool"."""

MOST_SPELLINGS = 20_000
"""Spellings of an attribute; of more nothing is guessed, since every spelling is compared."""

DEFAULT_LANGUAGE = "en"
"""The language of suggested aliases for products without a language: every alias needs a language, and is looked up in
all languages."""


def unmapped_values(imported: RunAttributes, dictionary: Dictionary) -> list[dict[str, Any]]:
    """Return per attribute the most frequent merchants' values that it lacks, each with a guess or None.

    The guess is the nearest canonical value; for a number or a text there is ``why`` it is none. ``imported``: the
    column `attributes` of an import. ``snippet``: the guesses as a part of the dictionary's file, "" without any.
    Values that have become canonical or aliases since the import are left out.
    """
    found = []
    for name, values in imported.get(UNMAPPED, {}).items():
        if name not in dictionary:
            continue
        attribute = dictionary[name]
        rows = [
            {"value": value, "language": language or DEFAULT_LANGUAGE, "products": products}
            for value, language, products in values
            if attribute.canonical(value, language) is None
        ]
        if rows := rows[:SHOWN_VALUES]:
            rows = [row | _about_value(attribute, row["value"], row["language"]) for row in rows]
            found.append({"name": name, "values": rows, "snippet": _snippet(name, rows)})
    return found


def _about_value(attribute: Attribute, value: str, language: str) -> dict[str, str | None]:
    why = attribute.why_not(value, language) if attribute.is_open else None
    return {"guess": nearest(attribute, value, language), "why": why}


def nearest(attribute: Attribute, value: str, language: str | None = None) -> str | None:
    """Return the canonical value with the most similar spelling; None where none is near."""
    if attribute.is_open:
        return None
    spellings = attribute.spellings(language)
    if len(spellings) > MOST_SPELLINGS or not (folded := spelling(value, language)):
        return None
    close = difflib.get_close_matches(folded, spellings, n=1, cutoff=NEAR)
    return spellings[close[0]] if close else None


def _snippet(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return ``aliases`` in JSON as the dictionary's file has them, of the ``rows`` with a guess; "" without any."""
    aliases: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["guess"] is not None:
            aliases.setdefault(row["language"], {})[row["value"]] = row["guess"]
    return json.dumps({"name": name, "aliases": aliases}, indent=2, ensure_ascii=False) if aliases else ""


# --- a backfill: its chunks added up ---------------------------------------------------------------------------------

Row = Mapping[str, Any]
"""A row of `runs`."""

_SUMMED = ("written", "values_written", "suggested", "abstained", "retracted")


def backfill_row(backfill: Row, chunks: Sequence[Row]) -> dict[str, Any]:
    """Return the row of a backfill with the counts, attributes and seconds of its chunks.

    ``chunks``: their rows in `runs`, in the order in which they finished; coverage is that before the first and after
    the last.
    """
    attributes = [json.loads(chunk["attributes"] or "{}") for chunk in chunks]
    return {
        **backfill,
        "counts": add_counts(*(dict(chunk["counts"] or {}) for chunk in chunks)),
        "attributes": json.dumps(_added(attributes)),
        "seconds": add_seconds(*(dict(chunk["seconds"] or {}) for chunk in chunks)),
        "stages": [],
    }


def _added(chunks: Sequence[RunAttributes]) -> dict[str, Any]:
    certificates = {issued["certificate_id"]: issued for chunk in chunks for issued in chunk.get("certificates", ())}
    slices = [chunk.get(UNSEEN_KEY, {}) for chunk in chunks]
    found: dict[str, Any] = {
        "decisions": _decisions([chunk.get("decisions", {}) for chunk in chunks]),
        "certificates": list(certificates.values()),
        "waiting": add_counts(*(chunk.get("waiting", {}) for chunk in chunks)),
        CHANGE_KEY: coverage_groups.to_rows(_added_changes(chunks)),
        KEY: merged([chunk[KEY] for chunk in chunks if KEY in chunk]),
        DRIFT_KEY: {"pauses": [pause for chunk in chunks for pause in chunk.get(DRIFT_KEY, {}).get("pauses", [])]},
        PAUSED_KEY: list(dict.fromkeys(line for chunk in chunks for line in chunk.get(PAUSED_KEY, []))),
        UNSEEN_KEY: {
            name: add_counts(*(of.get(name, {}) for of in slices))
            for name in dict.fromkeys(name for of in slices for name in of)
        },
    }
    return found | ({COVERAGE_KEY: chunks[-1][COVERAGE_KEY]} if chunks and COVERAGE_KEY in chunks[-1] else {})


def _added_changes(chunks: Iterable[RunAttributes]) -> Groups:
    total: Counter[tuple[str, str | None, str, bool]] = Counter()
    for chunk in chunks:
        total.update(from_rows(chunk.get(CHANGE_KEY, {})))
    return {key: number for key, number in total.items() if number}


def _decisions(chunks: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in sorted({name for chunk in chunks for name in chunk}):
        rows = [chunk[name] for chunk in chunks if name in chunk]
        found[name] = {
            **{kind: sum(row.get(kind) or 0 for row in rows) for kind in _SUMMED},
            REASONS_KEY: outcomes.added(*(row.get(REASONS_KEY, {}) for row in rows)),
            "merchant": rows[-1].get("merchant"),
            "coverage_before": rows[0].get("coverage_before"),
            "coverage_after": rows[-1].get("coverage_after"),
        }
    return found


_OF_A_CHUNK = ("written", "values_written", "retracted")


def chunk_rows(chunks: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table of chunks: run id, finished, products, predicted, written, retracted and seconds of each."""
    rows = []
    for chunk in chunks:
        decisions = json.loads(chunk["attributes"] or "{}").get("decisions", {}).values()
        counts = dict(chunk["counts"] or {})
        rows.append(
            {
                **{name: chunk[name] for name in ("run_id", "finished_at")},
                **{name: counts.get(name, 0) for name in ("products", "predicted")},
                **{name: sum(of.get(name) or 0 for of in decisions) for name in _OF_A_CHUNK},
                "seconds": sum(dict(chunk["seconds"] or {}).values()),
            }
        )
    return rows
