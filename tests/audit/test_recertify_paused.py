"""Which paused attributes are certified again, by which verdicts, and what stays as it was; the jobs without Spark."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit import recertify
from catalog_enrichment.audit.fresh_labels import DrawnRows
from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.models import artifact
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.records import Cardinality, Modality

from ..catalog.catalog_rows import run_row
from ..sample_catalog import SampleCatalog, killed_at, register, table
from ..sample_certificate import certificate

START = datetime(2026, 5, 1, tzinfo=UTC)
HISTOGRAM = [0] * 18 + [500, 500]


def pause(attribute: str, who: str = "audit_ingest") -> Switch:
    run_id = "ingest-1" if who == "audit_ingest" else None
    return Switch(
        scope=Scope.ATTRIBUTE, attribute=attribute, state=State.PAUSED, who=who, why="alarm", run_id=run_id
    )  # fmt: skip


def row(number: int, **given: Any) -> dict[str, Any]:
    """Of `audits`, drawn a day after START."""
    usual: dict[str, Any] = {
        "item_id": f"i{number}", "sample_id": "s", "purpose": "audit", "stratum": "uniform", "draw_order": number,
        "probability": 0.5, "population": 200, "weight": 1.0, "highest_weight": 1.0, "product_id": f"p{number}",
        "attribute": "color", "value": "Red", "content_hash": f"h{number}", "score": 0.5 + number / 1000,
        "threshold": 0.5, "certificate_id": "c1", "modality": "both", "model_version": "1", "event_id": None,
        "decided_by": "r", "reason": "certified", "drawn_at": START + timedelta(days=1), "run_id": "sample-1",
    }  # fmt: skip
    return usual | given


def said(of: dict[str, Any], answer: str = "yes") -> dict[str, Any]:
    names = ("item_id", "sample_id", "purpose", "product_id", "attribute", "value")
    more = {"answer": answer, "right_values": [], "reviewers": ["ann"], "settled_at": of["drawn_at"]}
    return {name: of[name] for name in names} | more


def audited(catalog: LakeCatalog, name: str, rows: list[dict[str, Any]], answer: str = "yes") -> None:
    """A sample drawn now, and the ingest of its verdicts."""
    now = datetime.now(UTC)
    drawn = [
        one | {"run_id": f"draw-{name}", "sample_id": name, "item_id": f"{name}-{one['item_id']}", "drawn_at": now}
        for one in rows
    ]
    catalog.append_rows("audits", drawn, f"draw-{name}")
    catalog.append_rows("verdicts", [said(one, answer) | {"run_id": f"ingest-{name}"} for one in drawn], f"in-{name}")
    window = '{"whole_products": true}'
    times = {"started_at": now, "finished_at": now}
    runs = [
        run_row(f"draw-{name}", kind="sample", attempt=1, window=window, **times),
        run_row(f"ingest-{name}", kind="audit", attempt=1, **times),
    ]
    catalog.append_rows("runs", runs, f"runs-{name}")


def recertified(sample: SampleCatalog, *attributes: str, dry_run: bool = False) -> dict[str, Any]:
    catalog = LakeCatalog.of(sample.config)
    request = recertify.Request(attributes, dry_run)
    with catalog.writing():
        return recertify.recertify_model(
            sample.config, catalog, sample.registry, load_dictionary(sample.config), request
        )  # fmt: skip


def writing(sample: SampleCatalog) -> dict[str, Certificate]:
    """Attribute -> the champion's certificate that writes."""
    return {one.attribute: one for one in sample.model().certificates if one.threshold is not None}


@pytest.fixture
def paused(sample: SampleCatalog, tmp_path: Path) -> SampleCatalog:
    """A champion with drift references; color and material are paused by an audit, and nothing is judged."""
    stratum = {"language": "en", "category": "Apparel", "products": 1000, "accepted": 460, "histogram": HISTOGRAM}
    entries = [
        {"attribute": name, "modality": "both", "compute_type": "fp32-cpu", "strata": [stratum | {"masked": {}}]}
        for name in ("color", "material")
    ]
    thresholds = {"color": 0.5, "material": 0.5}
    version = register(sample, tmp_path, thresholds=thresholds, drift=entries)
    sample.registry.promote(version, expected_current=sample.registry.champion())
    switches.write(LakeCatalog.of(sample.config), [pause("color"), pause("material")])
    return sample


