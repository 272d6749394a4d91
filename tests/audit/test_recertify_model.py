"""After an alarm: new certificates from uniform verdicts, the same weights, and no forward pass."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.audit import recertify
from catalog_enrichment.audit.fresh_labels import audited_fold
from catalog_enrichment.audit.items import Answer, Item
from catalog_enrichment.catalog import switches
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.precision import recertify as recertification
from catalog_enrichment.precision.certificate import CertificateStatus
from catalog_enrichment.records import Cardinality, Modality

from ..sample_catalog import SampleCatalog, enrich, killed_at, table, values
from .reviewers import drawn, ingested, judge

LOOSE = ("precision.target=0.6", "precision.suggest_precision=0.5", "precision.delta=0.4")
COLOR = {"attributes": ("color",), "uniform": 50, "near": 0}


def recertified(sample: SampleCatalog, **request: Any) -> dict[str, Any]:
    catalog = sample.context().catalog
    with catalog.writing():
        return recertify.recertify_model(
            sample.config, catalog, sample.registry, load_dictionary(sample.config), recertify.Request(**request)
        )


def scores_of(sample: SampleCatalog) -> dict[tuple[str, str], float]:
    """(product, colour) -> score, of what the ledger has."""
    rows = [row for row in table(sample, "attribute_values") if row["attribute"] == "color" and row["op"] == "assert"]
    return {(row["product_id"], row["value"]): row["score"] for row in rows}


def paused_after_an_alarm(sample: SampleCatalog) -> tuple[list[str], float]:
    """The champion's colours are paused by five wrong values; a second sample is drawn, and judged right from the
    median score on. Returns the products whose colour was right, and the lowest score of the second sample."""
    first = drawn(sample, **COLOR)
    lowest = sorted(scores_of(sample), key=scores_of(sample).__getitem__)[:5]
    # what is judged before the alarm does not count afterwards: only these are
    judge(sample, first["sample_id"], lambda item: Answer.NO if (item.product_id, item.value) in lowest else None)
    with pytest.raises(GateRefused, match="color is paused"):
        ingested(sample)
    second = drawn(sample, **COLOR, seed=1)
    scores = scores_of(sample)
    seen = sorted(
        (scores[key[0], value[0]], key[0]) for key, value in values(sample, "model").items() if key[1] == "color"
    )
    right = [product for _, product in seen[len(seen) // 2 :]]

    def answer(item: Item) -> Answer:
        if item.product_id in right:
            return Answer.YES
        return Answer.CANNOT_TELL if item.product_id == seen[0][1] else Answer.NO

    judge(sample, second["sample_id"], answer)
    assert ingested(sample)["paused"] == []
    return right, seen[0][0]


@pytest.mark.slow
def test_certified_again_without_training_or_scoring(enriched: SampleCatalog) -> None:
    with pytest.raises(ConfigError, match="no attribute is paused"):
        recertified(enriched)
    right, lowest = paused_after_an_alarm(enriched)
    (old,) = (one for one in enriched.model().certificates if one.attribute == "color" and one.threshold is not None)
    with pytest.raises(GateRefused, match="at least 59 are needed"):
        recertified(enriched)
    with pytest.raises(ConfigError, match="'material'"):
        recertified(enriched, attributes=("material",))
    assert enriched.registry.champion() == "1"

    loose = enriched.with_settings(*LOOSE)
    dry = recertified(loose, dry_run=True)
    assert (dry["status"], dry["attributes"], loose.registry.champion()) == ("dry_run", [], "1")
    (counted,) = dry["certificates"]
    assert counted["drawn"] == counted["judged"] >= counted["needed"]
    done = recertified(loose)
    version = loose.registry.champion()
    assert done["model_version"] == version != "1"
    model = loose.model()
    assert model.weights_hash == enriched.registry.resolve(version="1").weights_hash
    new = {(one.attribute, one.modality): one for one in model.certificates}
    color = new["color", Modality.BOTH]
    assert color.threshold is not None
    assert color.threshold > lowest
    assert color.status is CertificateStatus.CONFIRMED
    assert color.certificate_id != old.certificate_id
    before = {one.certificate_id for one in enriched.registry.resolve(version="1").certificates}
    assert {one.certificate_id for one in model.certificates} - before == {color.certificate_id}
    uses = [row for row in table(loose, "label_uses") if row["attribute"] == "color"]
    assert {row["product_id"] for row in uses} >= set(right)
    now = {str(one): one.state.value for one in switches.read(loose.context().catalog).entries}
    assert now == {f"certificate {old.certificate_id}": "paused"}

    summary = enrich(loose)
    assert summary["known"] == summary["predicted"] - 1 > 0, "only the product whose picture is missing is tried again"
    colors = [key[0] for key in values(loose, "model") if key[1] == "color"]
    assert set(colors) <= set(right)
    assert colors
    assert enrich(loose)["status"] == "nothing_to_do"
    with pytest.raises(ConfigError, match="no attribute is paused"):
        recertified(loose)


@pytest.mark.slow
def test_killed_before_the_switch_it_is_switched_on_without_another_version(enriched: SampleCatalog) -> None:
    paused_after_an_alarm(enriched)
    loose = enriched.with_settings(*LOOSE)
    with killed_at(switches, "write"):
        recertified(loose)
    version = loose.registry.champion()
    assert version != "1"
    done = recertified(loose)
    assert done["status"] == "succeeded"
    assert loose.registry.champion() == version
    assert [one.attribute for one in switches.read(loose.context().catalog).entries if one.attribute] == []


@pytest.mark.slow
def test_of_several_values_whole_products_are_judged(enriched: SampleCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product has both materials of this nonsense model; of a third of them Wool is refused."""
    material = {"attributes": ("material",), "uniform": 90, "near": 0}
    first = drawn(enriched, **material)
    judge(enriched, first["sample_id"], lambda item: Answer.NO if _is_third_wool(item) else None)
    with pytest.raises(GateRefused, match="material is paused"):
        ingested(enriched)
    seen = [value for key, value in values(enriched, "model").items() if key[1] == "material"]
    assert set(seen) == {("Cotton",), ("Cotton", "Wool")}

    loose = enriched.with_settings(*LOOSE)
    monkeypatch.setattr(recertification, "FIRST_EXPECTED", 8)  # the catalog is small
    single = drawn(loose, **material, seed=1)
    judge(loose, single["sample_id"], lambda _: Answer.YES)
    ingested(loose)
    with pytest.raises(GateRefused, match="audit_sample --whole-products"):
        recertified(loose)
    whole = drawn(loose, **material, seed=2, whole_products=True)
    judge(loose, whole["sample_id"], lambda _: Answer.YES)
    ingested(loose)
    done = recertified(loose)
    assert done["attributes"] == ["material"]
    (new,) = (one for one in done["certificates"] if one["threshold"] is not None)
    judged_before = sum(value == ("Cotton",) for value in seen)
    assert (new["accepted"], new["wrong"]) == (sum(map(len, seen)) - judged_before, 0)
    assert [one.attribute for one in switches.read(loose.context().catalog).entries if one.attribute] == []


