"""The promotion gate: the reasons against a candidate, and the limits of the rules."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.gate_evidence import Evidence
from catalog_enrichment.registry.promotion_gate import Case, Verdict

from .gate_cases import COLOR, NAMES, NOW, ONE, POLICY, TWO, both_paths, case, comparison, evidence, without_pictures

SHIPPED = resources.locate("policy:promotion.v1.toml").read_text()
EXPIRING = replace(TWO.paths[COLOR], expires_at=(NOW + timedelta(days=6)).isoformat())
IMPRECISE = replace(TWO.paths[COLOR], written_precision=0.8)


def promising(target: float, delta: float) -> Evidence:
    return Evidence("1", {COLOR: replace(ONE.paths[COLOR], target=target, delta=delta)})


PASSED, REFUSED, INCONCLUSIVE = Verdict.PASSED, Verdict.REFUSED, Verdict.INCONCLUSIVE
CASES = {
    "the first champion": (case(None, ONE), PASSED, ""),
    "nothing certified": (case(None, evidence("1", color=None)), REFUSED, "min_certified_attributes"),
    "the champion itself": (case(ONE, evidence("1", color=None)), PASSED, "champion already"),
    "surely not worse": (case(ONE, TWO, comparison(-0.02, 0.1)), PASSED, "versions 1"),
    "surely worse": (case(ONE, TWO, comparison(-0.1, -0.021)), REFUSED, "picture): certified recall is more than"),
    "not known": (case(ONE, TWO, comparison(-0.021, 0.1)), INCONCLUSIVE, "picture): certified recall may be more"),
    "not surely worse": (case(ONE, TWO, comparison(-0.1, -0.02)), INCONCLUSIVE, "recall may be more"),
    "worse than an earlier champion": (
        case(evidence("3", color=0.3), TWO, comparison(0.0, 0.1, "3"), comparison(-0.2, -0.1, "1")),
        REFUSED, "version 1",
    ),
    "worse and another not known": (
        case(ONE, TWO, comparison(-0.1, 0.1), comparison(-0.1, -0.05, attribute="material")),
        REFUSED, "material (products with text and picture): certified recall is",
    ),
    "an attribute lost": (
        case(evidence("1", color=0.4, material=0.3), evidence("2", color=0.9, material=None)),
        REFUSED, "not certified for material (products with text and picture), which champion version 1",
    ),
    "an attribute missing": (case(evidence("1", color=0.4, material=0.3), TWO), REFUSED, "for material (products with"),
    "an attribute gained": (
        case(ONE, evidence("2", color=0.4, material=0.1), comparison(0.0, 0.1)),
        PASSED, "color (products with text and picture), material (products with text and picture)",
    ),
    "a path lost": (
        case(both_paths(ONE), TWO, comparison(0.0, 0.1)),
        REFUSED, "not certified for color (products without a usable picture), which champion version 1",
    ),
    "certified without a picture alone": (
        case(None, without_pictures(ONE)), PASSED, "certified for color (products without a usable picture)",
    ),
    "worse without a picture alone": (
        case(both_paths(ONE), both_paths(TWO), comparison(0.0, 0.1),
             comparison(-0.1, -0.05, modality=Modality.TEXT_ONLY)),
        REFUSED, "color (products without a usable picture): certified recall is more than",
    ),
    "one attribute on two paths": (
        case(None, both_paths(ONE)),
        PASSED, "color (products with text and picture), color (products without a usable picture)",
    ),
    "a target below the config's": (case(None, promising(0.9, 0.05)), REFUSED, "a precision of 0.9 with delta"),
    "a delta above the config's": (case(None, promising(0.95, 0.2)), REFUSED, "delta 0.2; the config asks for"),
    "a higher target and a lower delta": (case(None, promising(0.96, 0.01)), PASSED, ""),
    "a value lost": (case(ONE, TWO, label_differences=["color: Red"]), REFUSED, "color: Red"),
    "a modality collapsed": (case(None, evidence("1", ("hardly used",), color=0.4)), REFUSED, "hardly"),
    "a certificate that expires soon": (case(None, Evidence("1", {COLOR: EXPIRING})), REFUSED, "2026-11-28"),
    "a low precision on the test fold": (case(None, Evidence("1", {COLOR: IMPRECISE})), REFUSED, "0.800"),
}  # fmt: skip


@pytest.mark.parametrize(("known", "verdict", "reason"), CASES.values(), ids=CASES)
def test_gate(known: Case, verdict: Verdict, reason: str) -> None:
    result = promotion_gate.gate(known, POLICY)
    assert result.verdict is verdict
    assert reason in " ".join(result.reasons)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("allow_lost_attributes", "an attribute lost"),
        ("allow_lost_values", "a value lost"),
        ("allow_collapsed_modality", "a modality collapsed"),
    ],
)
def test_what_the_policy_allows_passes(rule: str, name: str) -> None:
    assert promotion_gate.gate(CASES[name][0], replace(POLICY, **{rule: True})).verdict is PASSED


def test_an_attribute_that_is_not_certified_may_be_expired() -> None:
    expired = replace(EXPIRING, certified=False)
    known = case(None, replace(ONE, paths=ONE.paths | {("size", Modality.BOTH): expired}))
    assert promotion_gate.gate(known, POLICY).verdict is PASSED


def test_an_inconclusive_comparison_says_how_many_products_would_decide() -> None:
    result = promotion_gate.gate(case(ONE, TWO, comparison(-0.05, 0.05)), POLICY)
    [compared] = result.comparisons
    assert (compared["units"], compared["candidate_recall"], compared["lower"]) == (172, 0.4, -0.05)
    assert f"about {compared['units_needed']} test products" in result.reasons[0]
    assert 172 < compared["units_needed"] < 5000
    json.dumps(result.comparisons, allow_nan=False)


def test_label_differences_are_values_that_the_candidate_lacks_of_attributes_that_it_has() -> None:
    champion = {"color": ("Red", "Blue", "Green"), "size": ("S",)}
    assert promotion_gate.label_differences(champion, {"color": ("Green", "Pink")}) == [
        "color: the candidate cannot write ['Blue', 'Red'], the champion can"
    ]
    assert promotion_gate.label_differences(champion, champion) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gate", "not valid TOML"),
        ("[gates]\nx = 1", "one section"),
        ("[gate]\nmin_certified_attributes = 1", "allow_lost_attributes"),
        ("[gate]\nmin_certified_attributes = '1'", "min_certified_attributes"),
        ("[gate]\nmin_recall = 1", "min_recall"),
        (SHIPPED.replace("confidence = 0.95", "confidence = 0.4"), "confidence must lie in"),
        (SHIPPED.replace("recall_margin = 0.02", "recall_margin = -0.1"), "recall_margin must lie in"),
    ],
)
def test_an_unusable_policy_says_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint.replace("[", r"\[")):
        promotion_gate.load_policy(file)


def test_an_attribute_certified_on_both_paths_is_one_attribute() -> None:
    found = promotion_gate.gate(case(None, both_paths(ONE)), replace(POLICY, min_certified_attributes=2))
    assert found.verdict is REFUSED
    assert "certified for 1 attributes" in found.reasons[0]


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


def test_exactly_the_asked_precision_and_validity_are_enough() -> None:
    last_day = NOW + timedelta(days=POLICY.min_days_valid)
    just = replace(ONE.paths[COLOR], written_precision=POLICY.min_written_precision, expires_at=last_day.isoformat())
    assert promotion_gate.gate(case(None, Evidence("1", {COLOR: just})), POLICY).verdict is PASSED
    shorter = replace(just, expires_at=(last_day - timedelta(seconds=1)).isoformat())
    assert promotion_gate.gate(case(None, Evidence("1", {COLOR: shorter})), POLICY).verdict is REFUSED


def test_reasons_are_in_the_order_of_their_attributes() -> None:
    poor = evidence("1", **dict.fromkeys(NAMES, 0.4))
    poor = replace(poor, paths={path: replace(row, written_precision=0.1) for path, row in poor.paths.items()})
    reasons = promotion_gate.gate(case(None, poor), POLICY).reasons
    assert [reason.split(" ")[0] for reason in reasons] == sorted(NAMES)
    (lost,) = promotion_gate.lost_attributes(poor, iter([("size", Modality.BOTH)]))
    named = [promotion_gate.named(name, Modality.BOTH) for name in sorted(set(NAMES) - {"size"})]
    assert lost == f"not certified for {', '.join(named)}, which champion version 1 is certified for"
    without = replace(poor, version="2", paths={})
    assert len(promotion_gate.gate(case(poor, without, label_differences=["x"]), POLICY).reasons) == 3, "all at once"


def test_the_versions_that_it_was_compared_with_are_in_numeric_order() -> None:
    compared = [comparison(0.0, 0.1, version) for version in ("10", "9")]
    result = promotion_gate.gate(case(ONE, TWO, *compared), POLICY)
    assert result.reasons[0].endswith("compared with versions 9, 10")
    assert [row["version"] for row in result.comparisons] == ["10", "9"]


def test_a_refusal_does_not_say_how_many_products_would_decide() -> None:
    worse = promotion_gate.gate(case(ONE, TWO, comparison(-0.05, -0.021)), POLICY)
    assert worse.verdict is REFUSED
    assert "would decide" not in worse.reasons[0]
