"""The tables `audits`, `verdicts` and `confirmations`, read and written here alone: what was drawn for reviewers, their
verdicts, and the certificates that an audit has confirmed.

All three are append-only. Rows of a run that was killed do not count; it writes them when it is started again. Of
several verdicts about one item, the verdict of the run that finished last counts: an adjudicator may have decided
since. Verdicts that a rolled back run ingested do not count, and are not ingested again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import runs
from catalog_enrichment.records import RunKind

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Dictionary

AUDITS, VERDICTS, CONFIRMATIONS = "audits", "verdicts", "confirmations"

Row = dict[str, Any]

Key = tuple[str, str, str]
"""Product id, attribute, value."""

Pair = tuple[str, str]
"""Product id, attribute."""

PAIR = ["product_id", "attribute"]
"""The columns of a :data:`Pair`."""

JudgedValues = Mapping[tuple[str, str, str], tuple[int, int]]
"""Certificate id, attribute and value -> products that were judged, and those for which the value is wrong."""

OF_MANAGERS = "suggestions"
"""Purpose (audit.review_records.Purpose) of the verdicts of shops' managers on suggestions."""

OF_WRITTEN, UNIFORM = "audit", "uniform"
"""Purpose and stratum of the verdicts on values that were drawn uniformly from those that were written."""

GOLD = "gold"
"""Purpose of the verdicts on gold samples."""

CANNOT_TELL = "cannot_tell"
"""The answer (audit.review_records.Answer) that says nothing about the value."""

WRONG = frozenset({"no", "other", "none"})
"""Answers (audit.review_records.Answer) that say that the value is wrong."""


def pair_of(row: Mapping[str, Any]) -> Pair:
    """Return the product id and the attribute that ``row`` is about."""
    return (row["product_id"], row["attribute"])


def drawn(catalog: Catalog, sample_ids: Collection[str] | None = None) -> list[Row]:
    """Return rows of `audits` of samples that are complete, in the order of the runs and of the draw."""
    order = _finished(catalog)
    rows = [row for row in _rows(catalog, AUDITS) if row["run_id"] in order]
    if sample_ids is not None:
        rows = [row for row in rows if row["sample_id"] in sample_ids]
    return sorted(rows, key=lambda row: (order[row["run_id"]], row["draw_order"]))