def test_of_two_paused_attributes_one_passes_and_the_other_stays_as_it_was(paused: SampleCatalog) -> None:
    catalog, old = LakeCatalog.of(paused.config), writing(paused)
    color, material = (old[name].certificate_id for name in ("color", "material"))
    audited(catalog, "s1", [row(n, certificate_id=color) for n in range(100)])
    few = [row(n, attribute="material", value="Wool", certificate_id=material) for n in range(100, 130)]
    audited(catalog, "s2", few)

    dry = recertified(paused, dry_run=True)
    counted = [(one["attribute"], one["drawn"], one["judged"], one["needed"]) for one in dry["certificates"]]
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
    now = {str(one): one.state.value for one in switches.read(catalog).entries}
    assert now == {"attribute material": "paused", f"certificate {color}": "paused"}
    new = writing(paused)
    assert new["material"] == old["material"], "what was not certified again keeps its certificate"
    assert new["color"].status is CertificateStatus.CONFIRMED
    reference = {one["attribute"]: one["strata"][0] for one in artifact.read_drift(paused.model().artifact)}
    assert "accepted" not in reference["color"], "it was counted at the old threshold"
    assert (reference["color"]["histogram"], reference["material"]["accepted"]) == (HISTOGRAM, 460)

    with pytest.raises(GateRefused, match=r"material \(both\): 30 uniformly drawn .* at least 59 are needed"):
        recertified(paused)
    more = [row(n, attribute="material", value="Wool", certificate_id=material) for n in range(130, 190)]
    audited(catalog, "s3", more)
    assert recertified(paused)["attributes"] == ["material"]
    assert [one.scope for one in switches.read(catalog).entries] == [Scope.CERTIFICATE, Scope.CERTIFICATE]


def test_a_version_trained_after_the_alarm_is_not_certified_again_by_it(paused: SampleCatalog) -> None:
    version = register(paused, paused.folder / "scratch", seed=1, thresholds={"color": 0.5, "material": None})
    paused.registry.promote(version, expected_current=paused.registry.champion())
    with pytest.raises(GateRefused, match="0 uniformly drawn values were judged") as refused:
        recertified(paused)
    assert "material: the champion has no certificate that writes it" in str(refused.value)
    assert len(switches.read(LakeCatalog.of(paused.config)).of(Scope.ATTRIBUTE, State.PAUSED)) == 2


