"""certify_model --by-verdicts: a model version is certified by verdicts on its proposals, and promoted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from catalog_enrichment import cli
from catalog_enrichment.audit import certify_by_verdicts, proposal_verdicts, reissue
from catalog_enrichment.audit.draws import SampledPopulation
from catalog_enrichment.audit.review_records import Answer
from catalog_enrichment.catalog import runs
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused, RegistryError
from catalog_enrichment.precision.certificate import Certificate, CertificateBasis, CertificateStatus
from catalog_enrichment.records import Modality, RunKind
from catalog_enrichment.registry.promotion import PromotionRequest
from catalog_enrichment.registry.trained_model import BY_VERDICTS

from ..sample_catalog import SampleCatalog, change, enrich, killed_at, table, values
from . import audit_rows
from .audit_rows import by_item, said
from .reviewers import drawn, ingested, items_of, judge

LOOSE = ("precision.target=0.6", "precision.delta=0.4", "precision.suggest_precision=0.5")
"""Settings by which a few right products certify."""


def certified(sample: SampleCatalog, attribute: str = "color", **request: Any) -> dict[str, Any]:
    context = sample.context()
    with context.catalog.writing():
        return certify_by_verdicts.certify_by_verdicts(
            context, sample.registry, certify_by_verdicts.CertifyRequest(attribute, **request)
        )


def proposals(sample: SampleCatalog, attribute: str = "color", **given: Any) -> str:
    """Draw proposals of version 1; return the sample's id."""
    asked: dict[str, Any] = {"population": SampledPopulation.PROPOSALS, "model_version": "1", "uniform": 50}
    return str(drawn(sample, **asked | {"attributes": (attribute,)} | given)["sample_id"])


def score_of(sample: SampleCatalog) -> dict[tuple[str, str, str], float]:
    """Return (product, attribute, value) -> score."""
    return {(row["product_id"], row["attribute"], row["value"]): row["score"] for row in table(sample, "predictions")}


def of_verdicts(sample: SampleCatalog, version: str) -> list[Certificate]:
    """Return the certificates of a version that rest on verdicts."""
    certificates = sample.registry.resolve(version=version).certificates
    return [issued for issued in certificates if issued.basis is CertificateBasis.VERDICTS]


def certify_rows(sample: SampleCatalog) -> list[dict[str, Any]]:
    return [row for row in table(sample, "runs") if row["kind"] == RunKind.CERTIFY.value]


