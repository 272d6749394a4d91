"""After an alarm: which paused attributes are certified again, by which verdicts, with the same weights."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.audit import recertify_model as job
from catalog_enrichment.audit.recertify_model import DrawnRows, RecertifyRequest, audited_fold
from catalog_enrichment.audit.review_records import Answer, Item
from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.models import version_files
from catalog_enrichment.precision import verdict_certificates
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.records import Cardinality, Modality

from ..catalog.catalog_rows import run_row
from ..sample_catalog import SampleCatalog, enrich, killed_at, register, table, values
from ..sample_certificate import certificate
from . import audit_rows
from .audit_rows import START, by_item, said
from .reviewers import drawn, ingested, judge

LOOSE = ("precision.target=0.6", "precision.suggest_precision=0.5", "precision.delta=0.4")
COLOR = {"attributes": ("color",), "uniform": 50, "near": 0}
OF_COLOR = {"recertified_from": "1", "attributes": ["color"]}
"""The lineage of a version whose colours were certified again."""
HISTOGRAM = [0] * 18 + [500, 500]


def recertified(sample: SampleCatalog, *attributes: str, dry_run: bool = False) -> dict[str, Any]:
    catalog, request = Catalog.of(sample.config), RecertifyRequest(attributes, dry_run)
    with catalog.writing():
        return job.recertify_model(sample.config, catalog, sample.registry, load_dictionary(sample.config), request)


def scores_of(sample: SampleCatalog) -> dict[tuple[str, str], float]:
    """Return (product, colour) -> score, as the ledger has them."""
    rows = [row for row in table(sample, "attribute_values") if row["attribute"] == "color" and row["op"] == "assert"]
    return {(row["product_id"], row["value"]): row["score"] for row in rows}


def paused_after_an_alarm(sample: SampleCatalog) -> tuple[list[str], float]:
    """Pause the champion's colours by five wrong values, then draw a second sample and judge it right from the median
    score on. Return the products whose colour was right, and the lowest score of the second sample."""
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
    old = writing(enriched)["color"]
    with pytest.raises(GateRefused, match="at least 59 are needed"):
        recertified(enriched)
    with pytest.raises(ConfigError, match="'material'"):
        recertified(enriched, "material")
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
    color = writing(loose)["color"]
    assert (color.threshold or 0) > lowest
    assert color.status is CertificateStatus.CONFIRMED
    assert color.certificate_id != old.certificate_id
    before = enriched.registry.resolve(version="1").certificates
    assert [issued for issued in model.certificates if issued not in before] == [color]
    uses = [row for row in table(loose, "label_uses") if row["attribute"] == "color"]
    assert {row["product_id"] for row in uses} >= set(right)
    assert not_on(loose.context().catalog) == {f"certificate {old.certificate_id}": "paused"}

    summary = enrich(loose)
    assert summary["known"] == summary["predicted"] - 1 > 0, "only the product whose picture is missing is tried again"
    colors = [key[0] for key in values(loose, "model") if key[1] == "color"]
    assert set(colors) <= set(right)
    assert colors
    assert enrich(loose)["status"] == "nothing_to_do"
    with pytest.raises(ConfigError, match="no attribute is paused"):
        recertified(loose)


@pytest.mark.slow
def test_of_several_values_whole_products_are_judged(enriched: SampleCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product has both materials of this nonsense model; Wool is refused for a third of them."""
    material = {"attributes": ("material",), "uniform": 90, "near": 0}
    first = drawn(enriched, **material)
    judge(enriched, first["sample_id"], lambda item: Answer.NO if _is_third_wool(item) else None)
    with pytest.raises(GateRefused, match="material is paused"):
        ingested(enriched)
    seen = [value for key, value in values(enriched, "model").items() if key[1] == "material"]
    assert set(seen) == {("Cotton",), ("Cotton", "Wool")}

    loose = enriched.with_settings(*LOOSE)
    monkeypatch.setattr(verdict_certificates, "FIRST_EXPECTED", 8)  # the catalog is small
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
    (new,) = (issued for issued in done["certificates"] if issued["threshold"] is not None)
    judged_before = sum(value == ("Cotton",) for value in seen)
    assert (new["accepted"], new["wrong"]) == (sum(map(len, seen)) - judged_before, 0)
    assert not [name for name in not_on(loose.context().catalog) if name.startswith("attribute")]


def _is_third_wool(item: Item) -> bool:
    return item.value == "Wool" and int(item.product_id[1:]) % 3 == 1


