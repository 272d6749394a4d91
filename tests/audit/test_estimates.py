"""Which verdicts count for the alarm and for the bounds; no Spark."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.audit import consequences, estimates
from catalog_enrichment.audit.items import Answer
from catalog_enrichment.audit.recertify import audited_fold
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality

START = datetime(2026, 5, 1, tzinfo=UTC)


def drawn(number: int, **given: Any) -> dict[str, Any]:
    usual = {
        "item_id": f"i{number}", "sample_id": "s", "purpose": "audit", "stratum": "uniform", "attribute": "color",
        "certificate_id": "c1", "weight": 1.0, "highest_weight": 1.0, "drawn_at": START, "score": 0.9,
        "product_id": f"p{number}", "content_hash": f"h{number}", "value": "red", "model_version": "3",
    }  # fmt: skip
    return usual | given


def said(number: int, answer: str, *right: str, **given: Any) -> dict[str, Any]:
    usual = {
        "item_id": f"i{number}", "purpose": "audit", "product_id": f"p{number}", "attribute": "color", "value": "red",
        "answer": answer, "right_values": list(right), "settled_at": START + timedelta(minutes=number),
    }  # fmt: skip
    return usual | given


def by_item(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["item_id"]: row for row in rows}


def test_the_alarm_counts_uniform_rows_that_somebody_could_tell() -> None:
    rows = [drawn(1), drawn(2), drawn(3), drawn(4, stratum="near_threshold"), drawn(5), drawn(6, purpose="label")]
    verdicts = by_item(said(1, "no"), said(2, "yes"), said(3, "cannot_tell"), said(4, "no"), said(6, "no"))
    judged = estimates.judged(rows, verdicts, disputed={"i5"})
    assert [one.row["item_id"] for one in judged] == ["i1", "i2", "i3", "i4", "i5"]
    audit = estimates.by_attribute(judged, {}, 0.05)["color"]
    assert (audit.verdicts, audit.wrong, audit.unsure, audit.disputed, audit.alarm) == (3, 1, 1, 1, False)
    wrong_twice = estimates.judged(rows, verdicts | by_item(said(2, "other", "green")), disputed=())
    alarmed = estimates.by_attribute(wrong_twice, {}, 0.05)["color"]
    assert (alarmed.verdicts, alarmed.wrong, alarmed.alarm) == (2, 2, True)
    assert "2 of 2 uniformly drawn values of model version 3 are wrong" in alarmed.why()


def test_what_an_older_version_wrote_right_does_not_count_for_a_new_one() -> None:
    rows = [*[drawn(n) for n in range(200)], *[drawn(n, model_version="4") for n in range(200, 204)]]
    rows += [drawn(n, model_version="4", attribute="size") for n in range(204, 206)]
    verdicts = by_item(*(said(n, "yes" if n < 201 else "no") for n in range(206)))
    audits = estimates.by_attribute(estimates.judged(rows, verdicts, ()), {}, 0.05)
    color = audits["color"]
    assert (color.model_version, color.verdicts, color.wrong, color.alarm) == ("4", 4, 3, True)
    assert list(audits) == ["color", "size"]
    old = [one for one in rows if one["model_version"] == "3"]
    right = estimates.by_attribute(estimates.judged(old, verdicts, ()), {}, 0.05)["color"]
    assert (right.model_version, right.alarm) == ("3", False)


def test_samples_from_before_the_attribute_was_switched_on_do_not_count() -> None:
    rows = [drawn(1), drawn(2, drawn_at=START + timedelta(hours=2))]
    judged = estimates.judged(rows, by_item(said(1, "no"), said(2, "yes")), ())
    assert estimates.by_attribute(judged, {"color": START + timedelta(hours=1)}, 0.05)["color"].wrong == 0
    assert estimates.by_attribute(judged, {"color": START}, 0.05)["color"].wrong == 1
    assert estimates.by_attribute(judged, {"color": START + timedelta(hours=3)}, 0.05) == {}


def test_the_bounds_count_both_strata_and_disputed_rows_as_unsure() -> None:
    rows = [
        *[drawn(n, weight=1.25, highest_weight=1.25) for n in range(80)],
        *[drawn(n, stratum="near_threshold", weight=0.5, highest_weight=1.25) for n in range(80, 120)],
        drawn(120, certificate_id=None),
        drawn(121, stratum="same_product"),
    ]
    verdicts = by_item(*(said(n, "no" if n in (85, 90, 121) else "yes") for n in range(122) if n != 3))
    found = estimates.by_certificate(estimates.judged(rows, verdicts, {"i3"}), 0.05)
    one = found["color", "c1"]
    assert list(found) == [("color", "c1")]
    assert (one.rows, one.wrong, one.unsure) == (120, 2, 1)
    assert one.precision == pytest.approx(1 - 1.0 / (79 * 1.25 + 40 * 0.5))


def test_who_was_not_asked_or_cannot_tell_counts_as_wrong_in_a_new_certificate() -> None:
    rows = [drawn(n, content_hash=f"h{n // 2}", score=0.9 + n / 100) for n in range(4)]
    verdicts = by_item(said(0, "yes"), said(1, "cannot_tell"), said(2, "no"))
    fold = audited_fold(rows, rows, verdicts, Cardinality.ONE)
    assert fold.wrong_scores.tolist() == [-np.inf, 0.91, 0.92, 0.93]
    assert fold.weights.tolist() == [1, 1, 1, 1]
    assert fold.groups.tolist() == [0, 0, 1, 1]
    assert fold.scores.tolist() == [0.9, 0.91, 0.92, 0.93]
    assert fold.data_window == "2026-05-01/2026-05-01"
    assert len(audited_fold([], [], {}, Cardinality.ONE).groups) == 0


WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "green", "blue")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("cotton", "wool", "silk")),
    }
)


def test_what_verdicts_ask_for() -> None:
    new = [said(1, "no"), said(2, "other", "green"), said(3, "yes"), said(4, "cannot_tell"), said(5, "other", "pink")]
    wish = consequences.wanted(new, {}, WORDS)
    assert wish.refused == {(f"p{n}", "color", "red") for n in (1, 2, 5)}
    assert wish.human == {("p2", "color"): ("green",)}
    assert (wish.allowed, wish.unknown) == (frozenset(), 1)


def test_a_changed_mind_allows_again_and_takes_the_human_set_back() -> None:
    before = by_item(said(1, "no"), said(2, "other", "green"))
    wish = consequences.wanted([said(1, "yes"), said(2, "no", settled_at=START + timedelta(days=1))], before, WORDS)
    assert wish.allowed == {("p1", "color", "red")}
    assert wish.refused == {("p2", "color", "red")}
    assert wish.human == {("p2", "color"): ()}


def test_a_set_of_several_values_keeps_what_was_confirmed_and_drops_what_was_refused() -> None:
    about = {"attribute": "material", "product_id": "p1"}
    cotton, wool = said(1, "yes", **about | {"value": "cotton"}), said(2, "other", "silk", **about | {"value": "wool"})
    assert consequences.wanted([wool], by_item(cotton), WORDS).human == {("p1", "material"): ("cotton", "silk")}
    again = said(3, "no", **about | {"value": "silk"})
    assert consequences.wanted([again], by_item(cotton, wool), WORDS).human == {("p1", "material"): ("cotton",)}


def test_answers_for_labels_become_no_human_value_but_refuse() -> None:
    wish = consequences.wanted(
        [said(1, "other", "green", purpose="label"), said(2, "no", purpose="label", value="")], {}, WORDS
    )
    assert wish.human == {}
    assert wish.refused == {("p1", "color", "red")}


def test_a_value_that_is_also_among_the_right_ones_is_not_wrong() -> None:
    row = said(1, "other", "cotton", "wool", attribute="material", value="wool")
    assert consequences.wanted([row], {}, WORDS).refused == frozenset()
    (one,) = estimates.judged([drawn(1, attribute="material", value="wool")], by_item(row), ())
    assert (one.wrong, one.answer) == (False, Answer.OTHER)