@pytest.mark.slow
def test_verdicts_certify_a_version_that_is_promoted_and_writes(enriched: SampleCatalog) -> None:
    loose = enriched.with_settings(*LOOSE)
    with pytest.raises(DataContractError, match="audit_sample --of proposals --attribute color --model-version 1"):
        certified(loose, model_version="1")
    sample_id = proposals(loose)
    with pytest.raises(DataContractError, match="drawn of version 1, whose files are not those of version 2"):
        certified(loose)  # the candidate is version 2
    with pytest.raises(GateRefused, match=r"more verdicts likely.*\n.*Judge the drawn products") as refused:
        certified(loose, model_version="1")
    path, without_picture = refused.value.summary["paths"]
    assert (path["modality"], without_picture["modality"]) == ("both", "text_only")
    assert (path["settled"], path["certified"], path["undecided"]["judged"]) == (0, None, 0)
    assert path["needed"]["likely"] is None or path["needed"]["likely"] >= path["needed"]["at_best"] > 0

    scores = score_of(loose)
    ordered = sorted(items_of(loose, sample_id), key=lambda item: scores[item.product_id, "color", item.value])
    none = {item.product_id for item in ordered[:6]}
    judge(loose, sample_id, lambda item: Answer.NONE if item.product_id in none else Answer.YES)
    ingested(loose)
    before = loose.registry.resolve(version="1")
    dry = certified(loose, model_version="1", dry_run=True)
    assert dry["status"] == "dry_run"
    step = dry["paths"][0]["certified"]
    with_picture = {row["product_id"] for row in table(loose, "audits") if row["modality"] == "both"}
    above = {item.product_id for item in ordered if scores[item.product_id, "color", item.value] >= step["threshold"]}
    assert step["judged"] == len(above & with_picture)
    assert step["wrong"] == len(above & none & with_picture)
    assert sorted(row["status"] for row in certify_rows(loose)) == ["failed", "failed", "refused"]

    done = certified(loose, model_version="1")
    assert (done["status"], done["model_version"], loose.registry.champion()) == ("succeeded", "3", "1")
    model = loose.registry.resolve(alias="candidate")
    assert (model.version, model.weights_hash) == ("3", before.weights_hash)
    (color,) = (issued for issued in model.certificates if issued not in before.certificates)
    assert (color.attribute, color.modality) == ("color", Modality.BOTH)
    assert (color.basis, color.status) == (CertificateBasis.VERDICTS, CertificateStatus.CONFIRMED)
    assert color.values == ("Red", "Green", "Blue")
    assert set(color.categories) == {"Apparel/Topwear", "Home/Textiles"}
    assert color.languages == ("en",)
    assert color.accepted == dry["paths"][0]["certified"]["judged"]
    assert sum(color.histogram) == color.unlabelled_products > 0
    assert 0 < color.accept_rate <= 1
    assert not table(loose, "label_uses")
    assert loose.registry.lineage("3")[BY_VERDICTS] == "1"
    (row,) = (row for row in certify_rows(loose) if row["status"] == "succeeded")
    assert (row["run_id"], row["model_version"]) == (done["run_id"], "1")

    # the same verdicts again, of the new candidate and of the version that was certified
    assert certified(loose)["status"] == certified(loose, model_version="1")["status"] == "nothing_to_do"
    assert len(certify_rows(loose)) == 4
    assert loose.registry.resolve(alias="candidate").version == "3"

    promoted = loose.promotion.through_gate(PromotionRequest())
    assert promoted["status"] == "promoted", promoted
    summary = enrich(loose)
    assert summary["known"] > 0, "scores of the same weights are not computed again"
    written = {
        row["product_id"]: row
        for row in table(loose, "attribute_values")
        if row["certificate_id"] == color.certificate_id and row["op"] == "assert"
    }
    assert not none & set(written), "people said that they have none"
    assert all(row["score"] >= color.threshold for row in written.values())
    assert set() < set(written) <= {key[0] for key in values(loose, "model") if key[1] == "color"}


@pytest.mark.slow
def test_killed_before_its_row_it_is_not_registered_twice(enriched: SampleCatalog) -> None:
    loose = enriched.with_settings(*LOOSE)
    judge(loose, proposals(loose), lambda _: Answer.YES)
    ingested(loose)
    moved = next(row for row in table(loose, "audits") if row["modality"] == "both")["product_id"]
    change(loose, int(moved[1:]), category="Apparel/Later")
    enrich(loose, Window(max_products=1))
    with killed_at(runs, "write"):
        certified(loose, model_version="1")
    (color,) = of_verdicts(loose, "3")
    assert set(color.categories) == {"Apparel/Topwear", "Home/Textiles"}, "at the draw there was no other"
    assert loose.registry.resolve(alias="candidate").version == "3"
    assert certify_rows(loose) == []
    again = certified(loose)
    assert (again["status"], again["model_version"]) == ("succeeded", "3")
    assert [row["status"] for row in certify_rows(loose)] == ["succeeded"]
    assert certified(loose)["status"] == "nothing_to_do"
    assert loose.registry.resolve(alias="candidate").version == "3"


@pytest.mark.slow
def test_of_several_values_a_product_is_right_if_all_are(enriched: SampleCatalog) -> None:
    """A second attribute is certified on top of the first, from verdicts on proposals of the first version."""
    loose = enriched.with_settings(*LOOSE)
    judge(loose, proposals(loose), lambda _: Answer.YES)
    sample_id = proposals(loose, "material")
    judge(loose, sample_id, lambda item: Answer.NO if item.value == "Wool" else Answer.YES)
    ingested(loose)
    certified(loose, model_version="1")
    scores = score_of(loose)
    done = certified(loose, "material", dry_run=True)
    path = done["paths"][0]
    of_wool = {item.product_id for item in items_of(loose, sample_id) if item.value == "Wool"}
    everybody = {item.product_id for item in items_of(loose, sample_id)}
    assert sum(each["drawn"] for each in done["paths"]) == len(everybody) > path["drawn"] > 0
    of_wool &= {row["product_id"] for row in table(loose, "audits") if row["modality"] == "both"}
    step = path["certified"] or path["undecided"]
    assert step["wrong"] == sum(scores[product, "material", "Wool"] >= step["threshold"] for product in of_wool)
    judge(loose, sample_id, lambda _: Answer.YES)
    ingested(loose)
    done = certified(loose, "material")
    assert (done["certified_from"], done["model_version"]) == ("3", "4")
    assert [issued.attribute for issued in of_verdicts(loose, "4")] == ["color", "material"]
    assert reissue.ancestors(loose.registry, "4") == ["4", "3", "1"]
    assert certified(loose)["status"] == "nothing_to_do"
    assert loose.registry.resolve(alias="candidate").version == "4"