# --- without Spark ---------------------------------------------------------------------------------------------------


def pause(attribute: str, who: str = "audit_ingest") -> Switch:
    run_id = "ingest-1" if who == "audit_ingest" else None
    return Switch(scope=Scope.ATTRIBUTE, attribute=attribute, state=State.PAUSED, who=who, why="alarm", run_id=run_id)


def not_on(catalog: Catalog) -> dict[str, str]:
    """Return switch -> state of the switches that are not on."""
    return {str(switch): switch.state.value for switch in switches.read(catalog).entries}


def row(number: int, **given: Any) -> dict[str, Any]:
    """Return a row of `audits` that was drawn a day after START."""
    usual = {"drawn_at": START + timedelta(days=1), "value": "Red", "score": 0.5 + number / 1000}
    return audit_rows.drawn(number, **usual | given)


def audited(catalog: Catalog, name: str, rows: list[dict[str, Any]], answer: str = "yes") -> None:
    """Append a sample drawn now, and the ingest of its verdicts."""
    now = datetime.now(UTC)
    drawn = [
        given | {"run_id": f"draw-{name}", "sample_id": name, "item_id": f"{name}-{given['item_id']}", "drawn_at": now}
        for given in rows
    ]
    catalog.append_rows("audits", drawn, f"draw-{name}")
    catalog.append_rows("verdicts", [said(of, answer, run_id=f"ingest-{name}") for of in drawn], f"in-{name}")
    window = '{"whole_products": true}'
    times = {"started_at": now, "finished_at": now}
    runs = [
        run_row(f"draw-{name}", kind="sample", attempt=1, window=window, **times),
        run_row(f"ingest-{name}", kind="audit", attempt=1, **times),
    ]
    catalog.append_rows("runs", runs, f"runs-{name}")


def writing(sample: SampleCatalog) -> dict[str, Certificate]:
    """Return attribute -> the champion's certificate that writes."""
    return {issued.attribute: issued for issued in sample.model().certificates if issued.threshold is not None}


@pytest.fixture
def paused(sample: SampleCatalog, tmp_path: Path) -> SampleCatalog:
    """Promote a champion with drift references; an audit pauses color and material, and nothing is judged."""
    stratum = {"language": "en", "category": "Apparel", "products": 1000, "accepted": 460, "histogram": HISTOGRAM}
    entries = [
        {"attribute": name, "modality": "both", "compute_type": "fp32-cpu", "strata": [stratum | {"masked": {}}]}
        for name in ("color", "material")
    ]
    thresholds = {"color": 0.5, "material": 0.5}
    version = register(sample, tmp_path, thresholds=thresholds, drift=entries)
    sample.promotion.promote(version, expected_current=sample.registry.champion())
    switches.write(Catalog.of(sample.config), [pause("color"), pause("material")])
    return sample


def test_a_paused_attribute_that_passes_is_switched_on_and_another_stays_as_it_was(paused: SampleCatalog) -> None:
    catalog, old = Catalog.of(paused.config), writing(paused)
    color, material = (old[name].certificate_id for name in ("color", "material"))
    audited(catalog, "s1", [row(n, certificate_id=color) for n in range(100)])
    few = [row(n, attribute="material", value="Wool", certificate_id=material) for n in range(100, 130)]
    audited(catalog, "s2", few)

    dry = recertified(paused, dry_run=True)
    counted = [tuple(of[name] for name in ("attribute", "drawn", "judged", "needed")) for of in dry["certificates"]]
    assert (dry["status"], counted) == ("dry_run", [("color", 100, 100, 59), ("material", 30, 30, 59)])
    assert not {"threshold", "wrong", "why_abstains", "lower_bound"} & set(dry["certificates"][0])
    assert table(paused, "label_uses") == []

    before = paused.registry.champion()
    with killed_at(switches, "write"):
        recertified(paused)
    again = paused.registry.champion()
    assert again != before
    done = recertified(paused)
    assert "30 uniformly drawn" in done["certificates"][0]["why_abstains"]
    assert (done["switched_on"], paused.registry.champion()) == (["color"], again), (
        "switched on without another version"
    )
    assert not_on(catalog) == {"attribute material": "paused", f"certificate {color}": "paused"}
    new = writing(paused)
    assert new["material"] == old["material"], "what was not certified again keeps its certificate"
    assert new["color"].status is CertificateStatus.CONFIRMED
    reference = {entry["attribute"]: entry["strata"][0] for entry in version_files.read_drift(paused.model().artifact)}
    assert "accepted" not in reference["color"], "it was counted at the old threshold"
    assert (reference["color"]["histogram"], reference["material"]["accepted"]) == (HISTOGRAM, 460)

    with pytest.raises(GateRefused, match=r"material \(both\): 30 uniformly drawn .* at least 59 are needed"):
        recertified(paused)
    more = [row(n, attribute="material", value="Wool", certificate_id=material) for n in range(130, 190)]
    audited(catalog, "s3", more)
    assert recertified(paused)["attributes"] == ["material"]
    assert set(not_on(catalog)) == {f"certificate {color}", f"certificate {material}"}


