"""What a person reads when a training has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from catalog_enrichment.records import Modality
from catalog_enrichment.registry.trained_model import TrainedModel
from catalog_enrichment.report.training import training_tables

from .report_samples import abstention, certificate


def trained(**changes: Any) -> TrainedModel:
    content: dict[str, Any] = {
        "artifact": Path("model"), "params": {}, "curves": {}, "history": [], "warnings": [], "held_out": [],
        "seconds": {}, "certificates": [certificate(), certificate(modality=Modality.TEXT_ONLY), abstention()],
        "metrics": {"color/products": 412.0, "color/accuracy": 0.812, "color/f1_macro": 0.55,
                    "color/r_at_p95_micro": 0.4, "color/certified_recall": 0.375, "color/text/f1_macro": 0.1},
        "lineage": {"labelled_by_attribute": {"color": 5421, "season": 700}},
        "tables": {"confusions": [
            {"attribute": "color", "true": "navy", "said": "blue", "products": 9},
            *({"attribute": "color", "true": f"c{n}", "said": "red", "products": 8 - n} for n in range(4)),
        ]},
    }  # fmt: skip
    return TrainedModel(**content | changes)


def test_quality_certificates_and_confusions_are_listed() -> None:
    quality, certificates, confusions = training_tables(trained()).split("\n\n")
    assert quality.splitlines()[2].split() == ["color", "5,421", "412", "81.2%", "55.0%", "40.0%", "37.5%"]
    assert quality.splitlines()[3].split() == ["season", "700", "-", "-", "-", "-", "-"]
    color, text, season = certificates.splitlines()[2:]
    assert color.split()[:6] == ["color", "with", "text", "and", "picture", "fp32-cpu"]
    assert "0.8000" in color
    assert "7 of 340 accepted certification products wrong: at least 95.6% right" in color
    assert "without a usable picture" in text
    assert "abstains: 9 of 153 wrong at the first threshold" in season
    assert confusions == (
        "color, most often wrong: 'navy' taken for 'blue' (9); 'c0' taken for 'red' (8); 'c1' taken for 'red' (7)"
    )


def test_a_model_without_mistakes_has_no_confusions() -> None:
    assert len(training_tables(trained(tables={})).split("\n\n")) == 2