def test_bad_input(enriched: SampleCatalog, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"proposes no 'size': it has \['color', 'material'\]"):
        certified(enriched, "size")
    with pytest.raises(RegistryError, match="77"):
        certified(enriched, model_version="77")
    arguments = ["--config", str(enriched.file), "--by-verdicts", "size"]
    assert cli.certify_model(arguments) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"] == "ConfigError"
    assert cli.certify_model(["--config", str(enriched.file)]) == 2
    assert "no section [proposer]" in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]
    assert cli.certify_model(["--config", str(enriched.file), "--dry-run"]) == 2
    assert "need --by-verdicts" in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]


# --- rows to products -----------------------------------------------------------------------------------------------


def row(product: str, value: str = "Red", score: float = 0.9, **changes: Any) -> dict[str, Any]:
    item_id = f"{changes.get('sample_id', 's')} {product} {value}"
    given = {"item_id": item_id, "product_id": product, "value": value, "score": score, "content_hash": f"c-{product}"}
    return audit_rows.drawn(0, **given | {"lowest": 0.5} | changes)


def test_products_are_in_the_order_of_the_draw_with_what_people_said() -> None:
    rows = [row(f"p{number}", score=0.9 - number / 100) for number in range(6)]
    answers = (("yes",), ("no",), ("none",), ("cannot_tell",), ("other", "Blue"), ("other", "Red"))
    verdicts = by_item(*(said(of, *answer) for of, answer in zip(rows, answers, strict=True)))
    found = proposal_verdicts.judged([rows[1], rows[0], *rows[2:], row("p9")], verdicts)
    assert found.drawn.product_ids == ("p1", "p0", "p2", "p3", "p4", "p5", "p9")
    assert (found.drawn.wrong_scores == -np.inf).tolist() == [False, True, False, False, False, True, False]
    assert found.drawn.settled.tolist() == [True] * 6 + [False]
    assert found.drawn.lowest.tolist() == [0.5] * 7
    assert found.content_hashes[:2] == ("c-p1", "c-p0")
    assert found.data_window == "2026-05-01/2026-05-01"


def test_all_values_of_a_product_count_and_all_have_to_be_settled() -> None:
    high, low = row("p1", "Cotton", 0.9), row("p1", "Wool", 0.6, stratum="same_product")
    other = row("p2", "Cotton", 0.8)
    verdicts = by_item(said(high, "yes"), said(low, "no"), said(other, "yes"))
    found = proposal_verdicts.judged([high, low, other], verdicts).drawn
    assert (found.scores.tolist(), found.wrong_scores.tolist()) == ([0.9, 0.8], [0.6, -np.inf])
    assert found.settled.tolist() == [True, True]
    unsettled = proposal_verdicts.judged([high, low, other], by_item(said(high, "yes"), said(other, "yes"))).drawn
    assert unsettled.settled.tolist() == [False, True]
    assert proposal_verdicts.judged([row("p3", stratum="near_threshold")], {}).drawn.product_ids == ()


def test_a_product_of_two_samples_is_in_both() -> None:
    first, again = row("p1"), row("p1", sample_id="t", lowest=0.8)
    found = proposal_verdicts.judged([first, again], by_item(said(again, "yes"))).drawn
    assert found.samples.tolist() == [0, 1]
    assert found.settled.tolist() == [False, True]
    assert found.lowest.tolist() == [0.5, 0.8]