def test_a_version_trained_after_the_alarm_is_not_certified_again_by_it(paused: SampleCatalog) -> None:
    version = register(paused, paused.folder / "scratch", seed=1, thresholds={"color": 0.5, "material": None})
    paused.promotion.promote(version, expected_current=paused.registry.champion())
    with pytest.raises(GateRefused, match="0 uniformly drawn values were judged") as refused:
        recertified(paused)
    assert "material: the champion has no certificate that writes it" in str(refused.value)
    assert len(switches.read(Catalog.of(paused.config)).of(Scope.ATTRIBUTE, State.PAUSED)) == 2


def test_what_a_person_paused_is_taken_only_by_its_name(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    switches.write(catalog, [pause("color", who="ann"), pause("material")])
    assert [switch.attribute for switch in job.paused_attributes(catalog, ())] == ["material"]
    assert [switch.attribute for switch in job.paused_attributes(catalog, ("color",))] == ["color"]
    switches.write(catalog, [replace(pause("material"), state=State.ON)])
    with pytest.raises(ConfigError, match=r"by people: color \(ann: alarm\)"):
        job.paused_attributes(catalog, ())


def test_what_a_person_moves_meanwhile_stays_so(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    switches.write(catalog, [pause("color"), pause("material")])
    pauses = job.paused_attributes(catalog, ())
    off = Switch(scope=Scope.ATTRIBUTE, attribute="color", state=State.OFF, who="ann", why="all of it is wrong")
    old = certificate()
    switches.write(catalog, [off, replace(off, scope=Scope.CERTIFICATE, attribute="", target=old.certificate_id)])
    switches.write(catalog, job.switches_after(catalog, pauses, [old], "recertify-1"))
    assert not_on(catalog) == {"attribute color": "off", f"certificate {old.certificate_id}": "off"}


@pytest.mark.parametrize(
    ("changes", "lineage", "done"),
    [
        ({}, OF_COLOR, True),
        ({"status": CertificateStatus.PROVISIONAL}, OF_COLOR, False),
        ({}, {"label_set_hash": "trained since"}, False),
        ({}, OF_COLOR | {"attributes": ["material"]}, False),
        ({"issued_at": START - timedelta(days=1)}, OF_COLOR, False),
        ({"threshold": None, "why_abstains": "poor"}, OF_COLOR, False),
        ({"attribute": "material"}, OF_COLOR, False),
    ],
)
def test_versions_certified_since_the_pause(changes: dict[str, Any], lineage: dict[str, Any], done: bool) -> None:
    usual = {"status": CertificateStatus.CONFIRMED, "issued_at": START + timedelta(days=1)}
    champion = certificate(**usual | changes)
    assert job.done_before([champion], lineage, replace(pause("color"), at=START)) is done


def test_only_values_that_nobody_judged_before_the_pause_count_once_and_of_samples_of_everything() -> None:
    old = certificate(threshold=0.5)

    def mine(number: int, **given: Any) -> dict[str, Any]:
        return row(number, certificate_id=old.certificate_id, **given)

    before = [mine(n, item_id=f"b{n}", sample_id="before", drawn_at=START - timedelta(days=1)) for n in (1, 2)]
    rows = [mine(n) for n in range(1, 6)] + [mine(6, stratum="near_threshold"), mine(7, run_id="sample-of-one-run")]
    again = [mine(n, item_id=f"a{n}", sample_id="again", run_id="sample-2") for n in (3, 4)]
    verdicts = by_item(*(said(of, "yes") for of in [before[0], *rows[:3], again[1]]))
    drawn = DrawnRows([*before, *rows, *again], verdicts, frozenset({"sample-of-one-run"}))
    fold = drawn.fold(old, START, Cardinality.ONE)
    assert sorted(fold.product_ids) == ["p2", "p3", "p4", "p5"], "p1 was judged before the pause"
    wrong = dict(zip(fold.product_ids, (fold.wrong_scores > 0).tolist(), strict=True))
    assert wrong == {"p2": False, "p3": False, "p4": False, "p5": True}, "the judged item of p4 counts"
    assert drawn.number_judged(fold, old) == 3
    near = [mine(n, item_id=f"n{n}", sample_id="near", stratum="near_threshold") for n in (3, 5)]
    later = [of | {"drawn_at": START + timedelta(days=2)} for of in drawn.rows]
    after = DrawnRows([*near, *later], verdicts | by_item(said(near[0], "yes")), frozenset({"sample-of-one-run"}))
    assert set(after.fold(old, START, Cardinality.ONE).product_ids) == {"p1", "p2", "p4", "p5"}, "p3: judged as near"
    assert drawn.fold(replace(old, modality=Modality.TEXT_ONLY), START, Cardinality.ONE).product_ids == ()


def test_only_audits_of_written_values_are_a_new_fold_and_a_product_without_a_value_is_wrong_in_it() -> None:
    old = certificate(threshold=0.5)
    mine = {"certificate_id": old.certificate_id}
    rows = [row(n, **mine) for n in range(1, 4)]
    others = [row(n, item_id=f"o{n}", sample_id=name, purpose=name, **mine)
              for n, name in ((3, "proposals"), (4, "proposals"), (5, "label"))]  # fmt: skip
    answers = [said(of, "none" if of is rows[1] else "yes") for of in [*rows, *others]]
    fold = DrawnRows([*others, *rows], by_item(*answers)).fold(old, START, Cardinality.ONE)
    wrong = dict(zip(fold.product_ids, (fold.wrong_scores > 0).tolist(), strict=True))
    assert wrong == {"p1": False, "p2": True, "p3": False}


def test_who_was_not_asked_or_cannot_tell_counts_as_wrong_in_a_new_certificate() -> None:
    rows = [audit_rows.drawn(n, content_hash=f"h{n // 2}", score=0.9 + n / 100) for n in range(4)]
    verdicts = by_item(said(0, "yes"), said(1, "cannot_tell"), said(2, "no"))
    fold = audited_fold(rows, rows, verdicts, Cardinality.ONE)
    assert fold.wrong_scores.tolist() == [-np.inf, 0.91, 0.92, 0.93]
    assert fold.weights.tolist() == [1, 1, 1, 1]
    assert fold.groups.tolist() == [0, 0, 1, 1]
    assert fold.scores.tolist() == [0.9, 0.91, 0.92, 0.93]
    assert fold.data_window == "2026-05-01/2026-05-01"
    assert len(audited_fold([], [], {}, Cardinality.ONE).groups) == 0


def test_a_product_of_several_values_is_wrong_by_any_value_that_is_wrong_or_not_judged() -> None:
    def row(product: str, value: str, score: float, stratum: str = "uniform", sample: str = "s") -> dict[str, Any]:
        given = {"item_id": f"{sample} {product} {value}", "sample_id": sample, "product_id": product, "value": value}
        return audit_rows.drawn(0, **given, score=score, stratum=stratum, content_hash=None)

    right, also = row("p1", "Cotton", 0.9), row("p1", "Wool", 0.8, "same_product")
    mixed, wrong, unsure = row("p2", "Cotton", 0.95), row("p2", "Wool", 0.85, "same_product"), row("p2", "Silk", 0.7)
    alone, elsewhere = row("p3", "Cotton", 0.6), row("p3", "Wool", 0.99, sample="another")
    rows = [right, mixed, unsure, alone]
    answers = ((right, "yes"), (also, "yes"), (mixed, "yes"), (wrong, "no"), (unsure, "cannot_tell"))
    verdicts = by_item(*(said(of, answer) for of, answer in answers))
    fold = audited_fold(rows, [*rows, also, wrong, elsewhere], verdicts, Cardinality.MANY)
    assert fold.scores.tolist() == [0.9, 0.95, 0.95, 0.6]
    assert fold.wrong_scores.tolist() == [-np.inf, 0.85, 0.85, 0.6]
    assert fold.weights.tolist() == [1 / 2, 1 / 3, 1 / 3, 1]
    assert fold.groups.tolist() == [0, 1, 1, 2]
    assert fold.cardinality is Cardinality.MANY
