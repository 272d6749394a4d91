"""The promotion gate at the exact limits of its rules, and the order of what it says."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta

import pytest

from catalog_enrichment.precision.paired_recall import RecallDifference
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.promotion_gate import Comparison, Evidence, Policy, Verdict

from .test_promotion_gate import COLOR, NOW, ONE, POLICY, TWO, both_paths, case, comparison, evidence

NAMES = ("size", "color", "material", "brand", "fabric", "style", "collar", "sleeve")


def test_a_policy_may_have_the_limits_and_nothing_beyond_them() -> None:
    for name in ("recall_margin", "min_written_precision"):
        for limit in (0, 1):
            assert asdict(replace(POLICY, **{name: limit}))[name] == limit
        for beyond in (-0.01, 1.01, 1.5):
            with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\]"):
                replace(POLICY, **{name: beyond})
    assert replace(POLICY, confidence=0.5).confidence == 0.5
    for beyond in (0.49, 1, 1.5):
        with pytest.raises(ValueError, match="confidence must lie in"):
            replace(POLICY, confidence=beyond)
    assert isinstance(POLICY, Policy)


def test_exactly_the_asked_precision_and_validity_are_enough() -> None:
    last_day = NOW + timedelta(days=POLICY.min_days_valid)
    just = replace(ONE.paths[COLOR], written_precision=POLICY.min_written_precision, expires_at=last_day.isoformat())
    assert promotion_gate.gate(case(None, Evidence("1", {COLOR: just})), POLICY).verdict is Verdict.PASSED
    shorter = replace(just, expires_at=(last_day - timedelta(seconds=1)).isoformat())
    assert promotion_gate.gate(case(None, Evidence("1", {COLOR: shorter})), POLICY).verdict is Verdict.REFUSED


def test_reasons_and_tags_are_in_the_order_of_their_attributes() -> None:
    poor = evidence("1", **dict.fromkeys(NAMES, 0.4))
    poor = replace(poor, paths={path: replace(row, written_precision=0.1) for path, row in poor.paths.items()})
    reasons = promotion_gate.gate(case(None, poor), POLICY).reasons
    assert [reason.split(" ")[0] for reason in reasons] == sorted(NAMES)
    (lost,) = promotion_gate.lost_attributes(poor, iter([("size", Modality.BOTH)]))
    named = [promotion_gate.named(name, Modality.BOTH) for name in sorted(set(NAMES) - {"size"})]
    assert lost == f"not certified for {', '.join(named)}, which champion version 1 is certified for"
    assert list(evidence("1", **dict.fromkeys(NAMES, 0.4)).to_tags()["evidence"].split('"')[1:2]) == ["brand"]


def test_the_versions_that_it_was_compared_with_are_in_numeric_order() -> None:
    compared = [comparison(0.0, 0.1, version) for version in ("10", "9")]
    result = promotion_gate.gate(case(ONE, TWO, *compared), POLICY)
    assert result.reasons[0].endswith("compared with versions 9, 10")
    assert [row["version"] for row in result.comparisons] == ["10", "9"]


def test_a_refusal_and_a_version_that_recorded_nothing_come_with_their_comparisons() -> None:
    unknown = Comparison(attribute="color", modality=Modality.BOTH, version="1", difference=None)
    refused = promotion_gate.gate(case(ONE, TWO, comparison(-0.2, -0.1), unknown), POLICY)
    assert refused.verdict is Verdict.REFUSED
    assert [row["units"] for row in refused.comparisons] == [172, 0]
    assert unknown.as_dict(0.02) == {
        "attribute": "color", "modality": "both", "version": "1", "units": 0, "units_needed": None,
    }  # fmt: skip


def test_numbers_have_four_decimals() -> None:
    difference = RecallDifference(
        units=172, candidate=0.123456, reference=0.2, lower=-0.123456, upper=0.1, standard_error=0.05, quantile=1.65
    )
    row = Comparison(attribute="color", modality=Modality.BOTH, version="1", difference=difference).as_dict(0.02)
    assert (row["candidate_recall"], row["lower"]) == (0.1235, -0.1235)


def test_an_unknown_recall_counts_as_none_at_all() -> None:
    unknown, known = evidence("1", color=0.5), evidence("2", color=0.4)
    row = replace(unknown.paths[COLOR], certified_recall=None)
    unknown = replace(unknown, paths={COLOR: row})
    assert promotion_gate.best_recall([unknown, known], COLOR) == known


def test_a_refusal_does_not_say_how_many_products_would_decide() -> None:
    worse = promotion_gate.gate(case(ONE, TWO, comparison(-0.05, -0.021)), POLICY)
    assert worse.verdict is Verdict.REFUSED
    assert "would decide" not in worse.reasons[0]
    assert both_paths(ONE).certified == {COLOR, ("color", Modality.TEXT_ONLY)}
