"""Tables of single values: how often each was right on the certification fold and in audits, with what luck allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from catalog_enrichment.catalog.review_tables import JudgedValues
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.web.pages import percent

FEW = 30
"""With fewer products the share of right values says little, and the table says so."""

SHOWN = 30
"""Values per attribute: those that were written most often, then those with most products in the other columns."""


def exact_interval(right: int, judged: int) -> tuple[float, float]:
    """Return the exact 95% interval of a share (Clopper and Pearson); ``judged``: at least 1."""
    from scipy import stats

    low = float(stats.beta.ppf(0.025, right, judged - right + 1)) if right else 0.0
    high = float(stats.beta.ppf(0.975, right + 1, judged - right)) if right < judged else 1.0
    return low, high


def right_share(judged: int, wrong: int) -> str:
    """Return the share that is right with its 95% interval (:func:`exact_interval`), "–" without a product."""
    if not judged:
        return "–"
    right = judged - wrong
    low, high = exact_interval(right, judged)
    few = "; few products" if judged < FEW else ""
    return f"{percent(right / judged)} ({100 * low:.1f} to {100 * high:.1f}{few})"


def of_certificate(certificate: Certificate) -> list[dict[str, Any]]:
    """Return a row per value that the certificate accepted on its fold: value, accepted, wrong and right."""
    return [{**asdict(row), "right": right_share(row.accepted, row.wrong)} for row in certificate.by_value]


def of_run(
    certificates: Sequence[Certificate], written: Mapping[tuple[str, str], int], judged: JudgedValues
) -> list[dict[str, Any]]:
    """Return per attribute a row per value: products written in the run, on the certification fold and in audits.

    ``certificates``: of the run; folds of several are added up. ``written``: (attribute, value) -> products.
    """
    found = []
    for name in dict.fromkeys(certificate.attribute for certificate in certificates):
        of_attribute = [certificate for certificate in certificates if certificate.attribute == name]
        ids = {certificate.certificate_id for certificate in of_attribute}
        numbers: dict[str, list[int]] = {}
        for place, value, number in _numbers(name, of_attribute, ids, written, judged):
            numbers.setdefault(value, [0] * 5)[place] += number
        order = sorted(numbers, key=lambda value: (-numbers[value][0], -sum(numbers[value]), value))
        if order:
            rows = [_row(value, numbers[value]) for value in order[:SHOWN]]
            found.append({"name": name, "rows": rows, "more": len(order) - len(rows)})
    return found


def _numbers(
    name: str,
    certificates: Iterable[Certificate],
    ids: set[str],
    written: Mapping[tuple[str, str], int],
    judged: JudgedValues,
) -> Iterable[tuple[int, str, int]]:
    """Yield place in the row, value and number."""
    yield from ((0, value, products) for (attribute, value), products in written.items() if attribute == name)
    for certificate in certificates:
        for row in certificate.by_value:
            yield from ((1, row.value, row.accepted), (2, row.value, row.wrong))
    for (certificate_id, attribute, value), (verdicts, wrong) in judged.items():
        if certificate_id in ids and attribute == name:
            yield from ((3, value, verdicts), (4, value, wrong))


def _row(value: str, numbers: Sequence[int]) -> dict[str, Any]:
    written, accepted, wrong, judged, judged_wrong = numbers
    return {
        "value": value,
        "written": written,
        "accepted": accepted,
        "wrong": wrong,
        "right": right_share(accepted, wrong),
        "judged": judged,
        "judged_wrong": judged_wrong,
        "judged_right": right_share(judged, judged_wrong),
    }


def by_path(certificates: Iterable[Certificate]) -> list[dict[str, Any]]:
    """Return the tables of :func:`of_certificate` of certificates that counted values apart, with their products."""
    return [
        {"products": claim.PATHS[certificate.modality], "numbers": certificate.compute_type, "rows": rows}
        for certificate in certificates
        if (rows := of_certificate(certificate))
    ]