def sample_windows(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Return the id of each run of audit_sample -> its request (audit.draws.DrawRequest)."""
    known = runs.rows(catalog, ["run_id", "kind", "window", "finished_at"])
    samples = [row for row in known if row["kind"] == RunKind.SAMPLE.value]
    return {row["run_id"]: json.loads(row["window"] or "{}") for row in samples}


def of_one_run(windows: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Return the ids in :func:`sample_windows` of the runs that drew only what one run had written or decided."""
    return frozenset(run_id for run_id, window in windows.items() if window.get("run_id"))


def ingested(catalog: Catalog) -> dict[str, Row]:
    """Return item id -> the verdict that was ingested last, also by a run that was rolled back since."""
    return {row["item_id"]: row for row in _ingested_rows(catalog)}


def newest(catalog: Catalog) -> dict[str, Row]:
    """Return item id -> the verdict that counts: the newest, without those that a rolled back run ingested."""
    return {row["item_id"]: row for row in _not_rolled_back(catalog, _ingested_rows(catalog))}


def refused(catalog: Catalog) -> set[Key]:
    """Return the values that people found wrong, with their product and attribute: they are not written again."""
    return refused_values(newest(catalog).values(), catalog.dictionary)


def refused_values(rows: Iterable[Mapping[str, Any]], dictionary: Dictionary) -> set[Key]:
    """Return the values that ``rows``, one verdict per item, refuse.

    Several items, of several samples, may be about one value. It is refused if one of them says that it is wrong:
    another item's yes does not lift that, nor somebody who cannot tell. Only a changed verdict on the same item does,
    and the later accept of a manager. ``dictionary``: says whether that is the same value.
    """
    wrong: dict[Key, Any] = {}
    accepted: defaultdict[Pair, dict[str, Any]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row["settled_at"]):
        key = (*pair_of(row), row["value"])
        if is_wrong(row):
            wrong[key] = row["settled_at"]
        elif row["answer"] == "yes" and row["purpose"] == OF_MANAGERS:
            accepted[key[:2]][key[2]] = row["settled_at"]

    def is_lifted(key: Key) -> bool:
        later = (value for value, at in accepted.get(key[:2], {}).items() if at >= wrong[key])
        return any(dictionary.is_same(key[1], key[2], value) for value in later)

    return {key for key in wrong if key[2] and not is_lifted(key)}


def is_refused(key: Key, refused: Collection[Key], dictionary: Dictionary) -> bool:
    """Return whether a value is among the ``refused`` values, by the kind of its attribute."""
    if key in refused or key[1] not in dictionary.open_attributes:
        return key in refused
    return any(key[:2] == other[:2] and dictionary.is_same(key[1], key[2], other[2]) for other in refused)


def is_wrong(verdict: Mapping[str, Any]) -> bool:
    """Return whether the value of the item is wrong; a reviewer may have named it again among the right values."""
    return verdict["answer"] in WRONG and verdict["value"] not in verdict["right_values"]


def confirmations(catalog: Catalog) -> dict[str, Row]:
    """Return the id of each certificate that an audit has confirmed -> the newest row of `confirmations` about it.

    Rows of runs that were rolled back are left out.
    """
    order = _finished(catalog) if catalog.version(CONFIRMATIONS) >= 0 else {}
    rows = [row for row in _rows(catalog, CONFIRMATIONS) if row["run_id"] in order] if order else []
    rows.sort(key=lambda row: order[row["run_id"]])
    return {row["certificate_id"]: row for row in _not_rolled_back(catalog, rows)}


def judged_values(catalog: Catalog) -> JudgedValues:
    """Return how often each written value was judged and wrong, of what was drawn uniformly. A product counts once for
    a value of a certificate, with its last verdict; verdicts of people who could not tell do not count."""
    if catalog.version(VERDICTS) < 0 or catalog.version(AUDITS) < 0:
        return {}
    verdicts, answers = newest(catalog), {}
    for row in drawn(catalog):
        verdict = verdicts.get(row["item_id"])
        if verdict is None or verdict["answer"] == CANNOT_TELL:
            continue
        if row["purpose"] == OF_WRITTEN and row["stratum"] == UNIFORM and row["certificate_id"]:
            answers[row["certificate_id"], row["attribute"], row["value"], row["product_id"]] = is_wrong(verdict)
    found: dict[tuple[str, str, str], tuple[int, int]] = {}
    for (*key, _), wrong in answers.items():
        judged, of_them_wrong = found.get((key[0], key[1], key[2]), (0, 0))
        found[key[0], key[1], key[2]] = (judged + 1, of_them_wrong + wrong)
    return found


def confirmed(catalog: Catalog) -> frozenset[str]:
    """Return the ids of the certificates that an audit has confirmed."""
    return frozenset(confirmations(catalog))


def _ingested_rows(catalog: Catalog) -> list[Row]:
    """Return the verdicts of finished runs, in the order in which they count."""
    if catalog.version(VERDICTS) < 0:
        return []
    order = _finished(catalog)
    rows = [row for row in _rows(catalog, VERDICTS) if row["run_id"] in order]
    return sorted(rows, key=lambda row: (order[row["run_id"]], row["settled_at"]))


def _not_rolled_back(catalog: Catalog, rows: Sequence[Row]) -> list[Row]:
    """Return those of ``rows``, with ``run_id`` and ``attribute``, whose run was not rolled back."""
    undone = runs.rolled_back(catalog, sorted({row["attribute"] for row in rows})) if rows else {}
    return [row for row in rows if row["run_id"] not in undone.get(row["attribute"], ())]


def _rows(catalog: Catalog, table: str, columns: Sequence[str] | None = None) -> list[Row]:
    return [row for batch in catalog.scan(table, columns) for row in batch.to_pylist()]


def _finished(catalog: Catalog) -> dict[str, int]:
    """Return the id of each succeeded run -> its place in the order in which they finished."""
    known = runs.rows(catalog, ["run_id", "status", "finished_at"])
    return {row["run_id"]: place for place, row in enumerate(filter(runs.has_succeeded, known))}
