"""The tables that a person reads when a training has ended."""

from __future__ import annotations

from dataclasses import replace

from catalog_enrichment.precision import claim
from catalog_enrichment.report.training_tables import training_tables

from .training_samples import trained


def test_quality_certificates_and_confusions_are_listed() -> None:
    quality, certificates, confusions = training_tables(trained()).split("\n\n")
    assert quality.splitlines()[2].split() == ["color", "5,421", "412", "81.2%", "55.0%", "40.0%", "37.5%"]
    assert quality.splitlines()[3].split() == ["season", "700", "-", "-", "-", "-", "-"]
    color, text, season = certificates.splitlines()[2:]
    assert color.split()[:6] == ["color", "with", "text", "and", "picture", "fp32-cpu"]
    assert "0.8000" in color
    assert "7 of 340 accepted certification products wrong: at least 95.6% right" in color
    assert "without a usable picture" in text
    assert "abstains: 12 labelled products without a usable picture" in text
    assert "abstains: 9 of 153 wrong at the first threshold" in season
    assert confusions == (
        "color, most often wrong: 'navy' taken for 'blue' (9); 'c0' taken for 'red' (8); 'c1' taken for 'red' (7)"
    )


def test_figures_of_no_product_are_not_shown_as_zero() -> None:
    metrics = trained().metrics | {"color/products": 0.0, "color/accuracy": 0.0}
    quality = training_tables(trained(metrics=metrics)).split("\n\n")[0]
    assert quality.splitlines()[2].split() == ["color", "5,421", "0", "-", "-", "-", "37.5%"]


def test_a_model_without_mistakes_has_no_confusions() -> None:
    assert len(training_tables(trained(tables={})).split("\n\n")) == 2


def test_a_path_without_products_is_left_out() -> None:
    both, text_only, season = trained().certificates
    alone = trained(certificates=[replace(both, threshold=None, why_abstains=claim.NO_PRODUCTS), text_only, season])
    quality, certificates, _ = training_tables(alone).split("\n\n")
    assert "81.2%" in quality
    assert [line.split()[0] for line in certificates.splitlines()[2:]] == ["color", "season"]
    assert "color with text and picture" not in " ".join(certificates.split())