def _is_third_wool(item: Item) -> bool:
    return item.value == "Wool" and int(item.product_id[1:]) % 3 == 1


def test_of_several_values_one_that_is_wrong_or_not_judged_counts() -> None:
    def row(product: str, value: str, score: float, stratum: str = "uniform", sample: str = "s") -> dict[str, Any]:
        return {
            "item_id": f"{sample} {product} {value}", "sample_id": sample, "product_id": product, "value": value,
            "score": score, "stratum": stratum, "purpose": "audit", "content_hash": None,
            "drawn_at": datetime(2026, 5, 1, tzinfo=UTC),
        }  # fmt: skip

    def said(of: dict[str, Any], answer: str) -> dict[str, Any]:
        return {of["item_id"]: of | {"answer": answer, "right_values": []}}

    right, also = row("p1", "Cotton", 0.9), row("p1", "Wool", 0.8, "same_product")
    mixed, wrong, unsure = row("p2", "Cotton", 0.95), row("p2", "Wool", 0.85, "same_product"), row("p2", "Silk", 0.7)
    alone, elsewhere = row("p3", "Cotton", 0.6), row("p3", "Wool", 0.99, sample="another")
    rows = [right, mixed, unsure, alone]
    verdicts = (
        said(right, "yes") | said(also, "yes") | said(mixed, "yes") | said(wrong, "no") | said(unsure, "cannot_tell")
    )
    fold = audited_fold(rows, [*rows, also, wrong, elsewhere], verdicts, Cardinality.MANY)
    assert fold.scores.tolist() == [0.9, 0.95, 0.95, 0.6]
    assert fold.wrong_scores.tolist() == [-np.inf, 0.85, 0.85, 0.6]
    assert fold.weights.tolist() == [1 / 2, 1 / 3, 1 / 3, 1]
    assert fold.groups.tolist() == [0, 1, 1, 2]
    assert fold.cardinality is Cardinality.MANY
