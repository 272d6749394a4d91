"""The promotion gate: champion and candidate evidence, and the reasons against the candidate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import Modality
from catalog_enrichment.registry import promotion_gate
from catalog_enrichment.registry.promotion_gate import AttributeEvidence, Evidence, Policy, gate

from .tiny_version import CERTIFIED, certificate

POLICY = Policy(
    min_certified_attributes=1, allow_lost_attributes=False, max_recall_drop=0.02, min_written_precision=0.90
)


def evidence(version: str, **recalls: float | None) -> Evidence:
    """Evidence with a certified recall per attribute; None: not certified."""
    return Evidence(
        version,
        {
            name: AttributeEvidence(
                certified=recall is not None,
                certified_recall=recall,
                written_precision=None if recall is None else 0.96,
            )
            for name, recall in recalls.items()
        },
    )


CASES = {
    "the first champion": (None, evidence("1", color=0.4), None),
    "nothing certified": (None, evidence("1", color=None), "min_certified_attributes"),
    "better": (evidence("1", color=0.4), evidence("2", color=0.5), None),
    "a little worse": (evidence("1", color=0.4), evidence("2", color=0.381), None),
    "worse than the tolerance": (evidence("1", color=0.4), evidence("2", color=0.37), "color: certified recall 0.370"),
    "an attribute lost": (
        evidence("1", color=0.4, material=0.3),
        evidence("2", color=0.9, material=None),
        "['material']",
    ),
    "an attribute missing": (evidence("1", color=0.4, material=0.3), evidence("2", color=0.9), "['material']"),
    "an attribute gained": (evidence("1", color=0.4), evidence("2", color=0.4, material=0.1), None),
    "the champion itself": (evidence("1", color=None), evidence("1", color=None), None),
}


@pytest.mark.parametrize(("champion", "candidate", "reason"), CASES.values(), ids=CASES)
def test_gate(champion: Evidence | None, candidate: Evidence, reason: str | None) -> None:
    result = gate(champion, candidate, POLICY)
    assert result.passed == (reason is None)
    assert result.reasons
    if reason:
        assert reason in " ".join(result.reasons)


def test_gate_names_every_reason_at_once() -> None:
    champion = evidence("1", color=0.5, material=0.5)
    assert len(gate(champion, evidence("2", color=0.1, material=None), POLICY).reasons) == 2


def test_a_lost_attribute_passes_where_the_policy_allows_it() -> None:
    lenient = Policy(
        min_certified_attributes=1, allow_lost_attributes=True, max_recall_drop=0.02, min_written_precision=0.9
    )
    assert gate(evidence("1", color=0.4, material=0.3), evidence("2", color=0.4), lenient).passed


def test_a_low_precision_on_the_test_fold_is_refused() -> None:
    bad = AttributeEvidence(certified=True, certified_recall=0.5, written_precision=0.8)
    result = gate(None, Evidence("1", {"color": bad}), POLICY)
    assert not result.passed
    assert "0.800" in result.reasons[0]


def test_evidence_is_the_same_after_to_json_and_from_json() -> None:
    before = evidence("3", color=0.25, material=None)
    assert Evidence.from_json("3", before.to_json()) == before


def test_evidence_is_of_the_path_with_text_and_picture_and_has_no_precision_where_nothing_is_written() -> None:
    certificates = [
        replace(certificate(Modality.BOTH, "weights", 0.9), attribute="color"),
        replace(certificate(Modality.TEXT_ONLY, "weights", 0.9), attribute="material"),
        replace(certificate(Modality.BOTH, "weights", None), attribute="size"),
    ]
    metrics = {"size/certified_precision": 1.0, "size/certified_accepted": 0.0}
    assert Evidence.from_certificates("1", certificates, CERTIFIED | metrics).attributes == {
        "color": AttributeEvidence(certified=True, certified_recall=0.4, written_precision=0.97),
        "size": AttributeEvidence(certified=False, certified_recall=None, written_precision=None),
    }


def test_the_shipped_policy_loads() -> None:
    assert promotion_gate.load_policy(resources.locate("policy:promotion.v1.toml")).min_certified_attributes == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gate", "not valid TOML"),
        ("[gates]\nx = 1", "one section"),
        ("[gate]\nmin_certified_attributes = 1", "allow_lost_attributes"),
        ("[gate]\nmin_certified_attributes = '1'", "min_certified_attributes"),
        ("[gate]\nmin_recall = 1", "min_recall"),
    ],
)
def test_an_unusable_policy_says_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint.replace("[", r"\[")):
        promotion_gate.load_policy(file)
