"""What versions recorded, as tags and back, and which versions a candidate is compared with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment.precision.certified_recall import HeldOutDecision, RecallDifference
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.gate_evidence import Comparison, Evidence, PathEvidence, References, best_recall
from catalog_enrichment.registry.promotion_gate import Verdict

from .gate_cases import COLOR, NAMES, POLICY, TWO, both_paths, case, evidence
from .tiny_version import certificate


def test_evidence_is_the_same_after_to_tags_and_from_tags() -> None:
    before = both_paths(evidence("3", ("a warning",), color=0.25, material=None))
    before.paths["size", Modality.TEXT_ONLY] = TWO.paths[COLOR]
    assert Evidence.from_tags("3", before.to_tags()) == before
    assert Evidence.from_tags("3", {}) is None
    assert evidence("1", **dict.fromkeys(NAMES, 0.4)).to_tags()["evidence"].split('"')[1] == "brand", "in order"


def test_evidence_is_by_path_and_has_no_precision_where_nothing_is_written() -> None:
    both = replace(certificate(Modality.BOTH, "weights", 0.9), target=0.96, delta=0.04)
    text_only = certificate(Modality.TEXT_ONLY, "weights", None)

    def decision(modality: Modality, written: str) -> HeldOutDecision:
        return HeldOutDecision("p", 0, "color", ("Red", "Blue"), tuple(written.split()), modality)

    with_picture = [decision(Modality.BOTH, written) for written in ("Red", "Red Blue", "Green", "")]
    others = [replace(with_picture[0], attribute="size"), decision(Modality.TEXT_ONLY, "")]
    found = Evidence.from_certificates([both, text_only], [*with_picture, *others], ["a warning"])
    assert found.warnings == ("a warning",)

    def of_certificate(known: Any, **results: Any) -> PathEvidence:
        copied = {name: getattr(known, name) for name in ("target", "delta", "certificate_id", "accept_rate")}
        return PathEvidence(expires_at=known.expires_at.isoformat(), basis="merchant_labels", **copied, **results)

    assert found.paths == {
        COLOR: of_certificate(both, certified=True, certified_recall=3 / 8, written_precision=2 / 3),
        ("color", Modality.TEXT_ONLY): of_certificate(
            text_only, certified=False, certified_recall=0.0, written_precision=None
        ),
    }
    [nothing] = Evidence.from_certificates([both], [], []).paths.values()
    assert (nothing.certified_recall, nothing.written_precision) == (None, None)


def test_the_best_former_champion_is_chosen_by_attribute_among_those_certified_for_it() -> None:
    former = [evidence("1", color=0.4, size=0.1), evidence("2", color=0.6), evidence("3", color=None, size=0.2)]
    assert [best_recall(former, (name, Modality.BOTH)) for name in ("color", "size", "material")] == [
        former[1], former[2], None,
    ]  # fmt: skip
    former[0] = both_paths(former[0])
    assert best_recall(former, ("color", Modality.TEXT_ONLY)) == former[0]
    unknown = replace(former[1], paths={COLOR: replace(former[1].paths[COLOR], certified_recall=None)})
    assert best_recall([unknown, evidence("4", color=0.1)], COLOR) == evidence("4", color=0.1)


def test_numbers_have_four_decimals() -> None:
    difference = RecallDifference(
        units=172, candidate=0.123456, reference=0.2, lower=-0.123456, upper=0.1, standard_error=0.05, quantile=1.65
    )
    row = Comparison(attribute="color", modality=Modality.BOTH, version="1", measured=difference).as_dict(0.02)
    assert (row["candidate_recall"], row["lower"]) == (0.1235, -0.1235)


# certificates that rest on people's verdicts


def by_verdicts(version: str, accept_rate: float, basis: str = "verdicts", **changes: Any) -> Evidence:
    found = evidence(version, color=None)
    results = {"certified": True, "certificate_id": version, "basis": basis, "accept_rate": accept_rate}
    return replace(found, paths={COLOR: replace(found.paths[COLOR], **(results | changes))})


@pytest.mark.parametrize(
    ("candidate", "champion", "verdict", "reason"),
    [
        (by_verdicts("2", 0.5), by_verdicts("1", 0.52, "merchant_labels"), Verdict.PASSED, "versions 1"),
        (by_verdicts("2", 0.5), by_verdicts("1", 0.53, "merchant_labels"), Verdict.INCONCLUSIVE, "53.0%"),
        (by_verdicts("2", 0.5), by_verdicts("1", 0.4), Verdict.PASSED, "versions 1"),
        (by_verdicts("2", 0.5, "merchant_labels"), by_verdicts("1", 0.4), Verdict.INCONCLUSIVE, "on 0 test products"),
        (by_verdicts("2", 0.1, certificate_id="1"), by_verdicts("1", 0.9), Verdict.PASSED, "no version"),
    ],
)
def test_a_certificate_by_verdicts_is_compared_by_what_it_may_write(
    candidate: Evidence, champion: Evidence, verdict: Verdict, reason: str
) -> None:
    """Merchants' labels do not measure it. A version with the same certificate is not compared."""
    references = References(champion, [], {"1": []})
    compared = references.comparisons(COLOR, [], POLICY.confidence, candidate.paths[COLOR])
    result = promotion_gate.gate(case(champion, candidate, *compared), POLICY)
    assert (result.verdict, reason in "; ".join(result.reasons)) == (verdict, True), result.reasons


def test_the_accept_rates_are_in_the_summary() -> None:
    candidate, champion = by_verdicts("2", 0.5), by_verdicts("1", 0.6)
    (compared,) = References(champion, [], {"1": []}).comparisons(COLOR, [], 0.95, candidate.paths[COLOR])
    assert compared.as_dict(0.02) == {
        "attribute": "color", "modality": "both", "version": "1", "units": 0, "units_needed": None,
        "candidate_accept_rate": 0.5, "accept_rate": 0.6,
    }  # fmt: skip
