"""The promotion gate: champion and candidate evidence, and the reasons against the candidate."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.precision.paired_recall import HeldOutDecision, RecallDifference
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.promotion_gate import Case, Comparison, Evidence, PathEvidence, Verdict
from catalog_enrichment.registry.references import References

from .tiny_version import certificate

SHIPPED = resources.locate("policy:promotion.v2.toml").read_text()
POLICY = promotion_gate.load_policy(resources.locate("policy:promotion.v2.toml"))
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def evidence(version: str, warnings: tuple[str, ...] = (), **recalls: float | None) -> Evidence:
    """Evidence with a certified recall per attribute, with text and picture; None: not certified."""
    return Evidence(
        version,
        {
            (name, Modality.BOTH): PathEvidence(
                certified=recall is not None,
                certified_recall=recall,
                written_precision=None if recall is None else 0.96,
                expires_at=(NOW + timedelta(days=90)).isoformat(),
                target=0.95,
                delta=0.05,
            )
            for name, recall in recalls.items()
        },
        warnings,
    )


def without_pictures(found: Evidence) -> Evidence:
    """The same evidence, for products without a usable picture."""
    paths = {(name, Modality.TEXT_ONLY): results for (name, _), results in found.paths.items()}
    return replace(found, paths=paths)


def both_paths(found: Evidence) -> Evidence:
    return replace(found, paths=found.paths | without_pictures(found).paths)


def comparison(
    lower: float, upper: float, version: str = "1", attribute: str = "color", modality: Modality = Modality.BOTH
) -> Comparison:
    difference = RecallDifference(
        units=172,
        candidate=0.4 + (lower + upper) / 2,
        reference=0.4,
        lower=lower,
        upper=upper,
        standard_error=(upper - lower) / 2 / 1.65,
        quantile=1.65,
    )
    return Comparison(attribute=attribute, modality=modality, version=version, difference=difference)


def case(champion: Evidence | None, candidate: Evidence, *comparisons: Comparison, **more: Any) -> Case:
    return Case(champion=champion, candidate=candidate, comparisons=comparisons, **(ASKED | more))


COLOR = ("color", Modality.BOTH)
ASKED = {"target": 0.95, "delta": 0.05, "now": NOW}
ONE, TWO = evidence("1", color=0.4), evidence("2", color=0.4)
EXPIRING = replace(TWO.paths[COLOR], expires_at=(NOW + timedelta(days=6)).isoformat())
IMPRECISE = replace(TWO.paths[COLOR], written_precision=0.8)


def promising(target: float | None, delta: float | None) -> Evidence:
    return Evidence("1", {COLOR: replace(ONE.paths[COLOR], target=target, delta=delta)})


CASES = {
    "the first champion": (case(None, ONE), Verdict.PASSED, ""),
    "nothing certified": (case(None, evidence("1", color=None)), Verdict.REFUSED, "min_certified_attributes"),
    "the champion itself": (case(ONE, evidence("1", color=None)), Verdict.PASSED, "champion already"),
    "surely not worse": (case(ONE, TWO, comparison(-0.02, 0.1)), Verdict.PASSED, "versions 1"),
    "surely worse": (
        case(ONE, TWO, comparison(-0.1, -0.021)),
        Verdict.REFUSED,
        "picture): certified recall is more than",
    ),
    "not known": (
        case(ONE, TWO, comparison(-0.021, 0.1)),
        Verdict.INCONCLUSIVE,
        "picture): certified recall may be more",
    ),
    "not surely worse": (case(ONE, TWO, comparison(-0.1, -0.02)), Verdict.INCONCLUSIVE, "recall may be more"),
    "worse than an earlier champion": (
        case(evidence("3", color=0.3), TWO, comparison(0.0, 0.1, "3"), comparison(-0.2, -0.1, "1")),
        Verdict.REFUSED,
        "version 1",
    ),
    "worse and another not known": (
        case(ONE, TWO, comparison(-0.1, 0.1), comparison(-0.1, -0.05, attribute="material")),
        Verdict.REFUSED,
        "material (products with text and picture): certified recall is",
    ),
    "nothing to compare with": (
        case(ONE, TWO, Comparison(attribute="color", modality=Modality.BOTH, version="1", difference=None)),
        Verdict.INCONCLUSIVE,
        "recorded nothing",
    ),
    "an attribute lost": (
        case(evidence("1", color=0.4, material=0.3), evidence("2", color=0.9, material=None)),
        Verdict.REFUSED,
        "not certified for material (products with text and picture), which champion version 1",
    ),
    "an attribute missing": (
        case(evidence("1", color=0.4, material=0.3), TWO),
        Verdict.REFUSED,
        "for material (products with",
    ),
    "an attribute gained": (
        case(ONE, evidence("2", color=0.4, material=0.1), comparison(0.0, 0.1)),
        Verdict.PASSED,
        "color (products with text and picture), material (products with text and picture)",
    ),
    "a path lost": (
        case(both_paths(ONE), TWO, comparison(0.0, 0.1)),
        Verdict.REFUSED,
        "not certified for color (products without a usable picture), which champion version 1",
    ),
    "certified without a picture alone": (
        case(None, without_pictures(ONE)),
        Verdict.PASSED,
        "certified for color (products without a usable picture)",
    ),
    "worse without a picture alone": (
        case(
            both_paths(ONE),
            both_paths(TWO),
            comparison(0.0, 0.1),
            comparison(-0.1, -0.05, modality=Modality.TEXT_ONLY),
        ),
        Verdict.REFUSED,
        "color (products without a usable picture): certified recall is more than",
    ),
    "one attribute on two paths": (
        case(None, both_paths(ONE)),
        Verdict.PASSED,
        "color (products with text and picture), color (products without a usable picture)",
    ),
    "a target below the config's": (case(None, promising(0.9, 0.05)), Verdict.REFUSED, "a precision of 0.9 with delta"),
    "a delta above the config's": (case(None, promising(0.95, 0.2)), Verdict.REFUSED, "delta 0.2; the config asks for"),
    "a higher target and a lower delta": (case(None, promising(0.96, 0.01)), Verdict.PASSED, ""),
    "no recorded target": (case(None, promising(None, 0.05)), Verdict.REFUSED, "not recorded what its certificate"),
    "no recorded delta": (case(None, promising(0.95, None)), Verdict.REFUSED, "not recorded what its certificate"),
    "a value lost": (case(ONE, TWO, label_differences=["color: Red"]), Verdict.REFUSED, "color: Red"),
    "a modality collapsed": (case(None, evidence("1", ("hardly used",), color=0.4)), Verdict.REFUSED, "hardly"),
    "a certificate that expires soon": (case(None, Evidence("1", {COLOR: EXPIRING})), Verdict.REFUSED, "2026-11-28"),
    "a low precision on the test fold": (case(None, Evidence("1", {COLOR: IMPRECISE})), Verdict.REFUSED, "0.800"),
}


@pytest.mark.parametrize(("known", "verdict", "reason"), CASES.values(), ids=CASES)
def test_gate(known: Case, verdict: Verdict, reason: str) -> None:
    result = promotion_gate.gate(known, POLICY)
    assert result.verdict is verdict
    assert reason in " ".join(result.reasons)


def test_gate_names_every_reason_at_once() -> None:
    champion = evidence("1", color=0.5, material=0.5)
    known = case(champion, evidence("2", color=0.1, material=None), comparison(-0.5, -0.3))
    assert len(promotion_gate.gate(known, POLICY).reasons) == 2


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("allow_lost_attributes", "an attribute lost"),
        ("allow_lost_values", "a value lost"),
        ("allow_collapsed_modality", "a modality collapsed"),
    ],
)
def test_what_the_policy_allows_passes(rule: str, name: str) -> None:
    assert promotion_gate.gate(CASES[name][0], replace(POLICY, **{rule: True})).verdict is Verdict.PASSED


def test_an_attribute_that_is_not_certified_may_be_expired() -> None:
    expired = replace(EXPIRING, certified=False)
    known = case(None, replace(ONE, paths=ONE.paths | {("size", Modality.BOTH): expired}))
    assert promotion_gate.gate(known, POLICY).verdict is Verdict.PASSED


def test_an_inconclusive_comparison_says_how_many_products_would_decide() -> None:
    result = promotion_gate.gate(case(ONE, TWO, comparison(-0.05, 0.05)), POLICY)
    [compared] = result.comparisons
    assert (compared["units"], compared["candidate_recall"], compared["lower"]) == (172, 0.4, -0.05)
    assert f"about {compared['units_needed']} test products" in result.reasons[0]
    assert 172 < compared["units_needed"] < 5000
    json.dumps(result.comparisons, allow_nan=False)


def test_the_best_former_champion_is_chosen_by_attribute_among_those_certified_for_it() -> None:
    former = [evidence("1", color=0.4, size=0.1), evidence("2", color=0.6), evidence("3", color=None, size=0.2)]
    assert [promotion_gate.best_recall(former, (name, Modality.BOTH)) for name in ("color", "size", "material")] == [
        former[1], former[2], None,
    ]  # fmt: skip
    former[0] = both_paths(former[0])
    assert promotion_gate.best_recall(former, ("color", Modality.TEXT_ONLY)) == former[0]


def test_label_differences_are_values_that_the_candidate_lacks_of_attributes_that_it_has() -> None:
    champion = {"color": ("Red", "Blue", "Green"), "size": ("S",)}
    assert promotion_gate.label_differences(champion, {"color": ("Green", "Pink")}) == [
        "color: the candidate cannot write ['Blue', 'Red'], the champion can"
    ]
    assert promotion_gate.label_differences(champion, champion) == []


def test_evidence_is_the_same_after_to_tags_and_from_tags() -> None:
    before = both_paths(evidence("3", ("a warning",), color=0.25, material=None))
    before.paths["size", Modality.TEXT_ONLY] = TWO.paths[COLOR]
    assert Evidence.from_tags("3", before.to_tags()) == before
    assert Evidence.from_tags("3", {}) is None


def test_evidence_of_release_0_1_0_is_read() -> None:
    tags = {"evidence": '{"color": {"certified": true, "certified_recall": 0.4, "written_precision": null}}'}
    before = Evidence.from_tags("1", tags)
    assert before is not None
    assert before.certified == {COLOR}
    assert promotion_gate.gate(case(None, before), POLICY).verdict is Verdict.REFUSED  # no expiry date


def test_evidence_is_by_path_and_has_no_precision_where_nothing_is_written() -> None:
    both = replace(certificate(Modality.BOTH, "weights", 0.9), target=0.96, delta=0.04)
    certificates = [both, certificate(Modality.TEXT_ONLY, "weights", None)]

    def decision(modality: Modality, written: str) -> HeldOutDecision:
        return HeldOutDecision("p", 0, "color", ("Red", "Blue"), tuple(written.split()), modality)

    with_picture = [decision(Modality.BOTH, written) for written in ("Red", "Red Blue", "Green", "")]
    others = [replace(with_picture[0], attribute="size"), decision(Modality.TEXT_ONLY, "")]
    found = Evidence.from_certificates(certificates, [*with_picture, *others], ["a warning"])
    assert found.warnings == ("a warning",)
    expiry = [one.expires_at.isoformat() for one in certificates]
    of_certificate: list[dict[str, Any]] = [
        {"certificate_id": one.certificate_id, "basis": "merchant_labels", "accept_rate": one.accept_rate}
        for one in certificates
    ]
    assert found.paths == {
        COLOR: PathEvidence(
            certified=True,
            certified_recall=3 / 8,
            written_precision=2 / 3,
            expires_at=expiry[0],
            target=0.96,
            delta=0.04,
            **of_certificate[0],
        ),
        ("color", Modality.TEXT_ONLY): PathEvidence(
            certified=False,
            certified_recall=0.0,
            written_precision=None,
            expires_at=expiry[1],
            target=0.95,
            delta=0.05,
            **of_certificate[1],
        ),
    }
    [nothing] = Evidence.from_certificates([both], [], []).paths.values()
    assert (nothing.certified_recall, nothing.written_precision) == (None, None)


def test_a_policy_of_version_1_is_refused_with_advice(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[gate]\nmin_certified_attributes = 1\nmax_recall_drop = 0.02")
    with pytest.raises(ConfigError, match=r"version 1.*promotion\.v2\.toml.*recall_margin"):
        promotion_gate.load_policy(file)


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
    assert found.verdict is Verdict.REFUSED
    assert "certified for 1 attributes" in found.reasons[0]


# --- certificates that rest on people's verdicts -------------------------------------------------------------------


def by_verdicts(version: str, accept_rate: float | None, basis: str = "verdicts", **changes: Any) -> Evidence:
    found = evidence(version, color=None)
    results = {"certified": True, "certificate_id": version, "basis": basis, "accept_rate": accept_rate}
    return replace(found, paths={COLOR: replace(found.paths[COLOR], **(results | changes))})


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict", "reason"),
    [
        (by_verdicts("2", 0.5), by_verdicts("1", 0.52, "merchant_labels"), Verdict.PASSED, "versions 1"),
        (by_verdicts("2", 0.5), by_verdicts("1", 0.53, "merchant_labels"), Verdict.INCONCLUSIVE, "53.0%"),
        (by_verdicts("2", 0.5), by_verdicts("1", 0.4), Verdict.PASSED, "versions 1"),
        (by_verdicts("2", 0.5), by_verdicts("1", None, "merchant_labels"), Verdict.INCONCLUSIVE, "recorded nothing"),
        (by_verdicts("2", 0.5, "merchant_labels"), by_verdicts("1", 0.4), Verdict.INCONCLUSIVE, "recorded nothing"),
        (by_verdicts("2", 0.1, certificate_id="1"), by_verdicts("1", 0.9), Verdict.PASSED, "no version"),
        (by_verdicts("2", None, certificate_id=None), by_verdicts("1", 0.9, certificate_id=None),
         Verdict.INCONCLUSIVE, "recorded nothing"),
    ],
)  # fmt: skip
def test_a_certificate_by_verdicts_is_compared_by_what_it_may_write(
    candidate: Evidence, champion: Evidence, verdict: Verdict, reason: str
) -> None:
    """Merchants' labels do not measure it. A version with the same certificate is not compared."""
    references = References(champion, [], {"1": None})
    compared = references.comparisons(COLOR, None, POLICY, candidate.paths[COLOR])
    result = promotion_gate.gate(case(champion, candidate, *compared), POLICY)
    assert (result.verdict, reason in "; ".join(result.reasons)) == (verdict, True), result.reasons


def test_the_accept_rates_are_in_the_summary_and_survive_tags() -> None:
    candidate, champion = by_verdicts("2", 0.5), by_verdicts("1", 0.6)
    (compared,) = References(champion, [], {"1": None}).comparisons(COLOR, None, POLICY, candidate.paths[COLOR])
    assert compared.as_dict(0.02) == {
        "attribute": "color", "modality": "both", "version": "1", "units": 0, "units_needed": None,
        "candidate_accept_rate": 0.5, "accept_rate": 0.6,
    }  # fmt: skip
    assert Evidence.from_tags("2", candidate.to_tags()) == candidate