def test_what_a_person_paused_is_taken_only_by_its_name(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")
    switches.write(catalog, [pause("color", who="ann"), pause("material")])
    assert [one.attribute for one in recertify._pauses(catalog, ())] == ["material"]
    assert [one.attribute for one in recertify._pauses(catalog, ("color",))] == ["color"]
    switches.write(catalog, [replace(pause("material"), state=State.ON)])
    with pytest.raises(ConfigError, match=r"by people: color \(ann: alarm\)"):
        recertify._pauses(catalog, ())


def test_what_a_person_moves_meanwhile_stays_so(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")
    switches.write(catalog, [pause("color"), pause("material")])
    pauses = recertify._pauses(catalog, ())
    off = Switch(scope=Scope.ATTRIBUTE, attribute="color", state=State.OFF, who="ann", why="all of it is wrong")
    old = certificate()
    switches.write(catalog, [off, replace(off, scope=Scope.CERTIFICATE, attribute="", target=old.certificate_id)])
    switches.write(catalog, recertify._moved(catalog, pauses, [old], "recertify-1"))
    now = {str(one): one.state for one in switches.read(catalog).entries}
    assert now == {"attribute color": State.OFF, f"certificate {old.certificate_id}": State.OFF}


@pytest.mark.parametrize(
    ("changes", "lineage", "done"),
    [
        ({}, {"recertified_from": "1", "attributes": ["color"]}, True),
        ({"status": CertificateStatus.PROVISIONAL}, {"recertified_from": "1", "attributes": ["color"]}, False),
        ({}, {"label_set_hash": "trained since"}, False),
        ({}, {"recertified_from": "1", "attributes": ["material"]}, False),
        ({"issued_at": START - timedelta(days=1)}, {"recertified_from": "1", "attributes": ["color"]}, False),
        ({"threshold": None, "why_abstains": "poor"}, {"recertified_from": "1", "attributes": ["color"]}, False),
        ({"attribute": "material"}, {"recertified_from": "1", "attributes": ["color"]}, False),
    ],
)
def test_which_version_was_certified_since_the_pause(
    changes: dict[str, Any], lineage: dict[str, Any], done: bool
) -> None:
    usual = {"status": CertificateStatus.CONFIRMED, "issued_at": START + timedelta(days=1)}
    champion = certificate(**usual | changes)
    assert recertify.done_before([champion], lineage, replace(pause("color"), at=START)) is done


def test_only_values_that_nobody_judged_before_the_pause_count_once_and_of_samples_of_everything() -> None:
    before = [row(n, item_id=f"b{n}", sample_id="before", drawn_at=START - timedelta(days=1)) for n in (1, 2)]
    rows = [row(n) for n in range(1, 6)] + [row(6, stratum="near_threshold"), row(7, run_id="sample-of-one-run")]
    again = [row(n, item_id=f"a{n}", sample_id="again", run_id="sample-2") for n in (3, 4)]
    verdicts = {one["item_id"]: said(one) for one in [before[0], *rows[:3], again[1]]}
    old = replace(certificate(), threshold=0.5)
    drawn = DrawnRows([*before, *rows, *again], verdicts, frozenset({"sample-of-one-run"}))
    mine = [one | {"certificate_id": old.certificate_id} for one in drawn.rows]
    drawn = replace(drawn, rows=mine)
    fold = drawn.fold(old, START, Cardinality.ONE)
    assert sorted(fold.product_ids) == ["p2", "p3", "p4", "p5"], "p1 was judged before the pause"
    wrong = dict(zip(fold.product_ids, (fold.wrong_scores > 0).tolist(), strict=True))
    assert wrong == {"p2": False, "p3": False, "p4": False, "p5": True}, "of p4 the item counts that was judged"
    assert drawn.judged(fold, old) == 3
    near = [row(n, item_id=f"n{n}", sample_id="near", stratum="near_threshold") for n in (3, 5)]
    later = [one | {"drawn_at": START + timedelta(days=2)} for one in mine]
    first = [one | {"certificate_id": old.certificate_id} for one in near]
    after = DrawnRows([*first, *later], verdicts | {"n3": said(near[0])}, frozenset({"sample-of-one-run"}))
    assert set(after.fold(old, START, Cardinality.ONE).product_ids) == {"p1", "p2", "p4", "p5"}, "p3: judged as near"
    assert drawn.fold(replace(old, modality=Modality.TEXT_ONLY), START, Cardinality.ONE).product_ids == ()


def test_only_audits_of_written_values_are_a_new_fold_and_a_product_without_a_value_is_wrong_in_it() -> None:
    old = replace(certificate(), threshold=0.5)
    mine = {"certificate_id": old.certificate_id}
    rows = [row(n, **mine) for n in range(1, 4)]
    others = [row(n, item_id=f"o{n}", sample_id=name, purpose=name, **mine)
              for n, name in ((3, "proposals"), (4, "proposals"), (5, "label"))]  # fmt: skip
    answers = [said(rows[0]), said(rows[1], "none"), said(rows[2]), *map(said, others)]
    fold = DrawnRows([*others, *rows], {one["item_id"]: one for one in answers}).fold(old, START, Cardinality.ONE)
    wrong = dict(zip(fold.product_ids, (fold.wrong_scores > 0).tolist(), strict=True))
    assert wrong == {"p1": False, "p2": True, "p3": False}
